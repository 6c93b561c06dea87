"""Ciphertexts and keys made to harm, signed by users who may send: SEAL never loads them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tenseal
import tenseal.sealapi as seal

from hecompile.errors import IntegrityError, ProgramError
from hecompile.numeric.wire import PACKED_HEADER
from hecompile.runtime.context import Context
from hecompile.runtime.gateway import Gateway
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import PUBLIC_FILE
from hecompile.runtime.residues import load_residues
from hecompile.runtime.secret_search import check_handed_over
from hecompile.runtime.serial import (
    ciphertext_from_bytes,
    public_key_from_bytes,
    secret_key_from_bytes,
)
from hecompile.runtime.stream import to_bytes
from tests.attacks.senders import IDENTITIES, Pieces, World, forbid_seal, make_world

_SCALE = PACKED_HEADER.size - 8


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(base: World, tmp_path: Path) -> World:
    return replace(base, folder=tmp_path)


@pytest.fixture(scope="module")
def honest(base: World) -> bytes:
    return base.input()


def with_scale(scale: float) -> Callable[[bytes], bytes]:
    return lambda body: body[:_SCALE] + struct.pack("<d", scale) + body[PACKED_HEADER.size :]


def with_bytes(place: int, found: bytes) -> Callable[[bytes], bytes]:
    return lambda body: body[:place] + found + body[place + len(found) :]


def only_zeros(body: bytes) -> bytes:
    return body[: PACKED_HEADER.size] + bytes(len(body) - PACKED_HEADER.size)


def in_the_clear(body: bytes) -> bytes:
    """The plaintext as first polynomial and nothing as second: it decrypts under every key."""
    half = (len(body) - PACKED_HEADER.size) // 2
    return body[: PACKED_HEADER.size + half] + bytes(half)


def seal_s_own_form(base: World, body: bytes) -> bytes:
    cipher = base.spec.input_ciphertexts[0]
    context = Context(base.spec.parameters)
    return to_bytes(
        ciphertext_from_bytes(context, body, cipher.level, cipher.scale, what="the honest one")
    )


CIPHERTEXTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "zeros": (only_zeros, "hides nothing"),
    "in the clear": (in_the_clear, "hides nothing"),
    "scale NaN": (with_scale(float("nan")), "has the scale nan"),
    "scale infinite": (with_scale(float("inf")), "has the scale inf"),
    "scale minus infinity": (with_scale(float("-inf")), "has the scale -inf"),
    "scale zero": (with_scale(0.0), "has the scale 0.0"),
    "scale negative": (with_scale(-(2.0**30)), "has the scale -"),
    "scale absurd": (with_scale(1e300), r"has the scale 1e\+300"),
    "scale denormal": (with_scale(5e-324), "has the scale 5e-324"),
    "scale of another level": (with_scale(2.0**31), "has the scale"),
    "magic": (with_bytes(0, b"\x5e\xa1\x10\x04"), "no ciphertext as hecompile writes it"),
    "version": (with_bytes(4, b"\x02\x00"), "is not a ciphertext of 2 polynomials"),
    "polynomials": (with_bytes(6, b"\xff"), "is not a ciphertext of 2 polynomials"),
    "primes": (with_bytes(7, b"\x01"), "is not a ciphertext of 2 polynomials at level 1"),
    "ring": (with_bytes(8, b"\xff\xff\xff\xff"), "is not a ciphertext of 2 polynomials"),
    "one byte more": (lambda body: body + b"\0", "size must be"),
    "one byte less": (lambda body: body[:-1], "size must be"),
    "empty": (lambda body: b"", "size must be a whole number not below 1"),
    "pickle": (lambda body: b"\x80\x04\x95" + body[3:], "no ciphertext as hecompile writes it"),
}


@pytest.mark.parametrize("name", CIPHERTEXTS)
def test_ciphertexts_are_parsed_before_seal_sees_them(
    name: str, world: World, honest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    harm, message = CIPHERTEXTS[name]
    pieces = Pieces.of(honest)
    data = pieces.with_body(harm(pieces.body)).joined(IDENTITIES["anna"])
    evaluator = world.evaluator()
    forbid_seal(monkeypatch)
    with pytest.raises(IntegrityError, match=message):
        evaluator.start(data)
    assert not world.state.exists()


def test_other_libraries_objects_are_no_ciphertexts(
    world: World, honest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEAL's own form, keys, and TenSEAL's unchecked protobufs with a secret key in them."""
    pieces = Pieces.of(honest)
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[36, 30, 40])
    context.global_scale = 2.0**30
    objects = (
        seal_s_own_form(world, pieces.body),
        world.ring.source(Role.PUBLIC).read(PUBLIC_FILE),
        secret_of(world),
        context.serialize(save_secret_key=True),
        tenseal.ckks_vector(context, [0.0] * 4).serialize(),
    )
    gateway = Gateway(world.spec, world.ring.key_id, None, world.inspector())
    forbid_seal(monkeypatch)
    size = len(pieces.body)
    for found in objects:
        for body in (found, found[:size].ljust(size, b"\0")):
            data = pieces.with_body(body).joined(IDENTITIES["anna"])
            with pytest.raises(IntegrityError):
                gateway.check_input(data)


