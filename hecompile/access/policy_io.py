"""Policies as TOML files, as JSON inside a manifest, and as text for people.

All three hold the same tables, so one strict reader serves them; the TOML reader adds the line.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from hecompile.access.policy import (
    POLICY_FORMAT,
    Action,
    Enforcement,
    ObjectRef,
    Permission,
    Policy,
    Role,
    User,
)
from hecompile.access.records import Complain, Place, Record
from hecompile.errors import HecompileError, InputError
from hecompile.files import cannot_read

MAX_POLICY_BYTES = 4 << 20
MAX_NAME_LENGTH = 128

E = TypeVar("E", bound=StrEnum)


class TomlLines:
    """Where tables and keys stand in a TOML text, as far as its lines tell.

    A key in a multi-line string may mislead it: it serves messages, nothing else.
    """

    _PART = r"(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')"
    _DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
    _HEADER = re.compile(rf"^\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
    _KEY = re.compile(rf"^\s*({_DOTTED})\s*=")

    def __init__(self, text: str) -> None:
        """Note the first line of every table and key in `text`."""
        self._lines = text.splitlines()
        self._numbers: dict[Place, int] = {}
        table: Place = ()
        counts: dict[Place, int] = {}
        for number, line in enumerate(self._lines, start=1):
            if header := self._HEADER.match(line):
                table = self._split(header[2])
                if header[1] == "[[":
                    counts[table] = counts.get(table, 0) + 1
                    table = (*table, str(counts[table]))
                self._numbers.setdefault(table, number)
            elif key := self._KEY.match(line):
                self._numbers.setdefault((*table, *self._split(key[1])), number)

    def _split(self, dotted: str) -> Place:
        return tuple(part.strip("\"'") for part in re.findall(self._PART, dotted))

    def find(self, place: Place, value: str | None = None) -> int | None:
        """Line (from 1) of a table, of a key, or of a quoted value at or after the key."""
        for length in range(len(place), 0, -1):
            start = self._numbers.get(place[:length])
            if start is None:
                continue
            if value is not None:
                for number in range(start, len(self._lines) + 1):
                    if re.search(rf"[\"']{re.escape(value)}[\"']", self._lines[number - 1]):
                        return number
            return start
        return None


class _Reader:
    """Builds a policy from plain tables, with the file and line in every message."""

    def __init__(self, source: str, lines: TomlLines | None) -> None:
        self._source = source
        self._lines = lines

    def where(self, place: Place, value: str | None = None) -> str:
        line = self._lines.find(place, value) if self._lines else None
        return f"{self._source}, line {line}" if line else self._source

    def complain(self, place: Place, message: str) -> HecompileError:
        return InputError(f"{self.where(place)}: {message}")

    def policy(self, data: object) -> Policy:
        complain: Complain = self.complain
        top = Record.of(
            data, (), complain, ("format",), ("roles", "permissions", "users", "unused")
        )
        found = top.integer("format")
        if found != POLICY_FORMAT:
            raise top.wrong(
                "format", f"is {found}, but this version reads {POLICY_FORMAT}; upgrade hecompile"
            )
        for table in ("roles", "permissions"):
            if not top.fields.get(table):
                raise complain((table,), f"the policy has no {table}; add at least one")
        permissions = tuple(
            self._permission(record, number)
            for number, record in enumerate(
                top.records("permissions", ("role", "actions", "objects"), ("enforcement",)), 1
            )
        )
        unused = tuple(self._object(text, ("unused",)) for text in top.texts("unused"))
        return Policy(self._roles(top), permissions, self._users(top), unused)

    def _roles(self, top: Record) -> tuple[Role, ...]:
        roles = []
        names = Record.open_table(top.fields.get("roles"), ("roles",), self.complain)
        for name in names.fields:
            self._check_name(name, ("roles", name))
            role = names.record(name, optional=("description", "inherits"))
            roles.append(
                Role(
                    name,
                    role.texts("inherits"),
                    role.text("description", ""),
                    self.where(role.place),
                )
            )
        return tuple(roles)

    def _users(self, top: Record) -> tuple[User, ...]:
        users = []
        names = Record.open_table(top.fields.get("users", {}), ("users",), self.complain)
        for name in names.fields:
            self._check_name(name, ("users", name))
            users.append(User(name, names.texts(name), self.where(("users", name))))
        return tuple(users)

    def _permission(self, record: Record, number: int) -> Permission:
        place = record.place
        actions = tuple(
            self._word(Action, text, (*place, "actions")) for text in record.texts("actions")
        )
        objects = tuple(self._object(text, (*place, "objects")) for text in record.texts("objects"))
        for field, found in (("actions", actions), ("objects", objects)):
            if not found:
                raise record.wrong(field, "is empty, so the permission grants nothing; fill it")
        enforcement = None
        if "enforcement" in record.fields:
            enforcement = self._word(
                Enforcement, record.text("enforcement"), (*place, "enforcement")
            )
        where = f"{self.where(place)} (permission {number})"
        return Permission(record.text("role"), actions, objects, enforcement, where)

    def _word(self, words: type[E], text: str, place: Place) -> E:
        if text in tuple(words):
            return words(text)
        raise InputError(
            f"{self.where(place, text)}: unknown {words.__name__.lower()} '{text}'"
            f"{suggestion(text, words)}; use one of {', '.join(words)}"
        )

    def _object(self, text: str, place: Place) -> ObjectRef:
        try:
            return ObjectRef.parse(text)
        except InputError as error:
            raise InputError(f"{self.where(place, text)}: {error}") from None

    def _check_name(self, name: str, place: Place) -> None:
        if (
            not name
            or len(name) > MAX_NAME_LENGTH
            or name != name.strip()
            or not name.isprintable()
        ):
            raise self.complain(
                place,
                f"{name!r} is not a usable name; take 1 to {MAX_NAME_LENGTH} printable characters",
            )


def suggestion(word: str, known: Iterable[str], prefix: str = "") -> str:
    """` (did you mean 'x'?)` if one of `known` is near to `word`, else nothing.

    Args:
        word: What was written.
        known: What could have been meant.
        prefix: Put before what is proposed.
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{prefix}{near[0]}'?)" if near else ""


