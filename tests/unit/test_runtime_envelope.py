from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest

from hecompile.errors import IntegrityError
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.envelope import (
    Envelope,
    Header,
    Kind,
    new_session,
    open_envelope,
    read_header,
    seal_envelope,
)
from hecompile.runtime.serial import ciphertext_limit
from hecompile.runtime.spec import CipherSpec

PARAMETERS = Parameters(4096, (36, 30, 40), 30)
CONTRACT = (CipherSpec("a", 8, 1, 2.0**30), CipherSpec("b", 8, 0, 2.0**30))
HEADER = Header(Kind.INPUT, "f" * 64, "0" * 64, new_session(), 3, manifest="3" * 64)
BLOBS = (os.urandom(500), os.urandom(300))


def reopen(data: bytes, expected: Header = HEADER) -> Envelope:
    return open_envelope(data, expected, CONTRACT, PARAMETERS, "the input")


def sealed() -> bytes:
    return seal_envelope(HEADER, CONTRACT, BLOBS)


def rewritten(**changes: Any) -> bytes:
    """The envelope with its header changed and everything else consistent."""
    data = sealed()
    length = int.from_bytes(data[6:10], "little")
    header = json.loads(data[10 : 10 + length])
    for path, value in changes.items():
        *places, last = path.split("__")
        target = header
        for place in places:
            target = target[int(place) if place.isdigit() else place]
        target[last] = value
    text = json.dumps(header).encode()
    return data[:6] + len(text).to_bytes(4, "little") + text + data[10 + length :]


def test_round_trip() -> None:
    opened = reopen(sealed())
    assert opened == Envelope(HEADER, BLOBS)
    assert read_header(sealed()) == HEADER


def test_two_envelopes_of_one_content_differ() -> None:
    assert sealed() != sealed()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": Kind.OUTPUT}, "is of kind input, where output is needed"),
        ({"program": "e" * 64}, "is for program ffffffffffff..., not eeeeeeeeeeee..."),
        (
            {"key_id": "1" * 64},
            "were encrypted under key 000000000000..., not 111111111111...; use the keys",
        ),
        ({"session": new_session()}, "belongs to another evaluation"),
        ({"samples": 2}, "states 3 samples, where the program packs 2"),
        ({"round": 1}, "refresh round 0, where 1 is needed"),
        (
            {"manifest": "2" * 64},
            "bundle of manifest 333333333333..., not the bundle of manifest 222222222222...",
        ),
        ({"manifest": ""}, "not a program without a bundle"),
    ],
)
def test_another_envelope_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(IntegrityError, match=message.replace("...", r"\.\.\.")) as caught:
        reopen(sealed(), replace(HEADER, **changes))
    assert caught.value.exit_code == 4


def test_an_empty_session_takes_any() -> None:
    assert reopen(sealed(), replace(HEADER, session="")).header == HEADER


def test_every_truncation_is_refused() -> None:
    data = sealed()
    for length in range(0, len(data), 7):
        with pytest.raises(IntegrityError):
            reopen(data[:length])


def test_every_flipped_byte_is_refused_or_names_nothing_that_matters() -> None:
    data = sealed()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x15
        try:
            opened = reopen(bytes(changed))
        except IntegrityError:
            continue
        # Only the time, the nonce and letters of them are not compared with anything.
        assert opened == Envelope(HEADER, BLOBS)


def test_bytes_at_the_end_are_refused() -> None:
    with pytest.raises(IntegrityError, match="belong to no ciphertext"):
        reopen(sealed() + b"x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ciphertexts": []}, "does not hold the 2 ciphertexts"),
        ({"ciphertexts__0__name": "c"}, "does not hold the 2 ciphertexts"),
        ({"ciphertexts__0__level": 0}, "level must be 1 for a"),
        ({"ciphertexts__0__size": 0}, "size must be a whole number not below 1"),
        ({"ciphertexts__0__size": 10**12}, "more than a ciphertext at level 1 has"),
        ({"ciphertexts__1__size": 301}, "cut off in b"),
        ({"ciphertexts__1__sha256": "0" * 64}, "b does not match its SHA-256"),
        ({"samples": 0}, "samples must be"),
        ({"kind": "gift"}, "kind must be one of"),
        ({"session": "../x"}, "session must be 32 hexadecimal digits"),
        ({"session": "A" * 32}, "session must be 32 hexadecimal digits"),
        ({"session": ""}, "session must be 32 hexadecimal digits"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_headers_are_read_strictly(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        reopen(rewritten(**changes))


def test_sizes_are_bounded_before_bytes_are_taken() -> None:
    limit = ciphertext_limit(PARAMETERS, 1)
    assert PARAMETERS.ciphertext_bytes(1) < limit < 1.1 * PARAMETERS.ciphertext_bytes(1)


@pytest.mark.parametrize("data", [b"", b"HECE", b"PK\x03\x04" + bytes(40), bytes(100)])
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="not an envelope"):
        reopen(data)


def test_a_newer_format_is_refused() -> None:
    data = sealed()
    with pytest.raises(IntegrityError, match="format version 2"):
        reopen(data[:4] + (2).to_bytes(2, "little") + data[6:])
