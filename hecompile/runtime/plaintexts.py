"""The residues of SEAL plaintexts as numpy arrays; see `rawmemory` for how."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import tenseal.sealapi as seal

from hecompile.runtime.context import Context
from hecompile.runtime.rawmemory import LayoutError, MemoryAccess, Residues, load_stream

# What seal::Plaintext::save_members writes before the residues.
_MEMBERS: Final = struct.Struct("<4QQd")


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
    members = _MEMBERS.pack(*context.parms_ids[level], residues.size, scale)
    return load_stream(context, seal.Plaintext(), members, residues)


class PlaintextAccess(MemoryAccess):
    """Reads the residues of one context's plaintexts."""

    what: ClassVar[str] = "plaintext"
    kind: ClassVar[type] = seal.Plaintext
    # seal::Plaintext: identifier (4 words), coefficients, scale, array.
    members: ClassVar[struct.Struct] = struct.Struct("<4QQd2Q2QQ")

    @staticmethod
    def _shapes(top: int) -> Sequence[tuple[tuple[int, ...], int]]:
        return [((), level) for level in sorted({0, top // 2, top})]

    def _load(self, residues: Residues, level: int, scale: float) -> Any:
        return load_plaintext(self._context, residues, level, scale)

    def _residue(self, value: Any, place: int) -> int:
        return int(value.data(place))

    def _leading(self, value: Any) -> tuple[int, ...]:
        return ()

    def _accessors(self, value: Any, shape: tuple[int, ...]) -> list[Any]:
        count = value.coeff_count()
        if count != shape[0] * shape[1]:
            raise LayoutError("a plaintext has an unexpected number of coefficients")
        return [*value.parms_id(), count, value.scale]
