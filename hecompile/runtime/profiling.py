"""What an evaluation takes, operation by operation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, cast

from hecompile.costs import Profile, Spent
from hecompile.ir.operation import Operation
from hecompile.runtime.evaluator import Evaluator
from hecompile.runtime.machine import Machine
from hecompile.workload import level_read

TRANSFER: Final = "transfer"
"""What is no operation of the program: reading inputs, writing outputs, masks of refreshes."""

Clock = Callable[[], float]


class Profiler:
    """Notes the CPU seconds of every operation that an evaluator runs from now on.

    It sees one process; operations that are computed together count for the first of them.
    """

    def __init__(self, evaluator: Evaluator, clock: Clock = time.process_time) -> None:
        """Stand between an evaluator and its machine; `clock` tells CPU seconds."""
        self._program = evaluator.spec.program
        self._clock = clock
        self._spent: dict[tuple[str, int], Spent] = {}
        self._started = clock()
        evaluator.machine = cast(Machine, _TimedMachine(evaluator.machine, self))

    def note(self, op: Operation, started: float) -> None:
        """Add the time since `started` to an operation's."""
        key = (op.name, level_read(op))
        before = self._spent.get(key, Spent())
        self._spent[key] = Spent(before.count + 1, before.seconds + self._clock() - started)

    def now(self) -> float:
        """The clock."""
        return self._clock()

    def profile(self, evaluations: int) -> Profile:
        """All that was noted, and what the rest of the time was since the start."""
        inside = sum(spent.seconds for spent in self._spent.values())
        rest = max(0.0, self._clock() - self._started - inside)
        found = self._spent | {(TRANSFER, 0): Spent(evaluations, rest)}
        return Profile(self._program, evaluations, found)


class _TimedMachine:
    """A machine whose runs are timed; all else is the machine's own."""

    def __init__(self, machine: Machine, profiler: Profiler) -> None:
        self._machine = machine
        self._profiler = profiler

    def run(self, op: Operation, position: int, live: dict[str, Any]) -> None:
        """Run an operation and note its time."""
        started = self._profiler.now()
        self._machine.run(op, position, live)
        self._profiler.note(op, started)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)
