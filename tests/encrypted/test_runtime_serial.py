"""SEAL's context and objects as bytes: what is not exactly as expected is refused, never loaded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal

from hecompile.errors import CompileError, IntegrityError, ProgramError
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.context import Context, library_versions, settle_scale
from hecompile.runtime.serial import (
    HEADER,
    ciphertext_from_bytes,
    ciphertext_limit,
    galois_keys_from_bytes,
    public_key_from_bytes,
    relin_keys_from_bytes,
    secret_key_from_bytes,
    to_bytes,
)

PARAMETERS = Parameters(4096, (36, 30, 40), 30)
SCALE = 2.0**30


@dataclass(frozen=True)
class Made:
    context: Context
    secret: Any
    objects: dict[str, bytes]
    readers: dict[str, Callable[[bytes], Any]]


@pytest.fixture(scope="module")
def made() -> Made:
    context = Context(PARAMETERS)
    generator = seal.KeyGenerator(context.seal)
    public = seal.PublicKey()
    generator.create_public_key(public)
    plain = context.encode(np.linspace(-1, 1, 2048), 1, SCALE)
    cipher = seal.Ciphertext()
    seal.Encryptor(context.seal, public).encrypt(plain, cipher)
    symmetric = seal.Encryptor(context.seal, generator.secret_key()).encrypt_symmetric(plain)
    element = context.galois_element(3)
    return Made(
        context,
        generator.secret_key(),
        {
            "ciphertext": to_bytes(cipher),
            "seeded ciphertext": to_bytes(symmetric),
            "secret key": to_bytes(generator.secret_key()),
            "public key": to_bytes(public),
            "relinearization key": to_bytes(generator.create_relin_keys()),
            "Galois key": to_bytes(generator.create_galois_keys([element])),
        },
        {
            "ciphertext": lambda d: ciphertext_from_bytes(context, d, 1, SCALE, what="it"),
            "seeded ciphertext": lambda d: ciphertext_from_bytes(context, d, 1, SCALE, what="it"),
            "secret key": lambda d: secret_key_from_bytes(context, d, "it"),
            "public key": lambda d: public_key_from_bytes(context, d, "it"),
            "relinearization key": lambda d: relin_keys_from_bytes(context, d, "it"),
            "Galois key": lambda d: galois_keys_from_bytes(context, d, 3, "it"),
        },
    )


KINDS = (
    "ciphertext",
    "seeded ciphertext",
    "secret key",
    "public key",
    "relinearization key",
    "Galois key",
)


def test_context_has_the_planned_primes_and_levels() -> None:
    for parameters in (PARAMETERS, Parameters(8192, (45, 30, 30, 30, 45), 30)):
        context = Context(parameters)
        assert len(context.parms_ids) == parameters.levels + 1
        assert context.seal.get_context_data(context.parms_ids[0]).chain_index() == 0
        for level in range(parameters.levels + 1):
            assert context.level_of(context.encode(1.0, level, SCALE)) == level
    assert library_versions().seal.count(".") == 1


def test_context_refuses_primes_that_seal_would_not_pick() -> None:
    class Shifted(Parameters):
        @property
        def primes(self) -> tuple[int, ...]:
            return (1, *super().primes[1:])

    with pytest.raises(CompileError, match="picks other primes"):
        Context(Shifted(4096, (36, 30, 40), 30))


def test_encoding_repeats_and_bounds() -> None:
    context = Context(PARAMETERS)
    decoded = context.decode(context.encode(np.arange(4.0), 1, SCALE))
    assert np.abs(decoded.reshape(-1, 4) - np.arange(4.0)).max() < 1e-5
    assert np.abs(context.decode(context.encode(np.full(8, 0.25), 0, SCALE)) - 0.25).max() < 1e-8
    for values, message in (
        (np.ones(3) * np.arange(3), "does not repeat"),
        (np.array([np.nan]), "NaN"),
        (1e12, "do not fit level 0"),
    ):
        with pytest.raises(ProgramError, match=message):
            context.encode(values, 0, SCALE)


def test_scales_are_settled_only_when_close() -> None:
    plain = Context(PARAMETERS).encode(1.0, 1, SCALE)
    settle_scale(plain, SCALE * (1 + 1e-7), "%x")
    assert plain.scale == SCALE * (1 + 1e-7)
    with pytest.raises(ProgramError, match="%x came out at scale"):
        settle_scale(plain, SCALE * 1.001, "%x")


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(made: Made, kind: str) -> None:
    made.readers[kind](made.objects[kind])


@pytest.mark.parametrize(
    "parameters",
    [
        Parameters(4096, (53, 53), 30),
        Parameters(8192, (40, 30, 30, 30, 30, 44), 30),
        Parameters(8192, (60, 40, 40, 60), 40),
        Parameters(16384, (45, *(30,) * 11, 45), 30),
    ],
)
def test_objects_of_every_size_pass_the_bounds(parameters: Parameters) -> None:
    context = Context(parameters)
    generator = seal.KeyGenerator(context.seal)
    public = seal.PublicKey()
    generator.create_public_key(public)
    secret_key_from_bytes(context, to_bytes(generator.secret_key()), "it")
    public_key_from_bytes(context, to_bytes(public), "it")
    relin_keys_from_bytes(context, to_bytes(generator.create_relin_keys()), "it")
    whole = seal.GaloisKeys()
    generator.create_galois_keys([context.galois_element(1)], whole)
    galois_keys_from_bytes(context, to_bytes(whole), 1, "it")
    encryptor = seal.Encryptor(context.seal, public)
    for level in range(parameters.levels + 1):
        cipher = seal.Ciphertext()
        encryptor.encrypt(context.encode(np.linspace(0, 1, 1024), level, SCALE), cipher)
        data = to_bytes(cipher)
        assert len(data) <= ciphertext_limit(parameters, level)
        ciphertext_from_bytes(context, data, level, SCALE, what="it")


def test_a_ciphertext_still_decrypts(made: Made) -> None:
    for kind in ("ciphertext", "seeded ciphertext"):
        plain = seal.Plaintext()
        value = made.readers[kind](made.objects[kind])
        seal.Decryptor(made.context.seal, made.secret).decrypt(value, plain)
        assert np.abs(made.context.decode(plain) - np.linspace(-1, 1, 2048)).max() < 1e-4
    assert len(made.objects["seeded ciphertext"]) < 0.55 * len(made.objects["ciphertext"])


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_bytes_are_refused(made: Made, kind: str) -> None:
    data = made.objects[kind]
    for length in (0, 5, 16, 17, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(IntegrityError, match="it "):
            made.readers[kind](data[:length])
        # The same with a header that agrees with the length.
        if length > 16:
            with pytest.raises(IntegrityError, match="it "):
                made.readers[kind](data[:8] + struct.pack("<Q", length) + data[16:length])


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_never_crash(made: Made, kind: str) -> None:
    rng = np.random.default_rng(1)
    data = made.objects[kind]
    refused = 0
    for _ in range(60):
        changed = bytearray(data)
        # The beginning holds sizes and identifiers; there SEAL has most to decide.
        end = 160 if rng.random() < 0.7 else len(data)
        for place in rng.integers(0, end, size=int(rng.integers(1, 4))):
            changed[place] = int(rng.integers(256))
        try:
            made.readers[kind](bytes(changed))
        except IntegrityError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("kind", KINDS)
def test_other_objects_are_refused(made: Made, kind: str) -> None:
    for other in KINDS:
        if "ciphertext" in kind and "ciphertext" in other:
            continue
        if other != kind:
            with pytest.raises(IntegrityError):
                made.readers[kind](made.objects[other])


def test_other_parameters_are_refused(made: Made) -> None:
    other = Context(Parameters(4096, (37, 29, 40), 30))
    with pytest.raises(IntegrityError, match="SEAL says"):
        ciphertext_from_bytes(other, made.objects["ciphertext"], 1, SCALE, what="it")
    with pytest.raises(IntegrityError, match="SEAL says"):
        secret_key_from_bytes(other, made.objects["secret key"], "it")


def test_level_scale_and_polynomials_must_match(made: Made) -> None:
    data = made.objects["ciphertext"]
    for level, scale, polynomials, message in (
        (0, SCALE, 2, "more than|does not unpack"),
        (1, SCALE * 1.01, 2, "has the scale"),
        (1, SCALE, 3, "not a ciphertext of 3 polynomials"),
    ):
        with pytest.raises(IntegrityError, match=message):
            ciphertext_from_bytes(made.context, data, level, scale, polynomials, what="it")


def test_a_transparent_ciphertext_is_refused(made: Made) -> None:
    zero = seal.Ciphertext(made.context.seal, made.context.parms_ids[1], 2)
    zero.resize(2)
    zero.scale = SCALE
    with pytest.raises(IntegrityError):
        ciphertext_from_bytes(made.context, to_bytes(zero), 1, SCALE, what="it")


def test_a_rotation_key_must_be_the_one_named(made: Made) -> None:
    with pytest.raises(IntegrityError, match="not the key of a rotation by 5"):
        galois_keys_from_bytes(made.context, made.objects["Galois key"], 5, "it")


def test_another_version_of_seal_is_named(made: Made) -> None:
    data = bytearray(made.objects["ciphertext"])
    data[3] += 1
    with pytest.raises(IntegrityError, match=r"was written by SEAL \d+\.\d+, but this is SEAL"):
        made.readers["ciphertext"](bytes(data))


def frame(blocks: bytes, stated: int = 130_000) -> bytes:
    """A SEAL object whose body is a zstd frame of the given blocks."""
    body = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", stated) + blocks
    own = seal.Serialization.SEALHeader()
    size = HEADER.size + len(body)
    return HEADER.pack(0xA15E, 16, own.version_major, own.version_minor, 2, 0, size) + body


def rle(size: int, last: bool = False) -> bytes:
    """A block of one repeated byte: four bytes that unpack to `size`."""
    return (int(last) | 1 << 1 | size << 3).to_bytes(3, "little") + b"\0"


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(made: Made) -> None:
    bomb = frame(rle(128 << 10) * 10_000 + rle(1, last=True))
    assert len(bomb) < ciphertext_limit(PARAMETERS, 1)
    for data in (bomb, frame(rle(1, last=True), stated=1 << 31), frame(rle(5)), frame(b"")):
        with pytest.raises(IntegrityError, match="does not unpack"):
            made.readers["ciphertext"](data)


def test_what_is_too_long_is_refused_unread(made: Made) -> None:
    with pytest.raises(IntegrityError, match="more than the"):
        made.readers["ciphertext"](bytes(ciphertext_limit(PARAMETERS, 1) + 1))
