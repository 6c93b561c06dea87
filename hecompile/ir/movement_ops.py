"""Tensor operations that move elements, and the merged affine map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hecompile.errors import ProgramError
from hecompile.ir.operation import Symbol, Value, attribute, operand, register_operation
from hecompile.ir.tensor_ops import TensorOperation, Unary, need, tensor_type
from hecompile.numeric.masking import check_mask_bits


@register_operation
@dataclass(frozen=True, kw_only=True)
class Pad(Unary):
    """Pad with a constant; `pads` before every axis, then after every axis (not negative)."""

    name: ClassVar[str] = "tensor.pad"
    pads: tuple[int, ...] = attribute()
    fill: float = attribute(default=0.0)

    def shape(self) -> tuple[int, ...]:
        """The padded shape."""
        x = super().shape()
        fits = len(self.pads) == 2 * len(x) and min(self.pads, default=0) >= 0
        need(fits, f"tensor.pad: pads {self.pads} for shape {x}")
        return tuple(e + self.pads[i] + self.pads[len(x) + i] for i, e in enumerate(x))


@register_operation
@dataclass(frozen=True, kw_only=True)
class Reshape(Unary):
    """Same elements in the same order, another shape."""

    name: ClassVar[str] = "tensor.reshape"
    dims: tuple[int, ...] = attribute()

    def shape(self) -> tuple[int, ...]:
        """The new shape."""
        x = super().shape()
        same = min(self.dims, default=1) >= 0 and math.prod(self.dims) == math.prod(x)
        need(same, f"tensor.reshape: {x} has other elements than {self.dims}")
        return self.dims


@register_operation
@dataclass(frozen=True, kw_only=True)
class Refresh(Unary):
    """The same tensor after a masked round trip to the key holder: fresh, in any slots.

    Attributes:
        mask_bits: as in `he.refresh`.
        group: refreshes with one group number travel in one round.
    """

    name: ClassVar[str] = "tensor.refresh"
    mask_bits: int = attribute(default=40)
    group: int = attribute(default=0)

    def shape(self) -> tuple[int, ...]:
        """The operand's shape.

        Raises:
            ProgramError: the mask bits are out of range.
        """
        check_mask_bits(self.mask_bits)
        return super().shape()


@register_operation
@dataclass(frozen=True, kw_only=True)
class Transpose(Unary):
    """Permute axes: result axis i is operand axis `permutation[i]`."""

    name: ClassVar[str] = "tensor.transpose"
    permutation: tuple[int, ...] = attribute()

    def shape(self) -> tuple[int, ...]:
        """The permuted shape."""
        x = super().shape()
        fits = sorted(self.permutation) == list(range(len(x)))
        need(fits, f"tensor.transpose: {self.permutation} does not permute the axes of {x}")
        return tuple(x[p] for p in self.permutation)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Slice(Unary):
    """`x[start:stop:step]` on one axis; 0 <= start < stop <= extent, step >= 1.

    A reversed slice is a `Gather`.
    """

    name: ClassVar[str] = "tensor.slice"
    axis: int = attribute()
    start: int = attribute()
    stop: int = attribute()
    step: int = attribute(default=1)

    def shape(self) -> tuple[int, ...]:
        """The sliced shape."""
        x = super().shape()
        inside = 0 <= self.axis < len(x) and 0 <= self.start < self.stop <= x[self.axis]
        need(inside and self.step >= 1, f"tensor.slice: {self.start}:{self.stop} of {x}")
        count = len(range(self.start, self.stop, self.step))
        return (*x[: self.axis], count, *x[self.axis + 1 :])


@register_operation
@dataclass(frozen=True, kw_only=True)
class Gather(Unary):
    """`numpy.take(x, indices, axis)` with constant, non-negative indices of shape `dims`."""

    name: ClassVar[str] = "tensor.gather"
    axis: int = attribute()
    indices: tuple[int, ...] = attribute()
    dims: tuple[int, ...] = attribute()

    def shape(self) -> tuple[int, ...]:
        """The gathered shape."""
        x = super().shape()
        need(0 <= self.axis < len(x), f"tensor.gather: no axis {self.axis} in {x}")
        inside = all(0 <= i < x[self.axis] for i in self.indices)
        whole = math.prod(self.dims) == len(self.indices)
        need(inside and whole, f"tensor.gather: indices {self.indices} of {x}")
        return (*x[: self.axis], *self.dims, *x[self.axis + 1 :])


@register_operation
@dataclass(frozen=True, kw_only=True)
class Concat(TensorOperation):
    """Join tensors along one axis."""

    name: ClassVar[str] = "tensor.concat"
    xs: tuple[Value, ...] = operand()
    axis: int = attribute()

    def shape(self) -> tuple[int, ...]:
        """The joined shape."""
        shapes = [tensor_type(v).shape for v in self.xs]
        need(bool(shapes) and 0 <= self.axis < len(shapes[0]), "tensor.concat: no such axis")
        others = {(*s[: self.axis], *s[self.axis + 1 :]) for s in shapes}
        same_rank = len({len(s) for s in shapes}) == 1
        need(len(others) == 1 and same_rank, f"tensor.concat: {shapes} on axis {self.axis}")
        extent = sum(s[self.axis] for s in shapes)
        return (*shapes[0][: self.axis], extent, *shapes[0][self.axis + 1 :])


@register_operation
@dataclass(frozen=True, kw_only=True)
class Expand(Unary):
    """Broadcast to a shape."""

    name: ClassVar[str] = "tensor.expand"
    dims: tuple[int, ...] = attribute()

    def shape(self) -> tuple[int, ...]:
        """The broadcast shape."""
        try:
            return np.broadcast_shapes(super().shape(), self.dims)
        except ValueError as error:
            raise ProgramError(f"tensor.expand: {super().shape()} to {self.dims}") from error


@register_operation
@dataclass(frozen=True, kw_only=True)
class Affine(TensorOperation):
    """`sum of maps[i] applied to the flattened xs[i], plus bias`, reshaped to `dims`.

    Attributes:
        maps: one constant of shape (3, entries) an operand, as `SparseMap` stores it.
        bias: constant of shape (elements of the result,).
    """

    name: ClassVar[str] = "tensor.affine"
    xs: tuple[Value, ...] = operand()
    maps: tuple[Symbol, ...] = attribute()
    bias: Symbol = attribute()
    dims: tuple[int, ...] = attribute()

    def shape(self) -> tuple[int, ...]:
        """The declared shape."""
        for value in self.xs:
            tensor_type(value)
        same = len(self.xs) == len(self.maps) >= 1
        need(same, f"tensor.affine: {len(self.maps)} maps for {len(self.xs)} operands")
        return self.dims
