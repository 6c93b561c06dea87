"""Ed25519 signatures over statements in DSSE envelopes.

An envelope is accepted only in the one spelling that `sign` writes, so that no byte of it can be
changed unnoticed. Key identifiers are computed from the key, never read from a file.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import (
    FormatError,
    UnverifiedSignatureError,
    VerificationError,
)
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # public there

from hecompile.access.records import canonical_json, parse_json
from hecompile.access.trust import (
    FOREIGN_ANY,
    MAX_SIGNATURES,
    PublicKey,
    TrustedKeys,
    TrustStore,
    check_owner,
    forget,
)
from hecompile.errors import InputError, IntegrityError
from hecompile.files import atomic_write_bytes, cannot_read, config_home, private_folder

__all__ = [
    "MAX_ENVELOPE_BYTES",
    "PAYLOAD_TYPE",
    "PublicKey",
    "Signed",
    "SigningKey",
    "TrustStore",
    "TrustedKeys",
    "check_signatures",
    "cosign",
    "default_key_path",
    "is_signed_by",
    "not_trusted",
    "parse_envelope",
    "sign",
    "verify_signed",
]

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES: Final = 32 << 20
_MAX_KEY_BYTES: Final = 16 << 10


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 private key; its text form shows the identifier only."""

    private: Ed25519PrivateKey
    public_key: PublicKey

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key, in memory only."""
        return cls._of(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: str | Path) -> SigningKey:
        """Read a private key (PEM, PKCS #8, mode 0600).

        Raises:
            InputError: The file cannot be read or is not such a key.
            IntegrityError: Other users may read or change the file.
        """
        try:
            with Path(path).open("rb") as stream:
                check_owner(Path(path), os.fstat(stream.fileno()), FOREIGN_ANY, "600")
                pem = stream.read(_MAX_KEY_BYTES)
        except OSError as error:
            raise cannot_read(Path(path), error) from error
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InputError(
                f"{path} is not an unencrypted private key in PEM; remove it to have a new key made"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError(f"{path} is not an Ed25519 key; remove it to have a new key made")
        return cls._of(key)

    @classmethod
    def load_or_create(
        cls, path: str | Path | None = None, trust: TrustStore | None = None
    ) -> SigningKey:
        """Read the key at `path`, or make one there and trust its public half on this machine.

        A key that exists is not trusted anew: its owner may have withdrawn that.

        Args:
            path: The key file, by default `signing.pem` in the user's settings folder.
            trust: Where a new key's public half goes, by default the user's trust store.

        Raises:
            InputError: The file cannot be read or written or is not such a key.
            IntegrityError: Other users may read or change the file.
        """
        target = Path(path) if path is not None else default_key_path()
        if os.path.lexists(target):
            return cls.load(target)
        private_folder(target.parent)
        key = cls.generate()
        pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        # Trust first: a key that signs must never exist without its public half being trusted.
        trusted = (trust or TrustStore()).add(key.public_key)
        try:
            atomic_write_bytes(target, pem, 0o600, exclusive=True)
        except FileExistsError:
            forget(trusted)
            return cls.load(target)
        except BaseException:
            if not target.exists():
                forget(trusted)
            raise
        return key

    @classmethod
    def _of(cls, private: Ed25519PrivateKey) -> SigningKey:
        pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return cls(private, PublicKey.from_pem(pem, "the signing key"))

    @property
    def keyid(self) -> str:
        """Identifier of the key, 64 hexadecimal digits."""
        return self.public_key.keyid

    def __repr__(self) -> str:
        """Name the key without its secret."""
        return f"SigningKey(keyid={self.keyid!r})"


def default_key_path() -> Path:
    """The user's own signing key."""
    return config_home() / "signing.pem"


@dataclass(frozen=True)
class Signed:
    """What an envelope holds, and who signed it.

    Attributes:
        payload: The statement.
        keyids: Identifiers of the keys that signed, sorted; every signature was checked.
    """

    payload: bytes
    keyids: tuple[str, ...]


def sign(statement: bytes, key: SigningKey, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Put a statement into a DSSE envelope signed with `key`.

    Args:
        statement: What is signed.
        key: Who signs.
        payload_type: Kind of the statement; it is signed too.

    Returns:
        The envelope as canonical JSON, ending in a line break.
    """
    return spell(_signed(Envelope(statement, payload_type, {}), key))


def cosign(
    envelope: bytes,
    key: SigningKey,
    what: str = "manifest.json",
    payload_type: str = PAYLOAD_TYPE,
) -> bytes:
    """Add a signature to an envelope; those that it has are kept and not judged.

    Raises:
        InputError: The key has signed already.
        IntegrityError: The bytes are not an envelope, or it has all the signatures it may have.
    """
    parsed = parse_envelope(envelope, what, payload_type)
    if key.keyid in parsed.signatures:
        raise InputError(f"{what} is signed with key {key.keyid} already; nothing was changed")
    if len(parsed.signatures) >= MAX_SIGNATURES:
        raise IntegrityError(f"{what} has {MAX_SIGNATURES} signatures already; no more are taken")
    return spell(_signed(parsed, key))


def verify_signed(
    envelope: bytes,
    trusted: Sequence[PublicKey],
    what: str = "manifest.json",
    payload_type: str = PAYLOAD_TYPE,
    passing: Collection[str] = (),
) -> Signed:
    """Check an envelope and give the statement in it.

    Every signature present, but for those passed over, must be valid and by a trusted key of its
    own; where `trusted` asks for several (`TrustedKeys.threshold`), so many must be there.

    Args:
        envelope: The envelope, as `sign` wrote it.
        trusted: The keys accepted.
        what: Name of the envelope, for messages.
        payload_type: The kind of statement that it must hold.
        passing: Keys whose signatures are passed over: neither checked nor counted.

    Raises:
        IntegrityError: The envelope is malformed, a signer is not trusted, a signature does not
            match, or there are too few.
    """
    parsed = parse_envelope(envelope, what, payload_type)
    if not 1 <= len(parsed.signatures) <= MAX_SIGNATURES:
        raise IntegrityError(f"{what} has {len(parsed.signatures)} signatures; get a signed copy")
    by_id = {key.keyid: key for key in trusted}
    keyids = tuple(sorted(parsed.signatures.keys() - {*passing}))
    for keyid in keyids:
        if keyid not in by_id:
            raise not_trusted(what, keyid)
        if not is_signed_by(parsed, by_id[keyid]):
            raise IntegrityError(
                f"{what} does not match its signature by key {keyid}: it was changed after "
                "signing; get a fresh copy"
            )
    command = "manifest sign" if payload_type == PAYLOAD_TYPE else "users sign"
    check_signatures(keyids, TrustedKeys.of(trusted).threshold, what, command=command)
    return Signed(parsed.payload, keyids)


def not_trusted(what: str, keyid: str) -> IntegrityError:
    """The error for a signature by a key that is not trusted; `what` names the document."""
    return IntegrityError(
        f"{what} is signed with key {keyid[:80]!r}, which is not trusted here; if you know that "
        "its owner made it, give the public key with --trust PUBLIC_KEY.pem"
    )


def is_signed_by(envelope: Envelope, key: PublicKey) -> bool:
    """Whether an envelope bears a right signature by that key."""
    try:
        envelope.verify([key.verifier()], threshold=1)
    except (VerificationError, UnverifiedSignatureError):
        return False
    return True


def check_signatures(
    keyids: Sequence[str],
    threshold: int,
    what: str,
    signers: Sequence[str] = (),
    command: str = "manifest sign",
) -> None:
    """Refuse too few signatures, and those by keys that are not to sign this.

    Args:
        keyids: Distinct keys whose signatures were checked.
        threshold: How many are asked for.
        what: Name of what they signed, for messages.
        signers: Keys that may sign it; none for all that are trusted.
        command: What adds a signature, for messages.

    Raises:
        IntegrityError: Naming the key at fault, or how many signatures are missing.
    """
    for keyid in keyids:
        if signers and keyid not in signers:
            raise IntegrityError(
                f"{what} is signed with key {keyid}, which is not among its {len(signers)} "
                "signers; have it signed by those alone"
            )
    if len(keyids) < threshold:
        raise IntegrityError(
            f"{what} has {len(keyids)} of the {threshold} signatures that it needs; have the other "
            f"signers add theirs with hecompile {command}"
        )


def parse_envelope(
    envelope: bytes, what: str = "manifest.json", payload_type: str = PAYLOAD_TYPE
) -> Envelope:
    """Read an envelope without believing it: form is checked, signatures are not.

    Raises:
        IntegrityError: The bytes are not an envelope as `sign` writes it.
    """
    malformed = IntegrityError(
        f"{what} is not a signed document as hecompile writes it, or was changed; get a fresh copy"
    )
    data: Any = parse_json(envelope, what, MAX_ENVELOPE_BYTES)
    if not isinstance(data, dict) or data.keys() != {"payload", "payloadType", "signatures"}:
        raise malformed
    signatures = data["signatures"]
    if not isinstance(signatures, list) or not all(_is_signature(item) for item in signatures):
        raise malformed
    if not isinstance(data["payload"], str) or data["payloadType"] != payload_type:
        raise malformed
    try:
        parsed = Envelope.from_dict(data)
    except (ValueError, KeyError, TypeError, FormatError) as error:
        raise malformed from error
    if spell(parsed) != envelope:
        raise malformed
    return parsed


def _signed(envelope: Envelope, key: SigningKey) -> Envelope:
    envelope.sign(CryptoSigner(key.private, key.public_key.verifier()))
    return envelope


def _is_signature(item: object) -> bool:
    return (
        isinstance(item, dict)
        and item.keys() == {"keyid", "sig"}
        and all(isinstance(value, str) for value in item.values())
    )


def spell(envelope: Envelope) -> bytes:
    """The one spelling in which envelopes are accepted: canonical JSON, signatures in order."""
    found = envelope.to_dict()
    found["signatures"].sort(key=lambda signature: signature["keyid"])
    return canonical_json(found) + b"\n"
