"""The evaluator as a process of its own: `python -m hecompile.runtime.worker FOLDER LIMITS`.

It is told the folder of the evaluation keys, its limits and nothing else; program and ciphertexts
come over standard input, results leave over standard output. It has no signing key and no users
document: a gateway (`runtime.gateway`) looks at what comes before it comes, and signs what goes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from hecompile.errors import HecompileError, IntegrityError
from hecompile.runtime.channel import Channel, ClosedError, Message, error_content, read_json
from hecompile.runtime.crew import advance_all, pack_outcomes
from hecompile.runtime.evaluator import Evaluator, galois_steps
from hecompile.runtime.framing import unpack_parts
from hecompile.runtime.inspection import OpenInspector
from hecompile.runtime.key_folders import ExactCard
from hecompile.runtime.keys import load_evaluation_keys
from hecompile.runtime.program_files import load_program
from hecompile.runtime.residues import SlowWarning
from hecompile.runtime.sandbox import Limits, MemoryWatch
from hecompile.runtime.spec import program_id
from hecompile.runtime.usage import Stopwatch, peak_memory_bytes

if TYPE_CHECKING:
    from hecompile.runtime.profiling import Profiler


def main(arguments: Sequence[str]) -> int:
    """Serve evaluations until the other side ends.

    Args:
        arguments: The folder of the evaluation keys, then `Limits.words`.

    Returns:
        The exit code.
    """
    folder, *words = arguments
    limits = Limits.from_words(words)
    limits.apply()
    watch = MemoryWatch(limits)
    channel = Channel(sys.stdin.fileno(), os.dup(sys.stdout.fileno()))
    # Whatever prints must not end up between the messages.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        with _heard() as notes:
            _serve(channel, folder, notes, watch)
    except ClosedError:
        return 0
    except (HecompileError, MemoryError) as error:
        if watch.met or isinstance(error, MemoryError):
            error = HecompileError(limits.memory_told)
        channel.send_json(Message.ERROR, error_content(error))
        return getattr(error, "exit_code", 1)
    return 0


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect what makes evaluations slow; other warnings go to standard error as ever."""
    notes: list[str] = []
    show = warnings.showwarning

    def hear(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, SlowWarning):
            show(message, category, filename, lineno, file, line)
        elif str(message) not in notes:
            notes.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", SlowWarning)
        warnings.showwarning = hear
        yield notes


def _serve(channel: Channel, folder: str, notes: Sequence[str], memory: MemoryWatch) -> None:
    watch = Stopwatch()
    with watch.measure("load"):
        evaluator, setup = _load(channel, folder, memory)
    _report(channel, Message.READY, watch, evaluator, notes)
    while True:
        kind, body = channel.receive()
        if kind is Message.END:
            return
        if kind is Message.ADVANCE:
            with watch.measure("evaluate"):
                answer = _advance(channel, evaluator, body, setup, memory)
            _report(channel, Message.USAGE, watch, evaluator, notes)
            channel.send(Message.OUTCOMES, answer)
            continue
        _expect(kind, Message.INPUT)
        with watch.measure("evaluate"):
            evaluation = evaluator.start(body)
            request = evaluation.advance()
        while request is not None:
            channel.send(Message.REFRESH_REQUEST, request)
            kind, body = channel.receive()
            _expect(kind, Message.REFRESH_RESPONSE)
            with watch.measure("evaluate"):
                evaluation.accept(body)
                request = evaluation.advance()
        with watch.measure("evaluate"):
            output = evaluation.output()
        _report(channel, Message.USAGE, watch, evaluator, notes)
        channel.send(Message.OUTPUT, output)


def _advance(
    channel: Channel,
    evaluator: Evaluator,
    body: bytes,
    setup: Mapping[str, Any],
    memory: MemoryWatch,
) -> bytes:
    """Run evaluations to their next refresh or to the end, each begun or taken up here."""
    parts = unpack_parts(body)
    profiler = _profiler(evaluator) if setup.get("profile") else None
    running = []
    for data, response in zip(parts[::2], parts[1::2], strict=True):
        evaluation = evaluator.resume(data) if response else evaluator.start(data)
        if response:
            evaluation.accept(response)
        running.append(evaluation)
    crew = min(int(setup.get("crew", 1)), len(running))
    if crew > 1:
        # Forked processes share the channel, so none of them may tell of its progress.
        evaluator.progress = lambda _task, _done, _total: memory.check()
    outcomes = advance_all(running, crew)
    if profiler is not None:
        found = profiler.profile(len(running))
        rows = [[*key, spent.count, spent.seconds] for key, spent in found.operations.items()]
        content = {"program": found.program, "evaluations": found.evaluations, "rows": rows}
        channel.send_json(Message.PROFILE, content)
    return pack_outcomes(outcomes)


def _profiler(evaluator: Evaluator) -> Profiler:
    from hecompile.runtime.profiling import Profiler

    return Profiler(evaluator)


def _load(channel: Channel, folder: str, memory: MemoryWatch) -> tuple[Evaluator, dict[str, Any]]:
    def progress(task: str, done: int, total: int) -> None:
        memory.check()
        channel.send_json(Message.PROGRESS, {"task": task, "done": done, "total": total})

    bodies = {}
    for wanted in (Message.SETUP, Message.PROGRAM, Message.CONSTANTS):
        kind, bodies[wanted] = channel.receive()
        _expect(kind, wanted)
    setup = read_json(bodies[Message.SETUP])
    model = None
    if setup.get("model"):
        kind, model = channel.receive()
        _expect(kind, Message.MODEL)
    manifest = str(setup.get("manifest"))
    program = load_program(bodies[Message.PROGRAM], bodies[Message.CONSTANTS])
    if program.parameters is None:
        raise IntegrityError("the program has no encryption parameters; compile it again.")
    memory.provide(program.parameters.galois_key_bytes)
    keys = load_evaluation_keys(
        folder,
        program.parameters,
        program_id(program),
        galois_steps(program),
        progress,
        manifest,
        ExactCard(str(setup.get("card"))),
    )
    evaluator = Evaluator(
        program,
        keys,
        memory_limit=setup.get("memory_limit"),
        progress=progress,
        manifest=manifest,
        model=model,
        weights_cache=setup.get("weights_cache"),
        inspector=OpenInspector(),
    )
    if int(setup.get("workers", 1)) > 1:
        evaluator.start_helper()
    if setup.get("rehearse", True):
        evaluator.rehearse()
    return evaluator, setup


def _report(
    channel: Channel, kind: Message, watch: Stopwatch, evaluator: Evaluator, notes: Sequence[str]
) -> None:
    phases = {name: [phase.cpu, phase.wall] for name, phase in watch.phases.items()}
    if "evaluate" in phases:
        phases["evaluate"][0] += evaluator.helper_seconds
    content = {
        "phases": phases,
        "peak_memory_bytes": peak_memory_bytes(),
        "timings": {n: [t.count, t.seconds] for n, t in evaluator.timings.items()},
        "notes": list(notes),
        "key_id": evaluator.key_id,
    }
    channel.send_json(kind, content)


def _expect(kind: Message, wanted: Message) -> None:
    if kind is not wanted:
        raise IntegrityError(f"the evaluator process got {kind.name}, where {wanted.name} was due.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
