from typing import Any

import numpy as np
import pytest

from hecompile.errors import CompileError, InputError
from hecompile.numeric import remez as remez_module
from hecompile.numeric.activations import ACTIVATIONS, Activation
from hecompile.numeric.fit import METHODS, fit, widen

SIGMOID = Activation("sigmoid")
RELU = Activation("relu")


@pytest.mark.parametrize("method", METHODS)
def test_polynomials_are_reproduced(method: Any) -> None:
    result = fit(lambda x: 2 - x + 0.5 * x**3, (-1.5, 4.0), 3, method)
    powers = result.polynomial.to_monomials()
    np.testing.assert_allclose(powers.coefficients, (2, -1, 0, 0.5), atol=1e-11)
    assert result.max_error < 1e-11


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("degree", [3, 7, 15])
def test_symmetry_gives_exact_zeros(method: Any, degree: Any) -> None:
    result = fit(Activation("tanh"), (-5.0, 5.0), degree, method)
    assert all(value == 0.0 for value in result.polynomial.coefficients[::2])
    assert result.polynomial.degree == degree


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "clip"])
@pytest.mark.parametrize("domain", [(-1.0, 1.0), (-9.0, 4.0), (-1.0, 0.01), (3.0, 5.0)])
@pytest.mark.parametrize("degree", [0, 1, 2, 5])
def test_minimax_is_the_best(name: Any, domain: Any, degree: Any) -> None:
    errors = {method: fit(Activation(name), domain, degree, method).max_error for method in METHODS}
    assert errors["minimax"] <= min(errors.values()) * (1 + 1e-5) + 1e-11


def test_minimax_equioscillates() -> None:
    result = fit(np.exp, (-1.0, 1.0), 3, "minimax")
    x = np.linspace(-1, 1, 20001)
    error = np.exp(x) - result.polynomial(x)
    np.testing.assert_allclose(result.max_error, 5.528e-3, rtol=1e-3)
    extreme = np.sign(error[np.abs(error) > 0.999 * result.max_error])
    assert 1 + np.count_nonzero(extreme[1:] != extreme[:-1]) == 3 + 2


def test_chebyshev_passes_through_its_nodes() -> None:
    nodes = 2 + 3 * np.cos(np.pi * (np.arange(5) + 0.5) / 5)
    result = fit(SIGMOID, (-1.0, 5.0), 4, "chebyshev")
    np.testing.assert_allclose(result.polynomial(nodes), SIGMOID(nodes), atol=1e-13)


def test_weights_follow_the_samples() -> None:
    samples = np.random.default_rng(1).normal(0, 0.5, 2000).clip(-6, 6)
    weighted = fit(SIGMOID, (-6.0, 6.0), 3, "weighted", samples)
    for other in ("chebyshev", "minimax"):
        assert weighted.rms_error < fit(SIGMOID, (-6.0, 6.0), 3, other, samples).rms_error
    assert weighted.rms_error < fit(SIGMOID, (-6.0, 6.0), 3, "weighted").rms_error


def test_weighted_stays_bounded_where_no_sample_was() -> None:
    samples = np.random.default_rng(2).uniform(-0.1, 0.1, 500)
    assert fit(RELU, (-5.0, 5.0), 7, "weighted", samples).max_error < 2.0


def test_reported_errors_are_the_measured_ones() -> None:
    samples = np.array([-1.0, 0.0, 2.0])
    result = fit(RELU, (-2.0, 3.0), 2, "minimax", samples)
    x = np.linspace(-2, 3, 777)
    assert np.max(np.abs(RELU(x) - result.polynomial(x))) <= result.max_error
    residual = RELU(samples) - result.polynomial(samples)
    assert result.rms_error == pytest.approx(np.sqrt(np.mean(residual**2)))


@pytest.mark.parametrize("method", METHODS)
def test_a_single_value_gives_a_constant(method: Any) -> None:
    result = fit(SIGMOID, (2.0, 2.0), 3, method, np.array([2.0, 2.0]))
    assert result.polynomial.coefficients == (float(SIGMOID(np.array(2.0))),)
    assert result.max_error == 0.0
    assert result.rms_error == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_a_tiny_domain_is_fitted(method: Any) -> None:
    assert fit(SIGMOID, (-1e-9, 1e-9), 3, method).max_error < 1e-15
    assert fit(SIGMOID, (1.0, 1.0 + 1e-12), 3, method).max_error < 1e-12


@pytest.mark.parametrize("degree", [31, 63, 127])
@pytest.mark.parametrize("domain", [(-1.0, 1.0), (-3.0, 3.4), (-0.2, 0.1)])
def test_relu_reaches_its_known_error(degree: Any, domain: Any) -> None:
    # |x| on [-1, 1] is off by 0.2802 / degree at best (Bernstein 1914; Varga, Carpenter 1985).
    best = 0.1401 * (domain[1] - domain[0]) / 2 / degree
    assert fit(RELU, domain, degree, "minimax").max_error == pytest.approx(best, rel=0.15)
    assert fit(RELU, domain, degree).max_error < 2.5 * best


@pytest.mark.parametrize(
    ("name", "reach", "orders"),
    [
        ("tanh", 5.0, {31: 2e-4, 63: 2e-8, 127: 1e-11}),
        ("sigmoid", 8.0, {31: 2e-5, 63: 1e-10, 127: 1e-11}),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_smooth_functions_converge_geometrically(
    name: Any, reach: Any, orders: Any, method: Any
) -> None:
    samples = np.random.default_rng(3).normal(0, reach / 4, 2000).clip(-reach, reach)
    for degree, order in orders.items():
        result = fit(Activation(name), (-reach, reach), degree, method, samples)
        assert result.max_error < order


def test_the_ends_of_the_domain_count_where_no_sample_was() -> None:
    samples = np.random.default_rng(4).normal(0, 1, 4000)
    domain = widen((samples.min(), samples.max()), 0.1)
    for degree, error in {3: 0.45, 7: 0.15}.items():
        result = fit(Activation("tanh"), domain, degree, "weighted", samples)
        assert np.abs(np.tanh(domain) - result.polynomial(np.array(domain))).max() < error


def test_widen() -> None:
    assert widen((-1.0, 3.0), 0.25) == (-2.0, 4.0)
    assert widen((2.0, 2.0), 0.5) == (1.0, 3.0)
    assert widen((0.0, 0.0), 0.5) == (-0.5, 0.5)
    assert widen((-1.0, 3.0), 0.0) == (-1.0, 3.0)
    with pytest.raises(InputError, match="margin"):
        widen((0.0, 1.0), -0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": (1.0, 0.0)}, "not a domain"),
        ({"domain": (0.0, float("inf"))}, "not a domain"),
        ({"degree": -1}, "degree -1"),
        ({"degree": 256}, "degree 256"),
        ({"method": "taylor"}, "'taylor' is not known"),
        ({"samples": np.array([])}, "no samples"),
        ({"samples": np.array([np.nan])}, "not finite"),
        ({"samples": np.array([0.5, 7.0])}, "leave the domain"),
        ({"function": lambda x: np.full_like(x, np.nan)}, "not finite"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, message: Any) -> None:
    valid = {"function": SIGMOID, "domain": (-1.0, 1.0), "degree": 3}
    with pytest.raises(InputError, match=message):
        fit(**(valid | arguments))


def test_no_convergence_is_an_error(monkeypatch: Any) -> None:
    monkeypatch.setattr(remez_module, "MAX_ITERATIONS", 1)
    with pytest.raises(CompileError, match="did not converge"):
        fit(RELU, (-3.0, 2.0), 5, "minimax")
