"""Samples in their accepted forms, observed ranges, and the comparison of two programs."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.errors import InputError, ProgramError
from hecompile.interpret.compare import approximation_error, out_of_range, output_error
from hecompile.interpret.samples import as_samples, observe_ranges, with_ranges
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import Activation, Add, Mul, Polynomial, tensor_type
from hecompile.ir.types import Interval
from hecompile.ir.verifier import verify
from tests.unit.interpreting import clear, finish, secret


def square_of(*dims: int) -> Program:
    b = Builder(name="m")
    x = secret(b, "x", *dims)
    return finish(b, y=b.emit(Mul(x=x, y=x), "square"))


@pytest.mark.parametrize("shape", [(5, 1, 4), (5, 4)])
def test_samples_come_batch_first_with_or_without_the_batch_axis(shape: tuple[int, ...]) -> None:
    found = as_samples(square_of(1, 4), {"x": np.ones(shape, np.float32), "unread": np.zeros(3)})
    assert found["x"].shape == (5, 1, 4)
    assert found["x"].dtype == np.float64
    assert list(found) == ["x"]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((0, 4)), "one sample or more"),
        (np.zeros((5, 3)), "5, 3"),
        (np.full((5, 4), np.nan), "nan"),
        (np.full((5, 4), np.inf), "inf"),
        (np.full((5, 4), "a"), "real numbers"),
    ],
)
def test_samples_that_do_not_fit_are_refused(array: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        as_samples(square_of(1, 4), {"x": array})


def test_a_missing_input_is_named() -> None:
    with pytest.raises(InputError, match="'x' is missing"):
        as_samples(square_of(1, 4), {"z": np.zeros((5, 4))})


def test_ranges_are_observed_and_written_into_the_types() -> None:
    program = square_of(2)
    samples = {"x": np.array([[1.0, -3.0], [0.5, 2.0]])}
    ranges = observe_ranges(program, samples)
    assert ranges == {"x": Interval(-3.0, 2.0), "square": Interval(0.25, 9.0)}
    ranged = with_ranges(program, ranges)
    verify(ranged)
    assert tensor_type(ranged.operations[1].operands[0]).interval == Interval(-3.0, 2.0)
    assert with_ranges(ranged, ranges) == ranged


def test_errors_are_told_for_each_output_and_together() -> None:
    b = Builder(name="m")
    x = secret(b, "x", 2)
    exact = finish(b, y=b.emit(Mul(x=x, y=x)), z=x)
    b = Builder(name="m")
    x = secret(b, "x", 2)
    shifted = b.emit(Add(x=b.emit(Mul(x=x, y=x)), y=clear(b, [0.0, 0.4])))
    found = approximation_error(exact, finish(b, y=shifted, z=x), {"x": np.ones((3, 2))})
    assert found.max == pytest.approx(0.4)
    assert found.outputs["y"].mean == pytest.approx(0.2)
    assert found.outputs["y"].rms == pytest.approx(np.sqrt(0.08))
    assert found.outputs["z"].max == 0.0
    assert found.mean == pytest.approx(0.1)


def test_a_value_that_is_no_number_is_infinitely_far() -> None:
    expected = {"y": np.zeros((1, 2))}
    assert output_error(expected, {"y": np.array([[0.0, np.nan]])}).max == np.inf
    assert output_error(expected, {"y": np.array([[0.0, -np.inf]])}).outputs["y"].rms == np.inf


def test_programs_with_other_outputs_do_not_compare() -> None:
    with pytest.raises(ProgramError, match="same outputs"):
        output_error({"y": np.zeros((1, 2))}, {"y": np.zeros((1, 3))})


def test_values_outside_the_fitted_range_are_measured() -> None:
    b = Builder(name="m")
    x = secret(b, "x", 1, 4)
    poly = Polynomial(
        x=x,
        coefficients=b.constant(np.ones((2, 2))),
        degree=1,
        sections=(3, 1),
        functions=("sigmoid", "tanh"),
        lower=(-1.0, -2.0),
        upper=(1.0, 2.0),
    )
    plain = Polynomial(x=x, coefficients=b.constant(np.ones((2, 1))), degree=1)
    program = finish(b, y=b.emit(poly, "gates"), z=b.emit(plain, "plain"))
    samples = {"x": np.array([[0.0, 1.0, -1.5, 1.9], [0.0, 0.0, 0.0, -2.25]])}
    (found,) = out_of_range(program, samples)
    assert (found.value, found.functions) == ("gates", ("sigmoid", "tanh"))
    assert found.fraction == pytest.approx(2 / 8)
    assert found.excess == pytest.approx(0.5)
    assert found.relative_excess == pytest.approx(0.25)


def test_the_excess_of_a_mapped_operand_is_told_before_the_map() -> None:
    b = Builder(name="m")
    unit = secret(b, "unit", 2)
    table = b.constant(np.ones((3, 1)))
    poly = Polynomial(
        x=unit, coefficients=table, degree=2, lower=(0.0,), upper=(8.0,), basis="chebyshev"
    )
    (found,) = out_of_range(finish(b, y=b.emit(poly)), {"unit": np.array([[0.5, -1.5]])})
    assert found.excess == pytest.approx(2.0)
    assert found.relative_excess == pytest.approx(0.25)


def test_overflow_on_calibration_names_the_node() -> None:
    b = Builder(name="m")
    x = secret(b, "x", 1)
    big = b.emit(Mul(x=x, y=clear(b, 1e300)))
    cube = Activation(x=b.emit(Mul(x=big, y=big, location="/square")), functions=("relu",))
    with pytest.raises(InputError, match=r"tensor\.mul at '/square'"):
        observe_ranges(finish(b, y=b.emit(cube)), {"x": np.ones((1, 1))})
