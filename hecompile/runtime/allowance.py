"""What an evaluator's process is allowed: what somebody says, else what is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from hecompile.runtime.sandbox import Limits

if TYPE_CHECKING:
    from hecompile.ir.program import Program

_COPIES: Final = 4
"""A message is received, parsed and expanded, and the next may be there already."""


@dataclass(frozen=True)
class Allowance:
    """What each evaluating process may take, as far as somebody says so.

    Attributes:
        memory: Most bytes of address space; None for 1 GiB and twice what is predicted.
        cpu: Most processor seconds; None for one hour for loading and one for each evaluation.
    """

    memory: int | None = None
    cpu: int | None = None

    @property
    def weights(self) -> int | None:
        """Most bytes of encoded weights: the rest is for keys and ciphertexts."""
        return None if self.memory is None else self.memory // 2

    def limits(self, program: Program, messages: Sequence[bytes], evaluations: int) -> Limits:
        """The limits of one process.

        Args:
            program: What it evaluates.
            messages: All that it is sent beside the program.
            evaluations: How many there will be, one after the other at worst.

        Raises:
            UsageError: So little is allowed that the process could not start.
        """
        # The command line makes an allowance before it has set how many threads numpy starts.
        from hecompile.estimate import estimate

        sent = _COPIES * sum(map(len, messages))
        found = Limits.predicted(estimate(program).memory_bytes + sent, evaluations)
        return replace(found, memory=self.memory or found.memory, cpu=self.cpu or found.cpu)
