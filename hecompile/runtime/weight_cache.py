"""Encoded weights kept on disk from one load to the next.

A file holds plaintexts as residues, each in as many bytes as its prime needs. It is bound to a
program and its encryption parameters, and every plaintext to its SHA-256, which protects against
damage and mix-ups. Whoever may write to the folder decides what is computed, as with the bundle
itself: files that other users own or may change are refused. Weights are in clear here, no less
readable than in the bundle's constants.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from hecompile.errors import InputError, IntegrityError, ProgramError
from hecompile.files import cannot_read, cannot_write, private_folder
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.wire import residue_bytes
from hecompile.runtime.context import Context
from hecompile.runtime.plaintexts import PlaintextAccess, load_plaintext
from hecompile.runtime.residues import LayoutError
from hecompile.runtime.wire import pack_residues, unpack_residues

Key = tuple[bytes, int, float]
"""Digest of a slot vector (20 bytes), level, scale."""

_MAGIC: Final = b"HECW"
_VERSION: Final = 1
# Magic, version, entries, SHA-256 of the binding and the entries.
_HEADER: Final = struct.Struct("<4sHI32s")
# Digest of the vector, level, scale, SHA-256 of the residues as they are in the file.
_ENTRY: Final = struct.Struct("<20sHd32s")
_MOST_ENTRIES: Final = 1 << 22


class WeightCache:
    """The cached weights of one program, read from a file and written again when some lack."""

    def __init__(self, folder: str | Path, program: str, context: Context) -> None:
        """Open the cache of a program and read what it holds.

        Args:
            folder: Made where it does not exist, for this user alone.
            program: The program's identifier.
            context: Its context.

        Raises:
            InputError: The folder cannot be used.
            IntegrityError: The file is damaged, another program's or another user's.
        """
        self._context = context
        binding = _binding(program, context.parameters)
        name = hashlib.sha256(binding).hexdigest()[:32]
        self.path = private_folder(Path(folder)) / f"{name}.weights"
        self._binding = binding
        self._places: dict[Key, tuple[int, bytes]] = {}
        self._stream: BinaryIO | None = None
        with contextlib.suppress(FileNotFoundError):
            self._open()

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def load(self, key: Key) -> Any:
        """The plaintext of a key that the cache contains.

        Raises:
            IntegrityError: It is not what was written.
        """
        place, digest = self._places[key]
        _, level, scale = key
        size = _size(self._context.parameters, level)
        try:
            data = self._read(place, size)
        except OSError as error:
            raise cannot_read(self.path, error) from error
        if len(data) != size or hashlib.sha256(data).digest() != digest:
            raise self._damaged("a plaintext was changed")
        primes = self._context.parameters.data_primes[: level + 1]
        shape = (len(primes), self._context.parameters.poly_modulus_degree)
        residues = np.empty(shape, dtype=np.uint64)
        unpack_residues(data, primes, residues)
        try:
            return load_plaintext(self._context, residues, level, scale)
        except ProgramError as error:
            raise self._damaged(str(error)) from error

    def write(self, plains: Mapping[Key, Any]) -> None:
        """Replace the file, which appears whole or not at all; only this user may read it.

        Args:
            plains: The plaintexts by key.

        Raises:
            InputError: The operating system refuses, or SEAL's plaintexts are out of reach.
        """
        try:
            access = PlaintextAccess(self._context)
        except LayoutError as error:
            raise InputError(
                f"encoded weights cannot be kept on this system: {error}; leave the weights' cache"
                " out."
            ) from error
        beside = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.partial")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(beside, flags, 0o600), "wb") as stream:
                self._fill(stream, plains, access)
                stream.flush()
                os.fsync(stream.fileno())
            beside.replace(self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _fill(self, stream: BinaryIO, plains: Mapping[Key, Any], access: PlaintextAccess) -> None:
        stream.seek(_HEADER.size + _ENTRY.size * len(plains))
        entries = []
        for (vector, level, scale), plain in plains.items():
            primes = self._context.parameters.data_primes[: level + 1]
            data = pack_residues(access.view(plain), primes)
            stream.write(data)
            entries.append(_ENTRY.pack(vector, level, scale, hashlib.sha256(data).digest()))
        table = b"".join(entries)
        digest = hashlib.sha256(self._binding + table).digest()
        stream.seek(0)
        stream.write(_HEADER.pack(_MAGIC, _VERSION, len(entries), digest) + table)

    def _open(self) -> None:
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._stream = os.fdopen(os.open(self.path, flags), "rb", buffering=0)
            found = os.fstat(self._stream.fileno())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise cannot_read(self.path, error) from error
        try:
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise self._damaged("it is not a file of yours")
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise self._damaged("other users may write to it")
            self._read_table(found.st_size)
        except BaseException:
            self.close()
            raise

    def _read_table(self, size: int) -> None:
        head = self._read(0, _HEADER.size)
        if len(head) != _HEADER.size or not head.startswith(_MAGIC):
            raise self._damaged("it does not begin as one")
        _, version, count, digest = _HEADER.unpack(head)
        if version != _VERSION or count > _MOST_ENTRIES:
            raise self._damaged("it is of another version")
        table = self._read(_HEADER.size, count * _ENTRY.size)
        if hashlib.sha256(self._binding + table).digest() != digest:
            raise self._damaged("it was changed, or is for another program")
        place = _HEADER.size + len(table)
        for vector, level, scale, content in _ENTRY.iter_unpack(table):
            self._places[vector, level, scale] = place, content
            place += _size(self._context.parameters, level)
        if place != size:
            raise self._damaged(f"it has {size} bytes instead of {place}")

    def _read(self, place: int, size: int) -> bytes:
        if self._stream is None:
            raise InputError(f"{self.path} is closed; open the weights' cache again")
        found = b""
        while len(found) < size:
            piece = os.pread(self._stream.fileno(), size - len(found), place + len(found))
            if not piece:
                break
            found = piece if not found else found + piece
        return found

    def _damaged(self, reason: str) -> IntegrityError:
        return IntegrityError(
            f"{self.path} is no cache of this program's weights: {reason}; remove the file, it is"
            " written again."
        )


def _binding(program: str, parameters: Parameters) -> bytes:
    """What a file is bound to: program, ring and primes."""
    primes = " ".join(map(str, parameters.primes))
    return f"{program} {parameters.poly_modulus_degree} {primes}\n".encode()


def _size(parameters: Parameters, level: int) -> int:
    """Bytes of a plaintext in the file."""
    widths = sum(map(residue_bytes, parameters.coeff_modulus_bits[: level + 1]))
    return widths * parameters.poly_modulus_degree
