"""What a kernel of the tensor interpreter sees, and how arrays of several samples align."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hecompile.ir.constants import Array
from hecompile.ir.operation import Value
from hecompile.ir.program import Program


@dataclass(frozen=True)
class Scope:
    """The program's constants and the values computed so far.

    Every array has a leading sample axis: of extent S, or 1 where the value is the same for all
    samples. With `single`, constants are rounded to float32.
    """

    program: Program
    arrays: Mapping[str, Array]
    single: bool = False

    def __call__(self, value: Value) -> Array:
        """The array of a value."""
        return self.arrays[value.name]

    def constant(self, symbol: str) -> Array:
        """The constant that a symbol names."""
        array = self.program.array(symbol)
        return array.astype(np.float32).astype(np.float64) if self.single else array


def align(x: Array, rank: int) -> Array:
    """Insert extents of 1 behind the sample axis, so that `rank` axes follow it.

    Numpy broadcasts from the last axis on; without this a shorter shape would meet the samples.
    """
    return x.reshape(x.shape[0], *(1,) * (rank + 1 - x.ndim), *x.shape[1:])


def linear(x: Array, matrix: Array) -> Array:
    """Multiply the last axis of x (S, ..., K) by `matrix` (S or 1, K, M): (S, ..., M).

    One matrix for all samples is one large product instead of many small ones.
    """
    if matrix.shape[0] == 1:
        product: Array = x.reshape(-1, x.shape[-1]) @ matrix[0]
        return product.reshape(*x.shape[:-1], matrix.shape[-1])
    return np.asarray(np.matmul(x, align(matrix, x.ndim - 1)))
