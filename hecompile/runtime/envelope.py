"""The signed container in which ciphertexts travel: a header, its signature, the ciphertexts.

    "HECE" | version, 2 bytes | header length, 4 bytes | header | signature, 64 bytes | ciphertexts

Numbers are little-endian. The header is canonical JSON; it says which program, manifest and key
the ciphertexts are for, who sends them, until when they hold, and the level, size and SHA-256 of
each. The signature is Ed25519 over DSSE's pre-authentication encoding of the header
(https://github.com/secure-systems-lab/dsse/blob/master/protocol.md). `check_envelope` holds all of
it against what the program expects before a homomorphic encryption library sees a byte.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hecompile.access.identity import Identity
from hecompile.access.records import canonical_json
from hecompile.access.times import write_time
from hecompile.errors import IntegrityError
from hecompile.files import sha256_bytes
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.wire import ciphertext_file_bytes
from hecompile.runtime.framing import PREFIX_BYTES, pack_prefix
from hecompile.runtime.header import (
    MAGIC,
    SIGNATURE_BYTES,
    VERSION,
    Parts,
    split_envelope,
)
from hecompile.runtime.header import MAX_HEADER_BYTES as MAX_HEADER_BYTES
from hecompile.runtime.header import Header as Header
from hecompile.runtime.header import Kind as Kind
from hecompile.runtime.header import new_session as new_session
from hecompile.runtime.header import read_session as read_session
from hecompile.runtime.keycard import bundle_name, short
from hecompile.runtime.spec import CipherSpec, ClientSpec
from hecompile.runtime.wire import check_packed

PAYLOAD_TYPE: Final = b"application/vnd.hecompile.envelope+json"
LIFETIME: Final = 86400
"""Seconds for which an envelope holds where its policy does not say otherwise."""
MODEL_LIFETIME: Final = 366 * 86400
"""The same for an encrypted model, which every evaluation takes anew."""
MODEL_FIELD: Final = "model"
_UNSIGNED: Final = bytes(SIGNATURE_BYTES)
_ITEM_FIELDS: Final = ("field", "name", "level", "size", "sha256")


@dataclass(frozen=True)
class Envelope:
    """A checked envelope: its header, and the ciphertexts' bytes in the expected order."""

    header: Header
    ciphertexts: tuple[bytes, ...] = field(repr=False)


class Admission(Protocol):
    """Decides whether an envelope of a sender is taken; `runtime.inspection` has the two kinds."""

    def signing_key(self, header: Header, what: str) -> Ed25519PublicKey | None:
        """The key that must have signed; None where signatures are not looked at.

        Raises:
            IntegrityError: The sender is unknown.
        """

    def admit(self, header: Header, what: str) -> None:
        """Ask whether the sender may, and whether the envelope holds now.

        Raises:
            AccessDeniedError: The sender may not.
            IntegrityError: It has expired, or is of the future.
        """

    def consume(self, headers: Sequence[Header], what: str) -> None:
        """Take envelopes for good, once: all of them or none.

        Raises:
            IntegrityError: One was taken before.
        """


def input_fields(spec: ClientSpec) -> tuple[str, ...]:
    """The field of each of `spec.input_ciphertexts`."""
    return tuple(f"input:{entry.label}" for entry in spec.inputs for _ in entry.ciphertexts)


def output_fields(spec: ClientSpec) -> tuple[str, ...]:
    """The field of each of `spec.output_ciphertexts`."""
    return tuple(f"output:{entry.label}" for entry in spec.outputs for _ in entry.ciphertexts)


def _fields_of(
    header: Header, contract: Sequence[CipherSpec], fields: Sequence[str] | None
) -> Sequence[str]:
    """What each ciphertext is, where it is not said: the same for all of a round or a model."""
    if fields is not None:
        return fields
    match header.kind:
        case Kind.MODEL:
            return [MODEL_FIELD] * len(contract)
        case Kind.REFRESH_REQUEST | Kind.REFRESH_RESPONSE:
            return [f"refresh:{header.round}"] * len(contract)
    return [f"{header.kind}:%{cipher.name}" for cipher in contract]


