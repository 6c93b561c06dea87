"""Predicted noise against simulated noise on random programs, batches and special cases."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from hecompile.errors import ProgramError
from hecompile.interpret.noisy import run_program_noisy
from hecompile.interpret.slots import run_program_slots, trace_slots
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType, Layout
from hecompile.numeric.parameters import Parameters
from hecompile.precision import OutputNoise, predict_noise
from tests.unit.noise_programs import PARAMETER_SETS, random_program

SEEDS = 12
SIMULATED = 12
PESSIMISM = 8.0


def simulated(program: Program, samples: dict[str, np.ndarray]) -> np.ndarray:
    """Errors (seeds, samples, ...) over simulated keys and encryptions, on the largest samples."""
    order = np.argsort(-np.abs(samples["x"]).sum(axis=(1, 2)))
    samples = {"x": samples["x"][order[:SIMULATED]]}
    exact = run_program_slots(program, samples)["y"]
    return np.array([run_program_noisy(program, samples, s)["y"] - exact for s in range(SEEDS)])


def predicted(program: Program, samples: dict[str, np.ndarray]) -> OutputNoise:
    (found,) = predict_noise(program, trace_slots(program, samples))
    return found


def assert_close(program: Program, samples: dict[str, np.ndarray]) -> None:
    """The bound holds in 99.9 % of slots, by no more than it may; deviations agree closely."""
    noise = predicted(program, samples)
    errors = simulated(program, samples)
    assert np.mean(np.abs(errors) <= noise.bound) >= 0.999
    assert noise.bound <= PESSIMISM * np.abs(errors).max()
    worst = float(np.sqrt((errors**2).mean(axis=0)).max())
    assert noise.deviation / 1.6 < worst < 2.5 * noise.deviation


@pytest.mark.parametrize("name", PARAMETER_SETS)
@pytest.mark.parametrize("seed", range(2))
def test_random_programs(name: str, seed: int) -> None:
    assert_close(*random_program(seed, PARAMETER_SETS[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETER_SETS)
@pytest.mark.parametrize("seed", range(2, 22))
def test_many_random_programs(name: str, seed: int) -> None:
    assert_close(*random_program(seed, PARAMETER_SETS[name], period=2 ** (2 + seed % 10)))


@pytest.mark.parametrize("batch", [8, 64])
def test_batches_are_judged_by_some_lanes(batch: int) -> None:
    parameters = PARAMETER_SETS["large special prime"]
    assert_close(*random_program(batch, parameters, period=8 * batch, batch=batch))


def test_a_prediction_takes_no_longer_than_a_search_can_wait() -> None:
    program, samples = random_program(3, PARAMETER_SETS["large special prime"], period=4096)
    traced = trace_slots(program, samples)
    predict_noise(program, traced)
    started = time.process_time()
    predict_noise(program, traced)
    assert time.process_time() - started < 1.0


def test_without_samples_bounds_are_taken_at_their_word() -> None:
    program, samples = random_program(1, PARAMETER_SETS["large special prime"])
    (blind,) = predict_noise(program)
    assert blind.bound >= predicted(program, samples).bound


def test_rounding_of_uniform_weights_is_known_with_its_sign() -> None:
    """Weights of 1/4 and 1/4, 1/4 and 3/4 units of 1 / scale: their errors add up, or cancel."""
    samples = {"x": np.ones((4, 1, 16))}
    alike, opposite = _two_products(0.25, 0.25), _two_products(0.25, 0.75)
    unit = 1.0 / _WEIGHT_SCALE
    assert predicted(opposite, samples).deviation < 0.1 * unit
    assert predicted(alike, samples).deviation == pytest.approx(0.5 * unit, rel=0.1)
    errors = simulated(alike, samples)
    assert errors.mean() == pytest.approx(-0.5 * unit, rel=0.1)


_WEIGHT_SCALE = 2.0**12


def _two_products(first: float, second: float) -> Program:
    """x * w1 + x * w2 with weights given in units of a coarse scale."""
    parameters = Parameters(8192, (60, 40, 60), 40)
    build = Builder(name="two")
    x = _given(build, he.Input(label="x", dims=(1, 16), period=16, first=0, count=16), 2.0**40)
    weights = build.constant(np.array([[first], [second]]) / _WEIGHT_SCALE)
    total = he.SumMulPlain(xs=(x, x), weights=weights, period=1)
    y = _given(build, total, 2.0**40 * _WEIGHT_SCALE)
    build.keep(he.Output(xs=(y,), label="y", dims=(1, 16)))
    return build.finish(parameters=parameters)


def _given(build: Builder, op: Operation, scale: float) -> Value:
    facts = op.infer()
    assert isinstance(facts, CipherType)
    layout = Layout(0, 16)
    known = dataclasses.replace(facts, level=1, scale=scale, bound=1.0, layout=layout)
    return build.keep(op.with_result(Value(build.fresh(), known))).defined


def test_parameters_are_needed() -> None:
    program, _ = random_program(1, PARAMETER_SETS["large special prime"])
    with pytest.raises(ProgramError, match="has no parameters"):
        predict_noise(program.replace(parameters=None))
