"""Work in forked processes: order, errors, random numbers, and processes that die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest
import tenseal.sealapi as seal

from hecompile.errors import HecompileError, IntegrityError
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.context import Context
from hecompile.runtime.forked import forked_map
from hecompile.runtime.keycard import Role, galois_file
from hecompile.runtime.keys import evaluation_keys, generate_keys
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


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        (fail, IntegrityError, "this task is refused"),
        (die, HecompileError, "ended before its work was done"),
        (crash, HecompileError, "ended before its work was done"),
    ],
)
def test_what_goes_wrong_there_is_an_error_here(
    task: Callable[[], bytes], error: type[HecompileError], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(forked_map([partial(number, 1), task], 2))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


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
