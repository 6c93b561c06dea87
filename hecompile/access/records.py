"""Strict reading of JSON and TOML data: exact fields, exact types, canonical bytes."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from hecompile.errors import HecompileError, IntegrityError

Place = tuple[str, ...]
Complain = Callable[[Place, str], HecompileError]
"""Makes the error for a place in the data (field names and positions from the root)."""


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys, no spaces, ASCII only: equal values give equal bytes.

    Raises:
        ValueError: The value holds NaN or an infinity.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii")


def parse_json(data: bytes, what: str, limit: int) -> object:
    """Read JSON of at most `limit` bytes; repeated keys, NaN and infinities are refused.

    A number too large for a float, such as 1e400, would be read as an infinity, so it is refused.

    Args:
        data: The bytes.
        what: Name of the data, for the message.
        limit: Largest size accepted, in bytes.

    Raises:
        IntegrityError: The bytes are too many or are not such JSON.
    """
    if len(data) > limit:
        raise IntegrityError(
            f"{what} has {len(data)} bytes, more than the {limit} allowed; get a fresh copy"
        )
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        # A message of the parser may quote the data, which here may be hostile: left out.
        raise IntegrityError(f"{what} is not valid JSON; get a fresh copy") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("repeated key")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("too large a number")
    return number


@dataclass(frozen=True)
class Record:
    """A table whose fields are read by type; every surprise is an error that names the place.

    Attributes:
        fields: The data.
        place: Where the table is, from the root.
        complain: Makes the error.
    """

    fields: Mapping[str, object]
    place: Place
    complain: Complain

    @classmethod
    def of(
        cls,
        value: object,
        place: Place,
        complain: Complain,
        required: Collection[str] = (),
        optional: Collection[str] = (),
    ) -> Record:
        """Take a table that has all `required` fields and else only `optional` ones."""
        if not isinstance(value, Mapping):
            raise complain(place, f"{_name(place)} must be a table")
        known = (*required, *optional)
        for key in value:
            if key not in known:
                raise complain(
                    (*place, str(key)),
                    f"unknown key {key!r} in {_name(place)}; known keys are {', '.join(known)}",
                )
        for key in required:
            if key not in value:
                raise complain(place, f"{_name(place)} lacks the key '{key}'; add it")
        return cls(value, place, complain)

    @classmethod
    def open_table(cls, value: object, place: Place, complain: Complain) -> Record:
        """Take a table whose keys are names of the writer's choice."""
        if not isinstance(value, Mapping):
            raise complain(place, f"{_name(place)} must be a table")
        return cls(value, place, complain)

    def wrong(self, field: str, message: str) -> HecompileError:
        """The error for one field."""
        return self.complain((*self.place, field), f"{_name((*self.place, field))} {message}")

    def text(self, field: str, default: str | None = None) -> str:
        """A string."""
        value = self.fields.get(field, default)
        if not isinstance(value, str):
            raise self.wrong(field, "must be text")
        return value

    def integer(self, field: str, minimum: int = 0, maximum: int | None = None) -> int:
        """A whole number not below `minimum`, nor above `maximum` if that is given."""
        value = self.fields.get(field)
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or value < minimum
            or (maximum is not None and value > maximum)
        ):
            bounds = f"not below {minimum}" if maximum is None else f"from {minimum} to {maximum}"
            raise self.wrong(field, f"must be a whole number {bounds}")
        return value

    def number(self, field: str, minimum: float = 0.0) -> float:
        """A finite number not below `minimum`."""
        value = self.fields.get(field)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.wrong(field, "must be a number")
        if abs(value) > sys.float_info.max or not value >= minimum:
            raise self.wrong(
                field,
                "must be finite"
                if minimum == -math.inf
                else f"must be finite and not below {minimum:g}",
            )
        return float(value)

    def above_zero(self, field: str) -> float:
        """A finite number above zero."""
        value = self.number(field)
        if value == 0:
            raise self.wrong(field, "must be above 0")
        return value

    def flag(self, field: str, default: bool) -> bool:
        """True or false."""
        value = self.fields.get(field, default)
        if not isinstance(value, bool):
            raise self.wrong(field, "must be true or false")
        return value

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of strings, empty where the field is absent."""
        items = self.items(field)
        if not all(isinstance(item, str) for item in items):
            raise self.wrong(field, "must be a list of texts")
        return tuple(str(item) for item in items)

    def integers(self, field: str, minimum: int | None = None) -> tuple[int, ...]:
        """A list of whole numbers, none below `minimum` if that is given."""
        found = []
        for item in self.items(field):
            if not isinstance(item, int) or isinstance(item, bool):
                raise self.wrong(field, "must be a list of whole numbers")
            if minimum is not None and item < minimum:
                raise self.wrong(field, f"must hold no number below {minimum}")
            found.append(item)
        return tuple(found)

    def items(self, field: str) -> tuple[object, ...]:
        """A list, empty where the field is absent."""
        value = self.fields.get(field, [])
        if not isinstance(value, list):
            raise self.wrong(field, "must be a list")
        return tuple(value)

    def record(
        self, field: str, required: Collection[str] = (), optional: Collection[str] = ()
    ) -> Record:
        """A table with known keys."""
        place = (*self.place, field)
        return Record.of(self.fields.get(field), place, self.complain, required, optional)

    def records(
        self, field: str, required: Collection[str], optional: Collection[str] = ()
    ) -> tuple[Record, ...]:
        """A list of tables with known keys, empty where the field is absent."""
        return tuple(
            Record.of(item, (*self.place, field, str(i)), self.complain, required, optional)
            for i, item in enumerate(self.items(field), start=1)
        )


def _name(place: Place) -> str:
    """The place for a message, without characters that would steer a terminal."""
    name = ".".join(place) or "the top level"
    return name if name.isprintable() else repr(name)
