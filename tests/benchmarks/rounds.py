"""What the rounds of a row give, and their medians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from hecompile.runtime.usage import Phase

PER_EVALUATION = ("encrypt", "evaluate", "refresh", "decrypt")


@dataclass
class Rounds:
    """What the rounds gave, one entry a round.

    Attributes:
        phases: seconds by phase.
        errors: largest distance from what was expected.
        polynomial_errors: largest distance from the polynomial model's output.
        factors: of the machine's speed, and one more at the end.
        ciphertext_bytes: of the last round: in, out, and of all refreshes: both ways, up, down.
        refresh_rounds: of the last evaluation.
        plain: answers of the plain program.
        plain_errors: its largest distance from what was expected.
    """

    phases: list[Mapping[str, Phase]] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    polynomial_errors: list[float] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    ciphertext_bytes: dict[str, int] = field(default_factory=dict)
    refresh_rounds: int = 0
    plain: list[dict[str, Any]] = field(default_factory=list)
    plain_errors: list[float] = field(default_factory=list)

    def medians(self) -> dict[str, dict[str, float]]:
        """CPU and wall seconds by phase."""
        return {phase: medians([run.get(phase, Phase()) for run in self.phases])
                for phase in PER_EVALUATION}  # fmt: skip


def medians(phases: Sequence[Phase]) -> dict[str, float]:
    """The median of CPU and of wall seconds, each by itself."""
    return {"cpu": median(p.cpu for p in phases), "wall": median(p.wall for p in phases)}
