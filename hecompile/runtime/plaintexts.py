"""The residues of SEAL plaintexts as numpy arrays; see `residues` for how ciphertexts are read."""

from __future__ import annotations

import ctypes
import os
import struct
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
)
from hecompile.runtime.residues import LayoutError

# seal::Plaintext: identifier (4 words), coefficients, scale; then its DynArray: pool (2 words),
# capacity, size, address of the residues.
_PLAINTEXT: Final = struct.Struct("<4QQd2Q2QQ")
# What seal::Plaintext::save_members writes before the residues.
_MEMBERS: Final = struct.Struct("<4QQd")
_WORD: Final = 8


def load_plaintext(context: Context, residues: Residues, level: int, scale: float) -> Any:
    """A plaintext with given residues, checked by SEAL.

    Args:
        context: Its context.
        residues: Shape (level + 1, N), each below its prime, in NTT form.
        level: Its level.
        scale: Its scale.

    Raises:
        ProgramError: SEAL does not take it.
    """
    body = np.ascontiguousarray(residues)
    members = _MEMBERS.pack(*context.parms_ids[level], body.size, scale)
    value = seal.Plaintext()
    try:
        value.load(context.seal, plain_stream(members, body))
    except (RuntimeError, ValueError, OSError) as error:
        raise ProgramError(f"SEAL does not take a plaintext: '{error}'.") from error
    return value


class PlaintextAccess:
    """Reads the residues of one context's plaintexts."""

    def __init__(self, context: Context) -> None:
        """Check on a plaintext with known residues that they are read exactly.

        Raises:
            LayoutError: They are not, or this system does not let a process read its own memory.
        """
        self._context = context
        self._self_test()

    def view(self, value: Any) -> Residues:
        """The residues of an encoded plaintext where they lie; never write to them.

        The view keeps the plaintext alive, and is valid until SEAL changes it.

        Args:
            value: A SEAL plaintext of this context, in NTT form.

        Returns:
            Shape (primes, N).

        Raises:
            LayoutError: It is no plaintext, or SEAL's own accessors contradict what lies in
                memory.
        """
        # Nothing but this very class has its pointer where it is looked for.
        if type(value) is not seal.Plaintext:
            raise LayoutError(f"a value of class {type(value).__name__} is no plaintext")
        start = ctypes.c_uint64.from_address(id(value) + INSTANCE_POINTER).value
        if not start:
            raise LayoutError("a plaintext was never made")
        address, shape = self._checked(value, ctypes.string_at(start, _PLAINTEXT.size))
        return borrowed(value, address, shape)

    def _checked(self, value: Any, members: bytes) -> tuple[int, tuple[int, int]]:
        """Address and shape of the residues, once every other member is the accessor's."""
        try:
            level = self._context.level_of(value)
        except ProgramError as error:
            raise LayoutError(str(error)) from error
        shape = (level + 1, self._context.parameters.poly_modulus_degree)
        count = shape[0] * shape[1]
        *found, _pool, _control, capacity, length, address = _PLAINTEXT.unpack(members)
        if found != [*value.parms_id(), value.coeff_count(), value.scale]:
            raise LayoutError("a plaintext's members are not where they are expected")
        if value.coeff_count() != count or length != count or capacity < length:
            raise LayoutError("a plaintext's array has an unexpected length")
        if not address or address % _WORD:
            raise LayoutError("a plaintext's array has no address")
        return address, shape

    def _self_test(self) -> None:
        top = self._context.parameters.levels
        for level in sorted({0, top // 2, top}):
            self._test_one(level)

    def _test_one(self, level: int) -> None:
        context, random = self._context, np.random.default_rng((3, level))
        primes = np.array(context.parameters.data_primes[: level + 1], dtype=np.uint64)
        shape = (level + 1, context.parameters.poly_modulus_degree)
        wanted = random.integers(0, primes[:, None], size=shape, dtype=np.uint64)
        try:
            value = load_plaintext(context, wanted, level, 2.0**20)
            self._test_pointers(value)
        except (OSError, ProgramError, struct.error) as error:
            raise LayoutError(f"plaintexts cannot be read in memory ({error})") from error
        if value.scale != 2.0**20 or not np.array_equal(self.view(value), wanted):
            raise LayoutError("residues of a plaintext do not come back as they were written")
        some = random.integers(0, wanted.size, size=16)
        if any(value.data(int(place)) != int(wanted.flat[place]) for place in some):
            raise LayoutError("SEAL reads other residues of a plaintext than were written")

    def _test_pointers(self, value: Any) -> None:
        """Follow the pointers once where a wrong address is an error, not a crash."""
        if type(value).__basicsize__ < INSTANCE_POINTER + _WORD:
            raise LayoutError("a plaintext's Python object is smaller than expected")
        with own_memory() as memory:
            start = read_word(memory, id(value) + INSTANCE_POINTER)
            address, shape = self._checked(value, os.pread(memory, _PLAINTEXT.size, start))
            for place in (0, 1, shape[0] * shape[1] - 1):
                if read_word(memory, address + _WORD * place) != value.data(place):
                    raise LayoutError("a plaintext's residues are not where they are expected")
