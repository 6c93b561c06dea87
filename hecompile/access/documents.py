"""Strict reading of signed documents that people write: TOML with lines, or the same as JSON.

Both hold the same tables, so one reader serves both; a TOML file adds the line to every message.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Sequence, Sized
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from hecompile.access.names import name_fault, printable, shown
from hecompile.access.records import Place
from hecompile.errors import HecompileError, InputError
from hecompile.files import cannot_read

MAX_DOCUMENT_BYTES = 4 << 20
_MAX_SUGGESTED = 128

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
        # As TOML counts lines: other separators of Unicode are text like any other.
        self._lines = text.split("\n")
        self._numbers: dict[Place, int] = {}
        table: Place = ()
        counts: dict[Place, int] = {}
        for number, line in enumerate(self._lines, start=1):
            if header := self._HEADER.match(line):
                table = ()
                *parents, last = self._split(header[2])
                for part in parents:
                    table = (*table, part)
                    if table in counts:
                        # A table below the latest entry of a list of tables.
                        table = (*table, str(counts[table]))
                table = (*table, last)
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


class DocumentReader:
    """Names the file and the line in every message."""

    def __init__(self, source: str, lines: TomlLines | None) -> None:
        """Read what `source` names; `lines` are those of a TOML text."""
        self._source = source
        self._lines = lines

    def where(self, place: Place, value: str | None = None) -> str:
        """File and line of a place, or of a quoted value at or after it."""
        line = self._lines.find(place, value) if self._lines else None
        return f"{self._source}, line {line}" if line else self._source

    def complain(self, place: Place, message: str) -> HecompileError:
        """The error for a place."""
        return self.fault(self.where(place), message)

    def fault(self, where: str, message: str) -> InputError:
        """The error at a file and line, with nothing in it that steers a terminal."""
        return InputError(f"{where}: {printable(message)}")

    def word(self, words: type[E], text: str, place: Place) -> E:
        """One of a set of words."""
        if text in tuple(words):
            return words(text)
        raise self.fault(
            self.where(place, text),
            f"unknown {words.__name__.lower()} '{shown(text)}'{suggestion(text, words)}; "
            f"use one of {', '.join(words)}",
        )

    def check_name(self, name: str, place: Place) -> None:
        """Refuse what cannot name a role, a user or a purpose."""
        if fault := name_fault(name):
            raise self.complain(place, f"{name[:80]!r} is not a usable name: it {fault}")

    def check_distinct(self, place: Place, items: Sequence[str]) -> None:
        """Refuse a list that names something twice."""
        seen: set[str] = set()
        for item in items:
            if item in seen:
                raise self.complain(
                    place, f"{'.'.join(place)} names '{shown(item)}' twice; keep one"
                )
            seen.add(item)

    def check_count(self, place: Place, items: Sized, most: int) -> None:
        """Refuse a list or table of more than `most` entries."""
        if len(items) > most:
            raise self.complain(
                place,
                f"{'.'.join(place)} has {len(items)} entries, more than {most}; leave some out",
            )


def suggestion(word: str, known: Iterable[str], prefix: str = "") -> str:
    """` (did you mean 'x'?)` if one of `known` is near to `word`, else nothing.

    Args:
        word: What was written.
        known: What could have been meant.
        prefix: Put before what is proposed.
    """
    if len(word) > _MAX_SUGGESTED:
        return ""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{prefix}{near[0]}'?)" if near else ""


def read_text(path: str | Path, what: str) -> str:
    """The text of a document's file; `what` names the kind of document in messages.

    Raises:
        InputError: The file cannot be read, is too large or is not UTF-8.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise cannot_read(Path(path), error) from error
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InputError(f"{path} has more than {MAX_DOCUMENT_BYTES} bytes and is no {what}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save the {what} as UTF-8") from error


def parse_toml(text: str, source: str) -> object:
    """The tables of a TOML text.

    Raises:
        InputError: The text is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{source} is nested too deeply") from error
    except ValueError as error:
        # Numbers of more digits than Python converts.
        raise InputError(f"{source} is not valid TOML: {error}") from error


def toml_value(value: object) -> str:
    """A plain value as TOML on one line.

    Raises:
        TypeError: TOML has no such value.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            # JSON escapes all that TOML asks for but DEL; ASCII-only JSON would write surrogates.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return "[" + ", ".join(map(toml_value, value)) + "]"
        case dict():
            return (
                "{" + ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
            )
    raise TypeError(f"TOML has no {type(value).__name__}")


def toml_key(name: str) -> str:
    """A name as a key of a TOML table."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def toml_fields(table: dict[str, object]) -> list[str]:
    """The fields of a table, one a line."""
    return [f"{toml_key(key)} = {toml_value(value)}" for key, value in table.items()]
