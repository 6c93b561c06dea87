"""Raw decrypted outputs, and what a key holder is told of those outside the calibrated ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hecompile.ir.constants import Array
from hecompile.runtime.postprocess import Processed
from hecompile.runtime.ranges import OutsideWarning
from hecompile.runtime.spec import OutputSpec


@dataclass(frozen=True)
class Decrypted:
    """Outputs of one envelope, by label, samples first.

    Attributes:
        raw: As the encrypted program gave them, shape (n * d0, d1, ...).
        outputs: After the client's post-processing.
    """

    raw: dict[str, Array]
    outputs: dict[str, Processed]


class OutputWarning(OutsideWarning):
    """A decrypted output outside the ranges seen in calibration, widened."""

    def __str__(self) -> str:
        """One sentence for people."""
        return (
            f"output '{self.label}' holds {self.worst:.4g} in sample {self.sample}, element"
            f" {self.element}, outside the range [{self.lower:.4g}, {self.upper:.4g}] seen in"
            f" calibration, as are {self.fraction:.2%} of its values; the stated error bound may"
            " not hold."
        )


WarnOutput = Callable[[OutputWarning], None]


def join_groups(parts: Sequence[Decrypted]) -> Decrypted:
    """The samples of several envelopes of one run, in order."""
    return Decrypted(_joined([p.raw for p in parts]), _joined([p.outputs for p in parts]))


def _joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_range(entry: OutputSpec, raw: Array, warn: WarnOutput) -> None:
    """Warn of values of an output outside its calibrated ranges."""
    if entry.ranges is None:
        return
    found = entry.ranges.outside(raw.reshape(-1, math.prod(entry.dims)))
    if found is not None:
        warn(OutputWarning.of(entry.label, found))
