"""Attacks on files of several envelopes: a bad one uses none of the others up, nor the memory."""

from __future__ import annotations

import itertools
import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hecompile.cli.hectfile import MAGIC, MAX_COUNT, VERSION, read_parts, write_parts
from hecompile.errors import AccessDeniedError, InputError, IntegrityError
from hecompile.runtime.custodian import Custodian
from hecompile.runtime.envelope import envelope_limit
from hecompile.runtime.evaluation import Evaluation
from hecompile.runtime.framing import PREFIX_BYTES, pack_prefix
from hecompile.runtime.gateway import Gateway
from hecompile.runtime.header import Header
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import secret_key
from tests.attacks.senders import IDENTITIES, World, make_world
from tests.encrypted.runtime_programs import refresh_program

PARTS = 12_000
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(base: World, tmp_path: Path) -> World:
    return replace(base, folder=tmp_path)


@pytest.fixture(scope="module")
def refreshing(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("refreshing"), refresh_program())


def headers_of(gateway: Gateway, parts: list[bytes]) -> list[Header]:
    return [header for _, header in gateway.check_inputs(parts)]


def test_a_replay_uses_none_of_its_batch_up(world: World) -> None:
    """Somebody on the way adds an old envelope to a file of new ones."""
    gateway = world.gateway()
    old, *new = (world.input() for _ in range(4))
    gateway.take(gateway.check_input(old))
    for mixed in ([*new, old], [old, *new], [new[0], old, *new[1:]]):
        with pytest.raises(IntegrityError, match="received before"):
            gateway.take(*headers_of(gateway, mixed))
    gateway.take(*headers_of(world.gateway(), new))
    with pytest.raises(IntegrityError, match="received before"):
        gateway.take(*headers_of(gateway, new[:1]))


def test_a_copy_is_met_before_the_rest_is_read(world: World) -> None:
    envelope = world.input()
    # It would go on for ever.
    with pytest.raises(IntegrityError, match="came twice: number 2 is a copy"):
        list(world.gateway().check_inputs(itertools.repeat(envelope)))
    gateway = world.gateway()
    gateway.take(gateway.check_input(envelope))


def test_one_denied_sender_uses_none_of_the_batch_up(world: World) -> None:
    gateway, honest = world.gateway(), world.input()
    with pytest.raises(AccessDeniedError, match="'rene' may not submit"):
        headers_of(gateway, [honest, world.input("rene")])
    gateway.take(gateway.check_input(honest))


def waiting(world: World, count: int) -> list[tuple[Evaluation, bytes]]:
    """Evaluations that wait for a refresh, and their requests."""
    evaluator, found = world.evaluator(), []
    x = np.linspace(0.1, 1.0, 4)[None]
    for _ in range(count):
        evaluation = evaluator.start(world.client().encrypt({"x": x})[0])
        request = evaluation.advance()
        assert request is not None
        found.append((evaluation, request))
    return found


def custodian_of(world: World) -> Custodian:
    key = secret_key(world.ring.source(Role.SECRET))
    return Custodian(world.spec, key, identity=IDENTITIES["vault"], inspector=world.inspector())


def test_requests_are_answered_all_or_none(refreshing: World, tmp_path: Path) -> None:
    world = replace(refreshing, folder=tmp_path)
    (_, old), *running = waiting(world, 3)
    new = [request for _, request in running]
    custodian = custodian_of(world)
    custodian.refresh(old)
    for mixed, message in (
        ([*new, old], "received before"),
        ([*new, new[0]], "came twice: number 3 is a copy"),
        ([*new, old[:-1]], "cut off"),
    ):
        with pytest.raises(IntegrityError, match=message):
            custodian.refresh_all(mixed)
        assert custodian.rounds == 1
    answers = custodian.refresh_all(new)
    assert custodian.rounds == 3
    for (evaluation, _), answer in zip(running, answers, strict=True):
        evaluation.accept(answer)
        assert evaluation.advance() is None
    with pytest.raises(IntegrityError, match="received before"):
        custodian.refresh_all(new)


def sparse(path: Path, head: bytes, length: int, count: int) -> None:
    """A file of `count` parts of `length` bytes, the first of which begins with `head`."""
    lengths = length.to_bytes(8, "little") * count
    with path.open("wb") as stream:
        stream.write(pack_prefix(MAGIC, VERSION, count) + lengths + head)
        stream.truncate(PREFIX_BYTES + len(lengths) + count * length)


@pytest.mark.parametrize("copied", [False, True])
def test_a_file_of_many_parts_takes_the_memory_of_one(
    world: World, tmp_path: Path, copied: bool
) -> None:
    """Gigabytes of holes on the disk, after nothing or after an honest envelope."""
    path, envelope = tmp_path / "bomb.hect", world.input()
    limit = envelope_limit(world.spec.parameters, world.spec.input_ciphertexts)
    sparse(path, envelope if copied else b"", len(envelope), PARTS)
    assert path.stat().st_size > PARTS * 50_000
    assert path.stat().st_blocks * 512 < MEBIBYTE
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(IntegrityError, match="not an envelope"):
        list(world.gateway().check_inputs(read_parts(path, limit, PARTS * limit)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10
    # By default what one file may hold depends on the machine; here it is less.
    with pytest.raises(IntegrityError, match=f"more than the {MEBIBYTE} that this machine takes"):
        read_parts(path, limit, MEBIBYTE)
    assert not world.state.exists()


def test_as_many_bytes_as_the_machine_has_are_too_many(tmp_path: Path) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    path = tmp_path / "large.hect"
    sparse(path, b"", MEBIBYTE, memory // MEBIBYTE)
    with pytest.raises(IntegrityError, match="that this machine takes at a time"):
        read_parts(path, MEBIBYTE)


def test_the_number_of_parts_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "many.hect"
    for count in (MAX_COUNT + 1, (1 << 32) - 1):
        path.write_bytes(pack_prefix(MAGIC, VERSION, count) + bytes(100))
        with pytest.raises(IntegrityError, match=f"states {count} parts, more than the"):
            read_parts(path)
    sparse(path, b"", 0, MAX_COUNT)
    assert read_parts(path).count == MAX_COUNT


def test_parts_are_read_as_they_were_written(tmp_path: Path) -> None:
    path, parts = tmp_path / "in.hect", [b"one", b"", b"three"]
    write_parts(path, parts)
    found = read_parts(path)
    assert (found.count, list(found), list(found)) == (3, parts, [])
    with pytest.raises(InputError, match="cannot read"):
        read_parts(tmp_path / "none")


def test_a_file_that_grows_or_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.hect"
    # Larger than what the stream reads ahead.
    parts = [os.urandom(MEBIBYTE), os.urandom(MEBIBYTE)]
    for change in (-1, 1):
        size = write_parts(path, parts)
        found = read_parts(path)
        assert next(found) == parts[0]
        os.truncate(path, size + change)
        with pytest.raises(IntegrityError, match="cut off or damaged"):
            next(found)
