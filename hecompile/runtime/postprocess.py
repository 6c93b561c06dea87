"""Steps that the client takes after decryption, written as text: `softmax(axis=1)`, `sigmoid`.

Axes and extents are those of one sample as the model exports it, its leading batch axis included;
the arrays here carry one axis of samples before them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import InputError

Array = NDArray[np.float64]
Processed = NDArray[np.float64] | NDArray[np.int64]

_TEXT: Final = re.compile(r"([a-z_]+)(?:\(([^()]*)\))?")
_ARGUMENT: Final = re.compile(r"([a-z]+)=(-?\d+(?:x\d+)*|scalar)")


@dataclass(frozen=True)
class Step:
    """One step: its name, and its arguments in order, each a tuple of integers.

    Raises:
        InputError: no such step, or not its arguments.
    """

    name: str
    arguments: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        """Check the name and the arguments' names."""
        known = _STEPS.get(self.name)
        if known is None:
            raise InputError(
                f"the output step '{self.name}' is not one of {', '.join(_STEPS)}; "
                "a newer hecompile may have written it"
            )
        names = tuple(name for name, _ in self.arguments)
        if names != known.arguments:
            wanted = ", ".join(known.arguments) or "no arguments"
            raise InputError(
                f"the output step '{self.name}' takes {wanted}, not {', '.join(names)}"
            )
        for name, value in self.arguments:
            if name != "dims" and len(value) != 1:
                raise InputError(f"the output step '{self.name}' takes one integer as {name}")

    def __str__(self) -> str:
        """Write the step as `parse_step` reads it."""
        texts = [f"{k}={'x'.join(map(str, v)) or 'scalar'}" for k, v in self.arguments]
        return f"{self.name}({' '.join(texts)})" if texts else self.name

    def __call__(self, x: Array) -> Processed:
        """Take the step on (S, *shape)."""
        known = _STEPS[self.name]
        values: dict[str, Any] = dict(self.arguments)
        for name in known.arguments:
            if name != "dims":
                values[name] = values[name][0]
        if "axis" in values:
            if not 0 <= values["axis"] < x.ndim - 1:
                raise InputError(
                    f"the output step '{self}' names an axis that a tensor of shape {x.shape[1:]} "
                    "does not have"
                )
            values["axis"] += 1
        return known.function(x, **values)


def step(name: str, **arguments: int | tuple[int, ...]) -> Step:
    """A step from Python values."""
    pairs = ((k, v if isinstance(v, tuple) else (v,)) for k, v in arguments.items())
    return Step(name, tuple(pairs))


def parse_step(text: str) -> Step:
    """Read a step, such as `argmax(axis=1 keepdims=1)`.

    Raises:
        InputError: malformed, or no such step.
    """
    match = _TEXT.fullmatch(text.strip())
    arguments = []
    for part in (match.group(2) or "").split() if match else ():
        found = _ARGUMENT.fullmatch(part)
        if found is None:
            match = None
            break
        numbers = () if found[2] == "scalar" else tuple(int(n) for n in found[2].split("x"))
        arguments.append((found[1], numbers))
    if match is None:
        raise InputError(f"the output step '{text}' cannot be read; write it as 'softmax(axis=1)'")
    return Step(match.group(1), tuple(arguments))


def post_process(steps: Sequence[str], raw: Array) -> Processed:
    """Take steps, in order, on raw outputs.

    Args:
        steps: texts of steps, as in `Output.post`.
        raw: decrypted values (S, *shape of one sample).

    Returns:
        (S, *shape after the steps); integers (int64) after `argmax`.

    Raises:
        InputError: a step cannot be read or does not fit the shape.
    """
    result: Processed = np.asarray(raw, dtype=np.float64)
    for text in steps:
        result = parse_step(text)(result)  # type: ignore[arg-type]
    return result


def labels_of(steps: Sequence[str], raw: Array) -> NDArray[np.int64]:
    """The one class that each sample is put into, and nothing else of its scores.

    It is what `argmax` gives where the steps have one; else the largest element along the only
    axis with several; of a single element 1 where it is above one half as a probability, above 0
    as a score.

    Args:
        steps: texts of steps, as in `Output.post`.
        raw: values (S, *shape of one sample).

    Returns:
        Integers, shape (S, 1).

    Raises:
        InputError: a step cannot be read or does not fit the shape; or there is no one class of a
            sample, for it has several axes of elements, or `argmax` leaves several labels.
    """
    result = post_process(steps, raw)
    samples, shape = len(result), result.shape[1:]
    integers = np.issubdtype(result.dtype, np.integer)
    if sum(extent > 1 for extent in shape) > (0 if integers else 1):
        raise InputError(
            f"a sample's result has shape {shape}{' of labels' if integers else ''}, so that it is"
            " put into no one class; give the model one output for each class that is to be told"
        )
    flat = result.reshape(samples, -1)
    if integers:
        return np.asarray(flat, dtype=np.int64)
    if flat.shape[1] > 1:
        return np.asarray(np.argmax(flat, axis=1, keepdims=True), dtype=np.int64)
    middle = 0.5 if any(parse_step(text).name == "sigmoid" for text in steps) else 0.0
    return np.asarray(flat > middle, dtype=np.int64)


def _softmax(x: Array, axis: int) -> Array:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def _log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def _argmax(x: Array, axis: int, keepdims: int) -> NDArray[np.int64]:
    return np.asarray(np.argmax(x, axis=axis, keepdims=bool(keepdims)), dtype=np.int64)


def _reshape(x: Array, dims: tuple[int, ...]) -> Array:
    if math.prod(dims) != math.prod(x.shape[1:]):
        raise InputError(f"an output of shape {x.shape[1:]} cannot be reshaped to {dims}")
    return x.reshape(x.shape[0], *dims)


def _slice(x: Array, axis: int, start: int, stop: int, step: int) -> Array:
    if not (0 <= start < stop <= x.shape[axis] and step >= 1):
        raise InputError(f"an output of shape {x.shape[1:]} has no slice {start}:{stop}:{step}")
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


@dataclass(frozen=True)
class _Definition:
    function: Callable[..., Processed]
    arguments: tuple[str, ...] = ()


_STEPS: Final[Mapping[str, _Definition]] = MappingProxyType(
    {
        "softmax": _Definition(_softmax, ("axis",)),
        "log_softmax": _Definition(_log_softmax, ("axis",)),
        "sigmoid": _Definition(_sigmoid),
        "argmax": _Definition(_argmax, ("axis", "keepdims")),
        "reshape": _Definition(_reshape, ("dims",)),
        "slice": _Definition(_slice, ("axis", "start", "stop", "step")),
    }
)

STEPS: Final[tuple[str, ...]] = tuple(_STEPS)
"""Names of all steps."""
