"""The evaluating process: what it may take of the machine, and what it does not know."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hecompile.errors import AccessDeniedError, HecompileError, UsageError
from hecompile.files import sha256_bytes
from hecompile.ir.printer import print_program
from hecompile.ir.program import Program
from hecompile.runtime.channel import Channel, Message, SilentError
from hecompile.runtime.key_folders import ExactCard
from hecompile.runtime.keycard import KeyCard, Role
from hecompile.runtime.processes import EvaluatorProcess
from hecompile.runtime.sandbox import CPU_SECONDS, LEAST_MEMORY, Limits
from tests.attacks.senders import IDENTITIES, Pieces, World, make_world
from tests.encrypted.runtime_programs import MEDIUM, matrix_program

LIMITS = Limits(memory=1 << 30, cpu=60)
SIZE = 64


def contents(program: Program) -> tuple[bytes, bytes]:
    buffer = io.BytesIO()
    arrays = {symbol: constant.array for symbol, constant in program.constants.items()}
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return print_program(program).encode(), buffer.getvalue()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("world"))
    world.ring.save(world.folder / "keys", [Role.EVALUATION])
    return world


@pytest.fixture
def world(base: World, tmp_path: Path) -> World:
    (tmp_path / "keys").symlink_to(base.folder / "keys")
    return replace(base, folder=tmp_path)


def started(world: World, limits: Limits = LIMITS, timeout: float = 100) -> EvaluatorProcess:
    keys = world.folder / "keys" / "evaluation"
    return EvaluatorProcess(
        *contents(world.program),
        world.spec,
        keys,
        timeout=timeout,
        identity=IDENTITIES["cloud"],
        inspector=world.inspector(),
        limits=limits,
        cards=ExactCard(sha256_bytes((keys / KeyCard.FILE).read_bytes())),
    )


def limits_of(process: EvaluatorProcess) -> Iterator[tuple[str, str, str]]:
    text = Path(f"/proc/{process._process.pid}/limits").read_text()
    for line in text.splitlines()[1:]:
        yield line[:26].strip(), line[26:47].strip(), line[47:68].strip()


def test_the_kernel_keeps_the_limits(world: World) -> None:
    with started(world) as process:
        found = {name: (soft, hard) for name, soft, hard in limits_of(process)}
        memory = str(LIMITS.memory)
        assert found["Max address space"] == (memory, memory)
        assert found["Max file size"] == (memory, memory)
        assert found["Max cpu time"] == ("60", "65")
        assert found["Max open files"] == ("1024", "1024")
        assert found["Max core file size"] == ("0", "0")
        output = process.evaluate(world.input(), lambda request: request)
    assert Pieces.of(output).header["user"] == "cloud"


def test_a_process_that_needs_too_much_memory_says_so(tmp_path: Path) -> None:
    """63 Galois keys of 2.6 MB and as many encoded diagonals do not fit beside the interpreter."""
    matrix = np.random.default_rng(0).standard_normal((SIZE, SIZE))
    world = make_world(tmp_path, matrix_program(matrix, np.ones(SIZE), MEDIUM))
    world.ring.save(tmp_path / "keys", [Role.EVALUATION])
    with (
        pytest.raises(HecompileError, match="more memory than its limit of 256 MiB") as caught,
        started(world, Limits(LEAST_MEMORY, 60)),
    ):
        pass
    assert "--memory-limit" in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_process_that_computes_for_too_long_says_so(world: World) -> None:
    def forever(process: EvaluatorProcess) -> None:
        for _ in range(500):
            process.evaluate(world.input(), lambda request: request)

    with (
        pytest.raises(HecompileError, match="more than its limit of 1 processor seconds") as caught,
        started(world, Limits(1 << 30, 1)) as process,
    ):
        forever(process)
    assert "--cpu-limit" in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_stopped_process_is_not_waited_for(world: World) -> None:
    """It uses no processor time, so that no limit of the kernel ends it."""
    numbers = []

    def evaluate_stopped() -> None:
        with started(world, timeout=5) as process:
            numbers.append(process._process.pid)
            os.kill(numbers[0], signal.SIGSTOP)
            process.evaluate(world.input(), lambda request: request)

    began = time.monotonic()
    with pytest.raises(HecompileError, match="did not finish within 5 seconds") as caught:
        evaluate_stopped()
    assert 5 <= time.monotonic() - began < 15
    assert "--timeout" in str(caught.value)
    assert caught.value.exit_code == 1
    assert not Path(f"/proc/{numbers[0]}").exists()


def test_a_process_that_keeps_talking_is_not_waited_for(world: World) -> None:
    """A worker that was taken over reports progress for ever."""

    def talk(descriptor: int) -> None:
        message = struct.pack("<BQ", Message.PROGRESS, 2) + b"{}"
        with contextlib.suppress(BrokenPipeError):
            while True:
                os.write(descriptor, message)

    read, write = os.pipe()
    other_read, other_write = os.pipe()
    thread = threading.Thread(target=talk, args=(write,))
    channel = Channel(read, other_write)
    channel.deadline = time.monotonic() + 0.2
    thread.start()

    def listen() -> None:
        while True:
            assert channel.receive() == (Message.PROGRESS, b"{}")

    try:
        with pytest.raises(SilentError, match="not finished in time"):
            listen()
    finally:
        os.close(read)
        thread.join()
        for descriptor in (write, other_read, other_write):
            os.close(descriptor)


def test_a_denied_envelope_does_not_come_to_the_process(world: World) -> None:
    with started(world) as process:
        sent: list[object] = []
        process._channel.send = lambda *message: sent.append(message)  # type: ignore[method-assign]
        with pytest.raises(AccessDeniedError, match="'rene' may not submit input:x"):
            process.evaluate(world.input("rene"), lambda request: request)
        assert not sent
        process.kill()
    assert [entry["decision"] for entry in world.decisions()] == ["deny"]


def test_the_process_does_not_know_the_signing_key(world: World) -> None:
    key = IDENTITIES["cloud"].key.private
    secret = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    looked_for = {b"hecompile.runtime.worker", secret}
    with started(world) as process:
        process.evaluate(world.input(), lambda request: request)
        found = set()
        place = Path("/proc") / str(process._process.pid)
        with (place / "maps").open() as maps, (place / "mem").open("rb", 0) as memory:
            for line in maps:
                span, modes, *_ = line.split()
                if not modes.startswith("rw") or "[v" in line:
                    continue
                start, end = (int(part, 16) for part in span.split("-"))
                memory.seek(start)
                content = memory.read(end - start)
                found |= {text for text in looked_for if text in content}
    assert found == {b"hecompile.runtime.worker"}


def test_limits_under_which_nothing_starts_are_refused() -> None:
    for memory, cpu in ((LEAST_MEMORY - 1, 10), (1 << 30, 0)):
        with pytest.raises(UsageError):
            Limits(memory, cpu)
    with pytest.raises(UsageError, match="three numbers"):
        Limits.from_words(["1", "x"])
    predicted = Limits.predicted(1 << 30, 2)
    assert predicted == Limits(3 << 30, 3 * CPU_SECONDS)
    assert Limits.from_words(list(predicted.words)) == predicted
    machine = Limits.of_machine()
    assert machine.memory > LEAST_MEMORY
    assert machine.cpu is None
    assert Limits.from_words(list(machine.words)) == machine
