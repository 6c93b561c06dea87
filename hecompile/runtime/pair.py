"""One evaluation on two processors: a forked helper runs its share of each segment.

Ciphertexts are handed over as residues in shared memory, named by a byte or two through a pipe.
The helper holds what was loaded before it was forked, and nothing from one segment to the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from hecompile.errors import HecompileError
from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.numeric.cost import DEFAULT_COST_MODEL
from hecompile.runtime.channel import error_content, error_from, read_json
from hecompile.runtime.context import Context
from hecompile.runtime.forked import Origin, end_with_parent
from hecompile.runtime.handover import MOST_FILES, Handover
from hecompile.runtime.machine import Machine, Timing
from hecompile.runtime.rehearsal import rehearse
from hecompile.runtime.residues import LayoutError, residue_access, warn_slow
from hecompile.runtime.schedule import HELPER, MAIN, Segment, plan_segments, value_bytes
from hecompile.runtime.steps import Step

WORTH: Final = 0.9
"""Share of one process's time that two must stay below, for a helper to be started."""
_MOST_BYTES: Final = 1 << 31
_MESSAGE: Final = struct.Struct("<BI")
_BEGIN, _VALUE, _DONE, _FAILED, _REHEARSE = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class _Turn:
    """An operation, and its operands that may come from the other process."""

    step: Step
    needs: tuple[str, ...]


