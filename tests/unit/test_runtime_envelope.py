"""The form of envelopes: what is read back, what is refused, and when a signature is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hecompile.access.identity import generate_identity
from hecompile.errors import IntegrityError
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.envelope import (
    Envelope,
    envelope_limit,
    open_envelope,
    read_header,
    seal_envelope,
)
from hecompile.runtime.header import Header, Kind, new_session
from hecompile.runtime.inspection import OpenInspector, admission_of
from hecompile.runtime.serial import ciphertext_limit
from hecompile.runtime.spec import CipherSpec
from tests.attacks.senders import Pieces, random_ciphertext

PARAMETERS = Parameters(4096, (36, 30, 40), 30)
CONTRACT = (CipherSpec("a", 8, 1, 2.0**30), CipherSpec("b", 8, 0, 2.0**30))
FIELDS = ("input:a", "input:b")
HEADER = Header(Kind.INPUT, "f" * 64, "0" * 64, new_session(), 3, manifest="3" * 64, purpose="care")
BLOBS = tuple(random_ciphertext(PARAMETERS, cipher) for cipher in CONTRACT)
ANNA = generate_identity("anna")


class Recorder(OpenInspector):
    """Knows one key, and notes what it was asked, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def signing_key(self, header: Header, what: str) -> Ed25519PublicKey | None:
        self.asked.append("key")
        return ANNA.key.private.public_key()

    def admit(self, header: Header, what: str) -> None:
        self.asked.append("admit")

    def consume(self, headers: Sequence[Header], what: str) -> None:
        self.asked.append("consume")


def reopen(
    data: bytes, expected: Header = HEADER, admission: Recorder | OpenInspector | None = None
) -> Envelope:
    return open_envelope(
        data,
        expected,
        CONTRACT,
        PARAMETERS,
        "the input",
        admission=admission or OpenInspector(),
        fields=FIELDS,
    )


def sealed() -> bytes:
    return seal_envelope(HEADER, CONTRACT, BLOBS, ANNA, fields=FIELDS)


def rewritten(**changes: Any) -> bytes:
    """The envelope with its header changed and everything else consistent."""
    pieces = Pieces.of(sealed())
    for path, value in changes.items():
        *places, last = path.split("__")
        target: Any = pieces.header
        for place in places:
            target = target[int(place) if place.isdigit() else place]
        target[last] = value
    return pieces.joined(ANNA)


def stated(header: Header) -> Header:
    """What was asked to be sealed, without what sealing adds."""
    return replace(header, user="", signer="", created="", expires="", nonce="", digest="")


def test_round_trip() -> None:
    admission = Recorder()
    opened = reopen(sealed(), admission=admission)
    assert (stated(opened.header), opened.ciphertexts) == (HEADER, BLOBS)
    assert (opened.header.user, opened.header.signer) == ("anna", ANNA.keyid)
    assert admission.asked == ["key", "admit", "consume"]
    assert stated(read_header(sealed())) == HEADER


def test_two_envelopes_of_one_content_differ() -> None:
    first, second = read_header(sealed()), read_header(sealed())
    assert first.nonce != second.nonce
    assert first.digest != second.digest


def test_a_lifetime_is_stated() -> None:
    data = seal_envelope(HEADER, CONTRACT, BLOBS, lifetime=60)
    created, expires = read_header(data).span
    assert (expires - created).total_seconds() == 60


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
    admission = Recorder()
    with pytest.raises(IntegrityError, match=message.replace("...", r"\.\.\.")) as caught:
        reopen(sealed(), replace(HEADER, **changes), admission)
    assert caught.value.exit_code == 4
    assert not admission.asked


def test_an_empty_session_takes_any() -> None:
    assert stated(reopen(sealed(), replace(HEADER, session="")).header) == HEADER


def test_every_truncation_is_refused() -> None:
    data = sealed()
    boundaries = {0, 4, 6, 10, len(data) - 1, len(data) - len(BLOBS[1])}
    for length in sorted(boundaries | set(range(0, 2000, 7)) | set(range(0, len(data), 5003))):
        with pytest.raises(IntegrityError):
            reopen(data[:length])


def test_every_flipped_byte_of_the_head_is_refused() -> None:
    data, admission = sealed(), Recorder()
    for place in range(len(data) - sum(map(len, BLOBS))):
        changed = bytearray(data)
        changed[place] ^= 0x15
        with pytest.raises(IntegrityError):
            reopen(bytes(changed), admission=admission)
    assert "admit" not in admission.asked


def test_a_refused_ciphertext_uses_nothing_up() -> None:
    admission = Recorder()
    changed = bytearray(sealed())
    changed[-1] ^= 1
    with pytest.raises(IntegrityError, match="b does not match its SHA-256"):
        reopen(bytes(changed), admission=admission)
    assert admission.asked == ["key", "admit"]


def test_bytes_at_the_end_are_refused() -> None:
    with pytest.raises(IntegrityError, match="belong to no ciphertext"):
        reopen(sealed() + b"x")


