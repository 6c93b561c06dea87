"""Constants of a program: read-only arrays that compare by content, and sparse linear maps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import ProgramError

Array = NDArray[np.float64]

_DENSE_ELEMENTS = 1 << 22
_DENSE_GAIN = 32
"""A dense product takes a matrix element about this many times faster than a sparse entry."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A read-only float64 array whose identity is its content."""

    array: Array

    def __post_init__(self) -> None:
        """Take a private, contiguous, read-only copy; refuse NaN (infinity is allowed)."""
        array = np.array(self.array, dtype=np.float64, order="C")
        if np.isnan(array).any():
            raise ProgramError("a constant holds NaN")
        array.setflags(write=False)
        object.__setattr__(self, "array", array)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the shape and the little-endian bytes."""
        content = hashlib.sha256(str(self.array.shape).encode())
        content.update(self.array.astype("<f8", copy=False).tobytes())
        return content.hexdigest()

    def __eq__(self, other: object) -> bool:
        """Compare shape and content."""
        return isinstance(other, Constant) and self.digest == other.digest

    def __hash__(self) -> int:
        """Hash of the content."""
        return hash(self.digest)


@dataclass(frozen=True)
class SparseMap:
    """A linear map by its non-zero entries: `y[rows] += values * x[columns]`.

    In a program it is one constant of shape (3, entries): rows, columns, values. Indices are
    exact in float64 up to 2**53.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: Array

    @classmethod
    def from_constant(cls, array: Array) -> SparseMap:
        """Read a map from its (3, entries) constant."""
        if array.ndim != 2 or array.shape[0] != 3:
            raise ProgramError(f"a linear map is stored as 3 x entries, not {array.shape}")
        return cls(array[0].astype(np.int64), array[1].astype(np.int64), np.array(array[2]))

    @classmethod
    def from_dense(cls, matrix: Array) -> SparseMap:
        """Take the non-zero entries of a (outputs, inputs) matrix."""
        rows, columns = np.nonzero(matrix)
        return cls(rows.astype(np.int64), columns.astype(np.int64), matrix[rows, columns])

    def to_array(self) -> Array:
        """Write the map as its (3, entries) constant, sorted by row then column."""
        order = np.lexsort((self.columns, self.rows))
        return np.stack([self.rows[order], self.columns[order], self.values[order]]).astype(
            np.float64
        )

    @cached_property
    def _by_row(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the non-zero entries by row and column, and where each row starts."""
        kept = np.flatnonzero(self.values)
        order = kept[np.lexsort((self.columns[kept], self.rows[kept]))]
        return order, np.concatenate([[0], np.cumsum(np.bincount(self.rows[kept]))])

    def entries_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the non-zero entries of some rows are.

        Returns:
            Positions of the entries, row after row in the order asked for, by column within a row;
            and how many entries each of these rows has.
        """
        order, starts = self._by_row
        last = len(starts) - 1
        low = starts[np.minimum(rows, last)]
        counts = starts[np.minimum(rows + 1, last)] - low
        before = np.cumsum(counts) - counts
        return order[np.repeat(low - before, counts) + np.arange(counts.sum())], counts

    @cached_property
    def pattern(self) -> bytes:
        """Equal for maps whose non-zero entries stand at the same places."""
        order, _ = self._by_row
        places = np.stack([self.rows[order], self.columns[order]])
        return hashlib.blake2b(places.tobytes(), digest_size=16).digest()

    @cached_property
    def row_counts(self) -> bytes:
        """Equal for maps whose rows have as many non-zero entries each."""
        _, starts = self._by_row
        return hashlib.blake2b(starts.tobytes(), digest_size=16).digest()

    def apply(self, x: Array, outputs: int) -> Array:
        """Apply the map to the last axis: (S, inputs) to (S, `outputs`)."""
        inputs = x.shape[1]
        fits = outputs * inputs <= _DENSE_ELEMENTS
        if fits and outputs * inputs <= _DENSE_GAIN * len(self.values):
            return x @ self.dense(outputs, inputs).T
        y = np.zeros((x.shape[0], outputs))
        if not len(self.values):
            return y
        order = np.argsort(self.rows, kind="stable")
        rows, columns, values = self.rows[order], self.columns[order], self.values[order]
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        step = max(1, _DENSE_ELEMENTS // len(values))
        for i in range(0, len(x), step):
            products = x[i : i + step, columns] * values
            y[i : i + step, rows[starts]] = np.add.reduceat(products, starts, axis=1)
        return y

    def dense(self, outputs: int, inputs: int) -> Array:
        """Write the map as a dense (outputs, inputs) matrix; repeated entries add up."""
        flat = self.rows * inputs + self.columns
        total = np.bincount(flat, weights=self.values, minlength=outputs * inputs)
        return total.reshape(outputs, inputs).astype(np.float64, copy=False)
