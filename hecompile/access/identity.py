"""Identities: the key on this machine that a user's messages are signed with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from hecompile.access.names import name_fault, shown
from hecompile.access.signing import SigningKey, default_key_path
from hecompile.access.user_entries import Users, key_text
from hecompile.errors import AccessDeniedError, HecompileError, InputError
from hecompile.files import atomic_write_bytes, config_home, private_folder

IDENTITIES_FOLDER = "identities"


@dataclass(frozen=True)
class Identity:
    """A user and the key that it signs with.

    Attributes:
        user: The user's name.
        key: The key; its text form shows the identifier only.
    """

    user: str
    key: SigningKey

    @property
    def keyid(self) -> str:
        """Identifier of the key, 64 hexadecimal digits."""
        return self.key.keyid

    @property
    def public_bytes(self) -> bytes:
        """The public half, 32 bytes."""
        return self.key.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def text(self) -> str:
        """The public half as the security officer puts it into the users document."""
        return key_text(self.public_bytes)


def generate_identity(user: str) -> Identity:
    """A new identity, in memory only."""
    return Identity(user, SigningKey.generate())


def identity_path(user: str, home: str | Path | None = None) -> Path:
    """Where a user's identity is kept: `identities/USER.pem` in the settings folder.

    Args:
        user: The user's name.
        home: The settings folder, by default the user's own.

    Raises:
        InputError: The name cannot be a file's.
    """
    fault = name_fault(user) or ("begins with '.'" if user.startswith(".") else "")
    if fault:
        raise InputError(f"{shown(user)} cannot name an identity: it {fault}; take another name")
    folder = Path(home) if home is not None else config_home()
    return folder / IDENTITIES_FOLDER / f"{user}.pem"


def load_identity(user: str, home: str | Path | None = None) -> Identity:
    """A user's identity from this machine.

    Args:
        user: The user's name.
        home: The settings folder, by default the user's own.

    Raises:
        InputError: There is none here, or the file holds no Ed25519 key.
        IntegrityError: Other users of the machine may read or change the file.
    """
    path = identity_path(user, home)
    if not os.path.lexists(path):
        raise InputError(
            f"the identity of user '{user}' is not on this machine ({path}); make one with "
            f"`hecompile identity new {user}` and have its key put into the users document"
        )
    return Identity(user, SigningKey.load(path))


def own_signer(path: str | Path | None = None) -> SigningKey:
    """The key that signs manifests and users documents on this machine.

    Args:
        path: The key's file, by default `signing.pem` in the user's settings folder.

    Raises:
        InputError: There is none yet, or the file holds no Ed25519 key.
        IntegrityError: Other users of the machine may read or change the file.
    """
    place = Path(path) if path is not None else default_key_path()
    if path is None and not os.path.lexists(place):
        raise InputError(
            f"there is no signing key on this machine yet ({place}); make one with `hecompile "
            "identity signer -o KEY.pub`, and hand KEY.pub to those who are to trust what it signs"
        )
    return SigningKey.load(place)


def acting_identity(user: str, users: Users | None, home: str | Path | None = None) -> Identity:
    """The identity in whose name somebody acts here: that of the users document, no other.

    Anybody can make an identity of any name on a machine of their own; what counts is the key that
    the signed users document gives to the user.

    Args:
        user: The user's name.
        users: Who has which key; None where there is no users document.
        home: The settings folder, by default the user's own.

    Raises:
        AccessDeniedError: The document does not know the user, or by another key or by none; or
            the identity is not on this machine, cannot be read, or is open to others.
    """
    entry = users.user(user) if users is not None else None
    if entry is None:
        raise AccessDeniedError(
            f"Access Denied: user {user!r} is not in the users document; have it signed with one "
            "that names the user (`hecompile users sign`)"
        )
    try:
        identity = load_identity(user, home)
    except HecompileError as error:
        raise AccessDeniedError(f"Access Denied: {error}") from error
    if entry.key != identity.public_bytes:
        other = "no key" if entry.key is None else "another key"
        raise AccessDeniedError(
            f"Access Denied: the users document has {other} for user '{user}', not that of the "
            f"identity on this machine; have the text that `hecompile identity show {user}` prints "
            "put into it and signed"
        )
    return identity


def make_identity(user: str, home: str | Path | None = None) -> Identity:
    """Make a user's identity and keep it, closed to others (mode 0600).

    Args:
        user: The user's name.
        home: The settings folder, by default the user's own.

    Raises:
        InputError: There is one already, or it cannot be written.
    """
    path = identity_path(user, home)
    identity = generate_identity(user)
    private_folder(path.parent)
    pem = identity.key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        atomic_write_bytes(path, pem, 0o600, exclusive=True)
    except FileExistsError:
        raise InputError(
            f"user '{user}' has an identity already ({path}), which is not replaced; show its key "
            f"with `hecompile identity show {user}`, or move the file away to make another"
        ) from None
    return identity
