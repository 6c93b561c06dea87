"""Which of two processes runs which operation of one evaluation, and what they hand over.

A list schedule by the longest remaining path: of the operations that are ready the most urgent
goes where it ends first (HEFT: Topcuoglu, Hariri and Wu, IEEE TPDS 13(3), 2002). It is made once
for a program, from the cost model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, NamedTuple

from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.numeric.cost import CostModel
from hecompile.runtime.admission import facts
from hecompile.workload import evaluator_work, seconds

MAIN: Final = 0
HELPER: Final = 1
_IDLE: Final = (he.Input, he.Encode, he.Output, he.Refresh)
# Handing a ciphertext over keeps both processes busy, the second with SEAL's checks of what it
# loads: seconds, and seconds per byte. A process that waits is woken after a while.
_FIXED: Final = 3e-5
_SEND: Final = 2e-10
_RECEIVE: Final = 4e-10
_WAKE: Final = 5e-5
# How much a hand-over counts beside the end of an operation: the best of some schedules is taken.
_WEIGHTS: Final = (0.0, 0.5, 1.0, 2.0, 4.0)


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


class _Move(NamedTuple):
    """A value that one process hands to the other.

    Attributes:
        name: The value.
        known: Second at which it is computed.
        sending: Seconds that its sender is busy.
        receiving: Seconds that its receiver is busy.
    """

    name: str
    known: float
    sending: float
    receiving: float


class _Timetable:
    """What the two processes do so far.

    Attributes:
        where: The process of each operation.
        done: The second at which it ends.
        orders: Operations of each process.
        known: Values made by one process that the other has, too.
    """

    def __init__(self) -> None:
        self.where: dict[int, int] = {}
        self.done: dict[int, float] = {}
        self.orders: tuple[list[int], list[int]] = ([], [])
        self.known: set[tuple[str, int]] = set()
        self._free = [0.0, 0.0]

    @property
    def wall(self) -> float:
        """Second at which both processes are done."""
        return max(self._free)

    def end(self, worker: int, moves: Sequence[_Move], cost: float) -> float:
        """When an operation would end that begins as soon as the process and its operands can."""
        begin = self._free[worker]
        for move in moves:
            begin = max(begin, move.known + move.sending + _WAKE) + move.receiving
        return begin + cost

    def run(self, n: int, worker: int, moves: Sequence[_Move], end: float) -> None:
        """Let a process run an operation."""
        self.where[n], self.done[n], self._free[worker] = worker, end, end
        self.orders[worker].append(n)
        for move in moves:
            self.known.add((move.name, worker))
            self._free[1 - worker] += move.sending


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
        urgency = self._urgency()
        tried = [self._schedule(urgency, weight) for weight in _WEIGHTS]
        best = min(tried, key=lambda table: table.wall)
        where, orders = best.where, best.orders
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
            (tuple(orders[MAIN]), tuple(orders[HELPER])),
            tuple(given),
            frozenset(handed),
            frozenset(keep),
            best.wall,
            sum(self._costs[n] for n in self._run),
        )

    def _schedule(self, urgency: Mapping[int, float], weight: float) -> _Timetable:
        """A schedule that counts what is sent `weight` times when it places an operation."""
        missing = {n: sum(x in self._made for x in names) for n, names in self._needs.items()}
        ready = [(-urgency[n], n) for n in self._run if not missing[n]]
        ready.sort()
        table = _Timetable()
        while ready:
            _, n = heappop(ready)
            moves = [self._moves(n, worker, table) for worker in (MAIN, HELPER)]
            ends = [table.end(worker, moves[worker], self._costs[n]) for worker in (MAIN, HELPER)]
            prices = [
                end + weight * sum(move.sending for move in found)
                for end, found in zip(ends, moves, strict=True)
            ]
            worker = MAIN if prices[MAIN] <= prices[HELPER] else HELPER
            table.run(n, worker, moves[worker], ends[worker])
            for user in self._users[n]:
                missing[user] -= 1
                if not missing[user]:
                    heappush(ready, (-urgency[user], user))
        return table

    def _moves(self, n: int, worker: int, table: _Timetable) -> list[_Move]:
        """What an operation needs of the other process."""
        found = []
        for name in self._needs[n]:
            maker = self._made.get(name)
            at = MAIN if maker is None else table.where[maker]
            if at != worker and (name, worker) not in table.known:
                size = value_bytes(self._program, name)
                known = 0.0 if maker is None else table.done[maker]
                found.append(_Move(name, known, _FIXED + _SEND * size, _FIXED + _RECEIVE * size))
        return found

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
