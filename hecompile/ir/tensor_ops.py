"""Operations of the tensor level: what the front end emits and the tensor passes rewrite.

Shapes follow ONNX: convolutions and pools are (N, C, spatial...), recurrent inputs (T, N, F).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hecompile.errors import ProgramError
from hecompile.ir.operation import Operation, Symbol, Value, attribute, operand, register_operation
from hecompile.ir.shapes import broadcast, window_counts
from hecompile.ir.shapes import need as need
from hecompile.ir.shapes import tensor_type as tensor_type
from hecompile.ir.types import TensorType, Type


class TensorOperation(Operation):
    """Base of the tensor operations."""

    def shape(self) -> tuple[int, ...]:
        """Derive the result's shape.

        Raises:
            ProgramError: the operands do not fit.
        """
        raise NotImplementedError

    def infer(self) -> Type | None:
        """Derive shape and secrecy: the result is secret if any operand is."""
        return TensorType(self.shape(), any(tensor_type(v).secret for v in self.operands))


@register_operation
@dataclass(frozen=True, kw_only=True)
class Input(TensorOperation):
    """A secret input of the model; `label` is its name there."""

    name: ClassVar[str] = "tensor.input"
    label: str = attribute()
    dims: tuple[int, ...] = attribute()

    def shape(self) -> tuple[int, ...]:
        """The declared shape."""
        return self.dims

    def infer(self) -> Type | None:
        """A secret tensor of the declared shape."""
        return TensorType(self.dims, secret=True)


@register_operation
@dataclass(frozen=True, kw_only=True)
class ConstantTensor(TensorOperation):
    """A clear tensor: the constant `value`, of shape `dims`."""

    name: ClassVar[str] = "tensor.constant"
    value: Symbol = attribute()
    dims: tuple[int, ...] = attribute()

    def shape(self) -> tuple[int, ...]:
        """The declared shape."""
        return self.dims

    def infer(self) -> Type | None:
        """A clear tensor of the declared shape."""
        return TensorType(self.dims, secret=False)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Output(TensorOperation):
    """An output of the model.

    Attributes:
        label: the output's name.
        post: steps that the client takes after decryption, in order, as in `softmax(axis=1)`.
        labels: what the inputs' fields that it depends on are about, sorted; None before
            propagate-labels.
    """

    name: ClassVar[str] = "tensor.output"
    x: Value = operand()
    label: str = attribute()
    post: tuple[str, ...] = attribute(default=())
    labels: tuple[str, ...] | None = attribute(default=None)

    def infer(self) -> Type | None:
        """Outputs define nothing."""
        tensor_type(self.x)
        return None


@dataclass(frozen=True, kw_only=True)
class Binary(TensorOperation):
    """Element-wise operation on two tensors that broadcast."""

    x: Value = operand()
    y: Value = operand()

    def shape(self) -> tuple[int, ...]:
        """The broadcast shape."""
        return broadcast(self.x, self.y)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Add(Binary):
    """`x + y`."""

    name: ClassVar[str] = "tensor.add"


@register_operation
@dataclass(frozen=True, kw_only=True)
class Sub(Binary):
    """`x - y`."""

    name: ClassVar[str] = "tensor.sub"


@register_operation
@dataclass(frozen=True, kw_only=True)
class Mul(Binary):
    """`x * y`, element by element."""

    name: ClassVar[str] = "tensor.mul"


@dataclass(frozen=True, kw_only=True)
class Unary(TensorOperation):
    """Element-wise operation on one tensor."""

    x: Value = operand()

    def shape(self) -> tuple[int, ...]:
        """The operand's shape."""
        return tensor_type(self.x).shape


@register_operation
@dataclass(frozen=True, kw_only=True)
class Neg(Unary):
    """`-x`."""

    name: ClassVar[str] = "tensor.neg"


@register_operation
@dataclass(frozen=True, kw_only=True)
class Power(Unary):
    """`x ** exponent`, a positive integer."""

    name: ClassVar[str] = "tensor.power"
    exponent: int = attribute()

    def shape(self) -> tuple[int, ...]:
        """The operand's shape."""
        need(self.exponent >= 1, f"tensor.power: exponent {self.exponent} is not 1 or more")
        return super().shape()


