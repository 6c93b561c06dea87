import math
from typing import Any

import numpy as np
import pytest

from hecompile.errors import InputError
from hecompile.numeric.activations import ACTIVATIONS, Activation, parse_activation

X = np.array([-1e3, -5.0, -1.0, -0.25, 0.0, 0.25, 1.0, 5.0, 1e3])


def reference(name: str, x: float) -> float:
    """The ONNX definitions, one number at a time."""
    table = {
        "relu": lambda: max(0.0, x),
        "leaky_relu": lambda: x if x >= 0 else 0.01 * x,
        "sigmoid": lambda: 1 / (1 + math.exp(-x)) if x > -700 else 0.0,
        "tanh": lambda: math.tanh(x),
        "hard_sigmoid": lambda: max(0.0, min(1.0, 0.2 * x + 0.5)),
        "hard_swish": lambda: x * max(0.0, min(1.0, x / 6 + 0.5)),
        "elu": lambda: x if x >= 0 else math.exp(x) - 1,
        "softplus": lambda: x if x > 700 else math.log(1 + math.exp(x)),
        "gelu": lambda: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
        "erf": lambda: math.erf(x),
        "clip": lambda: x,
        "softsign": lambda: x / (1 + abs(x)),
        "scaled_tanh": lambda: math.tanh(x),
        "affine": lambda: x,
    }
    return table[name]()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_follow_onnx(name: Any) -> None:
    expected = [reference(name, float(x)) for x in X]
    np.testing.assert_allclose(Activation(name)(X), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_shape_and_type_are_kept(name: Any) -> None:
    result = Activation(name)(np.ones((2, 3, 4)))
    assert result.shape == (2, 3, 4)
    assert result.dtype == np.float64
    assert Activation(name)(np.array(1.0)).shape == ()


def test_parameters_are_used() -> None:
    x = np.array([-2.0, 2.0])
    np.testing.assert_allclose(Activation("leaky_relu", (("alpha", 0.5),))(x), [-1.0, 2.0])
    np.testing.assert_allclose(Activation("clip", (("min", -1.0),))(x), [-1.0, 2.0])
    np.testing.assert_allclose(Activation("clip", (("min", 3.0), ("max", 1.0)))(x), [1.0, 1.0])
    np.testing.assert_allclose(
        Activation("hard_sigmoid", (("beta", 0.25), ("alpha", 0.1)))(x), [0.05, 0.45]
    )
    approximate = Activation("gelu", (("tanh", 1.0),))(x)
    exact = Activation("gelu")(x)
    assert 0 < np.max(np.abs(approximate - exact)) < 1e-3


@pytest.mark.parametrize(
    ("activation", "text"),
    [
        (Activation("relu"), "relu"),
        (Activation("leaky_relu"), "leaky_relu(alpha=0.01)"),
        (Activation("gelu", (("tanh", 1.0),)), "gelu(tanh=1)"),
        (Activation("clip", (("max", 6.0), ("min", 0.0))), "clip(min=0, max=6)"),
        (Activation("clip"), "clip(min=-inf, max=inf)"),
        (Activation("elu", (("alpha", 0.1 + 0.2),)), "elu(alpha=0.30000000000000004)"),
    ],
)
def test_text_round_trip(activation: Any, text: Any) -> None:
    assert str(activation) == text
    assert parse_activation(text) == activation


def test_defaults_and_order_do_not_matter() -> None:
    assert parse_activation(" hard_sigmoid ( beta = 0.5 ) ") == Activation("hard_sigmoid")
    assert parse_activation("relu()") == Activation("relu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("swish", "'swish' is not known"),
        ("relu(alpha=1)", "has no parameter 'alpha'"),
        ("leaky_relu(alpha)", "cannot be read"),
        ("leaky_relu(alpha=x)", "cannot be read"),
        ("leaky_relu(alpha=1, alpha=2)", "twice"),
        ("leaky_relu(alpha=nan)", "finite"),
        ("leaky_relu(alpha=inf)", "finite"),
        ("clip(min=nan)", "finite"),
        ("gelu(tanh=0.5)", "0 .* or 1"),
        ("relu)", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_bad_text_is_refused(text: Any, message: Any) -> None:
    with pytest.raises(InputError, match=message):
        parse_activation(text)
