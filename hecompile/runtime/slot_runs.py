"""What a refresh's result takes of the ciphertexts that go up, in runs of neighbouring slots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from hecompile.errors import ProgramError
from hecompile.ir.gathers import Gather

NOTHING = -1
"""Stands for the ciphertext of slots that are zero."""


@dataclass(frozen=True)
class SlotRuns:
    """Where each slot of a refreshed ciphertext comes from.

    Attributes:
        runs: (count, source, place): so many slots, from slot `place` of value `source` of the
            request on; `NOTHING` and 0 for zeros. As long as they can be, in order.
    """

    runs: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, gather: Gather, sources: Sequence[int]) -> Self:
        """The runs of a gather, whose operands are these values of the request."""
        renamed = np.array([*sources, NOTHING])[gather.source]
        return cls(_joined((1, int(s), int(p)) for s, p in zip(renamed, gather.place, strict=True)))

    def gather(self) -> Gather:
        """Slot by slot: values of the request, and their slots."""
        counts = [count for count, _, _ in self.runs]
        source = np.repeat(np.array([s for _, s, _ in self.runs]), counts)
        place = np.concatenate(
            [
                np.arange(p, p + n) if s >= 0 else np.zeros(n, dtype=np.int64)
                for n, s, p in self.runs
            ]
        )
        return Gather(source, place)

    def check(self, name: str, period: int, periods: Sequence[int]) -> None:
        """Refuse runs that do not fill a period, or take what there is not.

        Args:
            name: The result's name, for messages.
            period: Its period.
            periods: Those of the request's values.

        Raises:
            ProgramError: Saying which run.
        """
        start = 0
        for count, source, place in self.runs:
            where = f"%{name}: slots {start} to {start + count - 1}"
            if count < 1 or source < NOTHING or place < 0:
                raise ProgramError(f"{where} are no run of slots.")
            if source >= len(periods):
                raise ProgramError(f"{where} take value {source} of {len(periods)}.")
            if source == NOTHING and place:
                raise ProgramError(f"{where} take slot {place} of no value.")
            if source >= 0 and place + count > periods[source]:
                raise ProgramError(
                    f"{where} take slots up to {place + count - 1} of value {source}, which"
                    f" has {periods[source]}."
                )
            start += count
        if start != period:
            raise ProgramError(f"%{name} has {period} slots, but {start} are taken.")
        if _joined(self.runs) != self.runs:
            raise ProgramError(f"%{name}: its runs of slots are not as long as they can be.")


def _joined(runs: Iterable[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    found: list[tuple[int, int, int]] = []
    for count, source, place in runs:
        if found:
            before, last, start = found[-1]
            follows = place == (start + before if source >= 0 else 0)
            if source == last and follows:
                found[-1] = (before + count, source, start)
                continue
        found.append((count, source, place))
    return tuple(found)
