"""Where to cut a tensor program into segments that a few levels suffice for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.packing.depth import Levels

VIEWS = (move.Slice, move.Reshape)
"""Operations that only rename elements, and are repeated after a cut."""


@dataclass(frozen=True)
class CutPrices:
    """What crossing a cut costs, in any one unit.

    Attributes:
        round: a round trip.
        tensor: a tensor that is handed over and comes back.
    """

    round: float = 3.0
    tensor: float = 1.0


@dataclass(frozen=True, eq=False)
class Cuts:
    """A program's operations in an order, and where it is cut.

    Attributes:
        operations: without views, see `VIEWS`.
        places: a cut at i lies before operation i; ascending.
        refreshed: for each cut the names of the values handed over.
        price: see `CutPrices`.
    """

    operations: tuple[Operation, ...]
    places: tuple[int, ...]
    refreshed: tuple[tuple[str, ...], ...]
    price: float

    @property
    def tensors(self) -> int:
        """How many tensors cross, all cuts together."""
        return sum(map(len, self.refreshed))


def plan_cuts(program: Program, levels: int, last: int, prices: CutPrices) -> Cuts | None:
    """The cheapest cuts such that no segment is too deep; None if one operation alone is.

    Dynamic programming over the places between operations, for the order in which they stand and
    for the order of their depth, in which independent chains advance together and share rounds.

    Args:
        program: what `require-polynomial` admits.
        levels: most levels of what is handed over at a cut.
        last: most levels of an output.
        prices: of crossing.
    """
    own = Levels(program)
    plain = [op for op in program if not isinstance(op, VIEWS)]
    used = own.used()
    depth = [max((used[v.name] for v in op.operands), default=0) + own.of(op) for op in plain]
    by_depth = [plain[i] for i in sorted(range(len(plain)), key=lambda i: (depth[i], i))]
    roots = view_roots(program)
    found = [
        _Planner(order, own, roots, levels, last, prices).plan() for order in (plain, by_depth)
    ]
    return min((cuts for cuts in found if cuts is not None), key=lambda c: c.price, default=None)


def view_roots(program: Program) -> Mapping[str, str]:
    """For each value the one that it is a view of, or itself."""
    root: dict[str, str] = {}
    for op in program:
        if op.result is not None:
            name = op.result.name
            root[name] = root[op.operands[0].name] if isinstance(op, VIEWS) else name
    return root


class _Planner:
    def __init__(
        self,
        operations: Sequence[Operation],
        own: Levels,
        roots: Mapping[str, str],
        levels: int,
        last: int,
        prices: CutPrices,
    ) -> None:
        self._ops = operations
        self._own = [own.of(op) for op in operations]
        self._levels = levels
        self._last = last
        self._prices = prices
        clear = {op.defined.name for op in operations if isinstance(op, tensor.ConstantTensor)}
        self._reads = [tuple({roots[v.name] for v in op.operands} - clear) for op in operations]
        self._live = self._alive()

    def _alive(self) -> list[frozenset[str]]:
        """Before each operation, and at the end, the values that are read from there on."""
        alive: set[str] = set()
        found = [frozenset(alive)]
        for op, reads in zip(reversed(self._ops), reversed(self._reads), strict=True):
            if op.result is not None:
                alive.discard(op.result.name)
            alive |= set(reads)
            found.append(frozenset(alive))
        return found[::-1]

    def plan(self) -> Cuts | None:
        count = len(self._ops)
        best: dict[int, tuple[float, int, tuple[str, ...]]] = {0: (0.0, 0, ())}
        for start in range(count):
            if start not in best:
                continue
            for cut, used in self._reach(start):
                total = best[start][0] + self._price(used) * (cut < count)
                if total < best.get(cut, (math.inf, 0, ()))[0]:
                    best[cut] = total, start, used
        if count not in best:
            return None
        places, refreshed = [], []
        at = best[count][1]
        while at:
            _, before, used = best[at]
            places.append(at)
            refreshed.append(used)
            at = before
        return Cuts(tuple(self._ops), tuple(places[::-1]), tuple(refreshed[::-1]), best[count][0])

    def _price(self, used: tuple[str, ...]) -> float:
        return self._prices.round + self._prices.tensor * len(used)

    def _reach(self, start: int) -> list[tuple[int, tuple[str, ...]]]:
        """Cuts that one segment from `start` can reach, and what is handed over there."""
        found: list[tuple[int, tuple[str, ...]]] = []
        depth: dict[str, int] = {}
        for i in range(start, len(self._ops)):
            op = self._ops[i]
            before = max((depth.get(name, 0) for name in self._reads[i]), default=0)
            here = before + self._own[i]
            leaves = isinstance(op, tensor.Output)
            if here > (self._last if leaves else max(self._levels, self._last)):
                break
            if op.result is not None:
                depth[op.result.name] = here
            if i + 1 == len(self._ops):
                found.append((i + 1, ()))
                break
            used = tuple(sorted(n for n in self._live[i + 1] if depth.get(n, 0) > 0))
            if used and all(depth[name] <= self._levels for name in used):
                found.append((i + 1, used))
        return found
