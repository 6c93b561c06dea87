"""Ed25519 signatures over in-toto statements in DSSE envelopes, and the keys that are trusted.

An envelope is accepted only in the one spelling that `sign` writes, so that no byte of it can be
changed unnoticed. Key identifiers are computed from the key, never read from a file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import (
    FormatError,
    UnverifiedSignatureError,
    VerificationError,
)
from securesystemslib.signer import (  # type: ignore[attr-defined]  # public, not in an __all__
    CryptoSigner,
    SSlibKey,
)

from hecompile.access.records import canonical_json, parse_json
from hecompile.errors import InputError, IntegrityError
from hecompile.files import atomic_write_bytes, cannot_read, config_home, private_folder

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 32 << 20
_MAX_KEY_BYTES = 16 << 10
_MAX_SIGNATURES = 16
_FOREIGN_WRITE = stat.S_IWGRP | stat.S_IWOTH
_FOREIGN_ANY = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class PublicKey:
    """The public half of a signing key.

    Attributes:
        keyid: SHA-256 over the key, 64 hexadecimal digits.
        pem: The key in PEM (SubjectPublicKeyInfo).
    """

    keyid: str
    pem: bytes

    @classmethod
    def from_pem(cls, pem: bytes, source: str) -> PublicKey:
        """Read an Ed25519 public key; `source` names it in messages.

        Raises:
            InputError: The bytes are not such a key.
        """
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError(
                f"{source} is not a public key in PEM; give the .pub file of the signer"
            ) from error
        if not isinstance(key, Ed25519PublicKey):
            raise InputError(f"{source} is not an Ed25519 key; only Ed25519 signatures are used")
        plain = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return cls(SSlibKey.from_crypto(key).keyid, plain)

    @classmethod
    def load(cls, path: str | Path) -> PublicKey:
        """Read an Ed25519 public key from a PEM file.

        Raises:
            InputError: The file cannot be read or is not such a key.
        """
        try:
            with Path(path).open("rb") as stream:
                return cls.from_pem(stream.read(_MAX_KEY_BYTES), str(path))
        except OSError as error:
            raise cannot_read(Path(path), error) from error

    def verifier(self) -> SSlibKey:
        """The key as securesystemslib takes it."""
        return SSlibKey.from_crypto(load_pem_public_key(self.pem), self.keyid)


class TrustStore:
    """A folder of public keys (`*.pub`, PEM) whose signatures are accepted."""

    def __init__(self, folder: str | Path | None = None) -> None:
        """Use `folder`, by default `trusted` in the user's settings folder."""
        self.folder = Path(folder) if folder is not None else config_home() / "trusted"

    def add(self, key: PublicKey) -> Path:
        """Trust a key from now on.

        Returns:
            The file that holds it; removing the file withdraws the trust.

        Raises:
            InputError: The file cannot be written.
        """
        private_folder(self.folder)
        path = self.folder / f"{key.keyid[:16]}.pub"
        atomic_write_bytes(path, key.pem, 0o600)
        return path

    def load(self, extra: Sequence[str | Path] = ()) -> tuple[PublicKey, ...]:
        """All trusted keys.

        Args:
            extra: Further PEM files to trust this once.

        Raises:
            InputError: A file cannot be read or is no key.
            IntegrityError: Others than the user could have put a key into the folder.
        """
        found = [PublicKey.load(path) for path in extra]
        try:
            if self.folder.is_dir():
                paths = sorted(self.folder.glob("*.pub"))
                for place in (self.folder, *paths):
                    _check_owner(place, place.stat(), _FOREIGN_WRITE, "go-w")
                found += [PublicKey.load(path) for path in paths]
        except OSError as error:
            raise cannot_read(self.folder, error) from error
        return tuple({key.keyid: key for key in found}.values())


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
                _check_owner(Path(path), os.fstat(stream.fileno()), _FOREIGN_ANY, "600")
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
            _forget(trusted)
            return cls.load(target)
        except BaseException:
            if not target.exists():
                _forget(trusted)
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


def sign(statement: bytes, key: SigningKey) -> bytes:
    """Put a statement into a DSSE envelope signed with `key`.

    Returns:
        The envelope as canonical JSON, ending in a line break.
    """
    envelope = Envelope(statement, PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key.private, key.public_key.verifier()))
    return _spell(envelope)


def verify(envelope: bytes, trusted: Sequence[PublicKey], what: str = "manifest.json") -> bytes:
    """Check an envelope and give the statement in it.

    Every signature present must be valid and by a trusted key.

    Args:
        envelope: The envelope, as `sign` wrote it.
        trusted: The keys accepted.
        what: Name of the envelope, for messages.

    Raises:
        IntegrityError: The envelope is malformed, its signer is not trusted or a signature does
            not match.
    """
    parsed = parse_envelope(envelope, what)
    if not 1 <= len(parsed.signatures) <= _MAX_SIGNATURES:
        raise IntegrityError(f"{what} has {len(parsed.signatures)} signatures; get a signed copy")
    by_id = {key.keyid: key for key in trusted}
    for keyid in parsed.signatures:
        if keyid not in by_id:
            raise IntegrityError(
                f"{what} is signed with key {keyid[:80]!r}, which is not trusted here; if you know "
                "that its owner made it, give the public key with --trust PUBLIC_KEY.pem"
            )
    keys = [by_id[keyid].verifier() for keyid in parsed.signatures]
    try:
        parsed.verify(list(keys), threshold=len(keys))
    except (VerificationError, UnverifiedSignatureError) as error:
        raise IntegrityError(
            f"{what} does not match its signature by key {keys[0].keyid}: it was changed after "
            "signing; get a fresh copy"
        ) from error
    return parsed.payload


def parse_envelope(envelope: bytes, what: str = "manifest.json") -> Envelope:
    """Read an envelope without believing it: form is checked, signatures are not.

    Raises:
        IntegrityError: The bytes are not an envelope as `sign` writes it.
    """
    malformed = IntegrityError(
        f"{what} is not a signed manifest as hecompile writes it, or was changed; get a fresh copy"
    )
    data: Any = parse_json(envelope, what, MAX_ENVELOPE_BYTES)
    if not isinstance(data, dict) or data.keys() != {"payload", "payloadType", "signatures"}:
        raise malformed
    signatures = data["signatures"]
    if not isinstance(signatures, list) or not all(_is_signature(item) for item in signatures):
        raise malformed
    if not isinstance(data["payload"], str) or data["payloadType"] != PAYLOAD_TYPE:
        raise malformed
    try:
        parsed = Envelope.from_dict(data)
    except (ValueError, KeyError, TypeError, FormatError) as error:
        raise malformed from error
    if _spell(parsed) != envelope:
        raise malformed
    return parsed


def _is_signature(item: object) -> bool:
    return (
        isinstance(item, dict)
        and item.keys() == {"keyid", "sig"}
        and all(isinstance(value, str) for value in item.values())
    )


def _spell(envelope: Envelope) -> bytes:
    return canonical_json(envelope.to_dict()) + b"\n"


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _check_owner(path: Path, found: os.stat_result, foreign: int, remedy: str) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise IntegrityError(f"{path} belongs to another user; use a file of your own")
    if stat.S_IMODE(found.st_mode) & foreign:
        raise IntegrityError(
            f"{path} is open to other users; make sure that nobody touched it, then run "
            f"chmod {remedy} {path}"
        )
