"""How many levels the segments between refreshes may have on each ring, and what is worth a try."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

from hecompile.config import CompileOptions
from hecompile.cuts import CutPrices, Cuts, plan_cuts
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.numeric.cost import active_cost_model
from hecompile.numeric.security import max_modulus_bits
from hecompile.packing.depth import Levels
from hecompile.packing.splitting import split_polynomials

SMALLEST_SCALE_BITS = 16
"""Smallest scale that a plan without refreshes uses, bits."""

USUAL_SCALE_BITS = 26
"""Scale of a plan with refreshes, bits, by which it is judged whether segments fit a ring."""

VALUE_BITS = 14
"""Bits that a masked value, its period and the number of them take beyond scale and mask."""

_KEY_SWITCHES = 6
"""Of a linear map, about."""

_TENSOR_SECONDS = 0.02
"""Of a tensor that crosses a cut, evaluator and key holder together, about."""

_EVALUATOR_SHARE = 0.4
"""Of that, what the evaluator takes."""


@dataclass(frozen=True, eq=False)
class SegmentBudgets:
    """Budgets of levels for one program; None stands for a plan without refreshes.

    Attributes:
        program: what is packed, tensor level.
        options: limits and prices of rounds.
    """

    program: Program
    options: CompileOptions
    _known: dict[int, Cuts | None] = field(default_factory=dict, repr=False)

    def on(self, ring: int) -> list[int | None]:
        """Budgets that a ring has room for."""
        bits = max_modulus_bits(ring)
        found: list[int | None] = []
        if (self._depth + 3) * SMALLEST_SCALE_BITS <= bits:
            found.append(None)
        if self.options.refresh == "never" or self.options.max_refreshes == 0:
            return found
        special = self._handed_bits - USUAL_SCALE_BITS
        most = (bits - self._handed_bits - special) // USUAL_SCALE_BITS
        return found + [n for n in range(1, min(most, self._depth - 1) + 1) if self._cuts(n)]

    def ranked(self, ring: int) -> list[tuple[int | None, float]]:
        """The budgets of a ring and their rough prices, seconds, the cheapest first."""
        rough = [(levels, self._rough(ring, levels)) for levels in self.on(ring)]
        return sorted(rough, key=lambda entry: entry[1])

    def fewest_rounds(self) -> int | None:
        """Rounds of the plan with the fewest, whatever their limit; None where no ring has room."""
        free = SegmentBudgets(self.program, replace(self.options, max_refreshes=None))
        budgets = {n for ring in self.options.rings() for n in free.on(ring) if n is not None}
        found = (free._cuts(levels) for levels in budgets)
        return min((len(cuts.places) for cuts in found if cuts is not None), default=None)

    @property
    def _handed_bits(self) -> int:
        """Bits of the modulus of a masked value."""
        return self.options.mask_bits + USUAL_SCALE_BITS + VALUE_BITS

    @cached_property
    def _levels(self) -> Levels:
        return Levels(self.program)

    @cached_property
    def _depth(self) -> int:
        return self._levels.total()

    def _cuts(self, levels: int) -> Cuts | None:
        if levels not in self._known:
            split = split_polynomials(self.program, levels)
            found = plan_cuts(split, levels, levels, CutPrices())
            most = self.options.max_refreshes
            many = found is not None and most is not None and len(found.places) > most
            self._known[levels] = None if many else found
        return self._known[levels]

    def _rough(self, ring: int, levels: int | None) -> float:
        """Seconds, as if every operation ran in the middle of its segment."""
        # Plans without refreshes have almost a prime for each level.
        deep = self._depth * 0.9 if levels is None else levels + 2
        primes = max(1, round(1 + deep / 2))
        each = active_cost_model().seconds("rotate", ring, primes)
        seconds = each * sum(map(self._key_switches, self.program))
        cuts = self._cuts(levels) if levels is not None else None
        if cuts is None:
            return seconds
        if self.options.refresh == "client":
            return seconds + cuts.tensors * _EVALUATOR_SHARE * _TENSOR_SECONDS
        # Two polynomials of a masked value go up, two with all levels come down.
        bits = 4 * self._handed_bits + 2 * (levels or 0) * USUAL_SCALE_BITS
        crossing = _TENSOR_SECONDS + self.options.line.transfer(ring * bits // 8)
        return seconds + len(cuts.places) * self.options.rtt + cuts.tensors * crossing

    def _key_switches(self, op: Operation) -> float:
        match op:
            case move.Affine():
                return _KEY_SWITCHES
            case tensor.Mul():
                return 1
            case tensor.Polynomial() if op.degree > 1:
                return 2 * math.sqrt(op.degree) - 1
        return 0
