"""Calibration samples: read, checked, preprocessed, and split into those to fit and to judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hecompile.errors import InputError
from hecompile.interpret.tensor import run_tensor
from hecompile.ir import tensor_ops
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.preprocess import Step
from hecompile.runtime.client import prepare_input
from hecompile.runtime.ranges import MARGIN, Ranges
from hecompile.runtime.spec import InputSpec

FEWEST_FOR_SPLIT = 8
"""With fewer samples than this, the same ones are fitted and judged."""


@dataclass(frozen=True)
class Calibration:
    """Samples by input label, each (S, *shape of one sample), after preprocessing.

    Attributes:
        fit: what ranges and polynomials are fitted on.
        judge: what errors are estimated on; the same as `fit` where there are few samples.
    """

    fit: Mapping[str, Array]
    judge: Mapping[str, Array]

    @property
    def count(self) -> int:
        """Number of samples fitted on."""
        return len(next(iter(self.fit.values())))

    @property
    def everything(self) -> Mapping[str, Array]:
        """All samples, those held back included."""
        if self.judge is self.fit:
            return self.fit
        return {k: np.concatenate([array, self.judge[k]]) for k, array in self.fit.items()}

    def ranges(self) -> dict[str, Ranges]:
        """Ranges of each input and of its elements over all samples."""
        return {label: Ranges.of(array) for label, array in self.everything.items()}

    def output_ranges(self, program: Program, noise: float) -> dict[str, Ranges]:
        """Ranges of each raw output of a tensor program over all samples, widened.

        Args:
            program: the model as it is computed under encryption.
            noise: bound of the error that encryption adds to an output.
        """
        found = run_tensor(program, self.everything)
        return {
            label: Ranges.of(array, margin=MARGIN, slack=noise) for label, array in found.items()
        }


def prepare_calibration(
    program: Program,
    arrays: Mapping[str, ArrayLike],
    preprocessing: Mapping[str, Sequence[Step]] | None = None,
) -> Calibration:
    """Check the arrays against the model's inputs, preprocess them, and split off every fifth.

    Args:
        program: the imported model.
        arrays: by input name, batch first; further names (labels, say) are ignored.
        preprocessing: the client's steps by input name.

    Raises:
        InputError: an input's array is missing, empty, of another shape or type, or not finite;
            or the inputs differ in their number of samples.
    """
    samples: dict[str, Array] = {}
    for op in program.select(tensor_ops.Input):
        if op.label not in arrays:
            given = f"among {', '.join(arrays)}" if arrays else "and the file has no arrays"
            raise InputError(
                f"calibration: the model's input '{op.label}' is missing {given}; "
                "name the arrays in the file as the model's inputs"
            )
        array = np.asarray(arrays[op.label])
        if array.size == 0:
            raise InputError(f"calibration: the array '{op.label}' is empty; give samples")
        steps = tuple((preprocessing or {}).get(op.label, ()))
        entry = InputSpec(op.label, op.dims, (), None, steps)
        try:
            samples[op.label] = prepare_input(entry, array).reshape(-1, *op.dims)
        except InputError as error:
            raise InputError(f"calibration: {error}") from error
    counts = {label: len(array) for label, array in samples.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"'{label}' has {count}" for label, count in counts.items())
        raise InputError(f"calibration: the inputs differ in their number of samples: {told}")
    total = next(iter(counts.values()))
    if total < FEWEST_FOR_SPLIT:
        return Calibration(samples, samples)
    judged = np.arange(total) % 5 == 4
    return Calibration(
        {label: array[~judged] for label, array in samples.items()},
        {label: array[judged] for label, array in samples.items()},
    )