class Pair:
    """This process and its helper; use `start_pair`, and `close` at the end.

    Attributes:
        helper_seconds: CPU seconds of the helper so far.
    """

    def __init__(
        self, program: Program, context: Context, machine: Machine, segments: Mapping[int, Segment]
    ) -> None:
        """Fork the helper."""
        self.helper_seconds = 0.0
        self._program, self._context, self._machine = program, context, machine
        self._segments = segments
        self._steps = {
            (start, who): self._bound(segment, who)
            for start, segment in segments.items()
            for who in (MAIN, HELPER)
        }
        self._handover = Handover(program, context, {n: _moved(s) for n, s in segments.items()})
        self._current = -1
        down, up = os.pipe(), os.pipe()
        origin = Origin.here()
        self._owner = origin.process
        self._helper = os.fork()
        if not self._helper:
            self._in, self._out = down[0], up[1]
            self._serve(origin, (down[1], up[0]))
        self._in, self._out = up[0], down[1]
        os.close(down[0])
        os.close(up[1])

    def segment(self, position: int) -> Segment | None:
        """The segment that begins at a position; None once the helper is lost, or in a fork."""
        return self._segments.get(position) if self._owner == os.getpid() else None

    def run(self, segment: Segment, live: dict[str, Any]) -> None:
        """Run a segment.

        Args:
            segment: What `segment` gave.
            live: Ciphertexts by name; afterwards with the segment's results that are needed.

        Raises:
            ProgramError: An operation cannot run.
            HecompileError: The helper has failed or ended.
        """
        with self._closed_on_error():
            self._run(segment, live)

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # What is on its way between the processes belongs to no later evaluation.
            self.close()
            raise

    def _run(self, segment: Segment, live: dict[str, Any]) -> None:
        self._current = segment.start
        self._tell(_BEGIN, segment.start)
        for name in segment.given:
            self._hand_over(name, live[name])
        self._work(segment, MAIN, live)
        for name in segment.keep:
            self._await(name, live)
        while True:
            kind, number = self._message()
            if kind == _DONE:
                break
            self._take(number, live)
        content = json.loads(self._bytes(number))
        self.helper_seconds += content["seconds"]
        for name, (count, seconds) in content["timings"].items():
            self._machine.add_timing(name, Timing(count, seconds))
        for name in [n for n in live if n in segment.handed and n not in segment.keep]:
            del live[name]

    def rehearse(self) -> None:
        """Run operations of every kind on random ciphertexts, in both processes at once."""
        with self._closed_on_error():
            self._tell(_REHEARSE, 0)
            rehearse(self._own_steps(MAIN), self._context)
            kind, _ = self._message()
            if kind != _DONE:
                raise HecompileError(_DISAGREE)

    def _own_steps(self, who: int) -> Iterator[Step]:
        return (t.step for (_, of), turns in self._steps.items() if of == who for t in turns)

    def close(self) -> None:
        """End the helper; evaluations go on in this process."""
        if self._owner != os.getpid():
            return
        self._owner = 0
        for descriptor in (self._in, self._out):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._handover.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._helper, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._helper, 0)

    def _bound(self, segment: Segment, who: int) -> list[_Turn]:
        """One process's operations of a segment in its order, and the values each waits for."""
        operations = [self._program.operations[n] for n in segment.orders[who]]
        last = {x.name: turn for turn, op in enumerate(operations) for x in op.operands}
        if who == MAIN:
            final = self._program.last_uses
            last = {
                name: turn
                for name, turn in last.items()
                if name not in segment.keep and final[name] < segment.end
            }
        moved = set(_moved(segment))
        return [
            _Turn(step, tuple(x.name for x in step.op.operands if x.name in moved))
            for step in self._machine.bind(operations, last)
        ]

    def _work(self, segment: Segment, who: int, live: dict[str, Any]) -> None:
        handed, perform = segment.handed, self._machine.perform
        for turn in self._steps[segment.start, who]:
            for name in turn.needs:
                if name not in live:
                    self._await(name, live)
            step = turn.step
            perform(step, live)
            if step.name in handed:
                self._hand_over(step.name, live[step.name])

    def _await(self, name: str, live: dict[str, Any]) -> None:
        while name not in live:
            kind, number = self._message()
            if kind != _VALUE:
                raise HecompileError(_DISAGREE)
            self._take(number, live)

    def _take(self, number: int, live: dict[str, Any]) -> None:
        name = self._handover.groups[self._current][number]
        if name not in live:
            live[name] = self._handover.get(self._current, name)

    def _hand_over(self, name: str, value: Any) -> None:
        self._tell(_VALUE, self._handover.put(self._current, name, value))

    def _tell(self, kind: int, number: int, body: bytes = b"") -> None:
        data = _MESSAGE.pack(kind, number) + body
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except BrokenPipeError:
            raise self._last_words() from None

    def _last_words(self) -> HecompileError:
        """What the other process has ended of, if it said so."""
        try:
            while True:
                kind, number = self._message()
                if kind == _DONE:
                    self._bytes(number)
        except HecompileError as error:
            return error

    def _message(self) -> tuple[int, int]:
        kind, number = _MESSAGE.unpack(self._bytes(_MESSAGE.size))
        if kind == _FAILED:
            raise error_from(read_json(self._bytes(number)))
        return kind, number

    def _bytes(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = os.read(self._in, size - len(found))
            if not piece:
                raise HecompileError(_LOST)
            found += piece
        return found

    def _serve(self, origin: Origin, others: tuple[int, int]) -> NoReturn:
        """The helper's life: segment after segment, until the other end is closed."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            end_with_parent(origin)
            for descriptor in others:
                os.close(descriptor)
            while True:
                self._serve_one()
        except Exception as error:
            text = json.dumps(error_content(error)).encode()
            self._tell(_FAILED, len(text), text)
        finally:
            os._exit(1)

    def _serve_one(self) -> None:
        kind, start = self._message()
        if kind == _REHEARSE:
            rehearse(self._own_steps(HELPER), self._context)
            self._tell(_DONE, 0)
        if kind != _BEGIN:
            return
        self._current = start
        before = time.process_time()
        self._machine.forget_timings()
        self._work(self._segments[start], HELPER, {})
        timings = {n: (t.count, t.seconds) for n, t in self._machine.timings.items()}
        used = time.process_time() - before
        report = json.dumps({"seconds": used, "timings": timings}).encode()
        self._tell(_DONE, len(report), report)


_DISAGREE: Final = "the two processes of an evaluation disagree; evaluate with --workers 1."
_LOST: Final = "the second process of an evaluation has ended; evaluate with --workers 1."


def _moved(segment: Segment) -> list[str]:
    """Values of a segment that one process has from the other."""
    return list(dict.fromkeys((*segment.given, *sorted(segment.handed))))


def start_pair(program: Program, context: Context, machine: Machine) -> Pair | None:
    """Start a helper where two processes are quicker than one; None where they are not.

    Programs with matrix products or encrypted weights have a process to themselves: they are
    evaluated for many samples at once.
    """
    if machine.has_batches or program.select(he.Weight):
        return None
    try:
        residue_access(context)
    except LayoutError as error:
        warn_slow(f"two processes cannot share an evaluation: {error}.")
        return None
    segments = {s.start: s for s in plan_segments(program, DEFAULT_COST_MODEL)}
    moved = [_moved(segment) for segment in segments.values()]
    largest = max((sum(value_bytes(program, name) for name in names) for names in moved), default=0)
    if largest > _MOST_BYTES or max(map(len, moved), default=0) > MOST_FILES:
        return None
    wall = sum(s.seconds for s in segments.values())
    if wall > WORTH * sum(s.alone for s in segments.values()):
        return None
    return Pair(program, context, machine, segments)
