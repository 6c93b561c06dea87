"""The container in which ciphertexts travel: a JSON header, then the ciphertexts' bytes.

    "HECE" | version, 2 bytes | header length, 4 bytes | header | ciphertext | ciphertext | ...

Numbers are little-endian. The header says which program and key the ciphertexts are for, and the
level, size and SHA-256 of each. `open_envelope` compares all of it with what the program expects
before a homomorphic encryption library sees a byte.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from hecompile.access.records import Place, Record, canonical_json, parse_json
from hecompile.errors import HecompileError, IntegrityError
from hecompile.files import sha256_bytes
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.framing import PREFIX_BYTES, pack_prefix, read_prefix
from hecompile.runtime.keycard import bundle_name, short
from hecompile.runtime.serial import ciphertext_limit
from hecompile.runtime.spec import UNBOUND, CipherSpec

MAGIC: Final = b"HECE"
VERSION: Final = 1
MAX_HEADER_BYTES: Final = 4 << 20
_FIELDS: Final = (
    "kind",
    "program",
    "manifest",
    "key_id",
    "session",
    "samples",
    "round",
    "created",
    "nonce",
    "ciphertexts",
)
_SESSION: Final = re.compile(r"[0-9a-f]{32}")
_ITEM_FIELDS: Final = ("name", "level", "size", "sha256")


class Kind(StrEnum):
    """What an envelope is for."""

    INPUT = "input"
    OUTPUT = "output"
    REFRESH_REQUEST = "refresh-request"
    REFRESH_RESPONSE = "refresh-response"
    MODEL = "model"


@dataclass(frozen=True)
class Header:
    """Who may do what with the ciphertexts of an envelope.

    Attributes:
        kind: What they are.
        program: Identity of the program.
        key_id: Identifier of the key they are encrypted under.
        session: Identifier of one evaluation, chosen by the client.
        samples: Number of samples in them; the rest of the batch is padding.
        round: Group of the refresh; 0 for inputs and outputs.
        manifest: Digest of the manifest of the program's bundle; empty for a program in none.
    """

    kind: Kind
    program: str
    key_id: str
    session: str
    samples: int
    round: int = 0
    manifest: str = UNBOUND


@dataclass(frozen=True)
class Envelope:
    """A parsed envelope: its header, and the ciphertexts' bytes in the expected order."""

    header: Header
    ciphertexts: tuple[bytes, ...]


