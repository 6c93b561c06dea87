"""The smallest primes on a given ring that meet the precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from hecompile.errors import CompileError, PassError
from hecompile.interpret.samples import largest_samples
from hecompile.interpret.slots import trace_slots
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.levels import program_depth
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.security import max_modulus_bits
from hecompile.passbase import NOISE_SHARE, Context, Pass, register_pass
from hecompile.passes.assign_scales import assign
from hecompile.passes.insert_management import InsertManagement
from hecompile.passes.insert_refresh import InsertRefresh
from hecompile.precision import missing_headroom, predict_noise

DEFAULT_NOISE = 5e-4
"""Noise allowed on outputs up to 1 where the user asks for no precision; larger ones have more."""

UNTRACED_SHARE = 0.9
"""Share of the noise aimed at, for samples that were not traced may be a little larger."""

SMALLEST_SCALE_BITS = 24
LARGEST_PRIME_BITS = 60
SMALLEST_HEADROOM_BITS = 2
SPECIAL_MARGIN_BITS = 10
"""Bits by which the special prime exceeds the others, so that key-switch noise vanishes."""
_PROVISIONAL_HEADROOM_BITS = 8
_LONGEST_STEP = 8
_TAME_BITS = 12


@register_pass
@dataclass(frozen=True)
class ChooseParameters(Pass):
    """Attach the encryption parameters of least modulus on the ring that meet the precision.

    For growing scales, the chain is laid out inside the 128-bit table (all primes counted): q_0
    with room above the scale for the largest value, one prime of the scale's size a level, and a
    special prime larger than these. The program is planned on it to the end (refreshes, management,
    scales) and the noise predicted; the first scale that meets the target is taken.

    Options: `ring`, polynomial modulus degree; `refresh`, whether refreshes may be inserted;
    `mask_bits`, see `he.refresh`; `noise`, largest noise on an output (a share of the precision
    asked for, or 5e-4 of the largest output, if not given); `samples`, calibration
    samples on which slot magnitudes are observed.

    Requires: `calibrate-slots`; a program that fits the ring's slots.
    Ensures: planned again with these parameters, the program passes every check.
    """

    name: ClassVar[str] = "choose-parameters"
    after: ClassVar[tuple[str, ...]] = ("calibrate-slots", "plan-rotations")
    ring: int = 8192
    refresh: bool = True
    mask_bits: int = 30
    noise: float | None = None
    samples: int = 1024

    def run(self, program: Program, context: Context) -> Program:
        """Search scales upwards.

        Raises:
            CompileError: no parameters on this ring are deep and precise enough.
        """
        if program.dialect != "he":
            raise PassError(f"{self.name}: run lower-to-slots first")
        needed = max((op.period for op in program.select(he.Input)), default=1)
        if needed > self.ring // 2:
            raise CompileError(f"a period of {needed} slots does not fit a ring of {self.ring}")
        target = self.target(program, context) * UNTRACED_SHARE
        magnitudes = self._magnitudes(program, context)
        scale_bits, least, reason = SMALLEST_SCALE_BITS, math.inf, ""
        while scale_bits <= LARGEST_PRIME_BITS:
            try:
                parameters, error = self._try(program, scale_bits, context, magnitudes)
            except (CompileError, PassError) as failure:
                # A larger scale leaves fewer levels: if this one does not fit, none will.
                reason = str(failure)
                break
            if error <= target:
                return program.replace(parameters=parameters)
            least = min(least, error)
            scale_bits += _step(error / target)
        reached = f"the smallest noise reached is {least:.2g}, for " if least < math.inf else ""
        raise CompileError(
            f"a ring of {self.ring} does not meet a noise of {target:.2g} on program "
            f"'{program.name}' ({program_depth(program)} levels deep): {reached}"
            f"{reason or 'larger scales leave the noise where it is'}"
        )

    def _magnitudes(self, program: Program, context: Context) -> Mapping[str, Array] | None:
        if not context.calibration:
            return None
        return trace_slots(program, largest_samples(context.calibration, self.samples))

    def target(self, program: Program, context: Context) -> float:
        """Largest noise allowed on an output."""
        if self.noise is not None:
            return self.noise
        if context.precision is None:
            outputs = [he.cipher_type(v) for op in program.select(he.Output) for v in op.xs]
            return DEFAULT_NOISE * max(1.0, *(facts.bound or 1.0 for facts in outputs))
        return context.precision * NOISE_SHARE

    def _try(
        self,
        program: Program,
        scale_bits: int,
        context: Context,
        magnitudes: Mapping[str, Array] | None = None,
    ) -> tuple[Parameters, float]:
        """The tightest chain for one scale, and the noise predicted on it."""
        headroom = _PROVISIONAL_HEADROOM_BITS
        for _ in range(3):
            chain = self._longest(program, scale_bits, headroom)
            planned = self._plan(program, chain, context)
            missing = max(missing_headroom(planned).values())
            if missing <= 0 or headroom + scale_bits >= LARGEST_PRIME_BITS:
                break
            headroom += math.ceil(missing)
        if missing > 0:
            raise CompileError(
                f"values need {math.ceil(missing)} bits more than a prime of 60 bits has at a "
                f"scale of {scale_bits} bits"
            )
        spare = max(0, math.floor(-missing))
        chain = self._tighten(planned, scale_bits, max(headroom - spare, SMALLEST_HEADROOM_BITS))
        planned = self._plan(program, chain, context)
        if max(missing_headroom(planned).values()) > 0:
            raise CompileError(f"a scale of {scale_bits} bits leaves no room for the values")
        return chain, max(n.bound for n in predict_noise(planned, magnitudes))

    def _longest(self, program: Program, scale_bits: int, headroom: int) -> Parameters:
        """The chain with as many levels as the table allows, up to the program's depth."""
        first = min(scale_bits + headroom, LARGEST_PRIME_BITS)
        room = max_modulus_bits(self.ring) - first
        depth = program_depth(program)
        for margin in (SPECIAL_MARGIN_BITS, 0):
            special = min(first + margin, LARGEST_PRIME_BITS)
            levels = min((room - special) // scale_bits, depth)
            if levels == depth:
                return _chain(self.ring, first, scale_bits, levels, special)
        special = min(first + SPECIAL_MARGIN_BITS, LARGEST_PRIME_BITS)
        levels = (room - special) // scale_bits
        if not self.refresh or levels < 1:
            raise CompileError(
                f"{depth} levels of {scale_bits} bits do not fit the {max_modulus_bits(self.ring)} "
                f"bits of a ring of {self.ring}"
            )
        return _chain(self.ring, first, scale_bits, levels, special)

    def _tighten(self, planned: Program, scale_bits: int, headroom: int) -> Parameters:
        """The same plan without unused levels; spare bits go to the special prime."""
        types = [v.type for v in (op.result for op in planned) if v is not None]
        levels = max(getattr(t, "level", None) or 0 for t in types)
        first = min(scale_bits + headroom, LARGEST_PRIME_BITS)
        spare = max_modulus_bits(self.ring) - first - levels * scale_bits
        special = min(spare, first + SPECIAL_MARGIN_BITS, LARGEST_PRIME_BITS)
        return _chain(self.ring, first, scale_bits, levels, max(special, first))

    def _plan(self, program: Program, parameters: Parameters, context: Context) -> Program:
        chosen = replace(program, parameters=parameters)
        refreshed = InsertRefresh(mask_bits=self.mask_bits).run(chosen, context)
        return assign(InsertManagement().run(refreshed, context), parameters)


def _step(excess: float) -> int:
    """Bits to add where the noise exceeds the target by a factor.

    Noise falls with the scale, but faster while it still feeds on itself, so steps stay short.
    """
    longest = _LONGEST_STEP if excess < 2.0**_TAME_BITS else _LONGEST_STEP // 2
    return max(1, min(longest, math.floor(math.log2(excess)))) if math.isfinite(excess) else longest


def _chain(ring: int, first: int, scale_bits: int, levels: int, special: int) -> Parameters:
    return Parameters(ring, (first, *([scale_bits] * levels), special), scale_bits)
