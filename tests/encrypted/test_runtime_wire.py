"""Packed ciphertexts: exact, smaller than SEAL's files, and refused where anything is off."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from hecompile.errors import IntegrityError
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.wire import ciphertext_file_bytes
from hecompile.runtime import wire
from hecompile.runtime.context import Context
from hecompile.runtime.residues import (
    LayoutError,
    SlowWarning,
    load_residues,
    residue_access,
)
from hecompile.runtime.serial import ciphertext_from_bytes, ciphertext_limit, to_bytes

SCALE = 2.0**24


@pytest.fixture(scope="module")
def context() -> Context:
    """Primes of 3, 7 and 8 bytes; the same tests at 4 bytes run with every other ciphertext."""
    return Context(Parameters(8192, (22, 52, 60, 60), 24))


def random_ciphertext(context: Context, level: int, polynomials: int = 2) -> Any:
    random = np.random.default_rng(0)
    primes = context.parameters.data_primes[: level + 1]
    rows = [random.integers(0, p, size=(polynomials, 8192), dtype=np.uint64) for p in primes]
    residues = np.stack(rows, axis=1)
    residues[:, :, 0] = 0
    residues[:, :, -1] = np.array(primes, dtype=np.uint64) - np.uint64(1)
    return load_residues(context, residues, level, SCALE)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("polynomials", [2, 3])
def test_packed_ciphertexts_come_back_bit_by_bit(
    context: Context, level: int, polynomials: int
) -> None:
    value = random_ciphertext(context, level, polynomials)
    data = wire.ciphertext_bytes(context, value)
    assert len(data) == ciphertext_file_bytes(context.parameters, level, polynomials)
    assert len(data) <= ciphertext_limit(context.parameters, level, polynomials)
    assert len(data) < len(to_bytes(value)) or level == 2
    again = ciphertext_from_bytes(context, data, level, SCALE, polynomials, what="it")
    view = residue_access(context).view
    assert np.array_equal(view(again), view(value))
    assert (again.scale, again.parms_id()) == (value.scale, value.parms_id())


def test_residues_out_of_reach_are_asked_for_one_by_one(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(context: Context) -> None:
        raise LayoutError("no memory can be read")

    value = random_ciphertext(context, 1)
    quick = wire.ciphertext_bytes(context, value)
    monkeypatch.setattr(wire, "residue_access", refuse)
    with pytest.warns(SlowWarning):
        assert wire.ciphertext_bytes(context, value) == quick


@pytest.mark.parametrize(
    ("place", "bytes_", "message"),
    [
        (4, b"\x09\x00", "not a ciphertext"),
        (6, b"\x03", "not a ciphertext"),
        (7, b"\x03", "not a ciphertext"),
        (8, b"\x00\x10\x00\x00", "not a ciphertext"),
        (12, struct.pack("<d", 2.0**25), "scale"),
        (12, struct.pack("<d", float("nan")), "scale|no ciphertext"),
        (12, struct.pack("<d", -1.0), "scale|no ciphertext"),
        (20, b"\xff\xff\xff", "no ciphertext"),
    ],
)
def test_what_was_changed_is_refused(
    context: Context, place: int, bytes_: bytes, message: str
) -> None:
    data = bytearray(wire.ciphertext_bytes(context, random_ciphertext(context, 1)))
    data[place : place + len(bytes_)] = bytes_
    with pytest.raises(IntegrityError, match=message):
        ciphertext_from_bytes(context, bytes(data), 1, SCALE, what="it")


def test_what_is_cut_off_or_too_long_or_hides_nothing_is_refused(context: Context) -> None:
    data = wire.ciphertext_bytes(context, random_ciphertext(context, 1))
    head = 20 + len(data[20:]) // 2
    for bad in (data[:-1], data + b"\0", data[:4], data[:head] + bytes(len(data) - head)):
        with pytest.raises(IntegrityError):
            ciphertext_from_bytes(context, bad, 1, SCALE, what="it")
