"""The evaluator as a process of its own: `python -m hecompile.runtime.worker FOLDER`.

It is told the folder of the evaluation keys and nothing else; program and ciphertexts come over
standard input, results leave over standard output.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TextIO

from hecompile.errors import HecompileError, IntegrityError, UsageError
from hecompile.runtime.channel import Channel, ClosedError, Message, error_content, read_json
from hecompile.runtime.evaluator import Evaluator, galois_steps
from hecompile.runtime.keys import load_evaluation_keys
from hecompile.runtime.program_files import load_program
from hecompile.runtime.residues import SlowWarning
from hecompile.runtime.spec import program_id
from hecompile.runtime.usage import Stopwatch, peak_memory_bytes


def main(arguments: Sequence[str]) -> int:
    """Serve evaluations until the other side ends.

    Args:
        arguments: The folder of the evaluation keys.

    Returns:
        The exit code.
    """
    # A core dump would hold the masks.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel = Channel(sys.stdin.fileno(), os.dup(sys.stdout.fileno()))
    # Whatever prints must not end up between the messages.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        if len(arguments) != 1:
            raise UsageError("the evaluator process takes one argument, the folder of its keys.")
        with _heard() as notes:
            _serve(channel, arguments[0], notes)
    except ClosedError:
        return 0
    except HecompileError as error:
        channel.send_json(Message.ERROR, error_content(error))
        return error.exit_code
    except MemoryError:
        text = "the evaluator has not enough memory; give --memory-limit or a larger machine."
        channel.send_json(Message.ERROR, {"type": "HecompileError", "text": text})
        return 1
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


def _serve(channel: Channel, folder: str, notes: Sequence[str]) -> None:
    watch = Stopwatch()
    with watch.measure("load"):
        evaluator = _load(channel, folder)
    _report(channel, Message.READY, watch, evaluator, notes)
    while True:
        kind, body = channel.receive()
        if kind is Message.END:
            return
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


def _load(channel: Channel, folder: str) -> Evaluator:
    def progress(task: str, done: int, total: int) -> None:
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
    keys = load_evaluation_keys(
        folder, program.parameters, program_id(program), galois_steps(program), progress, manifest
    )
    evaluator = Evaluator(
        program,
        keys,
        memory_limit=setup.get("memory_limit"),
        progress=progress,
        manifest=manifest,
        model=model,
        weights_cache=setup.get("weights_cache"),
    )
    if int(setup.get("workers", 1)) > 1:
        evaluator.start_helper()
    evaluator.rehearse()
    return evaluator


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
    }
    channel.send_json(kind, content)


def _expect(kind: Message, wanted: Message) -> None:
    if kind is not wanted:
        raise IntegrityError(f"the evaluator process got {kind.name}, where {wanted.name} was due.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