def test_a_residue_beyond_its_prime_is_refused(
    world: World, honest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = Pieces.of(honest)
    body = with_bytes(PACKED_HEADER.size, b"\xff" * 5)(pieces.body)
    evaluator = world.evaluator()
    forbid_seal(monkeypatch)
    with pytest.raises(IntegrityError, match="a residue is not below its prime"):
        evaluator.start(pieces.with_body(body).joined(IDENTITIES["anna"]))


def test_a_ciphertext_of_another_key_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another key it would decrypt to garbage without an error."""
    other = make_world(tmp_path / "other", world.program)
    data = other.input()
    evaluator = world.evaluator()
    forbid_seal(monkeypatch)
    with pytest.raises(IntegrityError, match="were encrypted under key"):
        evaluator.start(data)


def test_an_honest_one_passes(world: World, honest: bytes) -> None:
    world.evaluator().start(honest)


def secret_of(world: World) -> bytes:
    """A raw secret key of the same parameters, as SEAL writes it."""
    context = Context(world.spec.parameters)
    return to_bytes(seal.KeyGenerator(context.seal).secret_key())


def test_a_secret_key_in_place_of_a_public_one_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = world.spec.parameters
    context = Context(parameters)
    secret = secret_of(world)
    made = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[36, 30, 40])
    public = world.ring.source(Role.PUBLIC).read(PUBLIC_FILE)
    secret_key_from_bytes(context, secret, "it")
    public_key_from_bytes(context, public, "it")
    forbid_seal(monkeypatch)
    for hostile in (secret, made.serialize(save_secret_key=True), b"", secret[:16]):
        with pytest.raises(IntegrityError):
            public_key_from_bytes(context, hostile, "it")
    with pytest.raises(IntegrityError):
        secret_key_from_bytes(context, public, "it")


@pytest.mark.parametrize("given", ["", "public", "evaluation", "secret"])
def test_keys_beside_the_secret_one_are_refused(given: str, tmp_path: Path, world: World) -> None:
    """A client or an evaluator is given its own folder, and none that the secret key lies in."""
    keys = tmp_path / "keys"
    world.ring.save(keys)
    with pytest.raises(IntegrityError, match="the secret key lies in"):
        check_handed_over(keys / given, Role.PUBLIC)
    link = tmp_path / "link"
    link.symlink_to(keys / given)
    with pytest.raises(IntegrityError, match="the secret key lies in"):
        check_handed_over(link, Role.PUBLIC)
    handed = tmp_path / "client"
    (keys / "public").rename(handed)
    check_handed_over(handed, Role.PUBLIC)


def test_zeros_that_seal_would_take_are_told_apart(world: World) -> None:
    """What the gate refuses is what the evaluator's own arithmetic refuses too."""
    residues = np.zeros((2, 2, 4096), dtype=np.uint64)
    with pytest.raises(ProgramError, match="transparent"):
        load_residues(Context(world.spec.parameters), residues, 1, 2.0**30)
