"""Ranges of sums and products, as far as the ranges of their operands tell."""

from __future__ import annotations

from hecompile.ir.types import Interval


def minus(x: Interval, y: Interval) -> Interval:
    """The range of x - y."""
    return Interval(x.lower - y.upper, x.upper - y.lower)


def times(x: Interval, y: Interval) -> Interval:
    """The range of x * y."""
    ends = [a * b for a in (x.lower, x.upper) for b in (y.lower, y.upper)]
    return Interval(min(ends), max(ends))


def point(x: float) -> Interval:
    """The range of a constant."""
    return Interval(x, x)