def new_session() -> str:
    """A fresh identifier of an evaluation, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def read_session(record: Record) -> str:
    """The identifier of an evaluation in a header.

    Raises:
        HecompileError: As the record complains: it does not look like one of `new_session`.
    """
    session = record.text("session")
    if not _SESSION.fullmatch(session):
        raise record.wrong("session", "must be 32 hexadecimal digits")
    return session


def seal_envelope(
    header: Header, contract: Sequence[CipherSpec], ciphertexts: Sequence[bytes]
) -> bytes:
    """Put serialised ciphertexts into an envelope.

    Args:
        header: What they are.
        contract: Name and level of each.
        ciphertexts: Their bytes, in the same order.
    """
    items = [
        {"name": c.name, "level": c.level, "size": len(data), "sha256": sha256_bytes(data)}
        for c, data in zip(contract, ciphertexts, strict=True)
    ]
    text = canonical_json(
        {
            "kind": header.kind.value,
            "program": header.program,
            "manifest": header.manifest,
            "key_id": header.key_id,
            "session": header.session,
            "samples": header.samples,
            "round": header.round,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "nonce": secrets.token_hex(16),
            "ciphertexts": items,
        }
    )
    return b"".join((pack_prefix(MAGIC, VERSION, len(text)), text, *ciphertexts))


def read_header(data: bytes, what: str = "the envelope") -> Header:
    """Read the header alone, without the checks against a program.

    Raises:
        IntegrityError: The bytes are not an envelope.
    """
    return _header(_record(data, what)[0])


def open_envelope(
    data: bytes,
    expected: Header,
    contract: Sequence[CipherSpec],
    parameters: Parameters,
    what: str = "the envelope",
) -> Envelope:
    """Read an envelope that must be of a given kind, program, key and contents.

    Args:
        data: The envelope.
        expected: What its header must say; `samples` is the most there may be. An empty session
            takes any.
        contract: The ciphertexts it must hold, in order.
        parameters: Bound the size of each.
        what: Its name, for messages.

    Raises:
        IntegrityError: It is another one, cut off, changed or too large.
    """
    record, start = _record(data, what)
    header = _header(record)
    _check_header(header, expected, what)
    items = record.records("ciphertexts", _ITEM_FIELDS)
    if [item.text("name") for item in items] != [c.name for c in contract]:
        raise IntegrityError(
            f"{what} does not hold the {len(contract)} ciphertexts that the program expects here;"
            " make it again with this bundle."
        )
    blobs = []
    for item, cipher in zip(items, contract, strict=True):
        size = item.integer("size", 1)
        if item.integer("level") != cipher.level:
            raise item.wrong("level", f"must be {cipher.level} for {cipher.name}")
        if size > ciphertext_limit(parameters, cipher.level):
            raise item.wrong("size", f"is more than a ciphertext at level {cipher.level} has")
        blob = data[start : start + size]
        if len(blob) != size:
            raise IntegrityError(f"{what} is cut off in {cipher.name}; get a fresh copy.")
        if sha256_bytes(blob) != item.text("sha256"):
            raise IntegrityError(
                f"{what} was changed: {cipher.name} does not match its SHA-256; get a fresh copy."
            )
        blobs.append(blob)
        start += size
    if start != len(data):
        raise IntegrityError(f"{what} has bytes that belong to no ciphertext; get a fresh copy.")
    return Envelope(header, tuple(blobs))


def envelope_limit(parameters: Parameters, contract: Sequence[CipherSpec]) -> int:
    """Most bytes that an envelope with these ciphertexts may have."""
    blobs = sum(ciphertext_limit(parameters, c.level) for c in contract)
    return PREFIX_BYTES + MAX_HEADER_BYTES + blobs


def _record(data: bytes, what: str) -> tuple[Record, int]:
    """The header's fields, and where the ciphertexts start."""
    length = read_prefix(data, MAGIC, VERSION, what, "an envelope")
    start = PREFIX_BYTES + length
    if length > MAX_HEADER_BYTES or start > len(data):
        raise IntegrityError(f"{what} is cut off or damaged in its header; get a fresh copy.")

    def complain(_place: Place, message: str) -> HecompileError:
        return IntegrityError(f"{what}: {message}; get a fresh copy.")

    content = parse_json(data[PREFIX_BYTES:start], f"the header of {what}", MAX_HEADER_BYTES)
    return Record.of(content, (), complain, _FIELDS), start


def _header(record: Record) -> Header:
    if record.text("kind") not in tuple(Kind):
        raise record.wrong("kind", f"must be one of {', '.join(Kind)}")
    return Header(
        Kind(record.text("kind")),
        record.text("program"),
        record.text("key_id"),
        read_session(record),
        record.integer("samples", 1),
        record.integer("round"),
        record.text("manifest"),
    )


def _check_header(header: Header, expected: Header, what: str) -> None:
    if header.kind is not expected.kind:
        raise IntegrityError(f"{what} is of kind {header.kind}, where {expected.kind} is needed.")
    if header.program != expected.program:
        raise IntegrityError(
            f"{what} is for program {short(header.program)}, not {short(expected.program)}; make"
            " it with this bundle."
        )
    if header.manifest != expected.manifest:
        raise IntegrityError(
            f"{what} is for {bundle_name(header.manifest)}, not {bundle_name(expected.manifest)},"
            " which has the same program; make it with this one."
        )
    if header.key_id != expected.key_id:
        raise IntegrityError(
            f"the ciphertexts of {what} were encrypted under key {short(header.key_id)}, not"
            f" {short(expected.key_id)}; use the keys they were made with."
        )
    if header.round != expected.round:
        raise IntegrityError(
            f"{what} is of refresh round {header.round}, where {expected.round} is needed."
        )
    if expected.session and header.session != expected.session:
        raise IntegrityError(f"{what} belongs to another evaluation; use the one of this run.")
    if header.samples > expected.samples:
        raise IntegrityError(
            f"{what} states {header.samples} samples, where the program packs {expected.samples}."
        )
