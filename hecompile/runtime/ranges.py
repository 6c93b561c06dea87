"""Ranges that values took in calibration, in all and by element, and what lies outside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final, Self

import numpy as np

from hecompile.errors import ProgramError
from hecompile.ir.constants import Array
from hecompile.ir.types import Interval

MOST_ELEMENTS: Final = 4096
"""Arrays with more elements than this have one range for all of them."""

FEWEST_SAMPLES: Final = 8
"""With fewer samples than this, an element's range would be a guess, and is left out."""

MARGIN: Final = 0.25
"""Share of its width by which an element's range is widened on either side."""

_DIGITS: Final = 2
"""Decimal places of a range's width that bounds keep."""


@dataclass(frozen=True)
class Outside:
    """What of some samples lies outside their ranges.

    Attributes:
        fraction: Share of the values that do.
        value: The one farthest outside.
        sample: Its sample, from 0.
        element: Its place in the flattened sample, from 0.
        lower: Least value of the range that it should be in.
        upper: Greatest value of that range.
        by_element: Whether the range is that element's; else it is one for all of them.
    """

    fraction: float
    value: float
    sample: int
    element: int
    lower: float
    upper: float
    by_element: bool


@dataclass(frozen=True)
class OutsideWarning:
    """Values of an input or output outside the ranges seen in calibration.

    Attributes:
        label: The input or output.
        fraction: Share of its values that are outside.
        worst: The value farthest outside, after preprocessing or before post-processing.
        lower: Least value of the range that it should be in.
        upper: Greatest value of that range.
        sample: The sample of the worst value, from 0.
        element: Its place in the flattened sample, from 0.
        by_element: Whether the range is that element's; else it is one for all of them.
    """

    label: str
    fraction: float
    worst: float
    lower: float
    upper: float
    sample: int
    element: int
    by_element: bool

    @classmethod
    def of(cls, label: str, found: Outside) -> Self:
        """The warning of what `Ranges.outside` found in an input or output."""
        return cls(
            label,
            found.fraction,
            found.value,
            found.lower,
            found.upper,
            found.sample,
            found.element,
            found.by_element,
        )


def no_warning(_warning: OutsideWarning) -> None:
    """Take note of nothing."""


@dataclass(frozen=True)
class Ranges:
    """Ranges of an array's values over calibration.

    Attributes:
        whole: Of all elements together.
        lower: Least value of each element of a flattened sample; empty where there are more than
            `MOST_ELEMENTS`, or too few samples to tell.
        upper: Greatest value of each element; as many as `lower`.
    """

    whole: Interval
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse ranges of elements that are undefined, empty, or beyond the whole.

        Raises:
            ProgramError: Saying which.
        """
        if len(self.lower) != len(self.upper):
            raise ProgramError(
                f"{len(self.lower)} least values do not match {len(self.upper)} greatest ones"
            )
        low, high = self.whole.lower, self.whole.upper
        for place, (lower, upper) in enumerate(zip(self.lower, self.upper, strict=True)):
            if not low <= lower <= upper <= high:
                raise ProgramError(
                    f"element {place} has the range [{lower}, {upper}], which is none within"
                    f" {self.whole}"
                )

    @classmethod
    def of(cls, samples: Array, *, margin: float = 0.0, slack: float = 0.0) -> Ranges:
        """The ranges of samples, rounded outward to a hundredth of their width or finer.

        Unseen samples leave the range of one element more often than that of all. So elements are
        given at least `MARGIN`, but never more than the whole range.

        Args:
            samples: Shape (samples, ...).
            margin: Share of its width by which the whole range is widened on either side.
            slack: What is added on either side besides, for noise, in units of the values.
        """
        rows = samples.reshape(len(samples), -1)
        whole = _widened(float(rows.min()), float(rows.max()), margin, slack)
        if len(rows) < FEWEST_SAMPLES or rows.shape[1] > MOST_ELEMENTS:
            return cls(whole)
        elements = [
            _widened(float(low), float(high), max(margin, MARGIN), slack)
            for low, high in zip(rows.min(axis=0), rows.max(axis=0), strict=True)
        ]
        return cls(
            whole,
            tuple(max(element.lower, whole.lower) for element in elements),
            tuple(min(element.upper, whole.upper) for element in elements),
        )

    def outside(self, rows: Array) -> Outside | None:
        """Tell what lies outside; None if nothing does. What is not a number is outside.

        Args:
            rows: Flattened samples, shape (samples, elements).
        """
        lower = np.array(self.lower or (self.whole.lower,))
        upper = np.array(self.upper or (self.whole.upper,))
        excess = np.nan_to_num(np.maximum(rows - upper, lower - rows), nan=np.inf)
        beyond = excess > 0
        if not beyond.any():
            return None
        sample, element = (int(i) for i in np.unravel_index(int(np.argmax(excess)), rows.shape))
        place = element if self.lower else 0
        return Outside(
            float(beyond.mean()),
            float(rows[sample, element]),
            sample,
            element,
            float(lower[place]),
            float(upper[place]),
            bool(self.lower),
        )


def _widened(lower: float, upper: float, margin: float, slack: float) -> Interval:
    """A range with its margin and slack, rounded outward."""
    more = margin * (upper - lower) + slack
    lower, upper = lower - more, upper + more
    size = upper - lower or abs(upper)
    if not math.isfinite(size) or not size:
        return Interval(lower, upper)
    # Bounds need no more digits than tell ranges apart, and samples should not be read off them.
    unit = Decimal(1).scaleb(math.floor(math.log10(size)) - _DIGITS)
    down = Decimal(lower).quantize(unit, ROUND_FLOOR)
    up = Decimal(upper).quantize(unit, ROUND_CEILING)
    return Interval(float(down) + 0.0, float(up) + 0.0)
