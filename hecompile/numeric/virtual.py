"""Multiplicative levels ("virtual levels") and the primes that stand for one or several of them.

A program consumes one virtual level per product. The primes q_0, ..., q_L of a chain partition the
virtual levels, lowest first: prime p stands for `units[p]` of them. A value at virtual level l of
the group of prime p lives modulo q_0 * ... * q_p. Inside a group nothing is rescaled: the scale
grows by a factor at every product with a plaintext, and the one rescale at the bottom of the group
divides by all the factors at once. This generalises waterline rescaling (Dathathri et al., "EVA",
PLDI 2020, section 5.2).

Products of two ciphertexts read the top of a group only, for inside it their result would carry
the group's extra factors twice.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from hecompile.errors import CompileError


@dataclass(frozen=True)
class VirtualLevels:
    """How the virtual levels 0, 1, ... are shared out among the primes of a chain.

    Attributes:
        units: virtual levels that each data prime stands for, q_0 first. Levels beyond the last
            are taken to have a prime each, so that programs too deep can be measured.

    Raises:
        CompileError: there is no prime, or one that stands for no level.
    """

    units: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what is no partition."""
        if not self.units or min(self.units) < 1:
            raise CompileError(
                f"each data prime stands for one level or more, not {list(self.units)}."
            )

    @property
    def highest(self) -> int:
        """The highest virtual level."""
        return self._tops[-1]

    @cached_property
    def _tops(self) -> tuple[int, ...]:
        return tuple(total - 1 for total in accumulate(self.units))

    def prime(self, level: int) -> int:
        """Index of the prime whose group holds a virtual level: rescale primes left there."""
        beyond = max(0, level - self.highest)
        return bisect_left(self._tops, level - beyond) + beyond

    def top(self, prime: int) -> int:
        """The highest virtual level of a prime's group."""
        beyond = max(0, prime - len(self.units) + 1)
        return self._tops[prime - beyond] + beyond

    def is_top(self, level: int) -> bool:
        """Whether a virtual level is the highest of its group."""
        return self.top(self.prime(level)) == level

    def top_from(self, level: int) -> int:
        """The lowest top of a group that is not below `level`."""
        return self.top(self.prime(level))

    def top_within(self, level: int) -> int:
        """The highest top of a group that is not above `level`, or -1."""
        if level > self.highest:
            return level
        below = bisect_right(self._tops, level)
        return self._tops[below - 1] if below else -1


def single(levels: int) -> VirtualLevels:
    """One prime for each virtual level from 0 to `levels`."""
    return VirtualLevels((1,) * (levels + 1))