@register_operation
@dataclass(frozen=True, kw_only=True)
class Activation(Unary):
    """Non-polynomial functions, by segments of the last axis.

    Attributes:
        functions: texts as in `numeric.activations`, one a segment: `("sigmoid", "tanh")`.
        sections: length of each segment along the last axis; empty for one function throughout.
    """

    name: ClassVar[str] = "tensor.activation"
    functions: tuple[str, ...] = attribute()
    sections: tuple[int, ...] = attribute(default=())

    def shape(self) -> tuple[int, ...]:
        """The operand's shape."""
        shape = super().shape()
        if self.sections:
            fits = len(self.sections) == len(self.functions) and shape[-1:] == (sum(self.sections),)
            need(fits, f"sections {self.sections} do not cut a last axis of shape {shape}")
        else:
            need(len(self.functions) == 1, "several functions need sections")
        return shape


@register_operation
@dataclass(frozen=True, kw_only=True)
class Polynomial(Unary):
    """Polynomials, by segments of the last axis.

    Attributes:
        coefficients: constant of shape (degree + 1, segments), ascending.
        basis: "monomial", or "chebyshev" (the operand then is in [-1, 1], the mapped range).
        sections: as in `Activation`.
        functions: what each segment approximates; empty if the model itself is polynomial.
        lower: left end of the fitted range of each segment.
        upper: right end of the fitted range of each segment.
        fit_error: largest distance from the function over the fitted ranges.
        degree: degree of the polynomials.
    """

    name: ClassVar[str] = "tensor.polynomial"
    coefficients: Symbol = attribute()
    degree: int = attribute()
    sections: tuple[int, ...] = attribute(default=())
    functions: tuple[str, ...] = attribute(default=())
    lower: tuple[float, ...] = attribute(default=())
    upper: tuple[float, ...] = attribute(default=())
    fit_error: float = attribute(default=0.0)
    basis: str = attribute(default="monomial")

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """The fitted range of each segment, as the operand has it."""
        if self.basis == "chebyshev":
            return ((-1.0, 1.0),) * len(self.lower)
        return tuple(zip(self.lower, self.upper, strict=True))

    def shape(self) -> tuple[int, ...]:
        """The operand's shape."""
        shape = super().shape()
        need(self.basis in ("monomial", "chebyshev"), f"no basis is called '{self.basis}'")
        paired = len(self.lower) == len(self.upper)
        need(paired, f"{len(self.lower)} left ends and {len(self.upper)} right ends of ranges")
        fits = not self.sections or shape[-1:] == (sum(self.sections),)
        need(fits, f"sections {self.sections} do not cut a last axis of shape {shape}")
        return shape


@register_operation
@dataclass(frozen=True, kw_only=True)
class MatMul(TensorOperation):
    """Matrix product with numpy's rules for batches and vectors."""

    name: ClassVar[str] = "tensor.matmul"
    x: Value = operand()
    y: Value = operand()

    def shape(self) -> tuple[int, ...]:
        """The shape that numpy gives."""
        x, y = tensor_type(self.x).shape, tensor_type(self.y).shape
        left, right = (1, *x) if len(x) == 1 else x, (*y, 1) if len(y) == 1 else y
        fits = min(len(x), len(y)) >= 1 and left[-1] == right[-2]
        need(fits, f"tensor.matmul cannot multiply {x} by {y}")
        try:
            stack = np.broadcast_shapes(left[:-2], right[:-2])
        except ValueError as error:
            raise ProgramError(f"tensor.matmul cannot multiply {x} by {y}") from error
        rows = left[-2:-1] if len(x) > 1 else ()
        columns = right[-1:] if len(y) > 1 else ()
        return (*stack, *rows, *columns)


