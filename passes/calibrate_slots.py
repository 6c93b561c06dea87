"""Bounds of slot values, observed on the calibration samples."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.interpret.samples import largest_samples
from hecompile.interpret.slots import trace_slots
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.passbase import Context, Pass, register_pass

SMALLEST_BOUND = 1e-3


@register_pass
@dataclass(frozen=True)
class CalibrateSlots(Pass):
    """Give every ciphertext the largest absolute slot value that calibration saw.

    The bound is the observed magnitude, garbage slots included, times `margin`, rounded up to two
    significant digits. It sizes the room above the scale in q_0 and the masks of refreshes, and
    `check-precision` holds every sample against it.

    Requires: a program of `he.*`; calibration samples. With more than `samples` of them, only as
    many are traced, those with the largest inputs first.
    Ensures: every ciphertext has a bound of at least 0.001.
    """

    name: ClassVar[str] = "calibrate-slots"
    after: ClassVar[tuple[str, ...]] = ("plan-rotations",)
    samples: int = 1024
    margin: float = 1.25

    def run(self, program: Program, context: Context) -> Program:
        """Interpret the program on the samples and record the bounds."""
        if program.dialect != "he":
            raise PassError(f"{self.name}: run lower-to-slots first")
        samples = context.samples(self.name)
        seen = trace_slots(program, largest_samples(samples, self.samples))
        renamed: dict[str, Value] = {}
        operations = []
        for op in program:
            op = op.with_operands(renamed)
            if op.result is not None and isinstance(op.result.type, CipherType):
                bound = _round_up(float(seen[op.result.name].max()) * self.margin)
                facts = dataclasses.replace(he.cipher_type(op.result), bound=bound)
                renamed[op.result.name] = Value(op.result.name, facts)
                op = op.with_result(renamed[op.result.name])
            operations.append(op)
        return program.replace(operations=tuple(operations))


def _round_up(magnitude: float) -> float:
    if not math.isfinite(magnitude):
        raise PassError("calibrate-slots: a slot overflows on the calibration samples")
    if magnitude <= SMALLEST_BOUND:
        return SMALLEST_BOUND
    unit = 10.0 ** (math.floor(math.log10(magnitude)) - 1)
    return float(f"{math.ceil(magnitude / unit) * unit:.3g}")
