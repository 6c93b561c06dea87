"""Precision and room in the modulus, re-derived from the finished program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.interpret.slots import trace_slots
from hecompile.interpret.traced import Traced
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.ir.verifier import Offence, report
from hecompile.passbase import NOISE_SHARE, Context, Pass, register_pass
from hecompile.precision import mask_noise, missing_headroom, predict_noise


@register_pass
@dataclass(frozen=True)
class CheckPrecision(Pass):
    """Refuse a program whose values exceed their bounds, may overflow, or drown in noise.

    So is one that hands values over with more noise than their masks are made to hide.

    With calibration samples, the finished program is run on all of them: every slot must stay
    within its ciphertext's bound, and the noise is predicted from the values seen there. Without
    samples the bounds are taken at their word.

    Options: `noise`, largest noise on an output; the share of the precision asked for if not
    given, and no limit if there is none.

    Requires: `assign-scales`, `calibrate-slots`.
    Ensures: the program is unchanged.
    """

    name: ClassVar[str] = "check-precision"
    after: ClassVar[tuple[str, ...]] = ("assign-scales",)
    noise: float | None = None

    def run(self, program: Program, context: Context) -> Program:
        """Trace the samples, then derive bounds, headroom and noise anew."""
        seen = trace_slots(program, context.calibration) if context.calibration else None
        offences = list(_beyond_bounds(program, seen)) if seen else []
        if offences:
            raise PassError(report(program, offences, "run calibrate-slots on all samples"))
        offences = [
            Offence(program.definitions[name], f"may overflow by {bits:.1f} bits", value)
            for name, bits in missing_headroom(program).items()
            if bits > 0 and (value := program.definitions[name].result)
        ]
        if offences:
            raise PassError(
                report(program, offences, "choose parameters with a larger q_0, or fewer mask bits")
            )
        told = "is handed over with {:.2g} times the noise that its mask is made for"
        offences = [
            Offence(program.definitions[name], told.format(share), program.definitions[name].result)
            for name, share in mask_noise(program, seen).items()
            if share > 1
        ]
        if offences:
            raise PassError(report(program, offences, "choose a larger scale"))
        self._check_noise(program, context, seen)
        return program

    def _check_noise(self, program: Program, context: Context, seen: Traced | None) -> None:
        limit = self.noise
        if limit is None and context.precision is not None:
            limit = context.precision * NOISE_SHARE
        for output in predict_noise(program, seen):
            if limit is not None and output.bound > limit:
                raise PassError(
                    f"{self.name}: output '{output.label}' carries a noise of up to "
                    f"{output.bound:.3g}, more than {limit:.3g}; choose a larger scale or ring"
                )


def _beyond_bounds(program: Program, seen: Traced) -> Iterator[Offence]:
    for op in program:
        if op.result is None or not isinstance(op.result.type, CipherType):
            continue
        bound = op.result.type.bound
        if op.result.name not in seen or bound is None:
            continue
        largest = float(seen[op.result.name].max())
        if largest > bound:
            yield Offence(op, f"reaches {largest:.4g} on the calibration samples", op.result)
