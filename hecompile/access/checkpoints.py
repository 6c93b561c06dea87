"""Signed checkpoints of the audit log: a key of their own vouches for all lines before them.

The chain alone shows damage, but whoever may write the file can compute a whole new chain. They
cannot sign it: a checkpoint follows every 64th line, so all but the last lines of a log stand as
they were written, as long as the audit key is out of the forger's reach. The signature is Ed25519
over the pre-authentication encoding of DSSE (https://github.com/secure-systems-lab/dsse).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope

from hecompile.access.records import canonical_json
from hecompile.access.signing import PublicKey, SigningKey
from hecompile.errors import InputError
from hecompile.files import atomic_write_bytes, config_home, private_folder

INTERVAL = 64
"""A checkpoint follows every line whose number is a multiple of this."""

_TYPE = "application/vnd.hecompile.audit-checkpoint+json"


def audit_key_path() -> Path:
    """The key that signs checkpoints on this machine."""
    return config_home() / "audit.pem"


def audit_key(path: str | Path | None = None) -> SigningKey:
    """Read the audit key, or make it; unlike a signer's key it is trusted for nothing else.

    Args:
        path: The key file, by default `audit.pem` in the user's settings folder.

    Raises:
        InputError: The file cannot be read or written or is not such a key.
        IntegrityError: Other users may read or change the file.
    """
    target = Path(path) if path is not None else audit_key_path()
    if not os.path.lexists(target):
        private_folder(target.parent)
        key = SigningKey.generate()
        pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            atomic_write_bytes(target, pem, 0o600, exclusive=True)
        except FileExistsError:
            # Another process was first: its key is the one to use.
            return SigningKey.load(target)
        return key
    return SigningKey.load(target)


def known_audit_keys(given: Sequence[str | Path] = ()) -> tuple[PublicKey, ...]:
    """The keys whose checkpoints are believed.

    Args:
        given: Files of public keys (PEM); none takes this machine's own, if there is one.

    Raises:
        InputError: A file cannot be read or is no key.
    """
    if given:
        return tuple(PublicKey.load(path) for path in given)
    own = audit_key_path()
    return (SigningKey.load(own).public_key,) if own.exists() else ()


def sign_checkpoint(body: Mapping[str, object], key: SigningKey) -> str:
    """Sign the fields of a checkpoint.

    Returns:
        The signature, 128 hexadecimal digits.
    """
    return key.private.sign(_signed_bytes(body)).hex()


def matches(body: Mapping[str, object], signature: object, key: PublicKey) -> bool:
    """Whether `signature` is the one of `key` over the fields of a checkpoint."""
    verifier = load_pem_public_key(key.pem)
    if not isinstance(signature, str) or not isinstance(verifier, Ed25519PublicKey):
        return False
    try:
        verifier.verify(bytes.fromhex(signature), _signed_bytes(body))
    except (ValueError, InvalidSignature):
        return False
    return True


def find_key(keyid: object, keys: Sequence[PublicKey], where: str) -> PublicKey:
    """The key that a checkpoint names, among those believed.

    Raises:
        InputError: It is none of them.
    """
    for key in keys:
        if key.keyid == keyid:
            return key
    raise InputError(
        f"{where} is signed with audit key {str(keyid)[:80]!r}, which is not known here; give the "
        "public half that `hecompile audit key` prints on the machine of the log, with --key"
    )


def _signed_bytes(body: Mapping[str, object]) -> bytes:
    encoded: bytes = Envelope(canonical_json(body), _TYPE, {}).pae()
    return encoded
