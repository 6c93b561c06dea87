"""Which of two processes runs which operation of one evaluation, and what they hand over.

A list schedule by the longest remaining path: of the operations that are ready the most urgent
goes where it ends first (HEFT: Topcuoglu, Hariri and Wu, IEEE TPDS 13(3), 2002). It is made once
for a program, from the cost model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.numeric.cost import CostModel
from hecompile.runtime.admission import facts
from hecompile.workload import evaluator_work, seconds

MAIN: Final = 0
HELPER: Final = 1
_IDLE: Final = (he.Input, he.Encode, he.Output, he.Refresh)
# Handing a ciphertext over: a copy, a message, SEAL's checks of what is read; seconds per byte.
_TRANSFER_FIXED: Final = 1e-4
_TRANSFER_PER_BYTE: Final = 4e-10


@dataclass(frozen=True)
class Segment:
    """The operations from one refresh, or the beginning, to the next or the end.

    Attributes:
        start: Position of the first.
        end: One past the last.
        orders: For each process the positions that it runs, in order.
        given: Values known before that the main process hands over first.
        handed: Values that are handed over as soon as they are known.
        keep: Values that the main process needs afterwards.
        seconds: Predicted wall seconds.
        alone: Predicted seconds of one process.
    """

    start: int
    end: int
    orders: tuple[tuple[int, ...], tuple[int, ...]]
    given: tuple[str, ...]
    handed: frozenset[str]
    keep: frozenset[str]
    seconds: float
    alone: float


def plan_segments(program: Program, cost: CostModel) -> tuple[Segment, ...]:
    """Schedule every segment of a program that `check_program` admitted."""
    parameters = program.parameters
    if parameters is None:
        return ()
    degree = parameters.poly_modulus_degree
    costs = [seconds(work, degree, cost) for _, work in evaluator_work(program, cost)]
    operations = program.operations
    borders = [n for n, op in enumerate(operations) if isinstance(op, he.Refresh)]
    starts = [0, *(n + 1 for n in borders)]
    ends = [*borders, len(operations)]
    return tuple(
        _Scheduler(program, costs, start, end).segment()
        for start, end in zip(starts, ends, strict=True)
        if any(not isinstance(op, _IDLE) for op in operations[start:end])
    )


class _Scheduler:
    def __init__(self, program: Program, costs: Sequence[float], start: int, end: int) -> None:
        self._program = program
        self._costs = costs
        self._start, self._end = start, end
        operations = program.operations
        self._run = [n for n in range(start, end) if not isinstance(operations[n], _IDLE)]
        self._made = {operations[n].defined.name: n for n in self._run}
        self._needs = {
            n: tuple(dict.fromkeys(x.name for x in operations[n].operands if _moves(x)))
            for n in self._run
        }
        self._users: dict[int, list[int]] = {n: [] for n in self._run}
        for n, names in self._needs.items():
            for name in names:
                if name in self._made:
                    self._users[self._made[name]].append(n)

    def segment(self) -> Segment:
        """Schedule, then find what has to be handed over."""
        where, orders, wall = self._schedule()
        last = self._program.last_uses
        outputs = {
            x.name
            for op in self._program.operations[self._start : self._end]
            if isinstance(op, he.Output)
            for x in op.xs
        }
        keep = {name for name in self._made if last[name] >= self._end} | outputs
        used = {(name, where[n]) for n, names in self._needs.items() for name in names}
        handed = {
            name
            for name, n in self._made.items()
            if (name, 1 - where[n]) in used or (where[n] == HELPER and name in keep)
        }
        given: dict[str, None] = {}
        for n in orders[HELPER]:
            given.update(dict.fromkeys(x for x in self._needs[n] if x not in self._made))
        return Segment(
            self._start,
            self._end,
            orders,
            tuple(given),
            frozenset(handed),
            frozenset(keep),
            wall,
            sum(self._costs[n] for n in self._run),
        )

    def _schedule(self) -> tuple[dict[int, int], tuple[tuple[int, ...], tuple[int, ...]], float]:
        urgency = self._urgency()
        missing = {n: sum(x in self._made for x in names) for n, names in self._needs.items()}
        ready = [(-urgency[n], n) for n in self._run if not missing[n]]
        ready.sort()
        free, where = [0.0, 0.0], dict[int, int]()
        done: dict[int, float] = {}
        orders: tuple[list[int], list[int]] = ([], [])
        while ready:
            _, n = heappop(ready)
            begins = [max(free[w], self._arrival(n, w, where, done)) for w in (MAIN, HELPER)]
            worker = MAIN if begins[MAIN] <= begins[HELPER] else HELPER
            done[n] = free[worker] = begins[worker] + self._costs[n]
            where[n] = worker
            orders[worker].append(n)
            for user in self._users[n]:
                missing[user] -= 1
                if not missing[user]:
                    heappush(ready, (-urgency[user], user))
        return where, (tuple(orders[MAIN]), tuple(orders[HELPER])), max(done.values(), default=0.0)

    def _arrival(
        self, n: int, worker: int, where: Mapping[int, int], done: Mapping[int, float]
    ) -> float:
        """When the operands of an operation can be at a process."""
        latest = 0.0
        for name in self._needs[n]:
            maker = self._made.get(name)
            if maker is None:
                latest = max(latest, self._transfer(name) if worker == HELPER else 0.0)
            else:
                moved = self._transfer(name) if where[maker] != worker else 0.0
                latest = max(latest, done[maker] + moved)
        return latest

    def _transfer(self, name: str) -> float:
        return _TRANSFER_FIXED + _TRANSFER_PER_BYTE * value_bytes(self._program, name)

    def _urgency(self) -> dict[int, float]:
        """Seconds from the beginning of each operation to the end, if nothing had to wait."""
        found: dict[int, float] = {}
        for n in reversed(self._run):
            found[n] = self._costs[n] + max((found[user] for user in self._users[n]), default=0.0)
        return found


def value_bytes(program: Program, name: str) -> int:
    """Bytes of a ciphertext's residues."""
    value = program.definitions[name].defined
    if program.parameters is None:
        return 0
    polynomials = he.cipher_type(value).polynomials
    return program.parameters.ciphertext_bytes(facts(value).level, polynomials)


def _moves(value: object) -> bool:
    """Whether an operand is a ciphertext: encoded plaintexts are known to both processes."""
    return isinstance(getattr(value, "type", None), CipherType)
