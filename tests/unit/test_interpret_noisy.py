"""Simulated noise: its size is what the noise model says, and it behaves as the scheme's does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from hecompile.errors import ProgramError
from hecompile.interpret.noisy import run_program_noisy
from hecompile.interpret.slots import run_program_slots
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType, Layout, PlainType
from hecompile.numeric import noise
from hecompile.numeric.parameters import Parameters

PARAMETERS = Parameters(8192, (40, 30, 30, 40), 30)
SLOTS = PARAMETERS.slots
SCALES = [PARAMETERS.scale(level) for level in range(3)]
X = np.random.default_rng(99).normal(size=(12, SLOTS))


def _managed(b: Builder, op: Operation, level: int, scale: float) -> Value:
    """Append an operation whose result has a level and a scale."""
    kind = op.infer()
    if isinstance(kind, CipherType):
        layout = Layout(0, kind.period)
        kind = dataclasses.replace(kind, level=level, scale=scale, layout=layout)
    elif isinstance(kind, PlainType):
        kind = dataclasses.replace(kind, level=level, scale=scale)
    assert kind is not None
    value = Value(b.fresh(), kind)
    b.keep(op.with_result(value))
    return value


def _program(build: Callable[[Builder, Value], Value], period: int = SLOTS) -> Program:
    b = Builder(name="m")
    op = he.Input(label="x", dims=(period,), period=period, first=0, count=period)
    x = _managed(b, op, 2, SCALES[2])
    y = build(b, x)
    b.keep(he.Output(xs=(y,), label="y", dims=(period,)))
    return b.finish(parameters=PARAMETERS)


def _error(program: Program, seed: int = 0, samples: int = 12) -> np.ndarray:
    period = he.cipher_type(program.operations[0].defined).period
    inputs = {"x": X[:samples, :period]}
    noisy = run_program_noisy(program, inputs, seed)["y"]
    error: np.ndarray = noisy - run_program_slots(program, inputs)["y"]
    return error


FRESH = noise.encoding(PARAMETERS, SCALES[2]) + noise.encryption(PARAMETERS, SCALES[2], 2)


def test_fresh_ciphertexts() -> None:
    error = _error(_program(lambda b, x: x))
    assert error.var() == pytest.approx(FRESH, rel=0.05)
    assert abs(error.mean()) < 4 * np.sqrt(FRESH / error.size)


def test_a_short_period_is_rounded_less_and_its_copies_are_averaged() -> None:
    error = _error(_program(lambda b, x: x, period=16), samples=12)
    expected = noise.encoding(PARAMETERS, SCALES[2], 16)
    expected += noise.encryption(PARAMETERS, SCALES[2], 2) / (SLOTS / 16)
    assert error.var() == pytest.approx(expected, rel=0.3)


def test_square_and_rescale_carry_the_noise_of_their_operands() -> None:
    def build(b: Builder, x: Value) -> Value:
        square = _managed(b, he.Mul(x=x, y=x), 2, SCALES[2] ** 2)
        short = _managed(b, he.Relinearize(x=square), 2, SCALES[2] ** 2)
        return _managed(b, he.Rescale(x=short), 1, SCALES[1])

    switched = noise.key_switch_slots(PARAMETERS, 2, SCALES[2] ** 2)
    calm = switched < 1.01 * switched.min()
    assert calm.mean() > 0.8
    expected = 4.0 * np.mean(X[:, calm] ** 2) * FRESH + switched.min()
    expected += noise.rescale(PARAMETERS, SCALES[1])
    assert _error(_program(build))[:, calm].var() == pytest.approx(expected, rel=0.05)


def test_rotation_moves_slots_and_adds_the_same_offset_each_time() -> None:
    program = _program(lambda b, x: _managed(b, he.Rotate(x=x, steps=5), 2, SCALES[2]))
    error = _error(program)
    variances = noise.key_switch_slots(PARAMETERS, 2, SCALES[2])
    # A few slots carry most of it, each with one number a key: several keys are needed.
    spread = np.mean([_error(program, seed)[:, 1:].var() for seed in range(8)])
    assert spread == pytest.approx(FRESH + variances[1:].mean(), rel=0.15)
    first = error[:, 0]
    assert abs(first.mean()) > 5 * first.std()
    again = np.stack([_error(program, seed)[0, 0] for seed in range(200)])
    assert again.var() == pytest.approx(FRESH + variances[0], rel=0.4)


def test_encoded_weights_are_rounded_once_for_all_samples() -> None:
    weights = np.random.default_rng(1).normal(size=(1, SLOTS))

    def build(b: Builder, x: Value) -> Value:
        op = he.SumMulPlain(xs=(x,), weights=b.constant(weights), period=SLOTS)
        return _managed(b, op, 2, SCALES[2] * 2.0**12)

    error = _error(_program(build)) / X
    coarse = noise.encoding(PARAMETERS, 2.0**12)
    assert np.median(error.std(axis=0)) < 0.1 * np.sqrt(coarse)
    assert np.median(np.abs(error.mean(axis=0))) == pytest.approx(0.6745 * coarse**0.5, rel=0.1)


def test_a_number_is_rounded_less_than_a_vector_and_zero_not_at_all() -> None:
    def product(number: float) -> Program:
        def build(b: Builder, x: Value) -> Value:
            encode = he.Encode(value=b.constant(np.array([number])), period=1)
            p = _managed(b, encode, 2, 2.0**12)
            return _managed(b, he.MulPlain(x=x, p=p), 2, SCALES[2] * 2.0**12)

        return _program(build)

    assert np.abs(np.median(_error(product(0.3)) / X)) < 2e-4
    assert not _error(product(0.0)).any()


@pytest.mark.parametrize("mask_bits", [0, 45])
def test_refresh_pays_for_encryptions_and_two_roundings_but_no_mask(mask_bits: int) -> None:
    """Masked values go up with an encryption of zero, which is as noisy as a rescale."""

    def build(b: Builder, x: Value) -> Value:
        low = _managed(b, he.DropLevel(x=x, levels=1), 1, SCALES[2])
        return _managed(b, he.Refresh(xs=(low,), mask_bits=mask_bits), 2, SCALES[2])

    expected = FRESH + 2 * noise.encoding(PARAMETERS, SCALES[2])
    expected += noise.symmetric_encryption(PARAMETERS, SCALES[2])
    expected += noise.rescale(PARAMETERS, SCALES[2]) * (mask_bits > 0)
    assert _error(_program(build)).var() == pytest.approx(expected, rel=0.05)


def test_refresh_takes_slots_of_several_values_after_averaging_their_copies() -> None:
    """Slots 3 and 1 of x, a zero, slot 0 of 2 x; x has a period of 4."""
    gather = np.array([[0, 0, -1, 1] * 2, [3, 1, 0, 0] * 2])

    def build(b: Builder, x: Value) -> Value:
        double = _managed(b, he.Add(x=x, y=x), 2, SCALES[2])
        table = b.constant(gather.astype(float))
        op = he.Refresh(xs=(x, double), period=8, gather=table, mask_bits=0)
        return _managed(b, op, 2, SCALES[2])

    b = Builder(name="m")
    op = he.Input(label="x", dims=(4,), period=4, first=0, count=4)
    y = build(b, _managed(b, op, 2, SCALES[2]))
    b.keep(he.Output(xs=(y,), label="y", dims=(8,)))
    program = b.finish(parameters=PARAMETERS)
    inputs = {"x": np.tile(X[:, :4], (20, 1))}
    exact = run_program_slots(program, inputs)["y"]
    np.testing.assert_array_equal(exact[0, :4], [X[0, 3], X[0, 1], 0.0, 2 * X[0, 0]])
    error = run_program_noisy(program, inputs)["y"] - exact
    np.testing.assert_allclose(error[:, 0] - error[:, 4], 0.0, atol=8 * np.sqrt(FRESH))
    before = noise.encoding(PARAMETERS, SCALES[2], 4)
    before += noise.encryption(PARAMETERS, SCALES[2], 2) / (SLOTS / 4)
    after = 2 * noise.encoding(PARAMETERS, SCALES[2], 8)
    after += noise.symmetric_encryption(PARAMETERS, SCALES[2]) / (SLOTS / 8)
    expected = after + before * np.array([1, 1, 0, 4] * 2)
    np.testing.assert_allclose(error.var(axis=0), expected, rtol=0.4)


def test_equal_seeds_give_equal_results() -> None:
    program = _program(lambda b, x: _managed(b, he.Rotate(x=x, steps=1), 2, SCALES[2]))
    np.testing.assert_array_equal(_error(program, 3, 2), _error(program, 3, 2))
    assert (_error(program, 3, 2) != _error(program, 4, 2)).any()


def test_programs_without_parameters_or_levels_are_refused() -> None:
    program = _program(lambda b, x: x)
    with pytest.raises(ProgramError, match="has no parameters; run choose-parameters"):
        run_program_noisy(program.replace(parameters=None), {"x": X})
    b = Builder(name="m")
    x = b.emit(he.Input(label="x", dims=(4,), period=4, first=0, count=4))
    b.keep(he.Output(xs=(x,), label="y", dims=(4,)))
    bare = b.finish(parameters=PARAMETERS)
    with pytest.raises(ProgramError, match="has no level and scale; run assign-scales"):
        run_program_noisy(bare, {"x": X[:, :4]})
