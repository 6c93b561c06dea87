"""approximate: fits on what each segment saw, chooses degrees, and tells what it did."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.errors import CompileError, PassError
from hecompile.interpret.compare import approximation_error, out_of_range
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.movement_ops import Affine
from hecompile.ir.operation import Operation
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import Activation, MatMul, Mul, Polynomial, tensor_type
from hecompile.passbase import APPROXIMATION_SHARE, Context
from hecompile.passes.approximate import Approximate
from hecompile.pipeline import parse_pipeline
from tests.unit.interpreting import clear, finish, secret

RNG = np.random.default_rng(0)
SAMPLES = {"x": RNG.normal(size=(200, 1, 4))}


def network(*functions: str, gain: float = 1.0) -> Program:
    """Dense layers of 4 units with these activations."""
    b = Builder(name="m")
    value = secret(b, "x", 1, 4)
    weights = np.random.default_rng(1)
    for i, function in enumerate(functions):
        layer = clear(b, gain * 0.5 * weights.normal(size=(4, 4)))
        value = b.emit(MatMul(x=value, y=layer), f"dense{i}")
        value = b.emit(Activation(x=value, functions=(function,), location=f"/act{i}"), f"act{i}")
    return finish(b, y=value)


def approximate(
    program: Program, options: str = "", precision: float | None = None
) -> tuple[Program, list[str]]:
    notes: list[str] = []
    context = Context(SAMPLES, precision, notes.append)
    pipeline = parse_pipeline(f"calibrate,approximate{{{options}}}")
    return pipeline.run(program, context), notes


def degrees(program: Program) -> list[int]:
    return [op.degree for op in program.select(Polynomial)]


def defining(program: Program, name: str) -> Operation:
    return program.definitions[name]


def test_each_segment_is_fitted_on_its_own_range() -> None:
    b = Builder(name="m")
    x = secret(b, "x", 1, 4)
    op = Activation(x=x, functions=("sigmoid", "tanh"), sections=(3, 1))
    fitted, _ = approximate(finish(b, y=b.emit(op)), "degree=5 margin=0.25")
    (poly,) = fitted.select(Polynomial)
    for i, part in enumerate((SAMPLES["x"][..., :3], SAMPLES["x"][..., 3:])):
        low, high = part.min(), part.max()
        assert poly.lower[i] == pytest.approx(low - 0.25 * (high - low))
        assert poly.upper[i] == pytest.approx(high + 0.25 * (high - low))
    assert poly.functions == ("sigmoid", "tanh")
    table = fitted.array(poly.coefficients)
    grid = np.linspace(poly.lower[0], poly.upper[0], 1000)
    error = np.abs(np.polyval(table[::-1, 0], grid) - 1 / (1 + np.exp(-grid))).max()
    assert error <= poly.fit_error + 1e-12


@pytest.mark.parametrize("method", ["weighted", "chebyshev", "minimax"])
def test_every_method_and_degree_is_taken(method: str) -> None:
    fitted, _ = approximate(network("tanh"), f"degree=6 method={method}")
    assert degrees(fitted) == [6]


@pytest.mark.parametrize("precision", [1e-1, 1e-2, 1e-3, 1e-4])
def test_the_share_of_the_precision_is_met_on_the_calibration_samples(precision: float) -> None:
    program = network("tanh", "sigmoid", "softplus")
    fitted, notes = approximate(program, "", precision)
    assert approximation_error(program, fitted, SAMPLES).max <= precision * APPROXIMATION_SHARE
    assert not any(one.fraction for one in out_of_range(fitted, SAMPLES))
    assert len([n for n in notes if "degree" in n]) == 3


def test_more_precision_takes_higher_degrees_where_they_matter() -> None:
    program = network("tanh", "sigmoid")
    low, high = (sum(degrees(approximate(program, "", p)[0])) for p in (1e-1, 1e-4))
    assert low < high
    assert degrees(approximate(program, "", 10.0)[0]) == [3, 3]


def test_an_unreachable_precision_lists_every_node_and_what_to_do() -> None:
    with pytest.raises(CompileError) as raised:
        approximate(network("relu", "tanh", gain=2.0), "max_degree=7", 1e-6)
    text = str(raised.value)
    for said in ("'/act0'", "'/act1'", "relu on [", "off by", "--precision", "retrain"):
        assert said in text


def test_without_a_precision_the_best_of_degree_7_is_taken_and_told() -> None:
    program = network("relu", "relu", gain=8.0)
    fitted, notes = approximate(program)
    assert max(degrees(fitted)) == 7
    error = approximation_error(program, fitted, SAMPLES).max
    reach = np.ptp(run_tensor(program, SAMPLES)["y"])
    assert error > 0.02 * reach
    assert any("more than 2% of their range" in note for note in notes)


def test_without_a_precision_degree_3_stays_where_it_is_enough() -> None:
    fitted, notes = approximate(network("sigmoid"))
    assert degrees(fitted) == [3]
    assert not any("more than 2%" in note for note in notes)


def test_ranges_hold_the_exact_and_the_approximated_values() -> None:
    program = network("tanh", "tanh", gain=3.0)
    fitted, _ = approximate(program, "degree=3")
    names = [op.defined.name for op in fitted if op.result and tensor_type(op.result).secret]
    names = [name for name in names if name in program.definitions]
    exact, found = (run_tensor(p, SAMPLES, keep=names) for p in (program, fitted))
    for name in names:
        interval = tensor_type(defining(fitted, name).defined).interval
        assert interval is not None
        for array in (exact[name], found[name]):
            assert interval.lower <= array.min()
            assert array.max() <= interval.upper


def test_a_range_that_approximation_leaves_is_fitted_again() -> None:
    # Degree 1 for a steep function overshoots the exact range behind it by far.
    program = network("relu", "tanh", gain=4.0)
    fitted, _ = approximate(program, "degree=1 margin=0.0")
    assert not any(one.fraction for one in out_of_range(fitted, SAMPLES))


def test_a_constant_operand_of_one_value_gives_a_constant() -> None:
    b = Builder(name="m")
    x = secret(b, "x", 1, 4)
    still = b.emit(MatMul(x=x, y=clear(b, np.zeros((4, 4)))))
    fitted, _ = approximate(finish(b, y=b.emit(Activation(x=still, functions=("sigmoid",)))), "")
    assert approximation_error(fitted, fitted, SAMPLES).max == 0.0
    np.testing.assert_allclose(run_tensor(fitted, SAMPLES)["y"], 0.5, atol=1e-9)


def test_a_fit_that_is_impossible_names_the_node() -> None:
    with pytest.raises(PassError, match=r"tanh at '/act0'.*degree 300"):
        approximate(network("tanh"), "degree=300")
    with pytest.raises(PassError, match=r"'/act0'.*'spline' is not known"):
        approximate(network("tanh"), "method=spline")


def affines(program: Program) -> int:
    merged = parse_pipeline("merge-linear,cse,dce,require-polynomial").run(program, Context())
    return len(merged.select(Affine))


@pytest.mark.parametrize("degree", [3, 9, 63])
def test_a_linear_map_before_takes_the_map_to_the_unit_interval_in(degree: int) -> None:
    fitted, _ = approximate(network("relu", "tanh"), f"degree={degree}")
    assert {op.basis for op in fitted.select(Polynomial)} == {"chebyshev"}
    assert affines(fitted) == 2
    for op in fitted.select(Polynomial):
        interval = tensor_type(op.x).interval
        assert interval is not None
        assert -1.0 <= interval.lower <= interval.upper <= 1.0


@pytest.mark.parametrize(("degree", "maps"), [(7, 0), (15, 1)])
def test_what_no_linear_map_gives_is_mapped_only_for_high_degrees(degree: int, maps: int) -> None:
    b = Builder(name="m")
    x = secret(b, "x", 1, 4)
    square = b.emit(Mul(x=x, y=x))
    op = Activation(x=square, functions=("sigmoid", "tanh"), sections=(3, 1))
    fitted, _ = approximate(finish(b, y=b.emit(op)), f"degree={degree}")
    (poly,) = fitted.select(Polynomial)
    assert poly.basis == ("chebyshev" if maps else "monomial")
    assert affines(fitted) == maps
    assert not any(one.fraction for one in out_of_range(fitted, SAMPLES))


def test_an_operand_that_others_read_is_not_computed_twice() -> None:
    b = Builder(name="m")
    x = b.emit(MatMul(x=secret(b, "x", 1, 4), y=clear(b, np.eye(4))))
    gate = b.emit(Activation(x=x, functions=("sigmoid",)))
    fitted, _ = approximate(finish(b, y=b.emit(Mul(x=x, y=gate))), "degree=7")
    assert [op.basis for op in fitted.select(Polynomial)] == ["monomial"]


def test_a_degree_that_costs_fewer_products_for_as_many_levels_is_taken() -> None:
    """tanh is odd: degree 5 is a tenth as good as 7 and 3 a tenth as good as 5."""
    program = network("tanh")
    errors = {
        degree: approximation_error(program, approximate(program, f"degree={degree}")[0], SAMPLES)
        for degree in (3, 5, 7)
    }
    asked = 1.2 * errors[5].max / APPROXIMATION_SHARE
    assert errors[3].max > 1.2 * errors[5].max
    assert degrees(approximate(program, "", asked)[0]) == [5]
    asked = 1.2 * errors[7].max / APPROXIMATION_SHARE
    assert degrees(approximate(program, "", asked)[0]) == [7]


def test_high_degrees_are_chosen_where_a_kink_needs_them() -> None:
    program = network("relu")
    fitted, _ = approximate(program, "", 5e-2)
    assert degrees(fitted)[0] > 31
    assert approximation_error(program, fitted, SAMPLES).max <= 5e-2 * APPROXIMATION_SHARE


def test_options_print_and_read_back() -> None:
    one = Approximate(degree=5, method="minimax")
    assert parse_pipeline(str(one)).passes == (one,)
