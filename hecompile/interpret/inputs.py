"""Checks of the arrays that an interpreter is given."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from hecompile.errors import InputError
from hecompile.ir.constants import Array


def check_inputs(
    dims: Mapping[str, tuple[int, ...]], inputs: Mapping[str, ArrayLike]
) -> tuple[dict[str, Array], int]:
    """Return the arrays of the named inputs as float64, and the number of samples S.

    Args:
        dims: shape of one sample of each input, by the input's name.
        inputs: arrays of shape (S, *dims); names that `dims` does not hold are left alone.

    Raises:
        InputError: an input is missing, is no array of real numbers, has another shape, holds NaN
            or infinity, or the inputs differ in their number of samples.
    """
    checked: dict[str, Array] = {}
    for label, shape in dims.items():
        if label not in inputs:
            given = ", ".join(sorted(inputs)) or "none"
            raise InputError(f"input '{label}' is missing; the arrays given are: {given}")
        checked[label] = _check(label, shape, np.asarray(inputs[label]))
    counts = {label: len(array) for label, array in checked.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"'{label}' has {count}" for label, count in counts.items())
        raise InputError(f"the inputs differ in their number of samples: {told}")
    return checked, next(iter(counts.values()), 1)


def _check(label: str, shape: tuple[int, ...], array: np.ndarray) -> Array:
    if array.dtype.kind not in "fiub":
        raise InputError(f"input '{label}' holds {array.dtype}, where real numbers are needed")
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
        wanted = "(" + ", ".join(map(str, ("samples", *shape))) + ")"
        raise InputError(
            f"input '{label}' has the shape {array.shape}, where {wanted} is needed, one sample or"
            " more"
        )
    values = array.astype(np.float64, copy=False)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        sample, *place = (int(i) for i in bad[0])
        raise InputError(
            f"input '{label}' holds {values[tuple(bad[0])]} in sample {sample} at {place};"
            " fill or leave out what is not finite"
        )
    return values
