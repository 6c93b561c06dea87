"""Slot passes: what refreshes, management and scales keep on programs deeper than the chain."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.errors import CompileError, PassError
from hecompile.interpret.noisy import run_program_noisy
from hecompile.interpret.slots import run_program_slots, trace_slots
from hecompile.interpret.tensor import run_tensor
from hecompile.ir import he_ops as he
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import SparseMap
from hecompile.ir.program import Builder, Program
from hecompile.levels import refreshed_depth
from hecompile.numeric.parameters import Parameters
from hecompile.passbase import Context
from hecompile.passes.assign_scales import AssignScales
from hecompile.passes.choose_parameters import ChooseParameters
from hecompile.passes.insert_refresh import InsertRefresh
from hecompile.passes.lower_to_slots import LowerToSlots
from hecompile.pipeline import Pipeline, parse_pipeline
from hecompile.precision import missing_headroom, predict_noise

PLAN = "lower-to-slots{slots=64},cse,plan-rotations,cse,dce,calibrate-slots"
FINISH = (
    "insert-management,assign-scales,cse,dce,"
    "check-levels,check-scales,check-parameters,check-precision"
)


def refreshed(levels: int, last: int | None = None, mask_bits: int = 20) -> str:
    """The plan with refreshes before it, after `levels` levels at most."""
    return f"insert-refresh{{levels={levels} last={last} mask_bits={mask_bits}}},dce,{PLAN}"


def recurrence(steps: int, size: int = 8, seed: int = 3) -> Program:
    """h <- (A h + B x)**2 with B x kept alive over all steps: two levels a step."""
    rng = np.random.default_rng(seed)
    build = Builder(name="recurrence")
    x = build.emit(tensor.Input(label="x", dims=(1, size)), "x")

    def affine(*values: tuple[object, float]) -> object:
        maps = []
        for _, weight in values:
            matrix = weight * rng.normal(size=(size, size)) / np.sqrt(size)
            maps.append(build.constant(SparseMap.from_dense(matrix).to_array(), "map"))
        bias = build.constant(0.1 * rng.normal(size=size), "bias")
        xs = tuple(v for v, _ in values)
        return build.emit(move.Affine(xs=xs, maps=tuple(maps), bias=bias, dims=(1, size)))  # type: ignore[arg-type]

    state = affine((x, 0.5))
    for _ in range(steps):
        state = affine((state, 0.4), (x, 0.4))
        state = build.emit(tensor.Mul(x=state, y=state))  # type: ignore[arg-type]
    build.keep(tensor.Output(x=state, label="y"))  # type: ignore[arg-type]
    return build.finish()


@pytest.fixture(scope="module")
def context() -> Context:
    rng = np.random.default_rng(0)
    return Context({"x": rng.normal(size=(16, 1, 8))})


@pytest.fixture(scope="module")
def planned(context: Context) -> Program:
    return parse_pipeline(PLAN).run(recurrence(5), context)


@pytest.mark.parametrize(
    ("bits", "levels"), [((40, 30, 30, 30, 44), 2), ((40, 30, 30, 30, 30, 44), 3)]
)
def test_refreshed_program_keeps_its_meaning(
    context: Context, bits: tuple[int, ...], levels: int
) -> None:
    """A value and its mask of 20 bits take q_0 and one more prime."""
    program = recurrence(5)
    planned = parse_pipeline(refreshed(levels, levels + 1)).run(program, context)
    chosen = planned.replace(parameters=Parameters(8192, bits, 30))
    finished = parse_pipeline(FINISH).run(chosen, context)
    samples = {"x": np.random.default_rng(1).normal(size=(4, 1, 8))}
    before, after = run_tensor(program, samples), run_program_slots(finished, samples)
    np.testing.assert_allclose(after["y"], before["y"], rtol=0, atol=1e-12)
    assert finished.select(he.Refresh)
    assert max(missing_headroom(finished).values()) <= 0


@pytest.mark.parametrize("levels", [2, 3, 5, 8])
def test_no_segment_is_deeper_than_asked(context: Context, levels: int) -> None:
    cut = parse_pipeline(refreshed(levels)).run(recurrence(5), context)
    assert refreshed_depth(cut).handed <= levels
    assert refreshed_depth(cut).left <= levels


def test_outputs_may_have_a_budget_of_their_own(context: Context) -> None:
    cut = parse_pipeline(refreshed(4, 1)).run(recurrence(5), context)
    assert refreshed_depth(cut).handed <= 4
    assert refreshed_depth(cut).left <= 1


def test_fewer_levels_never_need_fewer_rounds(context: Context) -> None:
    rounds = []
    for levels in (1, 2, 4, 6, 11):
        cut = InsertRefresh(levels=levels).run(recurrence(5), context)
        rounds.append(len({op.group for op in cut.select(move.Refresh)}))
    assert rounds == [10, 5, 2, 1, 0]


def test_what_stays_fresh_is_not_refreshed(context: Context) -> None:
    cut = InsertRefresh(levels=3).run(recurrence(5), context)
    refreshed = [op.x.name for op in cut.select(move.Refresh)]
    inputs = {op.defined.name for op in cut.select(tensor.Input)}
    assert not inputs & set(refreshed)
    assert len(refreshed) == len(set(refreshed))


def test_levels_are_the_lowest_that_users_allow(planned: Program, context: Context) -> None:
    chosen = planned.replace(parameters=Parameters(16384, (40, *[30] * 11, 44), 30))
    finished = parse_pipeline(FINISH).run(chosen, context)
    for op in finished:
        users = finished.users.get(op.result.name, ()) if op.result is not None else ()
        if not isinstance(op, he.Mul | he.SumMulPlain | he.Rotate | he.Relinearize) or not users:
            continue
        allowed = max(
            he.cipher_type(user.operands[0]).level or 0
            for user in users
            if not isinstance(user, he.DropLevel)
        )
        assert he.cipher_type(op.defined).level == allowed


def test_canonical_scales_differ_little_from_nominal_at_any_depth() -> None:
    parameters = Parameters(32768, (40, *[28] * 27, 44), 28)
    scales = [parameters.scale(level) for level in range(parameters.levels + 1)]
    assert max(scales) / min(scales) < 1.2
    for level in range(1, len(scales)):
        product = scales[level] ** 2 / parameters.primes[level]
        assert product == pytest.approx(scales[level - 1], rel=1e-12)


def test_choosing_meets_the_target_with_the_least_modulus(context: Context) -> None:
    planned = parse_pipeline(refreshed(3, mask_bits=30)).run(recurrence(5), context)
    bits = []
    for target in (1e-2, 1e-3, 1e-4):
        chosen = ChooseParameters(ring=16384, noise=target).run(planned, context)
        finished = parse_pipeline(FINISH).run(chosen, context)
        seen = trace_slots(finished, context.calibration or {})
        assert max(n.bound for n in predict_noise(finished, seen)) <= target
        assert chosen.parameters is not None
        bits.append(chosen.parameters.scale_bits)
    assert bits == sorted(bits)
    assert bits[0] < bits[-1]


def test_choosing_without_refreshes_refuses_with_depth_and_ring(
    planned: Program, context: Context
) -> None:
    with pytest.raises(CompileError, match=r"11 levels deep"):
        ChooseParameters(ring=8192).run(planned, context)


def test_scales_need_parameters(planned: Program, context: Context) -> None:
    with pytest.raises(PassError, match="run choose-parameters first"):
        AssignScales().run(planned, context)


def test_a_map_of_zeros_gives_its_bias() -> None:
    build = Builder(name="zeros")
    x = build.emit(tensor.Input(label="x", dims=(1, 4)), "x")
    maps = (build.constant(np.zeros((3, 0)), "map"),)
    bias = build.constant(np.array([1.0, -2.0]), "bias")
    y = build.emit(move.Affine(xs=(x,), maps=maps, bias=bias, dims=(1, 2)))
    build.keep(tensor.Output(x=y, label="y"))
    lowered = Pipeline((LowerToSlots(slots=8),)).run(build.finish(), Context())
    outputs = run_program_slots(lowered, {"x": np.ones((3, 1, 4))})
    np.testing.assert_array_equal(outputs["y"], np.tile([[1.0, -2.0]], (3, 1, 1)))


def test_noise_in_the_few_slots_that_live_is_not_averaged_away() -> None:
    """Of 256 features 16 are large, and every weight that is not zero meets one of them."""
    rng = np.random.default_rng(3)
    size, live = 256, 16
    build = Builder(name="live")
    value = build.emit(tensor.Input(label="x", dims=(1, size)), "x")
    for _ in range(3):
        matrix = np.zeros((size, size))
        matrix[:live, :live] = np.sign(rng.standard_normal((live, live))) / np.sqrt(live)
        maps = (build.constant(SparseMap.from_dense(matrix).to_array(), "map"),)
        bias = build.constant(np.zeros(size), "bias")
        value = build.emit(move.Affine(xs=(value,), maps=maps, bias=bias, dims=(1, size)))
        value = build.emit(tensor.Mul(x=value, y=value))
    build.keep(tensor.Output(x=value, label="y"))

    def samples(count: int, seed: int) -> dict[str, np.ndarray]:
        draw = np.random.default_rng(seed)
        x = np.full((count, 1, size), 1e-3)
        x[..., :live] = draw.uniform(0.9, 1.1, (count, 1, live)) * draw.choice([-1, 1], live)
        return {"x": x}

    context = Context(samples(40, 0))
    planned = parse_pipeline(PLAN.replace("slots=64", "slots=4096")).run(build.finish(), context)
    chosen = planned.replace(parameters=Parameters(16384, (40, *[26] * 6, 50), 26))
    finished = parse_pipeline(FINISH).run(chosen, context)
    seen = trace_slots(finished, context.calibration or {})
    (predicted,) = predict_noise(finished, seen)
    unseen = samples(8, 1)
    noise = run_program_noisy(finished, unseen)["y"] - run_program_slots(finished, unseen)["y"]
    assert np.abs(noise).max() <= predicted.bound
    assert predicted.bound <= 16 * np.abs(noise).max()