def read_policy(path: str | Path) -> Policy:
    """Read a policy from a TOML file; `check_policy` then holds it against a program.

    Raises:
        InputError: The file cannot be read, is not TOML, or holds an unknown key, action or
            object; the message names file and line.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise cannot_read(Path(path), error) from error
    if len(data) > MAX_POLICY_BYTES:
        raise InputError(f"{path} has more than {MAX_POLICY_BYTES} bytes and is no policy")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save the policy as UTF-8") from error
    return parse_policy(text, str(path))


def parse_policy(text: str, source: str = "the policy") -> Policy:
    """Read a policy from TOML text; `source` names it in messages.

    Raises:
        InputError: As for `read_policy`.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{source} is nested too deeply to be a policy") from error
    return _Reader(source, TomlLines(text)).policy(data)


def policy_from_json(data: object, source: str = "the policy") -> Policy:
    """Read a policy from the tables that `policy_to_json` gives.

    Raises:
        InputError: The tables are not a policy's.
    """
    return _Reader(source, None).policy(data)


def policy_to_json(policy: Policy) -> dict[str, object]:
    """The policy as plain tables, the same as its TOML file holds."""
    permissions = []
    for permission in policy.permissions:
        table: dict[str, object] = {
            "role": permission.role,
            "actions": [str(action) for action in permission.actions],
            "objects": [str(obj) for obj in permission.objects],
        }
        if permission.enforcement is not None:
            table["enforcement"] = str(permission.enforcement)
        permissions.append(table)
    return {
        "format": POLICY_FORMAT,
        "unused": [str(obj) for obj in policy.unused],
        "roles": {
            role.name: {"description": role.description, "inherits": list(role.inherits)}
            for role in policy.roles
        },
        "permissions": permissions,
        "users": {user.name: list(user.roles) for user in policy.users},
    }


def policy_to_toml(policy: Policy) -> str:
    """The policy as TOML text that `parse_policy` reads back to an equal policy."""
    lines = [f"format = {POLICY_FORMAT}"]
    if policy.unused:
        lines.append(f"unused = {_toml_list(policy.unused)}")
    for role in policy.roles:
        lines += ["", f"[roles.{_toml_key(role.name)}]"]
        if role.description:
            lines.append(f"description = {_toml_text(role.description)}")
        lines.append(f"inherits = {_toml_list(role.inherits)}")
    for permission in policy.permissions:
        lines += ["", "[[permissions]]", f"role = {_toml_text(permission.role)}"]
        lines.append(f"actions = {_toml_list(permission.actions)}")
        lines.append(f"objects = {_toml_list(permission.objects)}")
        if permission.enforcement is not None:
            lines.append(f"enforcement = {_toml_text(permission.enforcement)}")
    lines += ["", "[users]"]
    lines += [f"{_toml_key(user.name)} = {_toml_list(user.roles)}" for user in policy.users]
    return "\n".join(lines) + "\n"


def _toml_text(text: str) -> str:
    # JSON escapes all that TOML asks for but DEL; ASCII-only JSON would write surrogate pairs.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_list(items: Iterable[object]) -> str:
    return "[" + ", ".join(_toml_text(str(item)) for item in items) + "]"


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml_text(name)
