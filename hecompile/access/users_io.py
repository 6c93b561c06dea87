"""Users documents as TOML files, as JSON, and signed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hecompile.access.documents import (
    MAX_DOCUMENT_BYTES,
    DocumentReader,
    TomlLines,
    parse_toml,
    read_text,
    toml_fields,
)
from hecompile.access.policy import Policy
from hecompile.access.records import Record, canonical_json, parse_json
from hecompile.access.signing import PublicKey, SigningKey, sign, verify_signed
from hecompile.access.times import EXAMPLE, is_period, read_time
from hecompile.access.trust import TrustedKeys
from hecompile.access.user_entries import (
    USERS_FORMAT,
    UserEntry,
    Users,
    parse_key_text,
    users_to_json,
)
from hecompile.errors import InputError, IntegrityError

USERS_NAME = "users.json"
"""Name of the signed document beside a bundle's manifest."""

USERS_PAYLOAD_TYPE = "application/vnd.hecompile.users+json"
MAX_VERSION = 2**53
MAX_USERS = 10_000
MAX_ROLES = 1000

_SHA256 = re.compile(r"[0-9a-f]{64}")


class _UsersReader(DocumentReader):
    """Builds a users document from plain tables, with file and line in every message."""

    def users(self, data: object, policy: str | None = None) -> Users:
        """The document; `policy` is the digest of its policy where the tables do not name it."""
        stated = ("policy",) if policy is None else ()
        times = ("not_before", "not_after")
        top = Record.of(data, (), self.complain, ("format", "version", *stated, "users"), times)
        found = top.integer("format")
        if found != USERS_FORMAT:
            raise top.wrong(
                "format", f"is {found}, but this version reads {USERS_FORMAT}; upgrade hecompile"
            )
        digest = top.text("policy") if policy is None else policy
        if _SHA256.fullmatch(digest) is None:
            raise top.wrong("policy", "must be a SHA-256, 64 hexadecimal digits")
        not_before, not_after = (self._time(top, field) for field in times)
        if not is_period(not_before, not_after):
            raise top.wrong("not_after", "is not later than not_before")
        version = top.integer("version", 1, MAX_VERSION)
        return Users(digest, version, not_before, not_after, self._entries(top))

    def _time(self, top: Record, field: str) -> str:
        text = top.text(field, "")
        if text and read_time(text) is None:
            raise top.wrong(field, f"must be a time in UTC such as {EXAMPLE}")
        return text

    def _entries(self, top: Record) -> tuple[UserEntry, ...]:
        table = Record.open_table(top.fields.get("users"), ("users",), self.complain)
        if len(table.fields) > MAX_USERS:
            raise self.complain(("users",), f"names more than {MAX_USERS} users; leave some out")
        entries = []
        owners: dict[bytes, str] = {}
        for name, value in table.fields.items():
            self.check_name(name, ("users", name))
            entry = self._entry(table, name, value)
            if entry.key is not None and owners.setdefault(entry.key, name) != name:
                raise self.complain(
                    ("users", name),
                    f"users '{owners[entry.key]}' and '{name}' have the same key; let each make "
                    "its own with `hecompile identity new`",
                )
            entries.append(entry)
        return tuple(entries)

    def _entry(self, table: Record, name: str, value: object) -> UserEntry:
        place = ("users", name)
        key = None
        if isinstance(value, list):
            roles = table.texts(name)
        elif not isinstance(value, dict):
            raise self.complain(
                place,
                f"user '{name}' must be a list of roles, such as {name} = [\"clinician\"], or a "
                'table, such as {roles = ["clinician"], key = "ed25519:..."}',
            )
        else:
            record = table.record(name, ("roles",), ("key",))
            roles = record.texts("roles")
            if "key" in record.fields:
                try:
                    key = parse_key_text(record.text("key"))
                except InputError as error:
                    raise self.complain((*place, "key"), f"user '{name}': {error}") from None
        self.check_count(place, roles, MAX_ROLES)
        self.check_distinct(place, roles)
        return UserEntry(name, roles, key, self.where(place))


def read_users(path: str | Path, policy: Policy) -> Users:
    """Read who has which role under a policy from a TOML file.

    Raises:
        InputError: The file cannot be read, is not TOML, or holds something unknown; the message
            names file and line.
    """
    return parse_users(read_text(path, "users document"), policy, str(path))


def parse_users(text: str, policy: Policy, source: str = "the users document") -> Users:
    """Read a users document from TOML text; `source` names it in messages.

    Raises:
        InputError: As for `read_users`.
    """
    return _UsersReader(source, TomlLines(text)).users(parse_toml(text, source), policy.digest)


def users_from_json(data: object, source: str = USERS_NAME) -> Users:
    """Read a users document from the tables that `users_to_json` gives.

    Raises:
        InputError: The tables are not those of a users document.
    """
    return _UsersReader(source, None).users(data)


def users_to_toml(users: Users) -> str:
    """The document as TOML text that `parse_users` reads back under the same policy."""
    tables = users_to_json(users)
    tables.pop("policy")
    entries = tables.pop("users")
    head = {key: value for key, value in tables.items() if value != ""}
    lines = [*toml_fields(head), "", "[users]"]
    if isinstance(entries, dict):
        lines += toml_fields(entries)
    return "\n".join(lines) + "\n"


def sign_users(users: Users, key: SigningKey) -> bytes:
    """The document in a DSSE envelope signed with `key`; `signing.cosign` adds signatures."""
    return sign(canonical_json(users_to_json(users)), key, USERS_PAYLOAD_TYPE)


def verify_users(
    signed: bytes, trusted: Sequence[PublicKey], threshold: int = 1, what: str = USERS_NAME
) -> Users:
    """The document in a signed envelope.

    Args:
        signed: The envelope, as `sign_users` wrote it.
        trusted: The keys that may sign it.
        threshold: How many of them must have.
        what: Name of the document, for messages.

    Raises:
        IntegrityError: It was changed, a signer is not trusted, or too few signed.
    """
    if len(signed) > 2 * MAX_DOCUMENT_BYTES:
        raise IntegrityError(f"{what} has {len(signed)} bytes and is no users document")
    keys = TrustedKeys(trusted, threshold)
    payload = verify_signed(signed, keys, what, USERS_PAYLOAD_TYPE).payload
    try:
        users = users_from_json(parse_json(payload, what, MAX_DOCUMENT_BYTES), what)
    except InputError as error:
        raise IntegrityError(str(error)) from error
    if canonical_json(users_to_json(users)) != payload:
        raise IntegrityError(f"{what} is not spelt as hecompile spells it; have it signed anew")
    return users
