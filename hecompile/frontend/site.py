"""What a converter sees of a node: its inputs as known so far, its attributes, and the builder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray

from hecompile.errors import InputError
from hecompile.ir.constants import Array
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder
from hecompile.ir.tensor_ops import ConstantTensor, TensorOperation, tensor_type

AnyArray = NDArray[Any]

MOST_ELEMENTS = 1 << 20
"""Elements of the largest tensor that is taken; encrypted, it is a hundred megabytes or more."""


@dataclass(frozen=True, eq=False)
class Clear:
    """A tensor known at compile time, in its own type; `name` is its name in the model."""

    name: str
    array: AnyArray


@dataclass(frozen=True)
class Tail:
    """What the client computes from a decrypted value.

    Attributes:
        value: the value decrypted.
        post: the client's steps, as `runtime.postprocess` reads them.
        shape: shape after the steps.
    """

    value: Value
    post: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Lost:
    """The result, of unknown shape, of a node that was refused."""


State = Clear | Value | Tail | Lost
Result = State | tuple[State | None, ...]
"""What a converter returns: one state, or one for each output of the node."""


class RefusalError(Exception):
    """A node cannot be converted: why, and what the user can do."""

    def __init__(self, why: str, remedy: str) -> None:
        """Take the two halves of the message."""
        super().__init__(why, remedy)
        self.why = why
        self.remedy = remedy


@dataclass
class Emitter:
    """The program under construction, the constants already in it, and the model's opsets."""

    builder: Builder
    opsets: tuple[onnx.OperatorSetIdProto, ...] = ()
    lifted: dict[str, Value] = field(default_factory=dict)

    def lift(self, array: AnyArray, name: str, location: str) -> Value:
        """The value of a constant; equal constants share it.

        Raises:
            InputError: the constant is not finite.
        """
        numbers = np.asarray(array).astype(np.float64)
        if not np.isfinite(numbers).all():
            raise InputError(
                f"'{name}' holds NaN or infinity, where node '{location}' needs numbers"
            )
        hint = identifier(name)
        symbol = self.builder.constant(numbers, hint or "c")
        if symbol not in self.lifted:
            op = ConstantTensor(value=symbol, dims=numbers.shape, location=location)
            self.lifted[symbol] = self.builder.emit(op, hint)
        return self.lifted[symbol]


def identifier(name: str) -> str:
    """A readable name made of what the program's text allows, from any name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "_", name).strip("_.")


@dataclass(frozen=True, eq=False)
class Site:
    """One node of the model, at the point where it is converted.

    Attributes:
        node: the node.
        inputs: what is known of each input; None for one left out.
        emitter: takes the operations.
        wanted: whether each output is used.
        location: name of the node for messages.
    """

    node: onnx.NodeProto
    inputs: tuple[State | None, ...]
    emitter: Emitter
    wanted: tuple[bool, ...]
    location: str

    def refuse(self, why: str, remedy: str) -> NoReturn:
        """Give up on the node."""
        raise RefusalError(why, remedy)

    def invalid(self, what: str) -> NoReturn:
        """Give up on the model."""
        raise InputError(f"node '{self.location}' ({self.node.op_type}): {what}")

    def with_inputs(self, *inputs: State | None) -> Site:
        """The same node with other inputs."""
        return replace(self, inputs=inputs)

    def state(self, index: int) -> State | None:
        """What is known of an input; None if it was left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def given(self, index: int) -> bool:
        """Whether an optional input is there."""
        return self.state(index) is not None

    def is_clear(self, index: int) -> bool:
        """Whether an input is known at compile time."""
        return isinstance(self.state(index), Clear)

    def value(self, index: int) -> Value:
        """An input as a value of the program, a constant lifted into it."""
        state = self.state(index)
        if isinstance(state, Clear):
            return self.lift(state.array, state.name)
        if isinstance(state, Value):
            return state
        self.invalid(f"input {index} is missing")

    def optional(self, index: int) -> Value | None:
        """An input as a value of the program; None if it was left out."""
        return self.value(index) if self.given(index) else None

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of an input."""
        state = self.state(index)
        if isinstance(state, Clear):
            return tuple(state.array.shape)
        if isinstance(state, Tail):
            return state.shape
        return tensor_type(self.value(index)).shape

    def constant(self, index: int, what: str) -> AnyArray:
        """An input that must be known at compile time; `what` names it in the refusal."""
        state = self.state(index)
        if isinstance(state, Clear):
            return state.array
        if state is None:
            self.invalid(f"its {what} are missing")
        self.refuse(
            f"its {what} are computed from an encrypted input",
            f"make the {what} constants of the model",
        )

    def numbers(self, index: int, what: str) -> Array:
        """A constant input as float64."""
        return self.constant(index, what).astype(np.float64)

    def integers(self, index: int, what: str) -> tuple[int, ...]:
        """A constant input as a tuple of integers."""
        return tuple(int(v) for v in self.constant(index, what).ravel())

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute as Python numbers, bytes or lists."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                return onnx.helper.get_attribute_value(attribute)
        return default

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self.attribute(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        """An integer attribute that says yes or no."""
        value = self.integer(name, int(default))
        if value not in (0, 1):
            self.invalid(f"its {name} is {value}, not 0 or 1")
        return value == 1

    def number(self, name: str, default: float) -> float:
        """A float attribute, as the shortest decimal that float32 tells apart (0.01, not 0.00999…).

        The attribute is stored in float32; the exporter meant the decimal.
        """
        value = float(str(np.float32(self.attribute(name, default))))
        if not math.isfinite(value):
            self.invalid(f"its {name} is {value}, not a number")
        return value

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.attribute(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def tuple_of(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """An attribute that lists integers."""
        return tuple(int(v) for v in self.attribute(name, default))

    def axes(self, index: int, what: str = "axes") -> tuple[int, ...] | None:
        """Axes from the attribute (older opsets) or the input (newer); None if left out."""
        if self.given(index):
            return self.integers(index, what)
        found = self.attribute("axes", None)
        return None if found is None else tuple(int(a) for a in found)

    def axis(self, axis: int, rank: int) -> int:
        """A non-negative axis."""
        if not -rank <= axis < rank:
            self.invalid(f"there is no axis {axis} in a tensor of {rank} axes")
        return axis % rank

    def lift(self, array: AnyArray, name: str = "") -> Value:
        """A constant as a value of the program."""
        return self.emitter.lift(array, name or f"{self.location}.constant", self.location)

    def bounded(self, *extents: int) -> None:
        """Refuse a result that is too large, before memory is spent on it."""
        if math.prod(extents) > MOST_ELEMENTS:
            self.invalid(
                f"its result of shape {extents} has more than the {MOST_ELEMENTS} elements that "
                "are supported"
            )

    def emit(self, operation: TensorOperation) -> Value:
        """Append an operation, named after the node's first used output."""
        names = [n for n, wanted in zip(self.node.output, self.wanted, strict=True) if wanted]
        located = replace(operation, location=self.location)
        value = self.emitter.builder.emit(located, identifier(names[0]) if names else "")
        self.bounded(*tensor_type(value).shape)
        return value


Converter = Callable[[Site], Result]
CONVERTERS: dict[str, Converter] = {}
"""Converter of each operator of the default domain, by name."""


def converts(*operators: str) -> Callable[[Converter], Converter]:
    """Decorator: register a function as the converter of these operators."""

    def register(converter: Converter) -> Converter:
        for operator in operators:
            CONVERTERS[operator] = converter
        return converter

    return register
