"""The client's steps after decryption."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.errors import InputError
from hecompile.runtime.postprocess import STEPS, parse_step, post_process, step

RAW = np.random.default_rng(2).standard_normal((5, 1, 4)) * 3


@pytest.mark.parametrize(
    "text",
    [
        "softmax(axis=1)",
        "log_softmax(axis=0)",
        "sigmoid",
        "argmax(axis=1 keepdims=1)",
        "reshape(dims=1x2x2)",
        "reshape(dims=scalar)",
        "slice(axis=1 start=0 stop=4 step=2)",
    ],
)
def test_text_round_trip(text: str) -> None:
    assert str(parse_step(text)) == text
    assert parse_step(text).name in STEPS


def test_softmax_is_stable_and_sums_to_one() -> None:
    found = post_process(["softmax(axis=1)"], np.array([[[1000.0, 1000.0, -1000.0]]]))
    np.testing.assert_allclose(found, [[[0.5, 0.5, 0.0]]])
    np.testing.assert_allclose(post_process(["softmax(axis=1)"], RAW).sum(axis=2), 1.0)


def test_log_softmax_is_the_logarithm() -> None:
    expected = np.log(post_process(["softmax(axis=1)"], RAW))
    np.testing.assert_allclose(post_process(["log_softmax(axis=1)"], RAW), expected)


def test_sigmoid_does_not_overflow() -> None:
    found = post_process(["sigmoid"], np.array([[-1e4, 0.0, 1e4]]))
    np.testing.assert_array_equal(found, [[0.0, 0.5, 1.0]])


@pytest.mark.parametrize(("keepdims", "shape"), [(0, (5, 1)), (1, (5, 1, 1))])
def test_argmax_gives_integers_and_the_first_of_equals(
    keepdims: int, shape: tuple[int, ...]
) -> None:
    found = post_process([str(step("argmax", axis=1, keepdims=keepdims))], RAW)
    assert found.dtype == np.int64
    assert found.shape == shape
    np.testing.assert_array_equal(found.ravel(), RAW.argmax(axis=2).ravel())
    assert post_process(["argmax(axis=0 keepdims=0)"], np.array([[2.0, 2.0]])) == [0]


def test_steps_chain_and_axes_are_those_of_one_sample() -> None:
    chain = ["softmax(axis=1)", "slice(axis=1 start=1 stop=2 step=1)", "reshape(dims=1)"]
    found = post_process(chain, RAW)
    powers = np.exp(RAW)
    np.testing.assert_allclose(found, (powers / powers.sum(axis=2, keepdims=True))[:, :, 1])


def test_no_steps_leave_the_values() -> None:
    np.testing.assert_array_equal(post_process((), RAW), RAW)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("softmax", "takes axis"),
        ("softmax(axis=x)", "cannot be read"),
        ("softmax(axis=1", "cannot be read"),
        ("softmax(axis=1x2)", "one integer as axis"),
        ("sigmoid(axis=1)", "takes no arguments"),
        ("cube_root", "a newer hecompile may have written it"),
        ("__import__('os')", "cannot be read"),
        ("softmax(axis=2)", "names an axis that a tensor of shape (1, 4) does not have"),
        ("reshape(dims=3)", "cannot be reshaped"),
        ("slice(axis=1 start=2 stop=9 step=1)", "has no slice"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        post_process([text], RAW)
    assert message in str(caught.value)
