"""Sparse matrices by their non-zero entries, with a vectorised product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_BLOCK = 1 << 22
"""Products of entries held in memory at once."""

_DENSE_ELEMENTS = 1 << 24
"""Largest matrix, in elements, that the product may write out densely."""


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """A matrix in coordinate form: sorted by row, then column, no position twice, no exact zero.

    Build one with `from_entries` (or the other class methods), which establish this form.

    Attributes:
        rows: row of each entry.
        columns: column of each entry.
        values: the entries.
        shape: (outputs, inputs).
    """

    rows: Indices
    columns: Indices
    values: Array
    shape: tuple[int, int]

    @classmethod
    def from_entries(
        cls, rows: Indices, columns: Indices, values: Array, shape: tuple[int, int]
    ) -> SparseMatrix:
        """Build a matrix from entries in any order; those at one position add up.

        Args:
            rows: row of each entry, any shape.
            columns: column of each entry, same shape.
            values: the entries, same shape.
            shape: (outputs, inputs).

        Raises:
            ValueError: an entry lies outside the shape.
        """
        key = np.ravel(rows).astype(np.int64) * shape[1] + np.ravel(columns)
        flat = np.ravel(values).astype(np.float64)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        if not np.all(inside):
            raise ValueError(f"an entry lies outside a matrix of {shape[0]} x {shape[1]}")
        if key.size and not np.all(key[1:] > key[:-1]):
            # The stable sort makes the order of summation, hence the last bits, reproducible.
            order = np.argsort(key, kind="stable")
            key, flat = key[order], flat[order]
            starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
            key, flat = key[starts], np.add.reduceat(flat, starts)
        kept = flat != 0.0
        key, flat = key[kept], flat[kept]
        return cls(key // max(shape[1], 1), key % max(shape[1], 1), flat, shape)

    @classmethod
    def from_dense(cls, matrix: Array) -> SparseMatrix:
        """Take the non-zero entries of a matrix."""
        rows, columns = np.nonzero(matrix)
        height, width = matrix.shape
        return cls(rows, columns, matrix[rows, columns], (height, width))

    @classmethod
    def identity(cls, size: int) -> SparseMatrix:
        """The identity on vectors of `size` elements."""
        index = np.arange(size)
        return cls(index, index, np.ones(size), (size, size))

    @classmethod
    def selection(cls, columns: Indices, inputs: int) -> SparseMatrix:
        """The matrix whose output i is input `columns[i]`, or zero where that is negative."""
        flat = np.ravel(columns)
        rows = np.flatnonzero(flat >= 0)
        return cls.from_entries(rows, flat[rows], np.ones(rows.size), (flat.size, inputs))

    @property
    def entries(self) -> int:
        """Number of non-zero entries."""
        return int(self.values.size)

    def dense(self) -> Array:
        """Write the matrix out."""
        matrix = np.zeros(self.shape)
        matrix[self.rows, self.columns] = self.values
        return matrix

    def apply(self, vector: Array) -> Array:
        """Multiply with a vector of `inputs` elements."""
        products = self.values * vector[self.columns]
        sums = np.bincount(self.rows, weights=products, minlength=self.shape[0])
        return sums.astype(np.float64, copy=False)

    def __add__(self, other: SparseMatrix) -> SparseMatrix:
        """Add a matrix of the same shape."""
        if self.shape != other.shape:
            raise ValueError(f"cannot add matrices of shapes {self.shape} and {other.shape}")
        return SparseMatrix.from_entries(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.columns, other.columns]),
            np.concatenate([self.values, other.values]),
            self.shape,
        )

    def work(self, other: SparseMatrix) -> int:
        """Number of products of entries that `self @ other` sums."""
        begin, end = self._spans(other)
        return int(np.sum(end - begin))

    def __matmul__(self, other: SparseMatrix) -> SparseMatrix:
        """Multiply: first `other` is applied, then `self`.

        Each entry of `self` meets the entries in one row of `other`, a span found by bisection;
        the products are then sorted and summed by position, a block of rows at a time. Where both
        matrices are nearly dense, the dense product is faster and is taken.

        Raises:
            ValueError: the shapes do not fit.
        """
        if self.shape[1] != other.shape[0]:
            raise ValueError(f"cannot multiply matrices of shapes {self.shape} and {other.shape}")
        shape = (self.shape[0], other.shape[1])
        begin, end = self._spans(other)
        total = np.concatenate([[0], np.cumsum(end - begin)])
        if total[-1] > 8 * shape[0] * shape[1] and self._small_when_dense(other):
            return SparseMatrix.from_dense(self.dense() @ other.dense())
        blocks = [
            self._block(other, begin, end, first, last)
            for first, last in self._row_blocks(total, _BLOCK)
        ]
        rows = [b.rows for b in blocks]
        columns = [b.columns for b in blocks]
        values = [b.values for b in blocks]
        if not blocks:
            return SparseMatrix.from_entries(self.rows[:0], self.rows[:0], self.values[:0], shape)
        joined = (np.concatenate(rows), np.concatenate(columns), np.concatenate(values))
        return SparseMatrix(*joined, shape)

    def _spans(self, other: SparseMatrix) -> tuple[Indices, Indices]:
        """Where in `other` the row lies that each entry of `self` meets: begin and end."""
        begin = np.searchsorted(other.rows, self.columns, side="left")
        return begin, np.searchsorted(other.rows, self.columns, side="right")

    def _small_when_dense(self, other: SparseMatrix) -> bool:
        (m, k), n = self.shape, other.shape[1]
        return max(m * k, k * n, m * n) <= _DENSE_ELEMENTS

    def _row_blocks(self, total: Indices, limit: int) -> list[tuple[int, int]]:
        """Cut the entries into runs of whole rows, each of about `limit` products or one row."""
        ends = np.append(np.flatnonzero(np.diff(self.rows)) + 1, self.entries)
        blocks: list[tuple[int, int]] = []
        first = 0
        while first < self.entries:
            fitting = np.searchsorted(total[ends], total[first] + limit, side="right") - 1
            following = np.searchsorted(ends, first, side="right")
            last = int(ends[max(fitting, following)])
            blocks.append((first, last))
            first = last
        return blocks

    def _block(
        self, other: SparseMatrix, begin: Indices, end: Indices, first: int, last: int
    ) -> SparseMatrix:
        counts = (end - begin)[first:last]
        mine = np.repeat(np.arange(first, last), counts)
        within = np.arange(mine.size) - np.repeat(np.cumsum(counts) - counts, counts)
        theirs = begin[mine] + within
        return SparseMatrix.from_entries(
            self.rows[mine],
            other.columns[theirs],
            self.values[mine] * other.values[theirs],
            (self.shape[0], other.shape[1]),
        )
