"""Several groups of samples at once, each in a process that evaluates it alone."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from hecompile.errors import IntegrityError
from hecompile.runtime.evaluation import Evaluation
from hecompile.runtime.forked import forked_map
from hecompile.runtime.framing import pack_parts, unpack_parts
from hecompile.runtime.machine import Timing
from hecompile.runtime.usage import Phase

if TYPE_CHECKING:
    from hecompile.runtime.processes import Answer, EvaluatorProcess

_LENGTHS: Final = struct.Struct("<BQ")
_PARTS: Final = 3


@dataclass(frozen=True)
class Outcome:
    """Where an evaluation came to: its output, or a request and the state that waits for it."""

    output: bytes = b""
    request: bytes = b""
    state: bytes = b""


def advance_all(evaluations: Sequence[Evaluation], workers: int = 1) -> list[Outcome]:
    """Run evaluations up to their next refresh or to the end, in forked processes.

    Args:
        evaluations: They are used up: go on with `Evaluator.resume` from an outcome's state.
        workers: Most processes; 1 runs them here.

    Raises:
        ProgramError: An operation cannot run.
    """
    tasks = [partial(_advance, evaluation) for evaluation in evaluations]
    return [_outcome(data) for data in forked_map(tasks, workers)]


def _advance(evaluation: Evaluation) -> bytes:
    request = evaluation.advance()
    if request is None:
        output = evaluation.output()
        return _LENGTHS.pack(1, len(output)) + output
    return _LENGTHS.pack(0, len(request)) + request + evaluation.checkpoint()


def _outcome(data: bytes) -> Outcome:
    done, length = _LENGTHS.unpack_from(data)
    end = _LENGTHS.size + length
    first = data[_LENGTHS.size : end]
    return Outcome(output=first) if done else Outcome(request=first, state=data[end:])


def pack_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    """Write outcomes, for another process."""
    return pack_parts([part for o in outcomes for part in (o.output, o.request, o.state)])


def unpack_outcomes(data: bytes) -> list[Outcome]:
    """Read what `pack_outcomes` wrote.

    Raises:
        IntegrityError: The bytes are something else.
    """
    parts = unpack_parts(data)
    if len(parts) % _PARTS:
        raise IntegrityError("the evaluator process sent outcomes that are incomplete.")
    return [Outcome(*parts[i : i + _PARTS]) for i in range(0, len(parts), _PARTS)]


def evaluate_groups(
    processes: Sequence[EvaluatorProcess], envelopes: Sequence[bytes], answer: Answer
) -> list[bytes]:
    """Have envelopes evaluated by processes that are started and ended here.

    Args:
        processes: Each takes every n-th envelope.
        envelopes: Encrypted groups of samples.
        answer: Answers refresh requests; called by one thread at a time.

    Returns:
        The output envelopes, in order.

    Raises:
        HecompileError: What the first process that failed reports; the others are ended.
    """
    lock = threading.Lock()

    def one_at_a_time(request: bytes) -> bytes:
        with lock:
            return answer(request)

    results: dict[int, bytes] = {}

    def serve(number: int) -> None:
        with processes[number] as process:
            for place in range(number, len(envelopes), len(processes)):
                results[place] = process.evaluate(envelopes[place], one_at_a_time)

    with ThreadPoolExecutor(len(processes)) as pool:
        running = [pool.submit(serve, number) for number in range(len(processes))]
        try:
            for future in running:
                future.result()
        except BaseException:
            for process in processes:
                process.kill()
            raise
    return [results[place] for place in range(len(envelopes))]


def summed_phases(processes: Sequence[EvaluatorProcess]) -> dict[str, Phase]:
    """CPU seconds of all processes together and the wall seconds of the slowest, by phase."""
    found: dict[str, Phase] = {}
    for process in processes:
        for name, phase in process.phases.items():
            before = found.get(name, Phase())
            found[name] = Phase(before.cpu + phase.cpu, max(before.wall, phase.wall))
    return found


def summed_timings(processes: Sequence[EvaluatorProcess]) -> dict[str, Timing]:
    """Times of all processes together, by operation name."""
    found: dict[str, Timing] = {}
    for process in processes:
        for name, timing in process.timings.items():
            before = found.get(name, Timing())
            found[name] = Timing(before.count + timing.count, before.seconds + timing.seconds)
    return found
