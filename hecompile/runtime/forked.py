"""Independent pieces of work in forked processes, which share loaded keys without copying them.

TenSEAL holds the interpreter's lock while it computes, so threads gain nothing. A forked process
has everything that was loaded before; only results travel, as bytes through a pipe.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NoReturn

import tenseal.sealapi as seal

from hecompile.errors import HecompileError
from hecompile.runtime.channel import error_content, error_from, read_json

Task = Callable[[], bytes]

_DONE, _FAILED = 0, 1
_PREFIX: Final = struct.Struct("<BQ")
_RANDOM: Final = struct.Struct("<2Q")
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Origin:
    """The process and thread that are about to fork; see `end_with_parent`."""

    process: int
    thread: int

    @classmethod
    def here(cls) -> Origin:
        """Those that run."""
        return cls(os.getpid(), threading.get_native_id())


def end_with_parent(origin: Origin) -> None:
    """In a forked process, and before anything else there: end when the parent ends.

    The kernel sees to it, however the parent ends and whatever this process does then. This is
    Linux only; elsewhere nothing is done.

    Args:
        origin: Taken before the fork.

    Raises:
        OSError: The kernel refuses.
    """
    if sys.platform != "linux":
        return
    kind: int = signal.SIGKILL
    if origin.thread != origin.process:
        # To the kernel the parent is the thread that forked, which may end before its process.
        # Such a thread's end is a signal that is looked into, between one operation and the next.
        kind = signal.SIGHUP

        def look(_signal: int, _frame: Any) -> None:
            if os.getppid() != origin.process:
                os._exit(1)

        signal.signal(signal.SIGHUP, look)
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(kind), *[ctypes.c_ulong(0)] * 3):
        code = ctypes.get_errno()
        raise OSError(code, f"prctl: {os.strerror(code)}")
    if os.getppid() != origin.process:
        # It had ended before the kernel was told.
        os._exit(1)


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
        HecompileError: What a task raised, of its class and text; any other exception is told by
            its kind and text. Or a process ended before its time.
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
    origin = Origin.here()
    process = os.fork()
    if not process:
        _work(tasks, target, origin, [source, *(s.stream.fileno() for s in siblings)])
    os.close(target)
    return _Child(process, os.fdopen(source, "rb"))


def _work(tasks: Sequence[Task], target: int, origin: Origin, others: Sequence[int]) -> NoReturn:
    """Run in the forked process: send every result, then end without any clean-up."""
    code = 1
    try:
        # Ctrl-C is for the first process, which then ends this one.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

        def begin() -> bytes:
            end_with_parent(origin)
            for descriptor in others:
                os.close(descriptor)
            return _RANDOM.pack(seal.random_uint64(), seal.random_uint64())

        with os.fdopen(target, "wb") as stream:
            for task in (begin, *tasks):
                _send(stream, task)
        code = 0
    finally:
        os._exit(code)


def _send(stream: BinaryIO, task: Task) -> None:
    kind = _DONE
    try:
        data = task()
    except Exception as error:
        kind, data = _FAILED, json.dumps(error_content(error)).encode()
    stream.write(_PREFIX.pack(kind, len(data)))
    stream.write(data)
    stream.flush()


def _receive(stream: BinaryIO) -> bytes:
    kind, size = _PREFIX.unpack(_exactly(stream, _PREFIX.size))
    data = _exactly(stream, size)
    if kind == _FAILED:
        raise error_from(read_json(data))
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
    drawn = [_receive(stream) for stream in streams]
    if len(set(drawn)) != len(drawn):
        raise HecompileError("SEAL's random numbers repeat in forked processes; use one worker.")


def _end(children: Sequence[_Child]) -> None:
    for child in children:
        child.stream.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child.process, 0)
