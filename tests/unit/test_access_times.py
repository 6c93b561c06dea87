"""Times of signed documents: one spelling, and a period that is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecompile.access.times import check_period, is_period, read_time, utc_now, write_time
from hecompile.errors import IntegrityError

MOMENT = datetime(2025, 1, 31, 12, 0, 0, tzinfo=UTC)


@given(st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))
def test_times_round_trip_to_the_second(moment: datetime) -> None:
    assert read_time(write_time(moment)) == moment.replace(microsecond=0)


def test_other_zones_are_converted() -> None:
    assert write_time(MOMENT.astimezone(timezone(timedelta(hours=5)))) == "2025-01-31T12:00:00Z"
    assert read_time(utc_now()) is not None


@pytest.mark.parametrize(
    "text",
    ["", "2025-01-31", "2025-01-31T12:00:00", "2025-01-31 12:00:00Z", "2025-01-31T12:00:00+00:00",
     "2025-1-31T12:00:00Z", "2025-02-30T12:00:00Z", "2025-01-31T24:00:00Z", "2025-01-31T12:00:00z",
     "2025-01-31T12:00:60Z", " 2025-01-31T12:00:00Z", "2025-01-31T12:00:00.0Z", "tomorrow"],
)  # fmt: skip
def test_other_spellings_are_no_times(text: str) -> None:
    assert read_time(text) is None
    assert not text or not is_period(text, "")


def test_a_period_is_open_where_an_end_is_left_out() -> None:
    for ends in (("", ""), ("2025-01-31T12:00:00Z", ""), ("", "2025-01-31T12:00:00Z")):
        check_period(*ends, MOMENT, "it", "wait")


@given(st.integers(-3, 3), st.integers(-3, 3))
def test_only_what_lies_within_is_valid(before: int, after: int) -> None:
    ends = [write_time(MOMENT + timedelta(seconds=shift)) for shift in (before, after)]
    if before <= 0 <= after and before < after:
        check_period(ends[0], ends[1], MOMENT, "it", "wait")
    else:
        with pytest.raises(IntegrityError, match=r"it (is valid from|expired|states times)"):
            check_period(ends[0], ends[1], MOMENT, "it", "wait")
