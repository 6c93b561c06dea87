"""Several byte strings in one file: the envelopes of as many evaluations, in order.

    "HECT" | version, 2 bytes | count, 4 bytes | length of each, 8 bytes | the byte strings

Numbers are little-endian. What the byte strings are is checked where they are used.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from hecompile.errors import IntegrityError
from hecompile.files import atomic_write_bytes, cannot_read
from hecompile.runtime.framing import PREFIX_BYTES, pack_prefix, read_prefix

MAGIC = b"HECT"
VERSION = 1
MAX_COUNT = 1 << 20


def write_parts(path: Path, parts: Sequence[bytes], mode: int = 0o644) -> int:
    """Write the parts into a file that appears whole or not at all.

    Returns:
        The file's size in bytes.

    Raises:
        InputError: The file cannot be written.
    """
    lengths = struct.pack(f"<{len(parts)}Q", *map(len, parts))
    data = b"".join((pack_prefix(MAGIC, VERSION, len(parts)), lengths, *parts))
    atomic_write_bytes(path, data, mode)
    return len(data)


def read_parts(path: Path) -> list[bytes]:
    """Read the parts of a file back.

    Raises:
        InputError: The file cannot be read.
        IntegrityError: It is another kind of file, or cut off.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error
    count = read_prefix(data, MAGIC, VERSION, str(path), "a file of ciphertexts")
    start = PREFIX_BYTES + 8 * count
    if not 0 < count <= MAX_COUNT or start > len(data):
        raise IntegrityError(f"{path} is cut off or damaged; get a fresh copy")
    lengths = struct.unpack_from(f"<{count}Q", data, PREFIX_BYTES)
    if start + sum(lengths) != len(data):
        raise IntegrityError(f"{path} is cut off or damaged; get a fresh copy")
    parts = []
    for length in lengths:
        parts.append(data[start : start + length])
        start += length
    return parts
