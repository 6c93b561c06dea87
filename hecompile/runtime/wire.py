"""Ciphertexts as plain residues, each in as many bytes as its prime needs.

SEAL compresses what it saves, which takes longer than most operations on the ciphertext and gains
nothing over leaving out the bytes that are zero: residues are uniformly random. Reading goes
through SEAL's loader, which checks every residue. SEAL's own format is read too, and written where
ciphertexts are seed-compressed or their residues are out of reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal

from hecompile.errors import IntegrityError, ProgramError
from hecompile.numeric.wire import PACKED_HEADER, ciphertext_file_bytes, residue_bytes
from hecompile.runtime.context import Context
from hecompile.runtime.rawmemory import Residues
from hecompile.runtime.residues import LayoutError, load_residues, residue_access, warn_slow
from hecompile.runtime.stream import to_bytes

MAGIC: Final = b"HECR"
_VERSION: Final = 1
_WORD: Final = 8


def ciphertext_bytes(context: Context, value: Any) -> bytes:
    """Write a ciphertext of a context: packed, or as SEAL saves it where it cannot be read.

    Where that is for want of access to memory, which is slow, a warning says so.
    """
    if type(value) is not seal.Ciphertext:
        return to_bytes(value)
    try:
        view = residue_access(context).view(value)
    except LayoutError as error:
        warn_slow(
            f"ciphertexts are left to SEAL to write, which takes about 10 times longer: {error}."
        )
        return to_bytes(value)
    polynomials, primes, degree = view.shape
    parts = [PACKED_HEADER.pack(MAGIC, _VERSION, polynomials, primes, degree, value.scale)]
    used = context.parameters.data_primes[:primes]
    parts += [pack_residues(polynomial, used) for polynomial in view]
    return b"".join(parts)


def is_packed(data: bytes) -> bool:
    """Whether the bytes begin like a packed ciphertext."""
    return data.startswith(MAGIC)


def unpack_ciphertext(
    context: Context, data: bytes, level: int, polynomials: int, what: str
) -> Any:
    """Read what `ciphertext_bytes` packed.

    Args:
        context: The context it must belong to.
        data: The bytes.
        level: The level it must have.
        polynomials: How many polynomials it must have.
        what: Name of the ciphertext, for messages.

    Returns:
        The ciphertext, with the scale that it states.

    Raises:
        IntegrityError: The bytes are no such ciphertext.
    """
    parameters = context.parameters
    size = ciphertext_file_bytes(parameters, level, polynomials)
    if len(data) != size:
        raise IntegrityError(f"{what} has {len(data)} bytes instead of {size}; get a fresh copy.")
    _, version, *shape, scale = PACKED_HEADER.unpack_from(data)
    expected = (polynomials, level + 1, parameters.poly_modulus_degree)
    if version != _VERSION or tuple(shape) != expected:
        raise IntegrityError(
            f"{what} is not a ciphertext of {polynomials} polynomials at level {level}, which the"
            " program expects; get a fresh copy."
        )
    residues = np.empty(expected, dtype=np.uint64)
    used, place = parameters.data_primes[: level + 1], PACKED_HEADER.size
    for polynomial in residues:
        place = unpack_residues(data, used, polynomial, place)
    try:
        return load_residues(context, residues, level, scale)
    except ProgramError as error:
        raise IntegrityError(f"{what} is no ciphertext: {error}; get a fresh copy.") from error


def pack_residues(polynomial: Residues, primes: Sequence[int]) -> bytes:
    """Write a polynomial, shape (primes, N), prime by prime."""
    return b"".join(
        _pack(residues, residue_bytes(prime.bit_length()))
        for residues, prime in zip(polynomial, primes, strict=True)
    )


def unpack_residues(data: bytes, primes: Sequence[int], into: Residues, place: int = 0) -> int:
    """Read what `pack_residues` wrote.

    Args:
        data: Holds it, with all its bytes.
        primes: The primes.
        into: Filled, shape (primes, N); residues may exceed their primes.
        place: Where it begins.

    Returns:
        Where it ends.
    """
    for row, prime in zip(into, primes, strict=True):
        length = residue_bytes(prime.bit_length()) * len(row)
        _unpack(data[place : place + length], residue_bytes(prime.bit_length()), row)
        place += length
    return place


def _pack(residues: Residues, width: int) -> bytes:
    if width == _WORD // 2:
        return residues.astype("<u4").tobytes()
    return residues.view(np.uint8).reshape(-1, _WORD)[:, :width].tobytes()


def _unpack(data: bytes, width: int, into: Residues) -> None:
    if width == _WORD // 2:
        into[:] = np.frombuffer(data, dtype="<u4")
        return
    # Words that overlap, a residue's width apart; the last ones would reach beyond the end.
    tail = (_WORD - 1) // width
    words = np.ndarray((len(into) - tail,), "<u8", data, 0, (width,))
    np.bitwise_and(words, (1 << 8 * width) - 1, out=into[: len(into) - tail])
    for place in range(len(into) - tail, len(into)):
        into[place] = int.from_bytes(data[place * width : (place + 1) * width], "little")
