"""The residues of SEAL ciphertexts as numpy arrays, without a detour over compressed bytes.

TenSEAL's binding hands out one residue at a time and saves to compressed streams only, so reading
follows the pointers of SEAL's own objects. Their layout is a fact of the compiled library and no
promise: every step is checked against the public accessors, first through `/proc/self/mem`, where
a wrong address is an error and no crash. Writing goes through SEAL's own loader with an
uncompressed stream, so SEAL itself checks that what comes out is a valid ciphertext.
"""

from __future__ import annotations

import ctypes
import os
import struct
import warnings
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal

from hecompile.errors import ProgramError
from hecompile.runtime.context import Context
from hecompile.runtime.rawmemory import (
    INSTANCE_POINTER,
    Residues,
    borrowed,
    own_memory,
    plain_stream,
    read_word,
    stream_head,
)

# seal::Ciphertext: identifier (4 words), NTT form, polynomials, N, primes, scale, correction
# factor; then its DynArray: pool (2 words), capacity, size, address of the residues.
_CIPHERTEXT: Final = struct.Struct("<4Q?7x3QdQ2Q2QQ")
# What seal::Ciphertext::save_members writes before the residues.
_MEMBERS: Final = struct.Struct("<4Q?3QdQ")
_WORD: Final = 8


class LayoutError(ProgramError):
    """SEAL's objects do not lie in memory as this module expects."""


class SlowWarning(RuntimeWarning):
    """Results are right, but take many times longer than they should."""


def warn_slow(text: str) -> None:
    """Warn whoever waits for results; an evaluator's process hands it on to who started it."""
    warnings.warn(text, SlowWarning, stacklevel=3)


def load_residues(context: Context, residues: Residues, level: int, scale: float) -> Any:
    """A ciphertext with given residues, checked by SEAL.

    Args:
        context: Its context.
        residues: Shape (polynomials, level + 1, N), each below its prime.
        level: Its level.
        scale: Its scale.

    Raises:
        ProgramError: SEAL does not take it, or it hides nothing.
    """
    polynomials, primes, _ = residues.shape
    if not residues[1:].any():
        raise ProgramError("result ciphertext is transparent")
    members = _members(context, polynomials, primes, level, scale)
    value = seal.Ciphertext()
    try:
        value.load(context.seal, plain_stream(members, np.ascontiguousarray(residues)))
    except (RuntimeError, ValueError, OSError) as error:
        raise ProgramError(f"SEAL does not take residues: '{error}'.") from error
    return value


def ciphertext_head(context: Context, polynomials: int, level: int, scale: float) -> bytes:
    """What comes before the residues where a ciphertext is a stream that SEAL loads."""
    members = _members(context, polynomials, level + 1, level, scale)
    count = polynomials * (level + 1) * context.parameters.poly_modulus_degree
    return stream_head(members, count)


def _members(context: Context, polynomials: int, primes: int, level: int, scale: float) -> bytes:
    degree = context.parameters.poly_modulus_degree
    identity = context.parms_ids[level]
    return _MEMBERS.pack(*identity, True, polynomials, degree, primes, scale, 1)


def residue_access(context: Context) -> ResidueAccess:
    """The access to a context's ciphertexts, tested once.

    Raises:
        LayoutError: There is none.
    """
    if context.residues is None:
        try:
            context.residues = ResidueAccess(context)
        except LayoutError as error:
            context.residues = error
    if isinstance(context.residues, LayoutError):
        raise context.residues
    access: ResidueAccess = context.residues
    return access


class ResidueAccess:
    """Reads the residues of one context's ciphertexts; `residue_access` gives it."""

    def __init__(self, context: Context) -> None:
        """Check on a ciphertext with known residues that they are read exactly.

        Raises:
            LayoutError: They are not, or this system does not let a process read its own memory.
        """
        self._context = context
        self._levels = {tuple(identity): n for n, identity in enumerate(context.parms_ids)}
        self._self_test()

    def view(self, value: Any) -> Residues:
        """The residues of a ciphertext where they lie; never write to them.

        The view keeps the ciphertext alive, and is valid until SEAL changes it.

        Args:
            value: A SEAL ciphertext of this context, in NTT form.

        Returns:
            Shape (polynomials, primes left, N).

        Raises:
            LayoutError: It is no ciphertext, or SEAL's own accessors contradict what lies in
                memory.
        """
        # Nothing but this very class has its pointer where it is looked for.
        if type(value) is not seal.Ciphertext:
            raise LayoutError(f"a value of class {type(value).__name__} is no ciphertext")
        start = ctypes.c_uint64.from_address(id(value) + INSTANCE_POINTER).value
        if not start:
            raise LayoutError("a ciphertext was never made")
        address, shape = self._checked(value, ctypes.string_at(start, _CIPHERTEXT.size))
        return borrowed(value, address, shape)

    def _checked(self, value: Any, members: bytes) -> tuple[int, tuple[int, int, int]]:
        """Address and shape of the residues, once every other member is the accessor's."""
        identity = value.parms_id()
        level = self._levels.get(tuple(identity))
        if level is None:
            raise LayoutError("a ciphertext belongs to other encryption parameters")
        degree = self._context.parameters.poly_modulus_degree
        shape = (value.size(), level + 1, degree)
        *found, _factor, _pool, _control, capacity, length, address = _CIPHERTEXT.unpack(members)
        expected = [*identity, value.is_ntt_form(), *(shape[0], degree, shape[1]), value.scale]
        if found != expected or not found[4]:
            raise LayoutError("a ciphertext's members are not where they are expected")
        if length != shape[0] * shape[1] * shape[2] or capacity < length:
            raise LayoutError("a ciphertext's array has an unexpected length")
        if not address or address % _WORD:
            raise LayoutError("a ciphertext's array has no address")
        return address, shape

    def _self_test(self) -> None:
        top = self._context.parameters.levels
        for polynomials, level in {(2, top): None, (3, top // 2): None, (3, 0): None}:
            self._test_one(polynomials, level)

    def _test_one(self, polynomials: int, level: int) -> None:
        context = self._context
        random = np.random.default_rng((polynomials, level))
        primes = np.array(context.parameters.data_primes[: level + 1], dtype=np.uint64)
        shape = (polynomials, level + 1, context.parameters.poly_modulus_degree)
        wanted = random.integers(0, primes[:, None], size=shape, dtype=np.uint64)
        try:
            value = load_residues(context, wanted, level, 2.0**20)
            self._test_pointers(value)
        except (OSError, ProgramError, struct.error) as error:
            raise LayoutError(f"ciphertexts cannot be read in memory ({error})") from error
        if value.scale != 2.0**20 or not np.array_equal(self.view(value), wanted):
            raise LayoutError("residues do not come back as they were written")
        some = random.integers(0, wanted.size, size=16)
        if any(value[int(place)] != int(wanted.flat[place]) for place in some):
            raise LayoutError("SEAL reads other residues than were written")

    def _test_pointers(self, value: Any) -> None:
        """Follow the pointers once where a wrong address is an error, not a crash."""
        if type(value).__basicsize__ < INSTANCE_POINTER + _WORD:
            raise LayoutError("a ciphertext's Python object is smaller than expected")
        with own_memory() as memory:
            start = read_word(memory, id(value) + INSTANCE_POINTER)
            members = os.pread(memory, _CIPHERTEXT.size, start)
            address, shape = self._checked(value, members)
            last = shape[0] * shape[1] * shape[2] - 1
            for place in (0, 1, last):
                if read_word(memory, address + _WORD * place) != value[place]:
                    raise LayoutError("a ciphertext's residues are not where they are expected")
