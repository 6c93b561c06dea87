"""Several byte strings in one file: the envelopes of as many evaluations, in order.

    "HECT" | version, 2 bytes | count, 4 bytes | length of each, 8 bytes | the byte strings

Numbers are little-endian. What the byte strings are is checked where they are used, each before the
next one is read: a file from a stranger takes no more memory than one of its parts may.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

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
MAX_COUNT = 1 << 16
MAX_PART_BYTES = 1 << 32
MEMORY_SHARE = 4
"""A file is refused whose parts together exceed the machine's memory divided by this: they are
received, parsed and expanded by whoever works on all of them."""


class Parts(Iterator[bytes]):
    """The parts of a file, each read when it is asked for.

    Attributes:
        count: How many the file has.
    """

    def __init__(self, path: Path, limit: int, most: int) -> None:
        """Open a file and read its head; use `read_parts`."""
        self.count = 0
        self._path = path
        self._limit = limit
        self._most = most
        self._parts = self._read()
        # The head is judged now, and the file closed when the generator ends or is forgotten.
        next(self._parts)

    def __next__(self) -> bytes:
        """The next part.

        Raises:
            InputError: The file cannot be read.
            IntegrityError: It is cut off, or longer than it says.
        """
        return next(self._parts)

    def _read(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as stream:
                lengths = self._head(stream)
                self.count = len(lengths)
                yield b""
                for number, length in enumerate(lengths, start=1):
                    part = stream.read(length)
                    if len(part) != length or (number == self.count and stream.read(1)):
                        raise self._damaged()
                    yield part
        except OSError as error:
            raise cannot_read(self._path, error) from error

    def _head(self, stream: IO[bytes]) -> tuple[int, ...]:
        """The length of each part, if the file may have such parts."""
        prefix = stream.read(PREFIX_BYTES)
        count = read_prefix(prefix, MAGIC, VERSION, str(self._path), "a file of ciphertexts")
        if not count:
            raise self._damaged()
        if count > MAX_COUNT:
            raise IntegrityError(
                f"{self._path} states {count} parts, more than the {MAX_COUNT} that a file may"
                " have; split it"
            )
        stated = stream.read(8 * count)
        if len(stated) != 8 * count:
            raise self._damaged()
        lengths = read_lengths(stated)
        if max(lengths) > self._limit:
            raise IntegrityError(
                f"{self._path} holds a part of {max(lengths)} bytes, more than the {self._limit}"
                " that it may have here; get a fresh copy"
            )
        if sum(lengths) > self._most:
            raise IntegrityError(
                f"{self._path} holds {sum(lengths)} bytes, more than the {self._most} that this"
                " machine takes at a time; send fewer samples in a file"
            )
        found = os.fstat(stream.fileno())
        size = PREFIX_BYTES + len(stated) + sum(lengths)
        if stat.S_ISREG(found.st_mode) and found.st_size != size:
            raise self._damaged()
        return lengths

    def _damaged(self) -> IntegrityError:
        return IntegrityError(f"{self._path} is cut off or damaged; get a fresh copy")


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


def read_parts(path: Path, limit: int = MAX_PART_BYTES, most: int | None = None) -> Parts:
    """Read the parts of a file back, one at a time, no further than what they may take.

    Args:
        path: The file.
        limit: Most bytes of each part, such as `envelope_limit` gives.
        most: Most bytes of all parts together; None for the machine's memory divided by
            `MEMORY_SHARE`.

    Returns:
        The parts, of which none is read yet.

    Raises:
        InputError: The file cannot be read.
        IntegrityError: It is another kind of file, cut off, or states too many parts, too large a
            part, or too much in all.
    """
    if most is None:
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEMORY_SHARE
    return Parts(path, limit, most)
