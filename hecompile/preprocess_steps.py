"""The preprocessing steps: frozen dataclasses that hold statistics of the training part.

Samples come first on axis 0. Statistics are per channel, and the channel axis (1 unless told
otherwise) is stored with them. Steps compute in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from hecompile.arraychecks import (
    FloatArray,
    RealArray,
    along,
    as_channels,
    check_finite,
    check_numbers,
    is_whole,
    real_array,
)
from hecompile.errors import InputError


class Step(Protocol):
    """One preprocessing step: a frozen dataclass whose fields are its statistics and options."""

    name: ClassVar[str]

    @classmethod
    def fit(cls, train: RealArray, *args: Any, **options: Any) -> Self:
        """Take the statistics from `train`, which must be the training part only."""

    def __call__(self, x: RealArray) -> FloatArray:
        """Apply the step to `x`, samples first; raise `InputError` where it does not fit."""

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the result for an array of shape `shape`, samples first."""


class _PerChannel:
    """What the steps with statistics per channel share: their checks of statistics and arrays."""

    name: ClassVar[str]
    axis: int
    _statistics: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        """Check that each statistic is a tuple of finite numbers, all of one length."""
        for field in self._statistics:
            check_numbers(self.name, field, getattr(self, field))
        if len({len(getattr(self, field)) for field in self._statistics}) > 1:
            names = " and ".join(f"`{field}`" for field in self._statistics)
            raise InputError(f"{self.name}: {names} differ in length")
        if not is_whole(self.axis) or self.axis < 1:
            raise InputError(
                f"{self.name}: `axis` must be a whole number of at least 1 (axis 0 counts "
                f"samples), not {self.axis!r}"
            )

    def _values(self, x: RealArray, allow_nan: bool = False) -> FloatArray:
        """Return `x` as float64 after checking type, shape and values."""
        values = real_array(self.name, x)
        self.shape_after(values.shape)
        check_finite(self.name, values, allow_nan)
        return values

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return `shape`, which the step keeps, after checking its channel axis."""
        channels = len(getattr(self, self._statistics[0]))
        if len(shape) <= self.axis or shape[self.axis] != channels:
            raise InputError(
                f"{self.name}: expected {channels} channels on axis {self.axis}, "
                f"got an array of shape {shape}"
            )
        return shape


@dataclass(frozen=True)
class MeanImpute(_PerChannel):
    """Replace each missing value (NaN) by its channel's mean over the training part.

    Attributes:
        means: one mean per channel.
        axis: the channel axis, counted with samples as axis 0.
    """

    name: ClassVar[str] = "mean_impute"
    means: tuple[float, ...]
    axis: int = 1

    _statistics: ClassVar[tuple[str, ...]] = ("means",)

    @classmethod
    def fit(cls, train: RealArray, axis: int = 1) -> Self:
        """Take the mean of the values that are present; refuse a channel that has none."""
        x = as_channels(cls.name, train, axis, allow_nan=True)
        present = ~np.isnan(x)
        counts = present.sum(axis=1)
        if not counts.all():
            raise InputError(
                f"mean_impute: channel {int(np.argmin(counts))} has no value in the training "
                "data; leave that channel out"
            )
        return cls(tuple((np.where(present, x, 0.0).sum(axis=1) / counts).tolist()), axis)

    def __call__(self, x: RealArray) -> FloatArray:
        """Return `x` with every NaN replaced; same shape."""
        values = self._values(x, allow_nan=True)
        return np.where(np.isnan(values), along(self.means, self.axis, values.ndim), values)


@dataclass(frozen=True)
class CapOutliers(_PerChannel):
    """Cap each channel at mean - z·std and mean + z·std of the training part.

    Bounded inputs keep every value inside the network inside the range that was seen in
    calibration, where the polynomial activations hold.

    Attributes:
        lower: the least value per channel.
        upper: the greatest value per channel.
        axis: the channel axis, counted with samples as axis 0.
    """

    name: ClassVar[str] = "cap_outliers"
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    axis: int = 1

    _statistics: ClassVar[tuple[str, ...]] = ("lower", "upper")

    def __post_init__(self) -> None:
        self._check()
        for channel, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            if low > high:
                raise InputError(
                    f"cap_outliers: `lower` is above `upper` at channel {channel}: {low} > {high}"
                )

    @classmethod
    def fit(cls, train: RealArray, z: float = 3.0, axis: int = 1) -> Self:
        """Take mean and standard deviation per channel; `z` counts standard deviations."""
        if not (math.isfinite(z) and z > 0):
            raise InputError(f"cap_outliers: `z` must be a positive number, not {z}")
        x = as_channels(cls.name, train, axis)
        mean, std = x.mean(axis=1), x.std(axis=1)
        return cls(tuple((mean - z * std).tolist()), tuple((mean + z * std).tolist()), axis)

    def __call__(self, x: RealArray) -> FloatArray:
        """Return `x` with every value moved into its channel's bounds; same shape."""
        values = self._values(x)
        low, high = (along(b, self.axis, values.ndim) for b in (self.lower, self.upper))
        return np.clip(values, low, high)


