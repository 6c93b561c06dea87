"""Ciphertexts handed from one process to another through files in memory that both have open.

A file holds a stream as SEAL loads it, uncompressed: one copy to write it, one to load it, and
SEAL checks what it loads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import tenseal.sealapi as seal

from hecompile.errors import HecompileError
from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.runtime.admission import facts
from hecompile.runtime.context import Context
from hecompile.runtime.residues import LayoutError, ciphertext_head, residue_access

MOST_FILES: Final = 512
"""Files that one pair of processes may hold open."""


class Handover:
    """Places for the values that change processes; made before the second process is forked.

    Groups of values share the files: a group's values are taken before the next group's come.

    Attributes:
        groups: Names of the values of each group; a value's place is its number there.
    """

    def __init__(
        self, program: Program, context: Context, groups: Mapping[int, Sequence[str]]
    ) -> None:
        """Open the files.

        Args:
            program: The program.
            context: Its context.
            groups: Names of the values of each group.
        """
        self._context = context
        self._access = residue_access(context)
        self._files: list[int] = []
        self._places: dict[tuple[int, str], tuple[int, bytes]] = {}
        self.groups = {number: tuple(names) for number, names in groups.items()}
        sizes: list[int] = []
        for number, names in self.groups.items():
            for place, name in enumerate(names):
                value = program.definitions[name].defined
                found, polynomials = facts(value), he.cipher_type(value).polynomials
                head = ciphertext_head(context, polynomials, found.level, found.scale)
                if place == len(self._files):
                    self._files.append(os.memfd_create("hecompile", os.MFD_CLOEXEC))
                    sizes.append(0)
                body = context.parameters.ciphertext_bytes(found.level, polynomials)
                sizes[place] = max(sizes[place], len(head) + body)
                self._places[number, name] = self._files[place], head
        for file, size in zip(self._files, sizes, strict=True):
            # Pages that are there already cost nothing during the first evaluation.
            os.posix_fallocate(file, 0, size)

    def put(self, group: int, name: str, value: Any) -> int:
        """Write a ciphertext; return the number of its place in the group.

        Raises:
            LayoutError: It cannot be read.
            HecompileError: There is no memory for it.
        """
        file, head = self._places[group, name]
        try:
            body = self._access.view(value).data.cast("B")
        except LayoutError as error:
            raise LayoutError(f"{name} cannot be handed over: {error}; use one worker.") from error
        if os.pwritev(file, (head, body), 0) != len(head) + len(body):
            raise HecompileError("there is no memory to hand a ciphertext over; use one worker.")
        return self.groups[group].index(name)

    def get(self, group: int, name: str) -> Any:
        """Load a ciphertext that the other process has written.

        Raises:
            HecompileError: SEAL refuses it.
        """
        value = seal.Ciphertext()
        try:
            value.load(self._context.seal, f"/proc/self/fd/{self._places[group, name][0]}")
        except (RuntimeError, ValueError, OSError) as error:
            raise HecompileError(f"{name} was handed over wrongly: SEAL says '{error}'.") from error
        return value

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file)
        self._files = []
