"""Ranges seen in calibration: their rounding and margins, and what they find outside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hecompile.calibration import Calibration
from hecompile.errors import ProgramError
from hecompile.ir.types import Interval
from hecompile.runtime.ranges import FEWEST_SAMPLES, MARGIN, MOST_ELEMENTS, Outside, Ranges

FINITE = st.floats(-1e12, 1e12, allow_subnormal=True)


@given(arrays(np.float64, (FEWEST_SAMPLES, 3), elements=FINITE))
def test_no_sample_is_outside_its_own_ranges(samples: np.ndarray) -> None:
    seen = Ranges.of(samples)
    assert len(seen.lower) == 3
    assert seen.outside(samples) is None
    assert Ranges.of(samples, margin=MARGIN, slack=1e-3).outside(samples) is None


def test_bounds_keep_two_places_of_the_width() -> None:
    column = np.linspace(1000.12345, 1007.98765, 10)
    seen = Ranges.of(np.stack([column, np.full(10, 0.0)], axis=1))
    assert seen.whole == Interval(0.0, 1010.0)
    # A quarter of 7.86 on either side, which is now 11.8 wide: one place is kept.
    assert seen == Ranges(seen.whole, (998.1, 0.0), (1010.0, 0.0))


def test_inputs_keep_their_whole_range_and_outputs_are_widened() -> None:
    samples = np.stack([np.linspace(-1.0, 1.0, 9), np.linspace(0.0, 0.5, 9)], axis=1)
    assert Ranges.of(samples) == Ranges(Interval(-1.0, 1.0), (-1.0, -0.125), (1.0, 0.625))
    wide = Ranges.of(samples, margin=MARGIN, slack=0.25)
    assert wide == Ranges(Interval(-1.75, 1.75), (-1.75, -0.38), (1.75, 0.88))


def test_few_samples_and_many_elements_have_the_whole_range_alone() -> None:
    few = np.random.default_rng(0).normal(size=(FEWEST_SAMPLES - 1, 4))
    assert Ranges.of(few).lower == ()
    many = np.zeros((FEWEST_SAMPLES, MOST_ELEMENTS + 1))
    many[0, -1] = 1.0
    assert Ranges.of(many) == Ranges(Interval(0.0, 1.0))
    assert len(Ranges.of(many[:, 1:]).upper) == MOST_ELEMENTS


def test_the_farthest_value_is_told() -> None:
    seen = Ranges(Interval(-1.0, 4.0), (-1.0, 0.0), (4.0, 1.0))
    rows = np.array([[4.0, 1.0], [-1.5, 0.5], [2.0, 3.0], [4.0, 0.0]])
    assert seen.outside(rows) == Outside(0.25, 3.0, 2, 1, 0.0, 1.0, True)
    assert Ranges(seen.whole).outside(rows) == Outside(0.125, -1.5, 1, 0, -1.0, 4.0, False)
    rows[3, 0] = np.nan
    found = seen.outside(rows)
    assert found is not None
    assert np.isnan(found.value)
    assert (found.fraction, found.sample, found.element) == (0.375, 3, 0)


def test_ranges_beyond_the_whole_are_refused() -> None:
    with pytest.raises(ProgramError, match="element 1 has the range"):
        Ranges(Interval(0.0, 1.0), (0.0, 0.0), (1.0, 1.5))
    with pytest.raises(ProgramError, match="element 0 has the range"):
        Ranges(Interval(0.0, 1.0), (float("nan"),), (1.0,))


def test_samples_held_back_count() -> None:
    fit, judge = np.zeros((8, 2)), np.array([[3.0, -2.0]])
    seen = Calibration({"x": fit}, {"x": judge}).ranges()["x"]
    assert seen == Ranges(Interval(-2.0, 3.0), (-0.75, -2.0), (3.0, 0.5))
