"""Which operations an evaluation's time goes to, measured and predicted."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from hecompile.costs import Profile
from hecompile.estimate import Estimate
from hecompile.runtime.profiling import TRANSFER

REST = "reading and writing"
"""All that is no operation: reading inputs, writing outputs, masks of refreshes."""

_ENDS = ("he.input", "he.output", TRANSFER)


@dataclass(frozen=True)
class Share:
    """Operations of one name in one evaluation: how many, and their CPU seconds together."""

    operation: str
    count: float
    predicted: float
    measured: float


def split(predicted: Estimate, profile: Profile) -> list[Share]:
    """CPU seconds of one evaluation by operation name, the dearest first, the rest last.

    Args:
        predicted: of the program that ran.
        profile: of one evaluation or more.
    """
    expected: defaultdict[str, float] = defaultdict(float)
    for (name, _level), seconds in predicted.seconds_by_operation.items():
        expected[REST if name in _ENDS else name] += seconds
    counts: defaultdict[str, float] = defaultdict(float)
    measured: defaultdict[str, float] = defaultdict(float)
    for (name, _level), spent in profile.operations.items():
        counts[REST if name in _ENDS else name] += spent.count / profile.evaluations
        measured[REST if name in _ENDS else name] += spent.seconds / profile.evaluations
    shares = [
        Share(name, counts[name], expected[name], measured[name])
        for name in sorted({*expected, *measured})
    ]
    return sorted(shares, key=lambda share: (share.operation == REST, -share.measured))
