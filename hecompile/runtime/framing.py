"""The first ten bytes of every binary file: what it is, its format's version, and a number.

    magic, 4 bytes | version, 2 bytes | number, 4 bytes

Numbers are little-endian. What the number counts is up to the kind of file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from hecompile.errors import IntegrityError

_PREFIX: Final = struct.Struct("<4sHI")
PREFIX_BYTES: Final = _PREFIX.size
_NUMBER: Final = struct.Struct("<I")
_LENGTH_BYTES: Final = 8


def pack_prefix(magic: bytes, version: int, number: int) -> bytes:
    """The first bytes of a file."""
    return _PREFIX.pack(magic, version, number)


def read_prefix(data: bytes, magic: bytes, version: int, what: str, kind: str) -> int:
    """Check the first bytes of a file and give its number.

    Args:
        data: The file.
        magic: What it must start with.
        version: The format that is read.
        what: The file's name, for messages.
        kind: What it should be, for messages.

    Raises:
        IntegrityError: It is no such file, or of another version.
    """
    if len(data) < PREFIX_BYTES or not data.startswith(magic):
        raise IntegrityError(f"{what} is not {kind} made by hecompile; name another file.")
    _, found, number = _PREFIX.unpack_from(data)
    if found != version:
        raise IntegrityError(
            f"{what} has format version {found}, this hecompile reads {version}; use the same"
            " hecompile everywhere."
        )
    return int(number)


def pack_parts(parts: Sequence[bytes]) -> bytes:
    """Put byte strings together: their number, the length of each, then the strings."""
    return b"".join((_NUMBER.pack(len(parts)), pack_lengths(parts), *parts))


def pack_lengths(parts: Sequence[bytes]) -> bytes:
    """The length of each byte string, 8 bytes each."""
    return struct.pack(f"<{len(parts)}Q", *map(len, parts))


def read_lengths(data: bytes) -> tuple[int, ...]:
    """Read what `pack_lengths` wrote."""
    return struct.unpack(f"<{len(data) // _LENGTH_BYTES}Q", data)


def unpack_parts(data: bytes) -> list[bytes]:
    """Read what `pack_parts` wrote.

    Raises:
        IntegrityError: The bytes are something else.
    """
    wrong = IntegrityError("what the evaluator's process was sent is damaged; try again.")
    if len(data) < _NUMBER.size:
        raise wrong
    (count,) = _NUMBER.unpack_from(data)
    place = _NUMBER.size + _LENGTH_BYTES * count
    if place > len(data):
        raise wrong
    parts = []
    for length in read_lengths(data[_NUMBER.size : place]):
        parts.append(data[place : place + length])
        place += length
    if place != len(data) or sum(map(len, parts)) != len(data) - _NUMBER.size - 8 * count:
        raise wrong
    return parts
