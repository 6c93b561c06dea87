"""Work in forked processes: order, errors, random numbers, and processes that die."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import tenseal.sealapi as seal

from hecompile.errors import HecompileError, IntegrityError, ProgramError
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.context import Context
from hecompile.runtime.forked import Origin, end_with_parent, forked_map
from hecompile.runtime.keycard import Role, galois_file
from hecompile.runtime.keys import evaluation_keys, generate_keys
from hecompile.runtime.residues import LayoutError
from hecompile.runtime.stream import to_bytes

PARAMETERS = Parameters(4096, (36, 30, 40), 30)


def number(value: int, seconds: float = 0.0) -> bytes:
    time.sleep(seconds)
    return f"{value} {os.getpid()}".encode() + bytes(value * 30000)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_whatever_they_take(workers: int) -> None:
    tasks = [partial(number, n, 0.05 * (n == 0)) for n in range(5)]
    results = [data.rstrip(b"\0").split() for data in forked_map(tasks, workers)]
    assert [int(value) for value, _ in results] == list(range(5))
    processes = {int(process) for _, process in results}
    assert len(processes) == workers
    assert (os.getpid() in processes) is (workers == 1)


def fail() -> bytes:
    raise IntegrityError("this task is refused.")


def die() -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def crash() -> bytes:
    raise ValueError("a fault")


def full() -> bytes:
    raise OSError(errno.ENOSPC, "No space left on device")


def unread() -> bytes:
    raise LayoutError("a ciphertext cannot be read")


def exhaust() -> bytes:
    raise MemoryError


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        (fail, IntegrityError, "this task is refused"),
        (die, HecompileError, "ended before its work was done"),
        (crash, HecompileError, r"failed with ValueError: a fault \(test_runtime_forked.py, line"),
        (full, HecompileError, r"failed with OSError: \[Errno 28\] No space left"),
        (unread, ProgramError, "cannot be read"),
        (
            exhaust,
            HecompileError,
            "not enough memory; allow it more with --memory-limit, or use fewer",
        ),
    ],
)
def test_what_goes_wrong_there_is_an_error_here(
    task: Callable[[], bytes], error: type[HecompileError], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(forked_map([partial(number, 1), task], 2))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


PARENT = """
import os, threading, time
from hecompile.runtime.forked import forked_map

def task():
    os.write(1, f"{os.getpid()}\\n".encode())
    while True:
        sum(range(1000))

def work():
    list(forked_map([task, task], 2))

if THREAD:
    threading.Thread(target=work).start()
else:
    work()
"""


@pytest.mark.parametrize("thread", [False, True], ids=["first thread", "other thread"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_end_when_their_parent_is_killed(thread: bool, number: signal.Signals) -> None:
    script = PARENT.replace("THREAD", str(thread))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        children = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(number)
        try:
            # The pipe ends only when the last process that can write to it has ended.
            assert parent.communicate(timeout=10)[0] == b""
        finally:
            for child in children:
                if is_running(child):
                    os.kill(child, signal.SIGKILL)
        assert parent.returncode == -number


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_children_outlive_the_thread_that_forked_them() -> None:
    results = forked_map([partial(number, n, 0.2 * n) for n in range(4)], 2)
    first: list[bytes] = []
    thread = threading.Thread(target=lambda: first.append(next(results)))
    thread.start()
    thread.join()
    found = [int(data.split()[0]) for data in (*first, *(d.rstrip(b"\0") for d in results))]
    assert found == [0, 1, 2, 3]


def test_a_child_whose_parent_had_ended_before_the_kernel_was_told_ends_too() -> None:
    process = os.fork()
    if not process:
        end_with_parent(Origin(1 << 30, 1 << 30))
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 1


def test_two_processes_draw_different_random_numbers_for_the_same_key() -> None:
    context = Context(PARAMETERS)
    generator = seal.KeyGenerator(context.seal)
    # One key before the fork, so that a generator with a state of its own would have it by now.
    generator.create_galois_keys([3])

    def same_key() -> bytes:
        return to_bytes(generator.create_galois_keys([3]))

    keys = list(forked_map([same_key] * 4, 2))
    assert len(set(keys)) == 4
    # The seed of the uniform part stands near the beginning; the rest holds the noise.
    half = len(keys[0]) // 2
    assert len({key[half:] for key in keys}) == 4


def test_keys_made_by_two_processes_are_valid() -> None:
    ring = generate_keys(PARAMETERS, (1, 2, 3, 4), "0" * 64, workers=2)
    keys = evaluation_keys(ring.source(Role.EVALUATION))
    assert sorted(keys.galois) == [1, 2, 3, 4]
    files = ring.files[Role.EVALUATION]
    assert len({files[galois_file(step)] for step in keys.galois}) == 4
