"""Private means: what they are near to, what noise they have, and what they cost."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from hecompile.access.privacy import check_cohort, epsilon, private_mean
from hecompile.access.terms import DpNoise
from hecompile.errors import AccessDeniedError, InputError

NOISE = DpNoise(0.05, 1.0, -1.0, 3.0, 20)
NONE = np.zeros(2)


def test_the_noise_is_what_rho_asks_for() -> None:
    values = np.random.default_rng(0).uniform(-1.0, 3.0, size=(50, 2))
    answers = [private_mean(values, NOISE, NONE) for _ in range(200)]
    found = np.array([answer.values for answer in answers])
    # zCDP of the Gaussian mechanism: rho = sensitivity**2 / (2 sigma**2) (Bun, Steinke 2016).
    sigma = math.sqrt(2) * 4.0 / 50 / math.sqrt(2 * NOISE.rho)
    assert answers[0].deviation == pytest.approx(sigma)
    assert found.std(axis=0) == pytest.approx(sigma, rel=0.2)
    assert found.mean(axis=0) == pytest.approx(values.mean(axis=0), abs=5 * sigma / 14)
    assert all(0.99 * NOISE.rho < answer.rho <= NOISE.rho for answer in answers)


def test_values_are_clipped_so_that_one_person_moves_little() -> None:
    values = np.full((1000, 1), 1.0)
    values[0] = 1e9
    noise = DpNoise(1e6, 1e6, -1.0, 3.0, 20)
    assert private_mean(values, noise, np.zeros(1)).values[0] == pytest.approx(1.002, abs=1e-4)


def test_flooding_is_added_to_the_mean() -> None:
    noise = DpNoise(1e6, 1e6, -1.0, 3.0, 20)
    found = private_mean(np.full((1000, 2), 1.0), noise, np.array([0.25, -0.5])).values
    assert found == pytest.approx([1.25, 0.5], abs=1e-4)


def test_epsilon_is_bun_and_steinkes() -> None:
    assert epsilon(0.5, 1e-6) == pytest.approx(0.5 + 2 * math.sqrt(0.5 * math.log(1e6)))
    assert epsilon(0.0) == 0.0
    # Per-person scores of any use are not private, and that is told.
    assert epsilon(50.0) > 100.0


def test_a_small_cohort_is_denied() -> None:
    check_cohort(20, NOISE)
    with pytest.raises(AccessDeniedError, match="at least 20 persons, not 19"):
        check_cohort(19, NOISE)


@pytest.mark.parametrize("values", [np.zeros((0, 2)), np.full((3, 2), np.nan)])
def test_what_has_no_mean_is_refused(values: np.ndarray) -> None:
    with pytest.raises(InputError):
        private_mean(values, NOISE, NONE)


def test_without_opendp_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(InputError, match=r"pip install 'hecompile\[dp\]'"):
        private_mean(np.zeros((30, 2)), NOISE, NONE)
