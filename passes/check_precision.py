"""Precision and room in the modulus, re-derived from the finished program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.ir.program import Program
from hecompile.ir.verifier import Offence, report
from hecompile.passbase import NOISE_SHARE, Context, Pass, register_pass
from hecompile.precision import missing_headroom, predict_noise


@register_pass
@dataclass(frozen=True)
class CheckPrecision(Pass):
    """Refuse a program whose values may overflow the modulus or whose noise is too large.

    Options: `noise`, largest noise on an output; the share of the precision asked for if not
    given, and no limit if there is none.

    Requires: `assign-scales`, `calibrate-slots`.
    Ensures: the program is unchanged.
    """

    name: ClassVar[str] = "check-precision"
    after: ClassVar[tuple[str, ...]] = ("assign-scales",)
    noise: float | None = None

    def run(self, program: Program, context: Context) -> Program:
        """Predict noise and headroom anew."""
        offences = []
        for name, bits in missing_headroom(program).items():
            if bits > 0:
                op = program.definitions[name]
                offences.append(Offence(op, f"may overflow by {bits:.1f} bits", op.result))
        if offences:
            raise PassError(report(program, offences, "choose parameters with a larger q_0"))
        limit = self.noise
        if limit is None and context.precision is not None:
            limit = context.precision * NOISE_SHARE
        for output in predict_noise(program):
            if limit is not None and output.bound > limit:
                raise PassError(
                    f"{self.name}: output '{output.label}' carries a noise of up to "
                    f"{output.bound:.3g}, more than {limit:.3g}; choose a larger scale or ring"
                )
        return program
