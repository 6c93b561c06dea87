"""Shapes of inputs, and the check that samples of a batch are independent."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.errors import InputError, UnsupportedError
from hecompile.frontend import ModelInput, check_sample_independence, import_onnx, model_inputs
from hecompile.ir.tensor_ops import Input
from tests.differential.onnx_cases import build, check, random


def shapes(inputs: str, **given: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    names = [name for name in ("x", "z", "h") if f" {name}" in inputs]
    outputs = ", ".join(f"float y_{name}" for name in names)
    body = " ".join(f"y_{name} = Relu({name})" for name in names)
    program = import_onnx(build(body, inputs, outputs), input_shapes=given)
    return {op.label: op.dims for op in program.select(Input)}


def test_a_dynamic_first_axis_becomes_one_sample() -> None:
    assert shapes("float[N,3] x") == {"x": (1, 3)}
    assert shapes("float[?,3] x") == {"x": (1, 3)}
    assert shapes("float[0,3] x") == {"x": (1, 3)}
    assert shapes("float[N,3] x, float[M,2] z") == {"x": (1, 3), "z": (1, 2)}


def test_a_fixed_first_axis_stays() -> None:
    assert shapes("float[4,3] x") == {"x": (4, 3)}


def test_the_batch_symbol_counts_samples_on_other_axes_too() -> None:
    assert shapes("float[N,3] x, float[2,N,5] h") == {"x": (1, 3), "h": (2, 1, 5)}


def test_shapes_given_fix_other_axes_and_their_symbols() -> None:
    given = shapes("float[N,T,3] x, float[N,T] z", x=(1, 7, 3))
    assert given == {"x": (1, 7, 3), "z": (1, 7)}
    assert shapes("float[N,3] x", x=(4, 3)) == {"x": (4, 3)}
    assert shapes("float[] x", x=(2, 3)) == {"x": (2, 3)}


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        (
            "float[N,T,3] x",
            {},
            "leaves open axis 1 ('T') of input 'x'; a program has static shapes, so give them, "
            "as in --input-shape x:1x8x3",
        ),
        ("float[N,?,?] x", {}, "axis 1 and axis 2 of input 'x'"),
        ("float[N,T,3] x, float[T,3] z", {}, "axis 1 ('T') of input 'x'"),
        ("float[] x", {}, "the rank of input 'x'"),
        ("float[N,3] x", {"y": (1, 3)}, "has no input 'y'; its inputs are 'x'"),
        ("float[N,3] x", {"x": (1, 4)}, "has 4 on axis 1, which must be 3"),
        ("float[N,3] x", {"x": (1, 3, 1)}, "does not fit the model's Nx3"),
        ("float[N,3] x", {"x": (0, 3)}, "does not fit the model's Nx3"),
        ("float[N,T] x, float[N,T] z", {"x": (1, 5), "z": (1, 6)}, "has 6 on axis 1"),
    ],
)
def test_shapes_that_stay_open_or_do_not_fit(
    inputs: str, given: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        shapes(inputs, **given)
    assert message in str(caught.value)


def test_model_inputs() -> None:
    model = build("y = Add(x, w)", "float[N,?,3] x", weights={"w": random(3)})
    assert model_inputs(model) == (ModelInput("x", ("N", "", 3)),)


MIXING = {
    "mean over the batch": ("y = ReduceMean<axes=[0]>(x)", {}),
    "softmax over the batch": ("y = Softmax<axis=0>(x)", {}),
    "maximum over the batch": ("y = ArgMax<axis=0>(x)", {}),
    "first sample only": ("y = Gather<axis=0>(x, i)", {"i": np.array(0)}),
    "sum over everything": ("y = ReduceSum<keepdims=0>(x)", {}),
    "batch and features swapped by a reshape": (
        "n = Shape(x) b = Slice(n, o, l) c = Concat<axis=0>(f, b) y = Reshape(x, c)",
        {"o": np.array([0]), "l": np.array([1]), "f": np.array([24])},
    ),
    "reversed batch": (
        "y = Slice(x, s, e, a, t)",
        {
            "s": np.array([-1]),
            "e": np.array([-(2**40)]),
            "a": np.array([0]),
            "t": np.array([-1]),
        },
    ),
    "recurrence over the batch": (
        "y, h, c = LSTM<hidden_size=2>(x, w, r)",
        {"w": random(1, 8, 8), "r": random(1, 8, 2)},
    ),
}


@pytest.mark.parametrize("name", MIXING)
def test_models_that_mix_samples_are_refused(name: str) -> None:
    body, weights = MIXING[name]
    model = build(body, weights=weights)
    with pytest.raises(UnsupportedError, match="mixes the samples of a batch"):
        import_onnx(model)
    with pytest.raises(UnsupportedError, match="output 'y' of two samples"):
        check_sample_independence(model)


def test_the_batch_may_be_any_axis_and_be_moved() -> None:
    weights = {"w": random(1, 8, 3), "r": random(1, 8, 2)}
    inputs = "float[N,8,3] x, float[1,N,2] h, float[1,N,2] c"
    body = """
      t = Transpose<perm=[1,0,2]>(x)
      v, g, d = LSTM<hidden_size=2>(t, w, r, , , h, c)
      y = Transpose<perm=[2,0,1,3]>(v)
    """
    check(build(body, inputs, "float y, float g, float d", weights))


def test_extents_baked_in_at_one_sample_pass() -> None:
    # Such a model takes one sample only, so there is nothing to mix.
    weights = {"s": np.array([1, 24]), "w": random(24, 2)}
    check(build("f = Reshape(x, s) y = MatMul(f, w)", weights=weights))


def test_a_fixed_batch_may_mix() -> None:
    check(build("y = ReduceMean<axes=[0]>(x)", "float[4,3] x"))
    model = build("y = ReduceMean<axes=[0]>(x)", "float[T,3] x")
    check(model, input_shapes={"x": (4, 3)})
