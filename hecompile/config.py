"""Options of a compilation, checked when they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hecompile.errors import UsageError
from hecompile.estimate import Estimate
from hecompile.numeric.fit import MAX_DEGREE, METHODS
from hecompile.numeric.security import MAX_MODULUS_BITS

MOST_SAMPLES = max(MAX_MODULUS_BITS) // 2
"""Samples that one evaluation can hold at most."""

REFRESH_MODES = ("auto", "never", "client")


@dataclass(frozen=True)
class CompileOptions:
    """Choices that most users leave to the compiler.

    Attributes:
        batch: samples packed into one evaluation.
        refresh: "auto" inserts round trips to the key holder where they are cheaper or needed,
            "never" refuses programs that need them, "client" ignores the price of rounds.
        mask_bits: statistical hiding of each refresh, bits.
        degree: degree of every fitted polynomial; None to choose by precision.
        method: how polynomials are fitted; see `numeric.fit`.
        margin: widening of observed ranges, as a fraction of their width, on either side.
        max_degree: largest degree that the compiler may choose.
        input_shapes: shapes of inputs whose axes the model leaves open, by name.
        ring: polynomial modulus degree; None to choose.
    """

    batch: int = 1
    refresh: str = "auto"
    mask_bits: int = 30
    degree: int | None = None
    method: str = "weighted"
    margin: float = 0.1
    max_degree: int | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ring: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that no compilation could use.

        Raises:
            UsageError: naming the option and what it takes.
        """
        if self.batch < 1:
            raise UsageError(f"--batch is 1 or more, not {self.batch}")
        if self.batch > MOST_SAMPLES:
            raise UsageError(f"--batch is {MOST_SAMPLES} at most, for no ring has more slots")
        if self.degree is not None and not 1 <= self.degree <= MAX_DEGREE:
            raise UsageError(f"--degree is between 1 and {MAX_DEGREE}, not {self.degree}")
        if self.refresh not in REFRESH_MODES:
            raise UsageError(f"--refresh is {', '.join(REFRESH_MODES)}, not '{self.refresh}'")
        if not 0 <= self.mask_bits <= 48:
            raise UsageError(f"--mask-bits is between 0 and 48, not {self.mask_bits}")
        if self.method not in METHODS:
            raise UsageError(f"--method is one of {', '.join(METHODS)}, not '{self.method}'")
        if self.ring is not None and self.ring not in MAX_MODULUS_BITS:
            raise UsageError(f"--ring is one of {', '.join(map(str, MAX_MODULUS_BITS))}")

    def shapes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Input shapes, or None if none was given."""
        return self.input_shapes or None

    def rings(self) -> tuple[int, ...]:
        """Rings to try, smallest first."""
        return (self.ring,) if self.ring is not None else tuple(sorted(MAX_MODULUS_BITS))

    def price(self, predicted: Estimate) -> float:
        """What a plan costs under the refresh mode, in seconds."""
        if self.refresh == "client":
            return predicted.evaluator_seconds
        return predicted.total_seconds
