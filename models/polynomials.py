"""How well a network survives polynomials in place of its activation functions.

A forecast for training time: quick, and without the compiler. The compiler fits its own polynomials
and states their error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from numpy.polynomial import Chebyshev
from torch import Tensor

from hecompile.models.metrics import evaluate_logits
from hecompile.models.networks import Function, Network, square

GRID = 512


@dataclass(frozen=True)
class ActivationRange:
    """The inputs of one kind of activation over the calibration samples.

    Attributes:
        name: the activation, as in `Network.functions`.
        lower: the least input.
        upper: the greatest input.
        fit_error: the greatest error of its polynomial on that range, widened by the margin.
        outside: the part of the inputs on the test samples that left the widened range, 0 to 1.
    """

    name: str
    lower: float
    upper: float
    fit_error: float
    outside: float


@dataclass(frozen=True)
class PolynomialForecast:
    """What polynomials do to a network's answers on test samples.

    Attributes:
        degree: of the polynomials; a square stays as it is.
        accuracy: with the polynomials, 0 to 1.
        max_difference: the greatest change of a logit; None where a polynomial ran away.
        mean_difference: the mean change of a logit; None likewise.
        ranges: one entry per kind of activation.
    """

    degree: int
    accuracy: float
    max_difference: float | None
    mean_difference: float | None
    ranges: tuple[ActivationRange, ...]


def forecast(
    network: Network,
    calibration: npt.NDArray[np.float32],
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    degree: int = 3,
    margin: float = 0.1,
) -> PolynomialForecast:
    """Fit polynomials on the ranges of `calibration` and score them on `x` and `y`.

    Args:
        network: a trained network.
        calibration: preprocessed training samples.
        x: preprocessed test samples.
        y: their labels.
        degree: of the polynomials.
        margin: the fitted range is wider than the observed one by this part of its width.
    """
    network.eval()
    # Far outside its range a polynomial may overflow; the difference below then says so.
    with torch.no_grad(), np.errstate(over="ignore", invalid="ignore"):
        observed = network.trace(torch.from_numpy(calibration)).inputs
        plain = network.trace(torch.from_numpy(x))
        fits = {
            name: _Fit.of(function, observed[name], degree, margin)
            for name, function in network.functions().items()
        }
        changed = network.trace(torch.from_numpy(x), {n: fit.polynomial for n, fit in fits.items()})
    difference = (changed.logits - plain.logits).abs()
    finite = bool(difference.isfinite().all())
    return PolynomialForecast(
        degree=degree,
        accuracy=evaluate_logits(changed.logits.numpy(), y).accuracy,
        max_difference=float(difference.max()) if finite else None,
        mean_difference=float(difference.mean()) if finite else None,
        ranges=tuple(fit.range(name, plain.inputs[name]) for name, fit in fits.items()),
    )


@dataclass(frozen=True)
class _Fit:
    polynomial: Function
    observed: tuple[float, float]
    fitted: tuple[float, float]
    error: float

    @classmethod
    def of(cls, function: Function, values: Tensor, degree: int, margin: float) -> _Fit:
        """Fit by least squares, weighing the observed inputs and an even grid alike."""
        seen = values.double().flatten().numpy()
        low, high = float(seen.min()), float(seen.max())
        slack = margin * max(high - low, 1e-6) / 2
        domain = (low - slack, high + slack)
        if function is square:
            return cls(square, (low, high), domain, 0.0)
        grid = np.linspace(*domain, GRID)
        points = np.concatenate([np.quantile(seen, np.linspace(0, 1, GRID)), grid])
        exact = function(torch.from_numpy(points)).numpy()
        # Keyword names differ between numpy's releases, positions do not.
        fit = Chebyshev.fit(points, exact, degree, domain)
        error = np.abs(fit(grid) - exact[GRID:]).max()

        def polynomial(x: Tensor) -> Tensor:
            return torch.from_numpy(np.asarray(fit(x.numpy()), dtype=np.float32))

        return cls(polynomial, (low, high), domain, float(error))

    def range(self, name: str, values: Tensor) -> ActivationRange:
        """Report the range, and how often other samples leave it."""
        outside = (values < self.fitted[0]) | (values > self.fitted[1])
        return ActivationRange(name, *self.observed, self.error, float(outside.float().mean()))
