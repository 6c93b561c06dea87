"""Several byte strings in one file: the envelopes of as many evaluations, in order.

    "HECT" | version, 2 bytes | count, 4 bytes | length of each, 8 bytes | the byte strings

Numbers are little-endian. What the byte strings are is checked where they are used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from hecompile.errors import IntegrityError
from hecompile.files import atomic_write_bytes, cannot_read
from hecompile.runtime.framing import (
    PREFIX_BYTES,
    pack_lengths,
    pack_prefix,
    read_lengths,
    read_prefix,
)

MAGIC = b"HECT"
VERSION = 1
MAX_COUNT = 1 << 20
MAX_PART_BYTES = 1 << 32


def write_parts(path: Path, parts: Sequence[bytes], mode: int = 0o644) -> int:
    """Write the parts into a file that appears whole or not at all.

    Returns:
        The file's size in bytes.

    Raises:
        InputError: The file cannot be written.
    """
    data = b"".join((pack_prefix(MAGIC, VERSION, len(parts)), pack_lengths(parts), *parts))
    atomic_write_bytes(path, data, mode)
    return len(data)


def read_parts(path: Path, limit: int = MAX_PART_BYTES) -> list[bytes]:
    """Read the parts of a file back, no further than what they may take.

    Args:
        path: The file.
        limit: Most bytes of each part, such as `envelope_limit` gives.

    Raises:
        InputError: The file cannot be read.
        IntegrityError: It is another kind of file, cut off, or holds a part above the limit.
    """
    damaged = IntegrityError(f"{path} is cut off or damaged; get a fresh copy")
    try:
        with path.open("rb") as stream:
            prefix = stream.read(PREFIX_BYTES)
            count = read_prefix(prefix, MAGIC, VERSION, str(path), "a file of ciphertexts")
            if not 0 < count <= MAX_COUNT:
                raise damaged
            stated = stream.read(8 * count)
            if len(stated) != 8 * count:
                raise damaged
            lengths = read_lengths(stated)
            if max(lengths) > limit:
                raise IntegrityError(
                    f"{path} holds a part of {max(lengths)} bytes, more than the {limit} that it"
                    " may have here; get a fresh copy"
                )
            size = PREFIX_BYTES + 8 * count + sum(lengths)
            found = os.fstat(stream.fileno())
            if stat.S_ISREG(found.st_mode) and found.st_size != size:
                raise damaged
            parts = [stream.read(length) for length in lengths]
            if list(map(len, parts)) != list(lengths) or stream.read(1):
                raise damaged
    except OSError as error:
        raise cannot_read(path, error) from error
    return parts
