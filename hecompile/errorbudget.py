"""What of the precision asked for is left to the ciphertexts' noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hecompile.calibration import Calibration
from hecompile.errors import CompileError
from hecompile.interpret.compare import output_error
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.passbase import UNSEEN_FACTOR

SCARCE_SAMPLES = 8
"""With as few calibration samples as this, errors on unseen ones are taken to be twice as large."""

STRETCH = 1.1
"""How much farther from the mean samples are taken to lie that calibration did not see.

Each calibration sample counts twice, as it is and drawn away from the mean by this factor: a
polynomial's error grows steeply beyond its fitted range, so that a few unseen samples there exceed
any multiple of the errors within it.
"""

_FLOAT32_ROUNDING = 16 * 2.0**-24
"""Relative rounding that a model's own float32 arithmetic is allowed at least."""


@dataclass(frozen=True)
class ErrorBudget:
    """Errors that are known before parameters are chosen.

    Attributes:
        approximation: bound of the polynomials' error on an output, from all calibration samples.
        reference: room for the rounding of the model's own float32 arithmetic.
        magnitude: largest output of the model on the calibration samples.
    """

    approximation: float
    reference: float
    magnitude: float

    def noise(self, precision: float | None, promised: bool) -> float | None:
        """Largest noise that keeps the precision; None where none was asked for.

        Args:
            precision: as asked for.
            promised: whether it covers the polynomials' error too (not where the user fixes their
                degree).

        Raises:
            CompileError: nothing is left.
        """
        if precision is None:
            return None
        approximation = self.approximation if promised else 0.0
        rest = precision - self.reference - approximation
        if rest <= 0.0:
            raise CompileError(
                f"a precision of {precision:.3g} is out of reach before anything is encrypted: "
                f"polynomials may take {approximation:.3g} on samples like those held back from "
                f"calibration (a margin of {UNSEEN_FACTOR:g} included), the rounding of the "
                f"model's own float32 arithmetic {self.reference:.3g}; raise --precision, give "
                "more calibration samples, or retrain with polynomial activations"
            )
        return rest


@dataclass(frozen=True, eq=False)
class Reference:
    """What the model itself answers on all calibration samples, computed once.

    Attributes:
        samples: by input label, those held back included, followed by the same ones stretched.
        answers: raw outputs by label, (S, *shape).
        count: number of samples fitted on.
        magnitude: largest output.
        rounding: room for the rounding of the model's own float32 arithmetic.
    """

    samples: Mapping[str, Array]
    answers: Mapping[str, Array]
    count: int
    magnitude: float
    rounding: float

    @classmethod
    def of(cls, original: Program, samples: Calibration) -> Reference:
        """Run the model on all calibration samples, in double and in single precision."""
        everything = samples.everything
        exact = run_tensor(original, everything)
        magnitude = max(float(np.abs(y).max()) for y in exact.values())
        rounding = _rounding_of_singles(original, everything, exact)
        room = max(_FLOAT32_ROUNDING * magnitude, rounding)
        wider = {label: _stretched(array) for label, array in everything.items()}
        beyond = run_tensor(original, wider)
        return cls(
            {label: np.concatenate([everything[label], wider[label]]) for label in everything},
            {label: np.concatenate([exact[label], beyond[label]]) for label in exact},
            samples.count,
            magnitude,
            room,
        )

    def budget(self, polynomial: Program) -> ErrorBudget:
        """Compare the model with its polynomial form."""
        with np.errstate(all="ignore"):
            error = output_error(self.answers, run_tensor(polynomial, self.samples))
        unseen = UNSEEN_FACTOR * (1 + SCARCE_SAMPLES / self.count)
        return ErrorBudget(unseen * error.max, self.rounding, self.magnitude)


def _stretched(array: Array) -> Array:
    """Samples (S, *shape) drawn away from their mean by `STRETCH`."""
    mean = array.mean(axis=0)
    return np.asarray(mean + STRETCH * (array - mean))


def _rounding_of_singles(
    original: Program, samples: Mapping[str, Array], exact: Mapping[str, Array]
) -> float:
    """Room for the rounding of the model's own float32 arithmetic, whose order is not known."""
    rounded = run_tensor(original, samples, single=True)
    return 4 * max(float(np.abs(exact[label] - rounded[label]).max()) for label in exact)
