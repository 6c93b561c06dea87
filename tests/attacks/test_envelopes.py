"""Attacks on envelopes at the evaluator's gate: each is refused before SEAL loads a byte."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hecompile.access.identity import generate_identity
from hecompile.access.records import canonical_json
from hecompile.cli.hectfile import read_parts, write_parts
from hecompile.errors import AccessDeniedError, IntegrityError
from hecompile.files import sha256_bytes
from hecompile.runtime.envelope import envelope_limit, seal_envelope, signed_text
from hecompile.runtime.evaluator import Evaluator
from hecompile.runtime.framing import PREFIX_BYTES
from hecompile.runtime.gateway import Gateway
from hecompile.runtime.header import MAX_HEADER_BYTES, Header, Kind
from hecompile.runtime.inspection import CLOCK_TOLERANCE, utc_now
from tests.attacks.senders import (
    IDENTITIES,
    Pieces,
    World,
    at,
    forbid_seal,
    make_world,
    random_ciphertext,
)
from tests.encrypted.runtime_programs import polynomial_program, refresh_program

ANNA = IDENTITIES["anna"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(base: World, tmp_path: Path) -> World:
    """The program and keys of all tests, with a log and a state of this test's own."""
    return replace(base, folder=tmp_path)


@pytest.fixture(scope="module")
def envelope(base: World) -> bytes:
    return base.input()


@pytest.fixture(scope="module")
def opened(base: World) -> Evaluator:
    """Loaded once; its inspector is exchanged by `start`."""
    return base.evaluator()


def start(opened: Evaluator, world: World, data: bytes, **more: Any) -> object:
    opened.inspector = world.inspector(**more)
    return opened.start(data)


def changed(**header: Any) -> Callable[[bytes], bytes]:
    """The header says something else, and is signed by anna, who may submit."""
    return lambda data: Pieces.of(data).with_header(**header).joined(ANNA)


def unsigned(data: bytes) -> bytes:
    return replace(Pieces.of(data).with_header(user="", signer=""), signature=bytes(64)).joined()


def by_a_stranger(data: bytes) -> bytes:
    other = generate_identity("anna")
    return Pieces.of(data).with_header(signer=other.keyid).joined(other)


def by_another_user_s_key(data: bytes) -> bytes:
    return Pieces.of(data).with_header(signer=IDENTITIES["rene"].keyid).joined(IDENTITIES["rene"])


def in_another_user_s_name(data: bytes) -> bytes:
    return Pieces.of(data).with_header(user="cloud").joined(ANNA)


def claiming_a_key(data: bytes) -> bytes:
    """Signed by rene, who says that it is anna's key."""
    return Pieces.of(data).joined(IDENTITIES["rene"])


def with_a_zero_signature(data: bytes) -> bytes:
    return replace(Pieces.of(data), signature=bytes(64)).joined()


def with_another_type_signed(data: bytes) -> bytes:
    """The header alone is signed, without the type that says what it is."""
    pieces = Pieces.of(data)
    text = canonical_json(pieces.header)
    return replace(pieces, signature=ANNA.key.private.sign(text)).joined()


REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no signature": (unsigned, "is not signed"),
    "unknown signer": (by_a_stranger, "which is no user's in version 1"),
    "swapped name": (in_another_user_s_name, "says that it is from 'cloud'"),
    "swapped key": (by_another_user_s_key, "says that it is from 'anna'"),
    "claimed key": (claiming_a_key, "does not match its signature by user 'anna'"),
    "zero signature": (with_a_zero_signature, "does not match its signature"),
    "signature of something else": (with_another_type_signed, "does not match its signature"),
    "other program": (changed(program="0" * 64), "is for program 000000000000"),
    "other manifest": (changed(manifest="0" * 64), "is for the bundle of manifest 000000000000"),
    "no manifest": (changed(manifest=""), "is for a program without a bundle"),
    "other key": (changed(key_id="0" * 64), "were encrypted under key 000000000000"),
    "other kind": (changed(kind="output"), "is of kind output, where input"),
    "other round": (changed(round=1), "is of refresh round 1, where 0"),
    "too many samples": (changed(samples=2), "states 2 samples, where the program packs 1"),
    "expired": (changed(expires="2025-01-01T00:00:00Z"), "has expired at 2025-01-01"),
    "of the future": (
        changed(created="2999-01-01T00:00:00Z", expires="2999-01-01T01:00:00Z"),
        "which is in the future",
    ),
    "too long a life": (changed(expires="2999-01-01T00:00:00Z"), "longer than the 86400 seconds"),
    "bytes at the end": (lambda data: data + b"\0", "bytes that belong to no ciphertext"),
    "ciphertext twice": (
        lambda data: data + Pieces.of(data).body,
        "bytes that belong to no ciphertext",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_forgeries_are_refused_before_seal_sees_a_byte(
    name: str, world: World, envelope: bytes, opened: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge, message = REFUSED[name]
    forbid_seal(monkeypatch)
    with pytest.raises(IntegrityError, match=message):
        start(opened, world, forge(envelope))
    # Nothing was used up: the honest envelope is still taken.
    monkeypatch.undo()
    start(opened, world, envelope)


@pytest.mark.parametrize("user", ["rene", "cloud", "vault"])
def test_a_user_who_may_not_submit_is_denied_and_logged_once(
    user: str, world: World, opened: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = world.input(user)
    forbid_seal(monkeypatch)
    with pytest.raises(AccessDeniedError, match=f"'{user}' may not submit input:x"):
        start(opened, world, data)
    [entry] = world.decisions()
    assert (entry["decision"], entry["user"], entry["action"]) == ("deny", user, "submit")
    assert not world.state.exists()


def test_whoever_is_taken_is_logged_with_the_envelope_s_digest(
    world: World, envelope: bytes, opened: Evaluator
) -> None:
    start(opened, world, envelope)
    [entry] = world.decisions()
    assert (entry["decision"], entry["user"]) == ("allow", "anna")
    assert entry["digests"] == [sha256_bytes(canonical_json(Pieces.of(envelope).header))]


def test_a_replay_is_refused(
    world: World, envelope: bytes, opened: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(opened, world, envelope)
    forbid_seal(monkeypatch)
    with pytest.raises(IntegrityError, match="received before"):
        start(opened, world, envelope)


def test_a_nonce_is_remembered_by_the_next_process_too(world: World, envelope: bytes) -> None:
    gateway = Gateway(world.spec, world.ring.key_id, None, world.inspector())
    gateway.take(gateway.check_input(envelope))
    again = Gateway(world.spec, world.ring.key_id, None, world.inspector())
    with pytest.raises(IntegrityError, match="received before"):
        again.take(again.check_input(envelope))


def test_clocks_may_differ_by_minutes(world: World, envelope: bytes, opened: Evaluator) -> None:
    before = utc_now() - CLOCK_TOLERANCE
    with pytest.raises(IntegrityError, match="in the future"):
        start(opened, world, envelope, now=at(before - timedelta(seconds=60)))
    start(opened, world, envelope, now=at(before + timedelta(seconds=60)))


def test_an_envelope_expires(world: World, opened: Evaluator) -> None:
    data = world.input(lifetime=60)
    with pytest.raises(IntegrityError, match="has expired"):
        start(opened, world, data, now=at(utc_now() + timedelta(seconds=61)))


def test_every_boundary_s_truncation_is_refused(
    world: World, envelope: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_seal(monkeypatch)
    gateway = Gateway(world.spec, world.ring.key_id, None, world.inspector())
    head = len(envelope) - len(Pieces.of(envelope).body)
    boundaries = [0, 4, 6, PREFIX_BYTES, head - 64, head, head + 20, len(envelope) - 1]
    for length in (*boundaries, *range(0, head, 11), *range(head, len(envelope), 4099)):
        with pytest.raises(IntegrityError):
            gateway.check_input(envelope[:length])
    assert not world.state.exists()


def test_a_ciphertext_of_another_program_in_an_honest_header_is_refused(
    world: World, envelope: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_world(tmp_path / "other", polynomial_program(np.ones(5)))
    foreign = other.client().encrypt({"x": np.ones((1, 5))})[0]
    forbid_seal(monkeypatch)
    gateway = Gateway(world.spec, world.ring.key_id, None, world.inspector())
    with pytest.raises(IntegrityError, match="is for program"):
        gateway.check_input(foreign)
    spliced = replace(Pieces.of(envelope), body=Pieces.of(foreign).body)
    with pytest.raises(IntegrityError):
        gateway.check_input(spliced.joined())


def refresh_parts(world: World, kind: Kind, user: str) -> tuple[bytes, Header]:
    """A refresh message in the right form, of random residues, signed by a user."""
    (round_,) = world.spec.refreshes
    contract = round_.response if kind is Kind.REFRESH_RESPONSE else round_.request
    blobs = [random_ciphertext(world.spec.parameters, cipher) for cipher in contract]
    header = Header(
        kind, world.spec.program, world.ring.key_id, "a" * 32, 1, round_.group, world.spec.manifest
    )
    return seal_envelope(header, contract, blobs, IDENTITIES[user]), header


@pytest.fixture(scope="module")
def refreshing(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("refreshing"), refresh_program())


@pytest.mark.parametrize(
    ("user", "kind", "allowed"),
    [
        ("vault", Kind.REFRESH_RESPONSE, True),
        ("anna", Kind.REFRESH_RESPONSE, False),
        ("cloud", Kind.REFRESH_RESPONSE, False),
    ],
)
def test_only_who_may_refresh_answers(
    user: str, kind: Kind, allowed: bool, refreshing: World, tmp_path: Path
) -> None:
    world = replace(refreshing, folder=tmp_path)
    gateway = Gateway(world.spec, world.ring.key_id, None, world.inspector())
    data, header = refresh_parts(world, kind, user)
    if allowed:
        assert gateway.check_response(data, header.session).user == user
        with pytest.raises(IntegrityError, match="belongs to another evaluation"):
            gateway.check_response(data, "b" * 32)
    else:
        with pytest.raises(AccessDeniedError, match=f"'{user}' may not refresh program"):
            gateway.check_response(data, header.session)


def test_a_request_is_no_response(refreshing: World, tmp_path: Path) -> None:
    world = replace(refreshing, folder=tmp_path)
    gateway = Gateway(world.spec, world.ring.key_id, None, world.inspector())
    data, header = refresh_parts(world, Kind.REFRESH_REQUEST, "vault")
    with pytest.raises(IntegrityError, match="of kind refresh-request"):
        gateway.check_response(data, header.session)


def test_the_process_cannot_have_anything_signed(refreshing: World, tmp_path: Path) -> None:
    """A worker that was taken over gets no signature for what the program does not make."""
    world = replace(refreshing, folder=tmp_path)
    gateway = Gateway(world.spec, world.ring.key_id, IDENTITIES["cloud"], world.inspector())
    data, header = refresh_parts(world, Kind.REFRESH_RESPONSE, "vault")
    with pytest.raises(IntegrityError, match="is of kind refresh-response; nothing was sent"):
        gateway.sign(data, header)
    request, _ = refresh_parts(world, Kind.REFRESH_REQUEST, "vault")
    with pytest.raises(IntegrityError, match="belongs to another evaluation"):
        gateway.sign(request, replace(header, session="b" * 32))
    signed = gateway.sign(request, header)
    assert Pieces.of(signed).header["user"] == "cloud"


def test_what_is_too_large_is_not_read(world: World, tmp_path: Path) -> None:
    """A file of 8 GiB that claims to hold one envelope: nothing of it comes into memory."""
    path = tmp_path / "in.hect"
    limit = envelope_limit(world.spec.parameters, world.spec.input_ciphertexts)
    write_parts(path, [b""])
    prefix = path.read_bytes()[:PREFIX_BYTES]
    for size in (8 << 30, limit + 1):
        with path.open("wb") as stream:
            stream.write(prefix + size.to_bytes(8, "little"))
            stream.truncate(PREFIX_BYTES + 8 + size)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(IntegrityError, match=f"more than the {limit} that it may have"):
            read_parts(path, limit)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10
    path.write_bytes(prefix + (1 << 20).to_bytes(8, "little") + bytes(100))
    with pytest.raises(IntegrityError, match="cut off or damaged"):
        read_parts(path, limit)


def test_a_header_beyond_its_limit_is_not_parsed(world: World, envelope: bytes) -> None:
    gateway = Gateway(world.spec, world.ring.key_id, None, world.inspector())
    length = (MAX_HEADER_BYTES + 1).to_bytes(4, "little")
    for data in (
        envelope[:6] + length + envelope[PREFIX_BYTES:],
        envelope[:6] + b"\xff\xff\xff\xff" + envelope[PREFIX_BYTES:],
        envelope[:6] + length + b"[" * (MAX_HEADER_BYTES + 100),
    ):
        with pytest.raises(IntegrityError):
            gateway.check_input(data)


def test_an_honest_envelope_passes_after_all_that(
    world: World, envelope: bytes, opened: Evaluator
) -> None:
    evaluation = start(opened, world, envelope)
    assert evaluation.advance() is None  # type: ignore[attr-defined]
    output = evaluation.output()  # type: ignore[attr-defined]
    assert Pieces.of(output).header["user"] == "cloud"


def test_checking_and_signing_take_milliseconds(world: World, envelope: bytes) -> None:
    """What signatures add: measured without the ciphertexts' digests, and the fsync of a nonce."""
    pieces = Pieces.of(envelope)
    text = canonical_json(pieces.header)
    key, public = ANNA.key.private, ANNA.key.private.public_key()
    started = time.perf_counter()
    for _ in range(100):
        public.verify(key.sign(signed_text(text)), signed_text(text))
    assert (time.perf_counter() - started) / 100 < 0.005
