"""What it takes to read SEAL's objects in memory and to write them as uncompressed streams.

TenSEAL's binding hands out one residue at a time and saves to compressed streams only, so reading
follows the pointers of SEAL's own objects. Their layout is a fact of the compiled library and no
promise: every step is checked against the public accessors, first through `/proc/self/mem`, where
a wrong address is an error and no crash. Writing goes through SEAL's own loader with an
uncompressed stream, so SEAL itself checks that what comes out is valid.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import struct
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import tenseal.sealapi as seal

from hecompile.errors import ProgramError
from hecompile.runtime.context import Context
from hecompile.runtime.stream import HEADER, MAGIC

Residues = npt.NDArray[np.uint64]

INSTANCE_POINTER: Final = 16
"""A pybind11 instance: the object's head of two words, then the pointer to the C++ object."""

_ARRAY_LENGTH: Final = struct.Struct("<Q")
_WORD: Final = 8


class LayoutError(ProgramError):
    """SEAL's objects do not lie in memory as this module expects."""


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


class _MemoryFile:
    """An anonymous file in memory, closed when nobody refers to it or the process ends."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("hecompile", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)


class _Scratch(threading.local):
    """A file in memory for each thread, kept because its pages cost more than a copy."""

    def __init__(self) -> None:
        self._owner = 0
        self._file: _MemoryFile | None = None

    def holding(self, head: bytes, body: memoryview) -> str:
        """Write a SEAL stream; return the path that reads it until the next call."""
        # A process started by fork shares its parent's file, and must not write to it.
        if self._file is None or self._owner != os.getpid():
            self._file, self._owner = _MemoryFile(), os.getpid()
        place = 0
        for part in (memoryview(head), body):
            while part:
                written = os.pwrite(self._file.descriptor, part, place)
                place, part = place + written, part[written:]
        return f"/proc/self/fd/{self._file.descriptor}"


_SCRATCH: Final = _Scratch()


def load_stream(context: Context, value: Any, members: bytes, residues: Residues) -> Any:
    """Fill a SEAL object with residues, checked by SEAL.

    Args:
        context: Its context.
        value: A new ciphertext or plaintext.
        members: What SEAL writes before the residues.
        residues: Of the object's shape, each below its prime.

    Returns:
        The object.

    Raises:
        ProgramError: SEAL does not take it.
    """
    try:
        value.load(context.seal, plain_stream(members, np.ascontiguousarray(residues)))
    except (RuntimeError, ValueError, OSError) as error:
        raise ProgramError(f"SEAL does not take residues: '{error}'.") from error
    return value


class MemoryAccess(ABC):
    """Reads the residues of one context's objects of one class.

    Attributes:
        what: The class, in words.
        kind: The class.
        members: How an object lies in memory: what `_accessors` gives, what nothing is compared
            with, then its DynArray: pool (2 words), capacity, size, address of the residues.
    """

    what: ClassVar[str]
    kind: ClassVar[type]
    members: ClassVar[struct.Struct]

    def __init__(self, context: Context) -> None:
        """Check on objects with known residues that they are read exactly.

        Raises:
            LayoutError: They are not, or this system does not let a process read its own memory.
        """
        self._context = context
        for number, (leading, level) in enumerate(self._shapes(context.parameters.levels)):
            self._test_one(number, leading, level)

    def view(self, value: Any) -> Residues:
        """The residues of an object where they lie; never write to them.

        The view keeps the object alive, and is valid until SEAL changes it.

        Args:
            value: A SEAL object of this context.

        Returns:
            Shape (polynomials, primes left, N) of a ciphertext, (primes left, N) of a plaintext.

        Raises:
            LayoutError: It is of another class, or SEAL's own accessors contradict what lies in
                memory.
        """
        # Nothing but this very class has its pointer where it is looked for.
        if type(value) is not self.kind:
            raise LayoutError(f"a value of class {type(value).__name__} is no {self.what}")
        start = ctypes.c_uint64.from_address(id(value) + INSTANCE_POINTER).value
        if not start:
            raise LayoutError(f"a {self.what} was never made")
        address, shape = self._checked(value, ctypes.string_at(start, self.members.size))
        return borrowed(value, address, shape)

    @staticmethod
    @abstractmethod
    def _shapes(top: int) -> Sequence[tuple[tuple[int, ...], int]]:
        """Leading dimensions and level of each object of the self-test; `top` is the top level."""

    @abstractmethod
    def _load(self, residues: Residues, level: int, scale: float) -> Any:
        """An object with given residues."""

    @abstractmethod
    def _residue(self, value: Any, place: int) -> int:
        """What SEAL's accessor gives for one residue."""

    @abstractmethod
    def _accessors(self, value: Any, shape: tuple[int, ...]) -> list[Any]:
        """What SEAL's accessors give for the first members.

        Raises:
            LayoutError: They contradict the shape.
        """

    @abstractmethod
    def _leading(self, value: Any) -> tuple[int, ...]:
        """Dimensions before primes and N."""

    def _checked(self, value: Any, members: bytes) -> tuple[int, tuple[int, ...]]:
        """Address and shape of the residues, once every other member is the accessor's."""
        try:
            level = self._context.level_of(value)
        except ProgramError as error:
            raise LayoutError(str(error)) from error
        degree = self._context.parameters.poly_modulus_degree
        shape = (*self._leading(value), level + 1, degree)
        wanted = self._accessors(value, shape)
        *found, capacity, length, address = self.members.unpack(members)
        if found[: len(wanted)] != wanted:
            raise LayoutError(f"a {self.what}'s members are not where they are expected")
        if length != math.prod(shape) or capacity < length:
            raise LayoutError(f"a {self.what}'s array has an unexpected length")
        if not address or address % _WORD:
            raise LayoutError(f"a {self.what}'s array has no address")
        return address, shape

    def _test_one(self, seed: int, leading: tuple[int, ...], level: int) -> None:
        parameters, random = self._context.parameters, np.random.default_rng(seed)
        primes = np.array(parameters.data_primes[: level + 1], dtype=np.uint64)
        shape = (*leading, level + 1, parameters.poly_modulus_degree)
        wanted = random.integers(0, primes[:, None], size=shape, dtype=np.uint64)
        try:
            value = self._load(wanted, level, 2.0**20)
            self._test_pointers(value)
        except (OSError, ProgramError, struct.error) as error:
            raise LayoutError(f"{self.what}s cannot be read in memory ({error})") from error
        if value.scale != 2.0**20 or not np.array_equal(self.view(value), wanted):
            raise LayoutError(f"residues of a {self.what} do not come back as they were written")
        some = random.integers(0, wanted.size, size=16)
        if any(self._residue(value, int(n)) != int(wanted.flat[n]) for n in some):
            raise LayoutError(f"SEAL reads other residues of a {self.what} than were written")

    def _test_pointers(self, value: Any) -> None:
        """Follow the pointers once where a wrong address is an error, not a crash."""
        if type(value).__basicsize__ < INSTANCE_POINTER + _WORD:
            raise LayoutError(f"a {self.what}'s Python object is smaller than expected")
        with own_memory() as memory:
            start = read_word(memory, id(value) + INSTANCE_POINTER)
            address, shape = self._checked(value, os.pread(memory, self.members.size, start))
            for place in (0, 1, math.prod(shape) - 1):
                if read_word(memory, address + _WORD * place) != self._residue(value, place):
                    raise LayoutError(f"a {self.what}'s residues are not where they are expected")
