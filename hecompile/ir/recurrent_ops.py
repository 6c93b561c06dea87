"""Recurrent operations of the tensor level: LSTM, GRU and the plain RNN, as ONNX defines them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hecompile.ir.operation import Value, attribute, operand, register_operation
from hecompile.ir.tensor_ops import TensorOperation, need, tensor_type

DIRECTIONS = ("forward", "reverse", "bidirectional")


@dataclass(frozen=True, kw_only=True)
class Recurrent(TensorOperation):
    """A layer that walks a sequence: T steps of N sequences of F features, D directions, H units.

    G, the number of gates, is a fact of the class. The weights of a step's gates are stacked in
    the class's order.

    Attributes:
        x: (T, N, F).
        w: (D, G H, F).
        r: (D, G H, H).
        b: (D, 2 G H), input and recurrent bias.
        h0: initial hidden state (D, N, H); zero if left out.
        hidden: H.
        direction: one of `DIRECTIONS`; the second of two directions walks backwards.
        activations: texts as in `numeric.activations`, as many a direction as the class says.
        clip: bound on what enters the activations of the gates; 0 for none.
        output: which result this operation gives: "Y" (T, D, N, H), or the last state (D, N, H).
    """

    gates: ClassVar[int]
    functions: ClassVar[int]
    kind: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]] = ("Y", "Y_h")

    x: Value = operand()
    w: Value = operand()
    r: Value = operand()
    b: Value | None = operand(default=None)
    h0: Value | None = operand(default=None)
    hidden: int = attribute()
    direction: str = attribute(default="forward")
    activations: tuple[str, ...] = attribute()
    clip: float = attribute(default=0.0)
    output: str = attribute()

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.direction == "bidirectional" else 1

    @property
    def batch(self) -> int:
        """N."""
        return tensor_type(self.x).shape[1]

    def backwards(self, index: int) -> bool:
        """Whether a direction walks from the last step to the first."""
        return self.direction == "reverse" or index == 1

    def functions_of(self, index: int) -> tuple[str, ...]:
        """The activations of one direction."""
        return self.activations[self.functions * index : self.functions * (index + 1)]

    def operand_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape that each operand but x must have, by field.

        Raises:
            ProgramError: x is no sequence.
        """
        x, d, h = tensor_type(self.x).shape, self.directions, self.hidden
        need(len(x) == 3, f"{self.name} reads (T, N, F), not {x}")
        rows = self.gates * h
        return {"w": (d, rows, x[2]), "r": (d, rows, h), "b": (d, 2 * rows), "h0": (d, x[1], h)}

    def shape(self) -> tuple[int, ...]:
        """The shape of the chosen result."""
        for field, shape in self.operand_shapes().items():
            value: Value | None = getattr(self, field)
            if value is not None:
                actual = tensor_type(value).shape
                need(actual == shape, f"{self.name}: {field} is {actual}, not {shape}")
        need(self.hidden >= 1, f"{self.name}: {self.hidden} hidden units")
        known = self.direction in DIRECTIONS and self.output in self.outputs
        need(known, f"{self.name}: direction '{self.direction}' or output '{self.output}'")
        count = self.functions * self.directions
        named = len(self.activations)
        need(named == count, f"{self.name}: {named} activations, not {count}")
        x, state = tensor_type(self.x).shape, (self.directions, self.batch, self.hidden)
        return (x[0], *state) if self.output == "Y" else state


@register_operation
@dataclass(frozen=True, kw_only=True)
class Lstm(Recurrent):
    """ONNX LSTM: gates i, o, f, c; activations for i, o and f, for c, and for the cell's way out.

    Attributes:
        c0: initial cell state (D, N, H); zero if left out.
        p: peephole weights (D, 3 H) for i, o, f.
        input_forget: whether f is 1 - i.
    """

    name: ClassVar[str] = "tensor.lstm"
    kind: ClassVar[str] = "LSTM"
    gates: ClassVar[int] = 4
    functions: ClassVar[int] = 3
    outputs: ClassVar[tuple[str, ...]] = ("Y", "Y_h", "Y_c")

    activations: tuple[str, ...] = attribute(default=("sigmoid", "tanh", "tanh"))
    c0: Value | None = operand(default=None)
    p: Value | None = operand(default=None)
    input_forget: bool = attribute(default=False)

    def operand_shapes(self) -> dict[str, tuple[int, ...]]:
        """As of every recurrent operation, with the cell state and the peepholes."""
        shapes = super().operand_shapes()
        return shapes | {"c0": shapes["h0"], "p": (self.directions, 3 * self.hidden)}


@register_operation
@dataclass(frozen=True, kw_only=True)
class Gru(Recurrent):
    """ONNX GRU: gates z, r, h; activations for z and r, and for h.

    Attributes:
        linear_before_reset: whether r multiplies the recurrent product and its bias (as cuDNN and
            PyTorch have it) instead of the hidden state.
    """

    name: ClassVar[str] = "tensor.gru"
    kind: ClassVar[str] = "GRU"
    gates: ClassVar[int] = 3
    functions: ClassVar[int] = 2

    activations: tuple[str, ...] = attribute(default=("sigmoid", "tanh"))
    linear_before_reset: bool = attribute(default=False)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Rnn(Recurrent):
    """ONNX RNN: one gate, which is the hidden state."""

    name: ClassVar[str] = "tensor.rnn"
    kind: ClassVar[str] = "RNN"
    gates: ClassVar[int] = 1
    functions: ClassVar[int] = 1

    activations: tuple[str, ...] = attribute(default=("tanh",))