def signed_text(header: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of a header."""
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE, len(header), header)


def seal_envelope(
    header: Header,
    contract: Sequence[CipherSpec],
    ciphertexts: Sequence[bytes],
    identity: Identity | None = None,
    lifetime: int = LIFETIME,
    *,
    fields: Sequence[str] | None = None,
    now: datetime | None = None,
) -> bytes:
    """Put serialised ciphertexts into an envelope and sign it.

    Args:
        header: What they are. Who signs, the times and the nonce are set here.
        contract: Name and level of each.
        ciphertexts: Their bytes, in the same order.
        identity: Who sends it; None leaves it unsigned, which only programs in no bundle take.
        lifetime: Seconds for which it holds.
        fields: What each ciphertext is (`input_fields`, `output_fields`).
        now: When it is sealed; None for the clock's time.
    """
    moment = now if now is not None else datetime.now(UTC)
    named = zip(_fields_of(header, contract, fields), contract, ciphertexts, strict=True)
    items = [
        {"field": f, "name": c.name, "level": c.level, "size": len(d), "sha256": sha256_bytes(d)}
        for f, c, d in named
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
            "created": write_time(moment),
            "expires": write_time(moment + timedelta(seconds=lifetime)),
            "nonce": secrets.token_hex(16),
            "signer": identity.keyid if identity is not None else "",
            "user": identity.user if identity is not None else "",
            "purpose": header.purpose,
            "ciphertexts": items,
        }
    )
    signature = _UNSIGNED
    if identity is not None:
        signature = identity.key.private.sign(signed_text(text))
    return b"".join((pack_prefix(MAGIC, VERSION, len(text)), text, signature, *ciphertexts))


def read_header(data: bytes, what: str = "the envelope") -> Header:
    """Read the header alone, without believing it.

    Raises:
        IntegrityError: The bytes are not an envelope.
    """
    return split_envelope(data, what).header


def check_envelope(
    data: bytes,
    expected: Header,
    contract: Sequence[CipherSpec],
    parameters: Parameters,
    what: str = "the envelope",
    *,
    admission: Admission,
    fields: Sequence[str] | None = None,
) -> Envelope:
    """Check an envelope that must be of a given kind, program, key and contents.

    The envelope may still be a copy of one that was taken before: `open_envelope` refuses those.

    Args:
        data: The envelope.
        expected: What its header must say; `samples` is the most there may be. An empty session
            takes any.
        contract: The ciphertexts it must hold, in order.
        parameters: Of the program.
        what: Its name, for messages.
        admission: Knows the senders' keys, and what they may do.
        fields: What each ciphertext must be; None for any of this kind.

    Raises:
        AccessDeniedError: Whoever signed may not send this.
        IntegrityError: It is another one, cut off, changed, too large, expired, or not signed by
            who it says; or a ciphertext in it is none of the program's.
    """
    if len(data) > envelope_limit(parameters, contract):
        raise IntegrityError(
            f"{what} has {len(data)} bytes, more than the program's ciphertexts take; get a fresh"
            " copy."
        )
    parts = split_envelope(data, what)
    header = parts.header
    _check_header(header, expected, what)
    _check_signature(parts, admission, what)
    admission.admit(header, what)
    return Envelope(header, _ciphertexts(parts, data, contract, parameters, what, fields))


def open_envelope(
    data: bytes,
    expected: Header,
    contract: Sequence[CipherSpec],
    parameters: Parameters,
    what: str = "the envelope",
    *,
    admission: Admission,
    fields: Sequence[str] | None = None,
) -> Envelope:
    """Check an envelope as `check_envelope` does and take it, which works once.

    What is refused is not taken: a whole copy may still come.

    Raises:
        AccessDeniedError: Whoever signed may not send this.
        IntegrityError: As `check_envelope`, or it was taken before.
    """
    found = check_envelope(
        data, expected, contract, parameters, what, admission=admission, fields=fields
    )
    admission.consume([found.header], what)
    return found


def envelope_limit(parameters: Parameters, contract: Sequence[CipherSpec]) -> int:
    """Most bytes that an envelope with these ciphertexts may have."""
    blobs = sum(ciphertext_file_bytes(parameters, c.level) for c in contract)
    return PREFIX_BYTES + MAX_HEADER_BYTES + SIGNATURE_BYTES + blobs


def _check_signature(parts: Parts, admission: Admission, what: str) -> None:
    key = admission.signing_key(parts.header, what)
    if key is None:
        return
    try:
        key.verify(parts.signature, signed_text(parts.text))
    except InvalidSignature:
        raise IntegrityError(
            f"{what} does not match its signature by user '{parts.header.user}': it was changed"
            " after signing; get a fresh copy."
        ) from None


def _ciphertexts(
    parts: Parts,
    data: bytes,
    contract: Sequence[CipherSpec],
    parameters: Parameters,
    what: str,
    fields: Sequence[str] | None,
) -> tuple[bytes, ...]:
    """The bytes of each ciphertext, whose form is known to be right."""
    items = parts.record.records("ciphertexts", _ITEM_FIELDS)
    if [item.text("name") for item in items] != [c.name for c in contract]:
        raise IntegrityError(
            f"{what} does not hold the {len(contract)} ciphertexts that the program expects here;"
            " make it again with this bundle."
        )
    wanted = _fields_of(parts.header, contract, fields)
    open_fields = fields is None and parts.header.kind in (Kind.INPUT, Kind.OUTPUT)
    blobs, start = [], parts.end
    for item, cipher, due in zip(items, contract, wanted, strict=True):
        size = ciphertext_file_bytes(parameters, cipher.level)
        if item.text("field") != due and not (
            open_fields and item.text("field").startswith(f"{parts.header.kind}:")
        ):
            raise item.wrong("field", f"must be {due} for {cipher.name}")
        if item.integer("level") != cipher.level:
            raise item.wrong("level", f"must be {cipher.level} for {cipher.name}")
        if item.integer("size", 1) != size:
            raise item.wrong("size", f"must be {size}, as ciphertexts at level {cipher.level} have")
        blob = bytes(data[start : start + size])
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
    for blob, cipher in zip(blobs, contract, strict=True):
        where = f"ciphertext {cipher.name} of {what}"
        check_packed(parameters, blob, cipher.level, cipher.scale, where)
    return tuple(blobs)


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
