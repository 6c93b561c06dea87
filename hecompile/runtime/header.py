"""The header of an envelope: what the ciphertexts are for, who sends them, until when they hold."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from hecompile.access.records import Place, Record, canonical_json, parse_json
from hecompile.access.times import EXAMPLE, read_time
from hecompile.errors import HecompileError, IntegrityError
from hecompile.files import sha256_bytes
from hecompile.runtime.framing import PREFIX_BYTES, read_prefix
from hecompile.runtime.spec import UNBOUND

MAGIC: Final = b"HECE"
VERSION: Final = 2
SIGNATURE_BYTES: Final = 64
MAX_HEADER_BYTES: Final = 4 << 20
MAX_USER: Final = 128
MAX_PURPOSE: Final = 128
_FIELDS: Final = (
    "kind",
    "program",
    "manifest",
    "key_id",
    "session",
    "samples",
    "round",
    "created",
    "expires",
    "nonce",
    "signer",
    "user",
    "purpose",
    "ciphertexts",
)
_HEX_32: Final = re.compile(r"[0-9a-f]{32}")
_HEX_64: Final = re.compile(r"[0-9a-f]{64}")


class Kind(StrEnum):
    """What an envelope is for."""

    INPUT = "input"
    OUTPUT = "output"
    REFRESH_REQUEST = "refresh-request"
    REFRESH_RESPONSE = "refresh-response"
    MODEL = "model"


@dataclass(frozen=True)
class Header:
    """What the ciphertexts of an envelope are for, and who sends them.

    Attributes:
        kind: What they are.
        program: Identity of the program.
        key_id: Identifier of the key they are encrypted under.
        session: Identifier of one evaluation, chosen by the client.
        samples: Number of samples in them; the rest of the batch is padding.
        round: Group of the refresh; 0 for inputs and outputs.
        manifest: Digest of the manifest of the program's bundle; empty for a program in none.
        user: Who sends it; empty, like `signer`, where nobody signed.
        signer: Identifier of the key that signed.
        purpose: What it is sent for, as its sender states; empty for nothing stated.
        created: When it was sealed, RFC 3339 in UTC.
        expires: Until when it is taken.
        nonce: 32 hexadecimal digits, never used again.
        digest: SHA-256 of the header as it was read; empty for one that was not.
    """

    kind: Kind
    program: str
    key_id: str
    session: str
    samples: int
    round: int = 0
    manifest: str = UNBOUND
    user: str = ""
    signer: str = ""
    created: str = ""
    expires: str = ""
    nonce: str = ""
    digest: str = ""
    purpose: str = ""

    @property
    def span(self) -> tuple[datetime, datetime]:
        """When it was sealed, and until when it is taken.

        Raises:
            IntegrityError: It does not say so.
        """
        created, expires = read_time(self.created), read_time(self.expires)
        if created is None or expires is None:
            raise IntegrityError("an envelope does not say when it was made; get a fresh copy.")
        return created, expires


class Batch:
    """Envelopes that are taken together, all or none.

    A copy of one is refused as soon as it is met, so that nobody fills the memory of whoever reads
    a batch with copies of an envelope that another signed.
    """

    def __init__(self, what: str) -> None:
        """Begin a batch of envelopes that messages call `what`."""
        self._what = what
        self._nonces: set[str] = set()

    def add(self, header: Header) -> Header:
        """Take note of an envelope that was checked; return its header.

        Raises:
            IntegrityError: A copy of it is in the batch.
        """
        if header.nonce in self._nonces:
            raise IntegrityError(
                f"{self._what} came twice: number {len(self._nonces) + 1} is a copy of an earlier"
                " one; nothing was taken, leave the copy out."
            )
        self._nonces.add(header.nonce)
        return header


def new_session() -> str:
    """A fresh identifier of an evaluation, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def read_session(record: Record) -> str:
    """The identifier of an evaluation in a header.

    Raises:
        HecompileError: As the record complains: it does not look like one of `new_session`.
    """
    return _hexadecimal(record, "session", _HEX_32, "32")


@dataclass(frozen=True)
class Parts:
    """An envelope taken apart: nothing of it is believed yet, and no ciphertext looked at.

    Attributes:
        header: What its header says.
        record: The header's fields, the list of ciphertexts among them.
        text: The header's bytes.
        signature: The bytes in the signature's place.
    """

    header: Header
    record: Record
    text: bytes
    signature: bytes

    @property
    def end(self) -> int:
        """Where the ciphertexts start."""
        return PREFIX_BYTES + len(self.text) + SIGNATURE_BYTES


def split_envelope(data: bytes, what: str) -> Parts:
    """Take the bytes of an envelope apart.

    Raises:
        IntegrityError: They are not one, or its header is not written as `canonical_json` does.
    """
    length = read_prefix(data, MAGIC, VERSION, what, "an envelope")
    place = PREFIX_BYTES + length
    if length > MAX_HEADER_BYTES or place + SIGNATURE_BYTES > len(data):
        raise IntegrityError(f"{what} is cut off or damaged in its header; get a fresh copy.")

    def complain(_place: Place, message: str) -> HecompileError:
        return IntegrityError(f"{what}: {message}; get a fresh copy.")

    text = bytes(data[PREFIX_BYTES:place])
    content = parse_json(text, f"the header of {what}", MAX_HEADER_BYTES)
    record = Record.of(content, (), complain, _FIELDS)
    header = _header(record, sha256_bytes(text))
    if canonical_json(content) != text:
        raise IntegrityError(f"{what} is not written as hecompile writes it; get a fresh copy.")
    return Parts(header, record, text, bytes(data[place : place + SIGNATURE_BYTES]))


def _header(record: Record, digest: str) -> Header:
    if record.text("kind") not in tuple(Kind):
        raise record.wrong("kind", f"must be one of {', '.join(Kind)}")
    user = record.text("user")
    if len(user) > MAX_USER:
        raise record.wrong("user", f"must have at most {MAX_USER} characters")
    for field in ("created", "expires"):
        if read_time(record.text(field)) is None:
            raise record.wrong(field, f"must be a time such as {EXAMPLE}")
    signer, purpose = record.text("signer"), record.text("purpose")
    if len(purpose) > MAX_PURPOSE or not purpose.isprintable():
        raise record.wrong(
            "purpose", f"must be at most {MAX_PURPOSE} characters, all of them printable"
        )
    return Header(
        Kind(record.text("kind")),
        _hexadecimal(record, "program", _HEX_64, "64"),
        _hexadecimal(record, "key_id", _HEX_64, "64"),
        read_session(record),
        record.integer("samples", 1),
        record.integer("round"),
        _hexadecimal(record, "manifest", _HEX_64, "64") if record.text("manifest") else UNBOUND,
        user,
        _hexadecimal(record, "signer", _HEX_64, "64") if signer or user else "",
        record.text("created"),
        record.text("expires"),
        _hexadecimal(record, "nonce", _HEX_32, "32"),
        digest,
        purpose,
    )


def _hexadecimal(record: Record, field: str, form: re.Pattern[str], digits: str) -> str:
    text = record.text(field)
    if not form.fullmatch(text):
        raise record.wrong(field, f"must be {digits} hexadecimal digits")
    return text
