"""Ranges of sums and products, as far as the ranges of their operands tell."""

from __future__ import annotations

from hecompile.ir.types import Interval


def plus(x: Interval, y: Interval) -> Interval:
    """The range of x + y."""
    return Interval(x.lower + y.lower, x.upper + y.upper)


def minus(x: Interval, y: Interval) -> Interval:
    """The range of x - y."""
    return Interval(x.lower - y.upper, x.upper - y.lower)


def times(x: Interval, y: Interval) -> Interval:
    """The range of x * y."""
    ends = [a * b for a in (x.lower, x.upper) for b in (y.lower, y.upper)]
    return Interval(min(ends), max(ends))


def squared(x: Interval) -> Interval:
    """The range of x * x."""
    ends = x.lower**2, x.upper**2
    return Interval(0.0 if x.lower < 0.0 < x.upper else min(ends), max(ends))


def point(x: float) -> Interval:
    """The range of a constant."""
    return Interval(x, x)
