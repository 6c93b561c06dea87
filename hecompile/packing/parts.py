"""Tensors in ciphertexts: which ciphertext holds which elements, and where."""

from __future__ import annotations

from dataclasses import dataclass

from hecompile.ir import he_ops as he
from hecompile.ir.operation import Value
from hecompile.ir.types import Layout


@dataclass(frozen=True)
class Part:
    """A ciphertext and the elements of one tensor in it (views share a ciphertext)."""

    value: Value
    layout: Layout

    @property
    def period(self) -> int:
        """Slots after which the ciphertext repeats."""
        return he.cipher_type(self.value).period


@dataclass(frozen=True)
class Packed:
    """A flattened tensor in ciphertexts, in order of the elements they hold."""

    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return sum(part.layout.count for part in self.parts)

    @property
    def partition(self) -> tuple[tuple[int, int], ...]:
        """First element and count of each part."""
        return tuple((part.layout.first, part.layout.count) for part in self.parts)
