"""The types of a users document: who has which role, and the keys that users sign with."""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hecompile.access.policy import Policy
from hecompile.access.records import canonical_json
from hecompile.access.trust import PublicKey, check_point
from hecompile.errors import InputError
from hecompile.files import sha256_bytes

USERS_FORMAT = 1
KEY_PREFIX = "ed25519:"
KEY_BYTES = 32


@dataclass(frozen=True)
class UserEntry:
    """A user, the roles given to it, and the key that its messages are signed with.

    Attributes:
        name: The user's name.
        roles: The roles given to it.
        key: Its identity's public key, 32 bytes of Ed25519; None where it has handed over none,
            so that it cannot sign anything.
        where: File and line, for messages; no part of the entry's identity.
    """

    name: str
    roles: tuple[str, ...]
    key: bytes | None = None
    where: str = field(default="", compare=False)

    @functools.cached_property
    def keyid(self) -> str:
        """Identifier of the user's key, empty without one."""
        return "" if self.key is None else public_key(self.key, self.name).keyid


@dataclass(frozen=True)
class Users:
    """Who has which role under one policy.

    Attributes:
        policy: SHA-256 of the policy that this is for (`Policy.digest`).
        version: From 1; each document must have a higher one than that it replaces.
        not_before: From when it holds, RFC 3339 in UTC; empty for ever since.
        not_after: Until when it holds; empty for ever.
        users: The users; kept sorted by name.
    """

    policy: str
    version: int
    not_before: str
    not_after: str
    users: tuple[UserEntry, ...]

    def __post_init__(self) -> None:
        """Sort the users, so that equal documents compare equal and print alike."""
        object.__setattr__(self, "users", tuple(sorted(self.users, key=lambda one: one.name)))

    @property
    def digest(self) -> str:
        """SHA-256 of the document's canonical JSON, 64 hexadecimal digits."""
        return sha256_bytes(canonical_json(users_to_json(self)))

    def user(self, name: str) -> UserEntry | None:
        """The user of that name, or None."""
        return self._by_name.get(name)

    def of_key(self, keyid: str) -> UserEntry | None:
        """The user whose key has that identifier, or None."""
        return self._by_keyid.get(keyid) if keyid else None

    @functools.cached_property
    def _by_name(self) -> Mapping[str, UserEntry]:
        return {user.name: user for user in self.users}

    @functools.cached_property
    def _by_keyid(self) -> Mapping[str, UserEntry]:
        return {user.keyid: user for user in self.users if user.key is not None}


def users_to_json(users: Users) -> dict[str, object]:
    """The document as plain tables; `users_from_json` reads them."""
    entries: dict[str, object] = {}
    for user in users.users:
        entry: dict[str, object] = {"roles": list(user.roles)}
        if user.key is not None:
            entry["key"] = key_text(user.key)
        entries[user.name] = entry
    return {
        "format": USERS_FORMAT,
        "policy": users.policy,
        "version": users.version,
        "not_before": users.not_before,
        "not_after": users.not_after,
        "users": entries,
    }


def key_text(key: bytes) -> str:
    """A public key as people hand it over: `ed25519:BASE64`."""
    return KEY_PREFIX + base64.b64encode(key).decode("ascii")


def parse_key_text(text: str) -> bytes:
    """Read what `key_text` writes, in that one spelling.

    Returns:
        The key, 32 bytes.

    Raises:
        InputError: It is no such key, or one under which anybody can sign.
    """
    try:
        key = base64.b64decode(text.removeprefix(KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES or key_text(key) != text:
        raise InputError(
            f"{text[:80]!r} is no identity key; take the text that `hecompile identity new USER` "
            f"prints, {KEY_PREFIX}BASE64"
        )
    check_point(key, repr(text))
    return key


def public_key(key: bytes, user: str) -> PublicKey:
    """The key of 32 bytes as signatures are checked with it; `user` names it in messages.

    Raises:
        InputError: The bytes are no Ed25519 key.
    """
    try:
        loaded = Ed25519PublicKey.from_public_bytes(key)
    except ValueError as error:
        raise InputError(f"the key of user '{user}' is no Ed25519 key") from error
    pem = loaded.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey.from_pem(pem, f"the key of user '{user}'")


def single_owner_users(
    policy: Policy, keys: Mapping[str, bytes] | None = None, version: int = 1
) -> Users:
    """The users of `single_owner_policy`: `owner` in role owner, `cloud` in role evaluator.

    Args:
        policy: The policy.
        keys: Public keys of 32 bytes by user name; users without one cannot sign.
        version: The document's version.
    """
    given = keys or {}
    entries = (
        UserEntry("owner", ("owner",), given.get("owner")),
        UserEntry("cloud", ("evaluator",), given.get("cloud")),
    )
    return Users(policy.digest, version, "", "", entries)
