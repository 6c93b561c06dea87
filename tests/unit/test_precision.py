"""Predicted noise against simulated noise on random programs, batches and special cases."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from hecompile.errors import ProgramError
from hecompile.interpret.lanes import look_closely
from hecompile.interpret.noisy import run_program_noisy
from hecompile.interpret.slots import run_program_slots, trace_slots
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType, Layout
from hecompile.numeric import noise as model
from hecompile.numeric.parameters import Parameters
from hecompile.precision import OutputNoise, predict_noise
from tests.unit.noise_programs import PARAMETER_SETS, random_program
from tests.unit.relayout_programs import relayout_program

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
    again = program.replace(name="again")
    started = time.process_time()
    predict_noise(again, traced)
    assert time.process_time() - started < 0.5


def test_other_plans_of_a_traced_program_are_judged_anew() -> None:
    program, samples = random_program(3, PARAMETER_SETS["large special prime"], period=64)
    traced = trace_slots(program, samples)
    first = predict_noise(program, traced)
    wider = Parameters(8192, (52, *[26] * 4, 50), 26)
    other = predict_noise(program.replace(parameters=wider), traced)
    assert other[0].bound > first[0].bound
    assert predict_noise(program.replace(name="again"), traced) == first


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
    layout = Layout(0, min(16, facts.period))
    known = dataclasses.replace(facts, level=1, scale=scale, bound=1.0, layout=layout)
    return build.keep(op.with_result(Value(build.fresh(), known))).defined


RELAYOUTS = ((64, 1), (16, 1), (512, 64), (1024, 1))
"""Periods and batches of inputs."""


def relayout_ratios(seeds: range) -> list[float]:
    """Bounds over largest simulated errors of programs whose refreshes reorder slots."""
    ratios = []
    for seed in seeds:
        program, samples = relayout_program(seed, *RELAYOUTS[seed % len(RELAYOUTS)])
        bound, errors = predicted(program, samples).bound, simulated(program, samples)
        assert np.mean(np.abs(errors) <= bound) >= 0.999, seed
        ratios.append(bound / np.abs(errors).max())
    return ratios


def test_refreshes_that_reorder_slots() -> None:
    ratios = relayout_ratios(range(8))
    assert np.median(ratios) < PESSIMISM
    assert max(ratios) < 2 * PESSIMISM


@pytest.mark.slow
def test_many_refreshes_that_reorder_slots() -> None:
    ratios = relayout_ratios(range(8, 48))
    assert np.median(ratios) < PESSIMISM
    assert max(ratios) < 2 * PESSIMISM


def _gathered(
    source: list[int], place: list[int], fold: bool = False, mask_bits: int = 0
) -> Program:
    """Slots of a noisy input of period 4 and a calm one of period 8, gathered, perhaps added up."""
    parameters = Parameters(8192, (60, 40, 60), 40)
    build = Builder(name="gathered")
    noisy = he.Input(label="x", dims=(1, 4), period=4, first=0, count=4)
    calm = he.Input(label="z", dims=(1, 8), period=8, first=0, count=8)
    xs = (_given(build, noisy, _COARSE), _given(build, calm, 2.0**40))
    gather = build.constant(np.array([source, place], dtype=float))
    y = _given(
        build, he.Refresh(xs=xs, period=len(place), gather=gather, mask_bits=mask_bits), 2.0**40
    )
    steps = len(place) // 2
    while fold and steps:
        turned = _given(build, he.Rotate(x=y, steps=steps), 2.0**40)
        y = _given(build, he.Add(x=y, y=turned), 2.0**40)
        steps //= 2
    y = build.annotate(y, layout=Layout(0, len(place)))
    build.keep(he.Output(xs=(y,), label="y", dims=(1, len(place))))
    return build.finish(parameters=parameters)


_COARSE = 2.0**20
_GATHERED = {"x": np.ones((4, 1, 4)), "z": np.ones((4, 1, 8))}


def _coarse_deviation(program: Program) -> float:
    """Of the mean of the copies of one slot of the noisy input.

    The calm one travels with it: its own noise, as large in integers, is added.
    """
    assert program.parameters is not None
    fresh = model.encryption(program.parameters, _COARSE, 1) / (program.parameters.slots / 4)
    return float(np.sqrt(2 * (fresh + model.encoding(program.parameters, _COARSE, 4))))


def test_replicas_of_a_slot_share_its_noise() -> None:
    """A sum of 16 replicas has 16 times the deviation; one of four slots' replicas has 8 times."""
    alike = _gathered([0] * 16, [1] * 16, fold=True)
    one = _coarse_deviation(alike)
    assert predicted(alike, _GATHERED).deviation == pytest.approx(16 * one, rel=0.05)
    distinct = _gathered([0] * 16, list(range(4)) * 4, fold=True)
    assert predicted(distinct, _GATHERED).deviation == pytest.approx(8 * one, rel=0.05)
    apart = _gathered([0] * 16, [1] * 16)
    assert predicted(apart, _GATHERED).deviation == pytest.approx(one, rel=0.05)


