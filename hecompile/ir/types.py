"""Types of values: tensors before packing, ciphertexts and encoded plaintexts after it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hecompile.errors import ProgramError

ZERO = "zero"
GARBAGE = "garbage"


@dataclass(frozen=True)
class Interval:
    """A closed range of real numbers, `lower` to `upper`."""

    lower: float
    upper: float

    def __post_init__(self) -> None:
        """Refuse an empty or undefined range."""
        if not (math.isfinite(self.lower) and math.isfinite(self.upper)):
            raise ProgramError(f"a range must be finite, not [{self.lower}, {self.upper}]")
        if self.lower > self.upper:
            raise ProgramError(f"a range runs upwards, not [{self.lower}, {self.upper}]")

    @property
    def magnitude(self) -> float:
        """Largest absolute value in the range."""
        return max(abs(self.lower), abs(self.upper))

    def __str__(self) -> str:
        """Write the range as `[lower, upper]`, exactly."""
        return f"[{self.lower!r}, {self.upper!r}]"


@dataclass(frozen=True)
class TensorType:
    """A float64 tensor of one sample.

    Attributes:
        shape: extents, as the model exports them (the leading batch axis included, fixed).
        secret: whether the value depends on an encrypted input.
        interval: range observed in calibration, all elements together; None before.
    """

    shape: tuple[int, ...]
    secret: bool = True
    interval: Interval | None = None

    def __post_init__(self) -> None:
        """Refuse negative extents."""
        if min(self.shape, default=0) < 0:
            raise ProgramError(f"a tensor has no negative extents, not {self.shape}")

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        """Write the type as in `tensor<1x4x32, secret, [-1.0, 2.0]>`."""
        shape = "x".join(map(str, self.shape)) if self.shape else "scalar"
        parts = [shape, "secret" if self.secret else "clear"]
        if self.interval is not None:
            parts.append(str(self.interval))
        return f"tensor<{', '.join(parts)}>"


@dataclass(frozen=True)
class Layout:
    """Which elements of a flattened tensor the slots of one ciphertext hold.

    The slot vector repeats with the ciphertext type's period. Within a period, element
    `first + i` of packed sample `b` sits at slot `offset + i * stride + b`. Lanes from the batch
    up to the stride belong to no sample and hold anything.

    Attributes:
        first: index of the first element held.
        count: number of elements held.
        stride: slots from an element to the next (a power of two, at least the batch).
        offset: slot of the first element.
        rest: what the period's other slots hold, "zero" or "garbage".
    """

    first: int
    count: int
    stride: int = 1
    offset: int = 0
    rest: str = ZERO

    def __post_init__(self) -> None:
        """Refuse impossible placements."""
        if self.first < 0 or self.count < 1 or self.offset < 0:
            raise ProgramError(f"layout {self} names no slots")
        if self.stride < 1 or self.stride & (self.stride - 1):
            raise ProgramError(f"layout {self}: the stride must be a power of two")
        if self.rest not in (ZERO, GARBAGE):
            raise ProgramError(f"layout {self}: the rest is '{ZERO}' or '{GARBAGE}'")

    @property
    def end(self) -> int:
        """One past the last slot used, all packed samples included."""
        return self.offset + self.count * self.stride

    def __str__(self) -> str:
        """Write the layout as in `0+16 stride=1 offset=0 rest=zero`."""
        return (
            f"{self.first}+{self.count} stride={self.stride} offset={self.offset} rest={self.rest}"
        )


@dataclass(frozen=True)
class CipherType:
    """A CKKS ciphertext.

    Attributes:
        period: slots after which the slot vector repeats (a power of two).
        layout: placement of a tensor's elements; None for intermediate sums.
        bound: largest absolute slot value expected, garbage included; None before calibration.
        level: rescale primes left above q_0; None before management.
        scale: exact scale; None before management.
        polynomials: 2, or 3 between a product and its relinearization.
    """

    period: int
    layout: Layout | None = None
    bound: float | None = None
    level: int | None = None
    scale: float | None = None
    polynomials: int = 2

    def __post_init__(self) -> None:
        """Refuse impossible facts, and a period too short for the layout."""
        _check_facts("ciphertext", self.period, self.level, self.scale)
        if self.bound is not None and not 0 <= self.bound < math.inf:
            raise ProgramError(f"a ciphertext's bound is finite and not below 0, not {self.bound}")
        if self.polynomials not in (2, 3):
            raise ProgramError(f"a ciphertext has 2 or 3 polynomials, not {self.polynomials}")
        if self.layout is not None and self.layout.end > self.period:
            raise ProgramError(f"layout {self.layout} does not fit a period of {self.period} slots")

    @property
    def slot_facts(self) -> dict[str, object]:
        """What the slots hold, as keywords: facts that keep when only level or scale change."""
        return {"layout": self.layout, "bound": self.bound}

    def __str__(self) -> str:
        """Write the type as in `ct<64, 0+16 stride=1 offset=0 rest=zero, level=3>`."""
        parts = [str(self.period)]
        if self.layout is not None:
            parts.append(str(self.layout))
        parts += _facts(bound=self.bound, level=self.level, scale=self.scale)
        if self.polynomials != 2:
            parts.append(f"polynomials={self.polynomials}")
        return f"ct<{', '.join(parts)}>"


@dataclass(frozen=True)
class PlainType:
    """An encoded CKKS plaintext; `period`, `level` and `scale` as in `CipherType`."""

    period: int
    level: int | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        """Refuse impossible facts."""
        _check_facts("plaintext", self.period, self.level, self.scale)

    def __str__(self) -> str:
        """Write the type as in `pt<64, level=3, scale=1073741824.0>`."""
        return f"pt<{', '.join([str(self.period), *_facts(level=self.level, scale=self.scale)])}>"


Type = TensorType | CipherType | PlainType


def _check_facts(what: str, period: int, level: int | None, scale: float | None) -> None:
    if period < 1 or period & (period - 1):
        raise ProgramError(f"a {what}'s period is a power of two, not {period}")
    if level is not None and level < 0:
        raise ProgramError(f"a {what}'s level is 0 or more, not {level}")
    if scale is not None and not 0 < scale < math.inf:
        raise ProgramError(f"a {what}'s scale is a finite positive number, not {scale}")


def _facts(**facts: float | None) -> list[str]:
    return [f"{name}={value!r}" for name, value in facts.items() if value is not None]