def test_what_is_too_large_is_refused_unread() -> None:
    data = sealed() + bytes(envelope_limit(PARAMETERS, CONTRACT))
    with pytest.raises(IntegrityError, match="more than the program's ciphertexts take"):
        reopen(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ciphertexts": []}, "does not hold the 2 ciphertexts"),
        ({"ciphertexts__0__name": "c"}, "does not hold the 2 ciphertexts"),
        ({"ciphertexts__0__field": "input:b"}, "field must be input:a for a"),
        ({"ciphertexts__0__level": 0}, "level must be 1 for a"),
        ({"ciphertexts__0__size": 0}, "size must be a whole number not below 1"),
        ({"ciphertexts__0__size": 10**12}, "size must be"),
        ({"ciphertexts__1__size": 301}, "size must be"),
        ({"ciphertexts__1__sha256": "0" * 64}, "b does not match its SHA-256"),
        ({"samples": 0}, "samples must be"),
        ({"samples": True}, "samples must be"),
        ({"kind": "gift"}, "kind must be one of"),
        ({"session": "../x"}, "session must be 32 hexadecimal digits"),
        ({"session": "A" * 32}, "session must be 32 hexadecimal digits"),
        ({"session": ""}, "session must be 32 hexadecimal digits"),
        ({"nonce": "0" * 31}, "nonce must be 32 hexadecimal digits"),
        ({"signer": "x"}, "signer must be 64 hexadecimal digits"),
        ({"signer": ""}, "signer must be 64 hexadecimal digits"),
        ({"user": "x" * 129}, "at most 128 characters"),
        ({"purpose": "x" * 129}, "purpose must be at most 128 characters"),
        ({"purpose": "care\x1b[2J"}, "all of them printable"),
        ({"purpose": None}, "purpose must be text"),
        ({"program": "\x1b[2J"}, "program must be 64 hexadecimal digits"),
        ({"manifest": "x"}, "manifest must be 64 hexadecimal digits"),
        ({"key_id": "F" * 64}, "key_id must be 64 hexadecimal digits"),
        ({"created": "yesterday"}, "created must be a time"),
        ({"expires": "2999-01-01"}, "expires must be a time"),
        ({"expires": "2999-1-1T00:00:00Z"}, "expires must be a time"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"ex\x1b[2Jtra": 1}, r"unknown key 'ex\\x1b\[2Jtra'"),
    ],
)
def test_headers_are_read_strictly(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        reopen(rewritten(**changes))


def test_a_header_has_one_spelling() -> None:
    data = sealed()
    length = int.from_bytes(data[6:10], "little")
    text = data[10 : 10 + length].replace(b'{"ci', b'{ "ci', 1)
    spaced = data[:6] + len(text).to_bytes(4, "little") + text + data[10 + length :]
    with pytest.raises(IntegrityError, match="not written as hecompile writes it"):
        reopen(spaced)


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"Infinity", b"NaN"])
def test_numbers_that_are_not_finite_are_no_json(number: bytes) -> None:
    """1e400 is JSON, which a reader turns into an infinity that cannot be written back."""
    data, admission = sealed(), Recorder()
    length = int.from_bytes(data[6:10], "little")
    head, tail = data[10 : 10 + length], data[10 + length :]
    for old, new in (
        (b'"round":0', b'"round":' + number),
        (b'"samples":3', b'"samples":' + number),
        (b'"ciphertexts":[', b'"ciphertexts":[' + number + b","),
    ):
        assert old in head
        text = head.replace(old, new)
        text += b"" if text.endswith(b"}") else b"}"
        changed = data[:6] + len(text).to_bytes(4, "little") + text + tail
        with pytest.raises(IntegrityError, match="is not valid JSON"):
            reopen(changed, admission=admission)
    assert not admission.asked


def test_a_field_need_not_be_named_where_any_is_taken() -> None:
    opened = open_envelope(
        sealed(), HEADER, CONTRACT, PARAMETERS, "the input", admission=OpenInspector()
    )
    assert opened.ciphertexts == BLOBS


def test_a_program_of_a_bundle_needs_an_inspector() -> None:
    from hecompile.errors import UsageError

    assert isinstance(admission_of(None, ""), OpenInspector)
    with pytest.raises(UsageError, match="takes signed envelopes"):
        admission_of(None, "3" * 64)


def test_sizes_are_bounded_before_bytes_are_taken() -> None:
    limit = ciphertext_limit(PARAMETERS, 1)
    assert PARAMETERS.ciphertext_bytes(1) < limit < 1.1 * PARAMETERS.ciphertext_bytes(1)


@pytest.mark.parametrize("data", [b"", b"HECE", b"PK\x03\x04" + bytes(40), bytes(100)])
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="not an envelope"):
        reopen(data)


@pytest.mark.parametrize("version", [1, 3])
def test_another_format_is_refused(version: int) -> None:
    data = sealed()
    with pytest.raises(IntegrityError, match=f"format version {version}"):
        reopen(data[:4] + version.to_bytes(2, "little") + data[6:])
