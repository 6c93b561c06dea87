"""The verifier: each rule, and how offences are shown."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir import movement_ops as mo
from hecompile.ir import tensor_ops as to
from hecompile.ir.constants import Constant
from hecompile.ir.operation import Operation, Symbol, Value
from hecompile.ir.parser import parse
from hecompile.ir.printer import print_program
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, Interval, PlainType, TensorType
from hecompile.ir.verifier import Offence, report, verify

X = Value("x", TensorType((2,)))
INPUT = to.Input(label="x", dims=(2,), result=X)
C = Value("c", CipherType(4))
CIPHER = he.Input(label="x", dims=(4,), period=4, first=0, count=4, result=C)
CONSTANTS = {
    "two": Constant(np.ones(2)),
    "map": Constant(np.array([[0.0, 1.0], [0.0, 5.0], [1.0, 1.0]])),
    "half": Constant(np.array([[0.5], [0.0], [1.0]])),
    "four": Constant(np.ones((2, 4))),
}


def _refusal(*operations: Operation, batch: int = 1) -> str:
    with pytest.raises(ProgramError) as caught:
        verify(Program("m", operations, CONSTANTS, batch))
    return str(caught.value)


def test_an_offence_is_marked_under_the_offender() -> None:
    lost = Value("lost", TensorType((2,)))
    negation = to.Neg(x=lost, result=Value("y", TensorType((2,))))
    assert _refusal(INPUT, negation).splitlines() == [
        "program 'm' breaks 1 rule(s):",
        "  %y = tensor.neg(%lost) : tensor<2, secret>",
        "                  ^^^^^ used before it is defined",
    ]


def test_every_offence_is_told_with_the_remedy() -> None:
    offences = [Offence(INPUT, "too small", X), Offence(INPUT, "too slow")]
    lines = report(Program("m", (INPUT,)), offences, "buy a larger one").splitlines()
    assert lines[0] == "program 'm' breaks 2 rule(s):"
    assert lines[2] == "  ^^ too small"
    assert lines[4] == "       ^^^^^^^^^^^^ too slow"
    assert lines[5] == "remedy: buy a larger one"


def test_the_mark_is_under_the_whole_name() -> None:
    """`%x` also begins `%x1`, which stands before it."""
    x1 = Value("x1", TensorType((2,)))
    first = to.Input(label="a", dims=(2,), result=x1)
    add = to.Add(x=x1, y=X, result=Value("y", TensorType((2,))))
    line, mark = _refusal(first, add).splitlines()[1:3]
    assert line.index("%x)") == mark.index("^^")


Y = Value("y", TensorType((2,)))


def _affine(symbol: str) -> Operation:
    return mo.Affine(xs=(X,), maps=(Symbol(symbol),), bias=Symbol("two"), dims=(2,), result=Y)


OFFENCES: dict[str, tuple[tuple[Operation, ...], str]] = {
    "two dialects": ((INPUT, CIPHER), "a he operation in a tensor program"),
    "defined twice": ((INPUT, INPUT), "defined twice"),
    "another type": (
        (INPUT, to.Neg(x=Value("x", TensorType((2,), True, Interval(0, 1))), result=Y)),
        "defined as tensor<2, secret>",
    ),
    "shape": (
        (INPUT, to.Neg(x=X, result=Value("y", TensorType((3,))))),
        "has the type tensor<2, secret>",
    ),
    "secrecy": (
        (INPUT, to.Neg(x=X, result=Value("y", TensorType((2,), secret=False)))),
        "has the type tensor<2, secret>",
    ),
    "no result": ((INPUT, to.Neg(x=X)), "needs a result"),
    "a result": ((INPUT, to.Output(x=X, label="y", result=Y)), "defines no value"),
    "two outputs": (
        (INPUT, to.Output(x=X, label="y"), to.Output(x=X, label="y")),
        "a second output 'y'",
    ),
    "two inputs": (
        (INPUT, to.Input(label="x", dims=(2,), result=Y)),
        "a second input 'x'",
    ),
    "a ciphertext": (
        (INPUT, to.Output(x=C, label="y")),
        "%c is ct<4>, where a tensor is needed",
    ),
    "no constant": (
        (to.ConstantTensor(value=Symbol("no"), dims=(2,), result=Value("k", TensorType((2,)))),),
        "has the type tensor<2, clear>",
    ),
    "constant's shape": (
        (
            to.ConstantTensor(
                value=Symbol("two"), dims=(3,), result=Value("k", TensorType((3,), secret=False))
            ),
        ),
        "constant @two has the shape (2,), not (3,)",
    ),
    "coefficients": (
        (INPUT, to.Polynomial(x=X, coefficients=Symbol("two"), degree=1, result=Y)),
        "constant @two has the shape (2,), not (2, 1) or (2, 1)",
    ),
    "map's columns": (
        (INPUT, _affine("map")),
        "constant @map: columns must be integers below 2",
    ),
    "map's rows": (
        (
            INPUT,
            _affine("half"),
        ),
        "constant @half: rows must be integers below 2",
    ),
    "no map": (
        (INPUT, _affine("two")),
        "constant @two is no linear map of shape (3, entries)",
    ),
    "missing map": (
        (INPUT, _affine("no")),
        "no constant @no in the program",
    ),
    "encode": (
        (CIPHER, he.Encode(value=Symbol("two"), period=4, result=Value("p", PlainType(4)))),
        "constant @two has the shape (2,), not (4,)",
    ),
    "weights": (
        (
            CIPHER,
            he.SumMulPlain(
                xs=(C,), weights=Symbol("four"), period=4, result=Value("s", CipherType(4))
            ),
        ),
        "constant @four has the shape (2, 4), not (1, 4)",
    ),
    "polynomials": (
        (CIPHER, he.Relinearize(x=C, result=Value("r", CipherType(4, polynomials=3)))),
        "has the type ct<4>",
    ),
    "rotation": (
        (CIPHER, he.Rotate(x=C, steps=4, result=Value("r", CipherType(4)))),
        "he.rotate: 4 steps in a period of ct<4>",
    ),
    "pieces": (
        (
            CIPHER,
            he.Input(
                label="x", dims=(5,), period=4, first=0, count=4, result=Value("d", CipherType(4))
            ),
        ),
        "another piece has the shape (4,)",
    ),
    "too many elements": (
        (he.Input(label="x", dims=(3,), period=4, first=0, count=4, result=C),),
        "holds more elements than the shape (3,) has",
    ),
}


GATHERS = [
    ((2.0, -1.0, 0.0, 2.0), 1, 0, 3, None),
    ((2.0, 1.0), 2, 1, 2, None),
    ((2.0, 1.0), 1, 1, 2, "has the shape (2,), not (4,)"),
    ((2.0, 1.0, 0.0, 0.0), 3, 0, 3, "stride must be a power of two"),
    ((2.0,), 8, 2, 1, "places of 8 slots do not fill 4"),
    ((0.5, 1.0, 0.0, 0.0), 1, 0, 2, "places hold elements below 3, or -1"),
    ((3.0, 1.0, 0.0, 0.0), 1, 0, 3, "places hold elements below 3, or -1"),
    ((-2.0, 1.0, 0.0, 0.0), 1, 0, 2, "places hold elements below 3, or -1"),
    ((np.inf, 1.0, 0.0, 0.0), 1, 0, 2, "places hold elements below 3, or -1"),
    ((-1.0, -1.0, -1.0, -1.0), 1, 0, 1, "names no element"),
    ((2.0, 1.0, 1.0, 2.0), 1, 0, 3, "names elements 1 to 2, not as first"),
    ((0.0, 1.0, 1.0, 1.0), 1, 0, 3, "names elements 0 to 1, not as first"),
]


@pytest.mark.parametrize(("places", "stride", "first", "count", "reason"), GATHERS)
def test_gathered_inputs_name_elements_that_there_are(
    places: tuple[float, ...], stride: int, first: int, count: int, reason: str | None
) -> None:
    op = he.Input(
        label="x",
        dims=(3,),
        period=4,
        first=first,
        count=count,
        stride=stride,
        gather=Symbol("g"),
        result=Value("c", CipherType(4)),
    )
    program = Program("m", (op,), {"g": Constant(np.array(places))})
    if reason is None:
        verify(program)
        assert parse(print_program(program)) == program
        return
    with pytest.raises(ProgramError) as caught:
        verify(program)
    assert reason in str(caught.value)


@pytest.mark.parametrize(("operations", "reason"), OFFENCES.values(), ids=OFFENCES.keys())
def test_offences(operations: tuple[Operation, ...], reason: str) -> None:
    assert f"^ {reason}" in _refusal(*operations)


def test_a_batch_must_fit_the_stride() -> None:
    assert "the stride is shorter than the batch" in _refusal(CIPHER, batch=2)
    with pytest.raises(ProgramError, match="the batch is 1 or more, not 0"):
        verify(Program("m", (), batch=0))


WINDOWS = [
    ("strides = [1]", "strides = [0]", "strides and dilations are 1 or more"),
    ("strides = [1]", "strides = [1, 1]", "window attributes do not fit 1 spatial axes"),
    ("pads = [0, 0]", "pads = [-1, 0]", "pads 0 or more"),
    ("dilations = [1]", "dilations = [9]", "the window is larger than its input on axis 2"),
    ("groups = 1", "groups = 0", "0 groups"),
    ("groups = 1", "groups = 2", "2 channels, weights (3, 2, 2), 2 groups"),
]


@pytest.mark.parametrize(("old", "new", "message"), WINDOWS)
def test_impossible_windows(old: str, new: str, message: str) -> None:
    weights = ", ".join(["1.0"] * 12)
    text = f"""program "m" batch=1 {{
  const @w : f64<3x2x2> = [{weights}]
  %x = tensor.input() {{label = "x", dims = [1, 2, 5]}} : tensor<1x2x5, secret>
  %w = tensor.constant() {{value = @w, dims = [3, 2, 2]}} : tensor<3x2x2, clear>
  %y = tensor.conv(%x, %w) {{strides = [1], pads = [0, 0], dilations = [1], groups = 1}} \
: tensor<1x3x4, secret>
}}
"""
    parse(text)
    assert old in text
    with pytest.raises(ProgramError) as caught:
        parse(text.replace(old, new))
    assert message in str(caught.value)
