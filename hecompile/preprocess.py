"""Preprocessing that is fitted at training and travels with a bundle to the client.

A step is a frozen dataclass. `fit` takes its statistics from the TRAINING part only; calling the
step applies them. `apply_steps` ends in float32, the element type of an exported model's input, so
that the plain and the encrypted model see the same numbers.

The JSON form is `{"format": "hecompile-preprocess", "version": 1, "steps": [...]}`; each step is
an object with the step's name under `name` and its fields beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hecompile.arraychecks import RealArray, check_finite, real_array
from hecompile.errors import InputError
from hecompile.files import cannot_read
from hecompile.preprocess_steps import (
    CapOutliers,
    Crop,
    MeanImpute,
    SequenceWindows,
    Standardise,
    Step,
)

__all__ = [
    "STEPS",
    "CapOutliers",
    "Crop",
    "MeanImpute",
    "SequenceWindows",
    "Standardise",
    "Step",
    "apply_steps",
    "fit_steps",
    "load_steps",
    "output_shape",
    "steps_from_json",
    "steps_from_list",
    "steps_to_json",
    "steps_to_list",
]

FORMAT = "hecompile-preprocess"
VERSION = 1

STEPS: Mapping[str, type[Step]] = {
    kind.name: kind for kind in (MeanImpute, CapOutliers, Standardise, Crop, SequenceWindows)
}


def fit_steps(
    plan: Sequence[tuple[type[Step], Mapping[str, object]]], train: RealArray
) -> tuple[Step, ...]:
    """Fit steps one after another, each on what the steps before it make of `train`.

    Args:
        plan: each step's class and the options of its `fit`.
        train: the training part only, samples first.
    """
    steps: list[Step] = []
    x: RealArray = train
    for kind, options in plan:
        steps.append(kind.fit(x, **options))
        x = steps[-1](x)
    return tuple(steps)


def apply_steps(steps: Sequence[Step], x: RealArray) -> npt.NDArray[np.float32]:
    """Apply `steps` in order to raw samples and return what the model takes, as float32.

    Raises:
        InputError: `x` has the wrong rank, shape or element type, an infinite value, or a missing
            value (NaN) that no `mean_impute` step has replaced.
    """
    values: RealArray = real_array("input", x)
    check_finite("input", values, allow_nan=True)
    for step in steps:
        values = step(values)
    check_finite("input", values)
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise InputError("input: a value does not fit into float32; check the unit of the samples")
    return narrow


def output_shape(steps: Sequence[Step], sample: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Return how many model inputs one raw sample becomes (windows), and the shape of each.

    Args:
        steps: the steps in order.
        sample: the shape of one raw sample, without the leading sample axis.

    Raises:
        InputError: the steps cannot take such a sample.
    """
    shape = (1, *sample)
    for step in steps:
        shape = step.shape_after(shape)
    return shape[0], shape[1:]


def steps_to_list(steps: Sequence[Step]) -> list[dict[str, object]]:
    """Return the steps as JSON values, to be put into a larger document."""
    return [
        {"name": step.name} | {f.name: _plain(getattr(step, f.name)) for f in fields(step)}  # type: ignore[arg-type]
        for step in steps
    ]


def steps_from_list(items: object) -> tuple[Step, ...]:
    """Read the steps back from `steps_to_list`'s form.

    Raises:
        InputError: naming the step and the field at fault.
    """
    if not isinstance(items, list):
        raise InputError("preprocessing: `steps` must be a list")
    return tuple(_step_from(index, item) for index, item in enumerate(items))


def steps_to_json(steps: Sequence[Step]) -> str:
    """Return the steps as JSON text; `steps_from_json` gives back equal steps."""
    document = {"format": FORMAT, "version": VERSION, "steps": steps_to_list(steps)}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def steps_from_json(text: str | bytes) -> tuple[Step, ...]:
    """Read steps from JSON text.

    Raises:
        InputError: not JSON, another format or version, or a step or field at fault (named).
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"preprocessing: this is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f'preprocessing: expected an object with "format": "{FORMAT}".')
    if document.get("version") != VERSION:
        raise InputError(
            f"preprocessing: version {document.get('version')!r} is not known here, only {VERSION}"
        )
    if extra := sorted(set(document) - {"format", "version", "steps"}):
        raise InputError(f"preprocessing: unknown field `{extra[0]}`")
    return steps_from_list(document.get("steps"))


def load_steps(path: str | Path) -> tuple[Step, ...]:
    """Read steps from a JSON file; raise `InputError` naming the file."""
    try:
        return steps_from_json(Path(path).read_bytes())
    except OSError as error:
        raise cannot_read(Path(path), error) from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _step_from(index: int, item: object) -> Step:
    """Build step number `index` from its JSON object."""
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise InputError(f"preprocessing: step {index} must be an object that has a `name`")
    kind = STEPS.get(item["name"])
    if kind is None:
        raise InputError(
            f"preprocessing: step {index} is {item['name']!r}, which is not one of "
            f"{', '.join(STEPS)}"
        )
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    given = {key: value for key, value in item.items() if key != "name"}
    where = f"preprocessing: step {index} ({kind.name})"
    for field in known:
        if field not in given:
            raise InputError(f"{where} lacks the field `{field}`")
    for field in given:
        if field not in known:
            raise InputError(f"{where} has the unknown field `{field}`")
    try:
        made: Callable[..., Step] = kind
        return made(**{key: tuple(v) if isinstance(v, list) else v for key, v in given.items()})
    except InputError as error:
        raise InputError(f"preprocessing: step {index}: {error}") from error


def _refuse_constant(word: str) -> float:
    raise InputError(f"preprocessing: {word} is not a number that a step can use")


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
