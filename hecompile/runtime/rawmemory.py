"""What it takes to read SEAL's objects in memory and to write them as uncompressed streams."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import tenseal.sealapi as seal

from hecompile.runtime.stream import HEADER, MAGIC

Residues = npt.NDArray[np.uint64]

INSTANCE_POINTER: Final = 16
"""A pybind11 instance: the object's head of two words, then the pointer to the C++ object."""

_ARRAY_LENGTH: Final = struct.Struct("<Q")
_WORD: Final = 8


@contextlib.contextmanager
def own_memory() -> Iterator[int]:
    """This process's memory as a file, where reading at a wrong address is an OSError."""
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield memory
    finally:
        os.close(memory)


def read_word(memory: int, address: int) -> int:
    """The word at an address, through what `own_memory` gave."""
    (found,) = struct.unpack("<Q", os.pread(memory, _WORD, address))
    return int(found)


def borrowed(owner: Any, address: int, shape: tuple[int, ...]) -> Residues:
    """Words of an object as an array that nobody can write to, and that keeps the object alive.

    Args:
        owner: The object that frees the words when it ends.
        address: Of the first word, checked by the caller.
        shape: Of the array.
    """
    return np.asarray(_Words(owner, address, shape))


class _Words:
    """What numpy asks for memory that it does not own; arrays refer to it as their base."""

    def __init__(self, owner: Any, address: int, shape: tuple[int, ...]) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "typestr": np.dtype(np.uint64).str,
            "shape": shape,
            "data": (address, True),
        }


def plain_stream(members: bytes, residues: Residues) -> str:
    """Write a SEAL object that is not compressed: its members, then an array of residues.

    Returns:
        The path that reads it, until the thread's next call.
    """
    return _SCRATCH.holding(stream_head(members, residues.size), residues.data.cast("B"))


def stream_head(members: bytes, count: int) -> bytes:
    """What comes before the residues in a SEAL stream that is not compressed.

    Args:
        members: The object's other members, as SEAL writes them.
        count: Number of residues.
    """
    length = _ARRAY_LENGTH.pack(count)
    inner = HEADER.size + len(length) + _WORD * count
    outer = HEADER.size + len(members) + inner
    return _stream_header(outer) + members + _stream_header(inner) + length


def _stream_header(size: int) -> bytes:
    """Head of an object that SEAL has not compressed."""
    own = seal.Serialization.SEALHeader()
    return HEADER.pack(MAGIC, HEADER.size, own.version_major, own.version_minor, 0, 0, size)


class _Scratch(threading.local):
    """An anonymous file in memory for each thread, kept because its pages cost more than a copy."""

    def __init__(self) -> None:
        self._owner = 0
        self._stream: BinaryIO | None = None

    def holding(self, head: bytes, body: memoryview) -> str:
        """Write a SEAL stream; return the path that reads it until the next call."""
        # A process started by fork shares its parent's file, and must not write to it.
        if self._stream is None or self._owner != os.getpid():
            descriptor = os.memfd_create("hecompile", os.MFD_CLOEXEC)
            self._stream, self._owner = os.fdopen(descriptor, "wb", buffering=0), os.getpid()
        self._stream.seek(0)
        for part in (memoryview(head), body):
            while part:
                part = part[self._stream.write(part) :]
        return f"/proc/self/fd/{self._stream.fileno()}"


_SCRATCH: Final = _Scratch()
