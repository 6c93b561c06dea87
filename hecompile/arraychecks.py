"""Checks of the arrays and numbers that a user hands in, each refusal in one sentence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from hecompile.errors import InputError

FloatArray = npt.NDArray[np.float64]
RealArray = npt.NDArray[np.floating[Any] | np.integer[Any]]


def is_whole(value: object) -> bool:
    """Return whether `value` is an int (and no bool)."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_numbers(where: str, field: str, value: object) -> None:
    """Raise `InputError` unless `value` is a non-empty tuple of finite numbers."""
    if not isinstance(value, tuple) or not value:
        raise InputError(f"{where}: `{field}` must be a list with one number per channel")
    for channel, number in enumerate(value):
        # An int beyond 2^63 is a forgery or a slip, and may not even fit into a float.
        whole = is_whole(number) and abs(number) < 2**63
        if not whole and not (isinstance(number, float) and math.isfinite(number)):
            raise InputError(
                f"{where}: `{field}` must hold finite numbers, but channel {channel} is {number!r}"
            )


def real_array(where: str, x: RealArray) -> FloatArray:
    """Return `x` as float64 after checking that it holds real numbers, samples on axis 0.

    Raises:
        InputError: not an array of real numbers, fewer than two axes, or empty.
    """
    if not isinstance(x, np.ndarray):
        raise InputError(f"{where}: expected a numpy array, got {type(x).__name__}")
    if x.dtype.kind not in "iuf":
        raise InputError(f"{where}: expected real numbers, got an array of {x.dtype}")
    if x.ndim < 2 or not x.size:
        raise InputError(
            f"{where}: expected at least one sample, with samples on the first axis, "
            f"got an array of shape {x.shape}"
        )
    return x.astype(np.float64)


def check_finite(where: str, x: RealArray, allow_nan: bool = False) -> None:
    """Raise `InputError` at the first infinite value, and at NaN unless `allow_nan`."""
    bad = np.isinf(x) if allow_nan else ~np.isfinite(x)
    if not bad.any():
        return
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    what, remedy = (
        ("a missing value (NaN)", "fill it, or put a mean_impute step first")
        if np.isnan(x[place])
        else ("an infinite value", "leave that sample out")
    )
    raise InputError(f"{where}: {what} in sample {place[0]} at {list(place[1:])}; {remedy}")


def as_channels(where: str, x: RealArray, axis: int, allow_nan: bool = False) -> FloatArray:
    """Return a checked array as (channels, values), the channels taken from `axis`."""
    values = real_array(where, x)
    if not 1 <= axis < values.ndim:
        raise InputError(
            f"{where}: axis {axis} is no channel axis of an array of shape {values.shape}"
        )
    check_finite(where, values, allow_nan)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def along(statistics: tuple[float, ...], axis: int, rank: int) -> FloatArray:
    """Return numbers per channel in a shape that broadcasts along `axis` of a rank-`rank` array."""
    shape = [1] * rank
    shape[axis] = len(statistics)
    return np.asarray(statistics, dtype=np.float64).reshape(shape)
