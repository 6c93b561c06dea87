"""Activation functions with the exact meaning that ONNX gives them, in float64."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import InputError

Array = NDArray[np.float64]

_erf_elementwise: Final = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: Array) -> Array:
    """Return the Gauss error function elementwise, to the last place or so."""
    return np.asarray(_erf_elementwise(x), dtype=np.float64)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0.0, 1.0)


def _gelu(x: Array, tanh: float) -> Array:
    if tanh:
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1.0 + np.tanh(inner))
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def _clip(x: Array, low: float, high: float) -> Array:
    # ONNX: where min exceeds max, every element becomes max.
    return np.minimum(np.maximum(x, low), high)


@dataclass(frozen=True)
class _Definition:
    """How to compute an activation, and its parameters' defaults in the order of arguments."""

    function: Callable[..., Array]
    defaults: tuple[tuple[str, float], ...] = ()


_DEFINITIONS: Final[Mapping[str, _Definition]] = MappingProxyType(
    {
        "relu": _Definition(lambda x: np.maximum(x, 0.0)),
        "leaky_relu": _Definition(
            lambda x, alpha: np.where(x >= 0, x, alpha * x), (("alpha", 0.01),)
        ),
        "sigmoid": _Definition(sigmoid),
        "tanh": _Definition(np.tanh),
        "hard_sigmoid": _Definition(_hard_sigmoid, (("alpha", 0.2), ("beta", 0.5))),
        "hard_swish": _Definition(lambda x: x * _hard_sigmoid(x, 1.0 / 6.0, 0.5)),
        "elu": _Definition(
            lambda x, alpha: np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0.0))),
            (("alpha", 1.0),),
        ),
        "softplus": _Definition(lambda x: np.logaddexp(x, 0.0)),
        "gelu": _Definition(_gelu, (("tanh", 0.0),)),
        "erf": _Definition(erf),
        "softsign": _Definition(lambda x: x / (1.0 + np.abs(x))),
        "scaled_tanh": _Definition(
            lambda x, alpha, beta: alpha * np.tanh(beta * x), (("alpha", 1.0), ("beta", 1.0))
        ),
        "affine": _Definition(
            lambda x, alpha, beta: alpha * x + beta, (("alpha", 1.0), ("beta", 0.0))
        ),
        "clip": _Definition(_clip, (("min", -math.inf), ("max", math.inf))),
    }
)

ACTIVATIONS: Final[tuple[str, ...]] = tuple(_DEFINITIONS)
"""Names of all known activations."""

_TEXT: Final = re.compile(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", re.DOTALL)


@dataclass(frozen=True)
class Activation:
    """An activation function with its parameters, callable on float64 arrays of any shape.

    Attributes:
        name: One of `ACTIVATIONS`.
        parameters: Names and values. Left-out ones take ONNX's defaults and the order is made
            canonical, so that equal functions compare equal.

    Raises:
        InputError: If the name or a parameter is unknown, a value is NaN, or a value that must be
            finite is not.
    """

    name: str
    parameters: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Check the name and bring the parameters into canonical form."""
        definition = _DEFINITIONS.get(self.name)
        if definition is None:
            raise InputError(
                f"activation '{self.name}' is not known; choose one of {', '.join(ACTIVATIONS)}."
            )
        values = dict(definition.defaults)
        seen: set[str] = set()
        for key, value in self.parameters:
            if key not in values:
                raise InputError(
                    f"activation '{self.name}' has no parameter '{key}'; it takes"
                    f" {', '.join(values) or 'none'}."
                )
            if key in seen:
                raise InputError(f"activation '{self.name}' is given parameter '{key}' twice.")
            seen.add(key)
            values[key] = self._checked(key, float(value))
        object.__setattr__(self, "parameters", tuple(values.items()))

    def _checked(self, key: str, value: float) -> float:
        if math.isnan(value) or (math.isinf(value) and self.name != "clip"):
            raise InputError(
                f"parameter '{key}' of activation '{self.name}' must be a finite number,"
                f" found {value}."
            )
        if self.name == "gelu" and value not in (0.0, 1.0):
            raise InputError(
                f"parameter 'tanh' of activation 'gelu' must be 0 (exact) or 1 (tanh"
                f" approximation), found {value}."
            )
        return value

    def __call__(self, x: Array) -> Array:
        """Apply the function elementwise; the result is float64 with the shape of `x`."""
        points = np.asarray(x, dtype=np.float64)
        values = (value for _, value in self.parameters)
        return np.asarray(_DEFINITIONS[self.name].function(points, *values), dtype=np.float64)

    def __str__(self) -> str:
        """Return the text form, such as `leaky_relu(alpha=0.01)` or `relu`."""
        if not self.parameters:
            return self.name
        body = ", ".join(f"{key}={_number_text(value)}" for key, value in self.parameters)
        return f"{self.name}({body})"


def parse_activation(text: str) -> Activation:
    """Read the text form that `str(activation)` writes.

    Raises:
        InputError: If the text is malformed or names an unknown activation or parameter.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise InputError(
            f"activation text '{text}' cannot be read; write it as 'relu' or"
            f" 'leaky_relu(alpha=0.01)'."
        )
    name, body = match.group(1), match.group(2)
    if body is None or not body.strip():
        return Activation(name)
    return Activation(name, tuple(_parse_parameter(text, part) for part in body.split(",")))


def _parse_parameter(text: str, part: str) -> tuple[str, float]:
    key, equals, number = part.partition("=")
    try:
        value = float(number)
    except ValueError:
        equals = ""
    if not equals:
        raise InputError(
            f"parameter '{part.strip()}' in activation text '{text}' cannot be read; write it as"
            f" 'name=number'."
        )
    return key.strip(), value


def _number_text(value: float) -> str:
    """Return the shortest text that reads back as exactly `value`."""
    return repr(value).removesuffix(".0")
