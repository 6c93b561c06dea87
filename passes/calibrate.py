"""Observation of the ranges that values take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hecompile.interpret.samples import as_samples, observe_ranges, with_ranges
from hecompile.ir.program import Program
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class Calibrate(Pass):
    """Run the program on the calibration samples and note the range of every secret value.

    Requires: calibration samples, batch first, finite, in the inputs' shapes; a tensor program.
    Ensures: the type of every secret value has the range observed. What the program computes is
    unchanged.
    """

    name: ClassVar[str] = "calibrate"
    after: ClassVar[tuple[str, ...]] = ("unroll-recurrent",)

    def run(self, program: Program, context: Context) -> Program:
        """Interpret the program on all samples at once.

        Raises:
            PassError: there are no calibration samples.
            InputError: the samples are empty, of another shape, or drive a value to infinity.
        """
        samples = as_samples(program, context.samples(f"the pass '{self.name}'"))
        return with_ranges(program, observe_ranges(program, samples))
