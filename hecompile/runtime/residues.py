"""The residues of SEAL ciphertexts as numpy arrays, without a detour over compressed bytes."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import tenseal.sealapi as seal

from hecompile.errors import ProgramError
from hecompile.runtime.context import Context
from hecompile.runtime.rawmemory import LayoutError as LayoutError
from hecompile.runtime.rawmemory import MemoryAccess, Residues, load_stream, stream_head

# What seal::Ciphertext::save_members writes before the residues.
_MEMBERS: Final = struct.Struct("<4Q?3QdQ")


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
    return load_stream(context, seal.Ciphertext(), members, residues)


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


class ResidueAccess(MemoryAccess):
    """Reads the residues of one context's ciphertexts; `residue_access` gives it."""

    what: ClassVar[str] = "ciphertext"
    kind: ClassVar[type] = seal.Ciphertext
    # seal::Ciphertext: identifier (4 words), NTT form, polynomials, N, primes, scale, correction
    # factor, array.
    members: ClassVar[struct.Struct] = struct.Struct("<4Q?7x3QdQ2Q2QQ")

    @staticmethod
    def _shapes(top: int) -> Sequence[tuple[tuple[int, ...], int]]:
        return list({((2,), top): None, ((3,), top // 2): None, ((3,), 0): None})

    def _load(self, residues: Residues, level: int, scale: float) -> Any:
        return load_residues(self._context, residues, level, scale)

    def _residue(self, value: Any, place: int) -> int:
        return int(value[place])

    def _leading(self, value: Any) -> tuple[int, ...]:
        return (value.size(),)

    def _accessors(self, value: Any, shape: tuple[int, ...]) -> list[Any]:
        polynomials, primes, degree = shape
        form = value.is_ntt_form()
        return [*value.parms_id(), form, polynomials, degree, primes, value.scale]
