"""The first ten bytes of every binary file: what it is, its format's version, and a number.

    magic, 4 bytes | version, 2 bytes | number, 4 bytes

Numbers are little-endian. What the number counts is up to the kind of file.
"""

from __future__ import annotations

import struct
from typing import Final

from hecompile.errors import IntegrityError

_PREFIX: Final = struct.Struct("<4sHI")
PREFIX_BYTES: Final = _PREFIX.size


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
