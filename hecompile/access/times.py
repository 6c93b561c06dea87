"""Times as signed documents state them, and whether a document is valid now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from hecompile.errors import IntegrityError

TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
"""RFC 3339 in UTC, to the second: the only spelling."""

EXAMPLE: Final = "2025-01-31T12:00:00Z"


def utc_now() -> str:
    """The time now, to the second."""
    return write_time(datetime.now(UTC))


def write_time(moment: datetime) -> str:
    """A time with its zone, as documents state it; fractions of a second are dropped."""
    return moment.astimezone(UTC).strftime(TIME_FORMAT)


def read_time(text: str) -> datetime | None:
    """The time that a text states; None where it is not in the one spelling."""
    try:
        moment = datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment if write_time(moment) == text else None


def is_period(not_before: str, not_after: str) -> bool:
    """Whether two times, each of which may be left empty, bound a time of some length.

    Text that is no time bounds none.
    """
    ends = [read_time(text) for text in (not_before, not_after) if text]
    if None in ends:
        return False
    return not (not_before and not_after) or not_before < not_after


def check_period(
    not_before: str, not_after: str, now: datetime | None, what: str, remedy: str
) -> None:
    """Refuse a document outside its time.

    Args:
        not_before: First second of its validity; empty for any time before the other end.
        not_after: Last second of it, or empty.
        now: The time, with its zone; None for the clock's.
        what: Name of the document, for the message.
        remedy: What to do.

    Raises:
        IntegrityError: It is not valid yet, no longer, or its times are none.
    """
    moment = write_time(now if now is not None else datetime.now(UTC))
    if not is_period(not_before, not_after):
        raise IntegrityError(f"{what} states times that bound nothing; {remedy}")
    # The one spelling sorts as time goes.
    if not_before and moment < not_before:
        raise IntegrityError(
            f"{what} is valid from {not_before} on, and it is {moment}; wait, or check the clock"
        )
    if not_after and moment > not_after:
        raise IntegrityError(f"{what} expired at {not_after}, and it is {moment}; {remedy}")
