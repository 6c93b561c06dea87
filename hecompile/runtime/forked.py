"""Independent pieces of work in forked processes, which share loaded keys without copying them.

TenSEAL holds the interpreter's lock while it computes, so threads gain nothing. A forked process
has everything that was loaded before; only results travel, as bytes through a pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, NoReturn

import tenseal.sealapi as seal

from hecompile import errors
from hecompile.errors import HecompileError

Task = Callable[[], bytes]

_DONE, _FAILED = 0, 1
_PREFIX: Final = struct.Struct("<BQ")
_RANDOM: Final = struct.Struct("<2Q")


@dataclass(frozen=True)
class _Child:
    process: int
    stream: BinaryIO


def forked_map(tasks: Sequence[Task], workers: int) -> Iterator[bytes]:
    """Run tasks in forked processes, or here where one worker is enough.

    Args:
        tasks: Each returns bytes; what else it changes is lost where it runs in another process.
        workers: Most processes at a time.

    Yields:
        Each task's result, in order.

    Raises:
        HecompileError: What a task raised, or a process ended before its time.
    """
    workers = min(workers, len(tasks))
    if workers < 2:
        yield from (task() for task in tasks)
        return
    children: list[_Child] = []
    try:
        for number in range(workers):
            children.append(_start(tasks[number::workers], children))
        _check_random([child.stream for child in children])
        for place in range(len(tasks)):
            yield _receive(children[place % workers].stream)
    finally:
        _end(children)


def _start(tasks: Sequence[Task], siblings: Sequence[_Child]) -> _Child:
    source, target = os.pipe()
    # What is buffered would be written by both processes.
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if not process:
        os.close(source)
        for sibling in siblings:
            sibling.stream.close()
        _work(tasks, target)
    os.close(target)
    return _Child(process, os.fdopen(source, "rb"))


def _work(tasks: Sequence[Task], target: int) -> NoReturn:
    """Run in the forked process: send every result, then end without any clean-up."""
    code = 1
    try:
        # Ctrl-C is for the first process, which then ends this one.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with os.fdopen(target, "wb") as stream:
            stream.write(_RANDOM.pack(seal.random_uint64(), seal.random_uint64()))
            stream.flush()
            for task in tasks:
                _send(stream, task)
        code = 0
    finally:
        os._exit(code)


def _send(stream: BinaryIO, task: Task) -> None:
    kind = _DONE
    try:
        data = task()
    except HecompileError as error:
        kind, data = _FAILED, f"{type(error).__name__}\n{error}".encode()
    stream.write(_PREFIX.pack(kind, len(data)))
    stream.write(data)
    stream.flush()


def _receive(stream: BinaryIO) -> bytes:
    kind, size = _PREFIX.unpack(_exactly(stream, _PREFIX.size))
    data = _exactly(stream, size)
    if kind == _FAILED:
        name, _, text = data.decode("utf-8", "replace").partition("\n")
        found = getattr(errors, name, HecompileError)
        raise found(text)
    return data


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise HecompileError(
            "a process of the evaluation ended before its work was done, perhaps for want of"
            " memory; use fewer workers."
        )
    return data


def _check_random(streams: Sequence[BinaryIO]) -> None:
    """Make sure that the processes do not draw the same random numbers."""
    drawn = [_exactly(stream, _RANDOM.size) for stream in streams]
    if len(set(drawn)) != len(drawn):
        raise HecompileError("SEAL's random numbers repeat in forked processes; use one worker.")


def _end(children: Sequence[_Child]) -> None:
    for child in children:
        child.stream.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child.process, 0)