@dataclass(frozen=True)
class Standardise(_PerChannel):
    """Subtract each channel's mean and divide by its standard deviation over the training part.

    Attributes:
        mean: one mean per channel.
        std: one standard deviation per channel, above zero.
        axis: the channel axis, counted with samples as axis 0.
    """

    name: ClassVar[str] = "standardise"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    axis: int = 1

    _statistics: ClassVar[tuple[str, ...]] = ("mean", "std")

    def __post_init__(self) -> None:
        self._check()
        for channel, value in enumerate(self.std):
            if value <= 0:
                raise InputError(
                    f"standardise: `std` must be above zero, but is {value} at channel {channel}"
                )

    @classmethod
    def fit(cls, train: RealArray, axis: int = 1) -> Self:
        """Take mean and standard deviation per channel; refuse a constant channel."""
        x = as_channels(cls.name, train, axis)
        mean, std = x.mean(axis=1), x.std(axis=1)
        # A constant channel's computed deviation is rounding noise, rarely an exact zero.
        constant = std <= 1e-12 * np.maximum(1.0, np.abs(mean))
        if constant.any():
            raise InputError(
                f"standardise: channel {int(np.argmax(constant))} is constant in the training "
                "data and tells the model nothing; leave it out"
            )
        return cls(tuple(mean.tolist()), tuple(std.tolist()), axis)

    def __call__(self, x: RealArray) -> FloatArray:
        """Return the standardised `x`; same shape."""
        values = self._values(x)
        mean, std = (along(s, self.axis, values.ndim) for s in (self.mean, self.std))
        standardised: FloatArray = (values - mean) / std
        return standardised


@dataclass(frozen=True)
class Crop:
    """Cut every series (S, channels, T) to its first samples: one row of a sample, whatever T is.

    Attributes:
        length: samples kept.
    """

    name: ClassVar[str] = "crop"
    length: int

    def __post_init__(self) -> None:
        if not is_whole(self.length) or self.length < 1:
            raise InputError(
                f"crop: `length` must be a whole number of at least 1, not {self.length!r}"
            )

    @classmethod
    def fit(cls, train: RealArray, length: int) -> Self:
        """Check that the training series are long enough."""
        made = cls(length)
        made.shape_after(real_array(cls.name, train).shape)
        return made

    def __call__(self, x: RealArray) -> FloatArray:
        """Return the first samples of every series, (S, channels, length)."""
        values = real_array(self.name, x)
        self.shape_after(values.shape)
        check_finite(self.name, values, allow_nan=True)
        return values[:, :, : self.length]

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (S, channels, length) for (S, channels, T)."""
        if len(shape) != 3 or shape[2] < self.length:
            raise InputError(
                f"crop: expected an array (samples, channels, time) with {self.length} samples of "
                f"time at least, got shape {shape}"
            )
        return (*shape[:2], self.length)


@dataclass(frozen=True)
class SequenceWindows:
    """Cut a series (S, channels, T) into windows (S·windows, channels, length).

    A sample's windows follow one another in time. The tail that fills no window is left out, so
    `length` < T <= `length` + `step` - 1 cuts each series to its first `length` samples.

    Attributes:
        length: samples in a window.
        step: samples between the starts of neighbouring windows.
    """

    name: ClassVar[str] = "sequence_windows"
    length: int
    step: int

    def __post_init__(self) -> None:
        for field in ("length", "step"):
            value = getattr(self, field)
            if not is_whole(value) or value < 1:
                raise InputError(
                    f"sequence_windows: `{field}` must be a whole number of at least 1, "
                    f"not {value!r}"
                )

    @classmethod
    def fit(cls, train: RealArray, length: int, step: int) -> Self:
        """Check that windows of this length fit into the training series."""
        made = cls(length, step)
        made.shape_after(real_array(cls.name, train).shape)
        return made

    def windows(self, time: int) -> int:
        """Return the number of windows that one series of `time` samples gives."""
        return max(0, (time - self.length) // self.step + 1)

    def __call__(self, x: RealArray) -> FloatArray:
        """Return the windows of every series, (S·windows, channels, length)."""
        values = real_array(self.name, x)
        shape = self.shape_after(values.shape)
        check_finite(self.name, values, allow_nan=True)
        views = np.lib.stride_tricks.sliding_window_view(values, self.length, axis=2)
        cut: FloatArray = views[:, :, :: self.step].transpose(0, 2, 1, 3).reshape(shape)
        return cut

    def shape_after(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (S·windows, channels, length) for (S, channels, T)."""
        if len(shape) != 3:
            raise InputError(
                f"sequence_windows: expected an array (samples, channels, time), got shape {shape}"
            )
        windows = self.windows(shape[2])
        if not windows:
            raise InputError(
                f"sequence_windows: a window of {self.length} samples does not fit into a series "
                f"of {shape[2]}; give longer series or a shorter `length`"
            )
        return (shape[0] * windows, shape[1], self.length)
