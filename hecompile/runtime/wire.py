"""Ciphertexts as plain residues, each in as many bytes as its prime needs.

SEAL compresses what it saves, which takes longer than most operations on the ciphertext and gains
nothing over leaving out the bytes that are zero: residues are uniformly random. Nothing in this
form needs unpacking before it can be judged, so `check_packed` refuses whatever the program does
not expect before SEAL sees a byte of it. Reading goes through SEAL's loader, which checks every
residue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from hecompile.errors import IntegrityError, ProgramError
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.wire import PACKED_HEADER, ciphertext_file_bytes, residue_bytes
from hecompile.runtime.context import SCALE_TOLERANCE, Context
from hecompile.runtime.rawmemory import Residues
from hecompile.runtime.residues import LayoutError, load_residues, residue_access, warn_slow

MAGIC: Final = b"HECR"
_VERSION: Final = 1
_WORD: Final = 8


def ciphertext_bytes(context: Context, value: Any) -> bytes:
    """Pack a ciphertext of a context.

    Where its memory cannot be read, its residues are asked for one by one, and a warning says so.
    """
    try:
        view = residue_access(context).view(value)
    except LayoutError as error:
        warn_slow(
            "residues are asked for one by one, so that a ciphertext takes many times longer to"
            f" write: {error}."
        )
        view = _asked_residues(context, value)
    polynomials, primes, degree = view.shape
    parts = [PACKED_HEADER.pack(MAGIC, _VERSION, polynomials, primes, degree, value.scale)]
    used = context.parameters.data_primes[:primes]
    parts += [pack_residues(polynomial, used) for polynomial in view]
    return b"".join(parts)


def is_packed(data: bytes) -> bool:
    """Whether the bytes begin like a packed ciphertext."""
    return data.startswith(MAGIC)


def check_packed(
    parameters: Parameters, data: bytes, level: int, scale: float, what: str, polynomials: int = 2
) -> None:
    """Refuse bytes that are no packed ciphertext as a program declares it; SEAL is not called.

    Args:
        parameters: Of the program.
        data: The bytes.
        level: The level it must have.
        scale: The scale it must have, within `SCALE_TOLERANCE`.
        what: Name of the ciphertext, for messages.
        polynomials: How many polynomials it must have.

    Raises:
        IntegrityError: They are something else, a ciphertext of another form or scale, or one
            that hides nothing.
    """
    found = _stated_scale(parameters, data, level, polynomials, what)
    # The comparison is also False for NaN.
    if not abs(found / scale - 1.0) < SCALE_TOLERANCE:
        raise IntegrityError(
            f"{what} has the scale {found!r}, where the program expects {scale!r}; get a fresh"
            " copy."
        )
    first = (len(data) - PACKED_HEADER.size) // polynomials
    if not np.frombuffer(data, np.uint8, offset=PACKED_HEADER.size + first).any():
        raise IntegrityError(f"{what} hides nothing: it is no encryption; get a fresh copy.")


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
    scale = _stated_scale(parameters, data, level, polynomials, what)
    shape = (polynomials, level + 1, parameters.poly_modulus_degree)
    residues = np.empty(shape, dtype=np.uint64)
    used, place = parameters.data_primes[: level + 1], PACKED_HEADER.size
    for polynomial in residues:
        place = unpack_residues(data, used, polynomial, place)
    if (residues >= np.array(used, dtype=np.uint64)[:, None]).any():
        raise IntegrityError(
            f"{what} is no ciphertext: a residue is not below its prime; get a fresh copy."
        )
    try:
        return load_residues(context, residues, level, scale)
    except ProgramError as error:
        raise IntegrityError(f"{what} is no ciphertext: {error}; get a fresh copy.") from error


def _stated_scale(
    parameters: Parameters, data: bytes, level: int, polynomials: int, what: str
) -> float:
    """The scale that a packed ciphertext states, once its size and shape are known to be right."""
    size = ciphertext_file_bytes(parameters, level, polynomials)
    if len(data) != size:
        raise IntegrityError(f"{what} has {len(data)} bytes instead of {size}; get a fresh copy.")
    if not is_packed(data):
        raise IntegrityError(f"{what} is no ciphertext as hecompile writes it; get a fresh copy.")
    _, version, *shape, scale = PACKED_HEADER.unpack_from(data)
    if version != _VERSION or tuple(shape) != (
        polynomials,
        level + 1,
        parameters.poly_modulus_degree,
    ):
        raise IntegrityError(
            f"{what} is not a ciphertext of {polynomials} polynomials at level {level}, which the"
            " program expects; get a fresh copy."
        )
    return float(scale)


def _asked_residues(context: Context, value: Any) -> Residues:
    """The residues of a ciphertext through SEAL's own accessor, shape (polynomials, primes, N)."""
    shape = value.size(), context.level_of(value) + 1, context.parameters.poly_modulus_degree
    count = math.prod(shape)
    found = np.fromiter((value[place] for place in range(count)), np.uint64, count)
    return found.reshape(shape)


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
