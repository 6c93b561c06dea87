"""The cheapest primes on a given ring that meet the precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hecompile.chainsearch import ChainSearch, Policies
from hecompile.errors import CompileError, PassError
from hecompile.interpret.samples import largest_samples
from hecompile.interpret.slots import trace_slots
from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.levels import is_managed, refresh_floors
from hecompile.numeric.parameters import Parameters
from hecompile.passbase import DEFAULT_NOISE, NOISE_SHARE, Context, Pass, register_pass
from hecompile.passes.assign_scales import assign
from hecompile.passes.insert_management import InsertManagement
from hecompile.precision import mask_noise, predict_noise

UNTRACED_SHARE = 0.9
"""Share of the noise aimed at, for samples that were not traced may be a little larger."""


@register_pass
@dataclass(frozen=True)
class ChooseParameters(Pass):
    """Attach the encryption parameters on the ring that make the program cheapest, and manage it.

    Chains of primes differ in how many levels each prime stands for and in the scale; all lie
    inside the 128-bit table (all primes counted). The program is planned to the end (management,
    scales) on the most promising, its cost and noise are predicted, and the cheapest
    that meets the target is taken, with the smallest scale that does; see `hecompile.chainsearch`.
    When to rescale is part of the choice, so that the program comes out with the
    relinearizations and rescales of the plan that won. A program with parameters that is managed
    already stays as it is.

    Options: `ring`, polynomial modulus degree; `noise`, largest noise on an output (a share of the
    precision asked for, or 5e-4 of the largest output, if not given); `samples`, calibration
    samples on which slot magnitudes are observed.

    Requires: `calibrate-slots`; a program that fits the ring's slots.
    Ensures: with the scales that `assign-scales` gives it, the program passes every check.
    """

    name: ClassVar[str] = "choose-parameters"
    after: ClassVar[tuple[str, ...]] = ("calibrate-slots", "plan-rotations")
    ring: int = 8192
    noise: float | None = None
    samples: int = 1024

    def run(self, program: Program, context: Context) -> Program:
        """Search the chains.

        Raises:
            CompileError: no parameters on this ring are deep and precise enough.
        """
        if program.dialect != "he":
            raise PassError(f"{self.name}: run lower-to-slots first")
        if program.parameters is not None and is_managed(program):
            return program
        needed = max((op.period for op in program.select(he.Input)), default=1)
        if needed > self.ring // 2:
            raise CompileError(f"a period of {needed} slots does not fit a ring of {self.ring}")
        seen = None
        if context.calibration:
            seen = trace_slots(program, largest_samples(context.calibration, self.samples))

        # Where to relinearize and rescale does not depend on the scale.
        alike: dict[tuple[tuple[int, ...], Policies, tuple[int, ...]], Program] = {}
        refreshes = program.select(he.Refresh)

        def manage(parameters: Parameters, policies: Policies) -> Program:
            chosen = program.replace(parameters=parameters)
            floors = tuple(map(refresh_floors(program, parameters), refreshes))
            key = parameters.level_units, policies, floors
            if key not in alike:
                alike[key] = InsertManagement(rescale="+".join(policies)).run(chosen, context)
            return alike[key].replace(parameters=parameters)

        def plan(parameters: Parameters, policies: Policies) -> Program:
            return assign(manage(parameters, policies), parameters)

        def noise(planned: Program) -> float:
            # What masks do not hide is noise beyond the target too.
            hidden = max(mask_noise(planned, seen).values(), default=0.0) / UNTRACED_SHARE
            return max(target * hidden, *(n.bound for n in predict_noise(planned, seen)))

        target = self.target(program, context) * UNTRACED_SHARE
        best = ChainSearch(program, self.ring, target, plan, noise).best()
        return manage(best.parameters, best.policies)

    def target(self, program: Program, context: Context) -> float:
        """Largest noise allowed on an output."""
        if self.noise is not None:
            return self.noise
        if context.precision is None:
            outputs = [he.cipher_type(v) for op in program.select(he.Output) for v in op.xs]
            return DEFAULT_NOISE * max(1.0, *(facts.bound or 1.0 for facts in outputs))
        return context.precision * NOISE_SHARE
