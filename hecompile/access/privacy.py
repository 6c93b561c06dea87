"""Differentially private answers about cohorts and persons, by OpenDP, and what they cost.

Definitions: zero-concentrated differential privacy and its conversion to (epsilon, delta), M. Bun
and T. Steinke, "Concentrated Differential Privacy: Simplifications, Extensions, and Lower Bounds",
TCC 2016; discrete Gaussian noise, which no rounding of doubles weakens, C. Canonne, G. Kamath and
T. Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020.

Neighbours differ in the values of one row of an evaluation; how many rows there are is public. A
row is a person as long as every person has one: whoever has k of the rows is protected with k^2
times the rho (group privacy, Bun and Steinke, proposition 1.9). OpenDP is imported only when an
answer is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hecompile.access.terms import DpNoise
from hecompile.errors import AccessDeniedError, InputError
from hecompile.ir.constants import Array

DELTA: Final = 1e-6
"""Probability delta for which epsilon is told."""

GRID_BITS: Final = 32
"""A clipped value is one of 2**32 + 1 evenly spaced ones, so that sums are exact integers."""

MOST_PERSONS: Final = 1 << 20


@dataclass(frozen=True)
class PrivateAnswer:
    """Means of clipped values with noise.

    Attributes:
        values: Shape (elements,), in units of the raw output.
        deviation: Standard deviation of the differentially private noise in each, same unit.
        rho: Privacy loss that OpenDP states for the mechanism used.
    """

    values: Array
    deviation: float
    rho: float


def epsilon(rho: float, delta: float = DELTA) -> float:
    """The epsilon of (epsilon, delta)-privacy that a privacy loss of rho implies (Bun, Steinke).

    Args:
        rho: Zero-concentrated privacy loss, summed over all releases about a person.
        delta: Probability, above 0 and below 1.
    """
    return rho + 2.0 * math.sqrt(rho * math.log(1.0 / delta))


def private_mean(values: Array, noise: DpNoise, flood: Array) -> PrivateAnswer:
    """The mean over persons of clipped values, made private.

    Args:
        values: Shape (rows, elements), each person once.
        noise: Clipping, privacy loss of this release.
        flood: Noise that hides the encryption's own errors, added to the means before they are
            made private; shape (elements,). It does not depend on the values.

    Raises:
        InputError: There is nobody, or too many, a value is not a number, or OpenDP is missing.
    """
    persons, elements = values.shape
    if not 0 < persons <= MOST_PERSONS or not elements:
        raise InputError(f"a mean is taken of 1 to {MOST_PERSONS} persons, not of {persons}")
    if not np.isfinite(values).all():
        raise InputError("an output holds values that are no numbers; encrypt the samples again")
    width = noise.upper - noise.lower
    unit = 2.0**GRID_BITS / width
    clipped = np.clip(values, noise.lower, noise.upper) - noise.lower
    # In integers a change of one person moves the sums by 2**GRID_BITS an element at most, exactly.
    sums = np.clip(np.rint(clipped * unit), 0, 2.0**GRID_BITS).astype(np.int64).sum(axis=0)
    most = float(1 << 61)
    shifts = np.clip(np.rint(flood * persons * unit), -most, most).astype(np.int64)
    sensitivity = math.sqrt(elements) * 2.0**GRID_BITS
    # A trifle more noise than asked for, so that OpenDP's own upward rounding stays within rho.
    scale = sensitivity / math.sqrt(2.0 * noise.rho) * (1.0 + 1e-9)
    mechanism = _gaussian(scale)
    rho = float(mechanism.map(sensitivity))
    if not rho <= noise.rho:
        raise InputError(
            f"OpenDP states a privacy loss of {rho}, more than the policy's {noise.rho}; report it"
        )
    noisy = np.array(mechanism([int(x) for x in sums + shifts]), dtype=np.float64)
    return PrivateAnswer(noise.lower + noisy / (persons * unit), scale / (persons * unit), rho)


def check_available() -> None:
    """Find out that OpenDP is missing before anything is spent on an answer.

    Raises:
        InputError: It is not installed.
    """
    _gaussian(1.0)


def check_cohort(persons: int, noise: DpNoise) -> None:
    """Refuse a cohort that is too small.

    Args:
        persons: Rows of the evaluation, which are taken for persons.
        noise: Has the least number.

    Raises:
        AccessDeniedError: It has fewer than the policy asks for.
    """
    if persons < noise.least:
        raise AccessDeniedError(
            f"Access Denied: a cohort needs at least {noise.least} persons, not {persons}; add"
            " samples of others"
        )


def _gaussian(scale: float) -> Any:
    """OpenDP's discrete Gaussian mechanism on vectors of integers."""
    try:
        # An extra that only custodians of such policies need.
        import opendp.prelude as dp
    except ImportError as error:
        raise InputError(
            "differentially private releases need OpenDP; run pip install 'hecompile[dp]'"
        ) from error
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    return dp.m.make_gaussian(*space, scale=scale)