def test_what_hides_the_origin_of_masked_values_is_noise() -> None:
    """An encryption of zero, at the scale of the value: of the mean of its copies."""
    places = [0] * 4, [0, 1, 2, 3]
    bare = predicted(_gathered(*places), _GATHERED).deviation
    hidden = predicted(_gathered(*places, mask_bits=40), _GATHERED).deviation
    parameters = Parameters(8192, (60, 40, 60), 40)
    added = model.rescale(parameters, _COARSE) / (parameters.slots / 4)
    assert hidden**2 - bare**2 == pytest.approx(added, rel=0.05)


def test_only_operands_that_are_taken_count() -> None:
    program = _gathered([1, -1, 1, -1], [7, 0, 2, 0])
    assert predicted(program, _GATHERED).deviation < 1e-3 * _coarse_deviation(program)


def test_gathers_keep_lanes_or_all_slots_are_looked_at() -> None:
    program, samples = relayout_program(2, 512, 64)
    traced = trace_slots(program, samples)
    seen = look_closely(program, traced)
    assert seen.lanes.stride == 64
    assert 8 <= len(seen.lanes.chosen) <= 16
    op = program.select(he.Refresh)[0]
    known = seen.values[op.xs[0].name]
    whole = {x.name: np.arange(he.cipher_type(x).period, dtype=float)[None] for x in op.xs}
    cut = seen.gathered(op, {name: seen.lanes.cut(x) for name, x in whole.items()})
    table = program.array(op.gather or "")
    expected = np.where(table[0] >= 0, table[1], 0)
    np.testing.assert_array_equal(cut[0], seen.lanes.cut(expected))
    assert known.shape[1] == he.cipher_type(op.xs[0]).period // 64 * len(seen.lanes.chosen)
    table = np.array([np.zeros(512), np.roll(np.arange(512), 16)])
    moved = _moved(table)
    assert look_closely(moved, trace_slots(moved, samples)).lanes.stride == 16


def _moved(table: np.ndarray) -> Program:
    """A batch of 64 whose refresh moves slots to other lanes."""
    build = Builder(name="moved", batch=64)
    op = he.Input(label="x", dims=(1, 8), period=512, first=0, count=8, stride=64)
    x = _given(build, op, 2.0**40)
    y = _given(build, he.Refresh(xs=(x,), period=512, gather=build.constant(table)), 2.0**40)
    y = build.annotate(y, layout=Layout(0, 8, 64))
    build.keep(he.Output(xs=(y,), label="y", dims=(1, 8)))
    return build.finish(parameters=Parameters(8192, (60, 40, 60), 40))


def test_lanes_that_are_largest_as_different_factors_are_all_looked_at() -> None:
    build = Builder(name="lanes", batch=64)
    op = he.Input(label="x", dims=(1, 8), period=512, first=0, count=8, stride=64)
    x = _given(build, op, 2.0**20)
    for lane in (11, 37):
        weights = np.ones((1, 64))
        weights[0, lane] = 10.0
        symbol = build.constant(weights)
        y = _given(build, he.SumMulPlain(xs=(x,), weights=symbol, period=64), 2.0**20)
        square = _given(build, he.Mul(x=y, y=y), 2.0**40)
    build.keep(he.Output(xs=(square,), label="y", dims=(1, 8)))
    program = build.finish(parameters=Parameters(8192, (60, 40, 60), 40))
    traced = trace_slots(program, {"x": np.ones((64, 1, 8))})
    assert {11, 37} <= set(look_closely(program, traced).lanes.chosen)


def test_parameters_are_needed() -> None:
    program, _ = random_program(1, PARAMETER_SETS["large special prime"])
    with pytest.raises(ProgramError, match="has no parameters"):
        predict_noise(program.replace(parameters=None))


def test_an_output_that_others_read_later_keeps_its_noise() -> None:
    build = Builder(name="early")
    source = he.Input(label="x", dims=(1, 4), period=4, first=0, count=4)
    x = _given(build, source, 2.0**40)
    double = build.annotate(_given(build, he.Add(x=x, y=x), 2.0**40), layout=Layout(0, 4))
    build.keep(he.Output(xs=(double,), label="y", dims=(1, 4)))
    again = build.annotate(_given(build, he.Add(x=double, y=double), 2.0**40), layout=Layout(0, 4))
    build.keep(he.Output(xs=(again,), label="z", dims=(1, 4)))
    program = build.finish(parameters=Parameters(8192, (60, 40, 60), 40))
    first, second = predict_noise(program, trace_slots(program, {"x": np.ones((4, 1, 4))}))
    assert second.deviation == pytest.approx(2 * first.deviation, rel=1e-6)