@dataclass(frozen=True, kw_only=True)
class Window(TensorOperation):
    """Base of what slides a window over (N, C, spatial...).

    Attributes:
        kernel: extent of the window on each spatial axis.
        strides: step on each spatial axis.
        pads: zeros before, then after, each spatial axis (ONNX order).
        dilations: distance between taps on each spatial axis.
        ceil: whether a last partial window counts.
    """

    x: Value = operand()

    def windows(
        self,
        kernel: tuple[int, ...],
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        ceil: bool = False,
    ) -> tuple[int, ...]:
        """Number of window positions on each spatial axis.

        Raises:
            ProgramError: ranks differ, or the window is larger than the padded input.
        """
        spatial = tensor_type(self.x).shape[2:]
        return window_counts(self.name, spatial, kernel, strides, pads, dilations, ceil)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Conv(Window):
    """Convolution of (N, C, spatial...) with weights (M, C/groups, kernel...) and a bias (M)."""

    name: ClassVar[str] = "tensor.conv"
    weight: Value = operand()
    bias: Value | None = operand(default=None)
    strides: tuple[int, ...] = attribute()
    pads: tuple[int, ...] = attribute()
    dilations: tuple[int, ...] = attribute()
    groups: int = attribute(default=1)

    def shape(self) -> tuple[int, ...]:
        """(N, M, positions...)."""
        x, w = tensor_type(self.x).shape, tensor_type(self.weight).shape
        need(len(x) >= 3 and len(w) == len(x), f"tensor.conv cannot slide {w} over {x}")
        need(self.groups >= 1, f"tensor.conv: {self.groups} groups")
        channels_fit = x[1] == w[1] * self.groups and w[0] % self.groups == 0
        need(channels_fit, f"tensor.conv: {x[1]} channels, weights {w}, {self.groups} groups")
        if self.bias is not None:
            bias = tensor_type(self.bias).shape
            need(bias == (w[0],), f"tensor.conv: a bias of shape {bias} for {w[0]} maps")
        return (x[0], w[0], *self.windows(w[2:], self.strides, self.pads, self.dilations))


@register_operation
@dataclass(frozen=True, kw_only=True)
class AveragePool(Window):
    """Mean over windows; `count_include_pad` says whether padding counts in the divisor."""

    name: ClassVar[str] = "tensor.average_pool"
    kernel: tuple[int, ...] = attribute()
    strides: tuple[int, ...] = attribute()
    pads: tuple[int, ...] = attribute()
    dilations: tuple[int, ...] = attribute()
    ceil: bool = attribute(default=False)
    count_include_pad: bool = attribute(default=False)

    def shape(self) -> tuple[int, ...]:
        """(N, C, positions...)."""
        x = tensor_type(self.x).shape
        need(len(x) >= 3, f"tensor.average_pool needs (N, C, spatial...), not {x}")
        positions = self.windows(self.kernel, self.strides, self.pads, self.dilations, self.ceil)
        return (*x[:2], *positions)


@register_operation
@dataclass(frozen=True, kw_only=True)
class BatchNorm(Unary):
    """`scale * (x - mean) / sqrt(variance + epsilon) + bias`, per channel (axis 1)."""

    name: ClassVar[str] = "tensor.batch_norm"
    scale: Value = operand()
    bias: Value = operand()
    mean: Value = operand()
    variance: Value = operand()
    epsilon: float = attribute(default=1e-5)

    def shape(self) -> tuple[int, ...]:
        """The operand's shape."""
        x = super().shape()
        for value in (self.scale, self.bias, self.mean, self.variance):
            fits = len(x) >= 2 and tensor_type(value).shape == (x[1],)
            need(fits, f"tensor.batch_norm: {value} is not one number for each channel of {x}")
        return x


@dataclass(frozen=True, kw_only=True)
class Reduce(Unary):
    """Base of reductions over `axes` (non-negative), kept as extents of 1 if `keepdims`."""

    axes: tuple[int, ...] = attribute()
    keepdims: bool = attribute(default=True)

    def shape(self) -> tuple[int, ...]:
        """The operand's shape with the axes reduced."""
        x = super().shape()
        need(all(0 <= a < len(x) for a in self.axes), f"{self.name}: axes {self.axes} of {x}")
        kept = [1 if i in self.axes else extent for i, extent in enumerate(x)]
        return tuple(e for i, e in enumerate(kept) if self.keepdims or i not in self.axes)


@register_operation
@dataclass(frozen=True, kw_only=True)
class ReduceSum(Reduce):
    """Sum over axes."""

    name: ClassVar[str] = "tensor.reduce_sum"


@register_operation
@dataclass(frozen=True, kw_only=True)
class ReduceMean(Reduce):
    """Mean over axes."""

    name: ClassVar[str] = "tensor.reduce_mean"
