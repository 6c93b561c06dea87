"""Primes that stand for several levels: random programs keep their meaning and pass every check."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hecompile.chains import MARGINS, Demand, chain
from hecompile.errors import CompileError, PassError
from hecompile.estimate import estimate
from hecompile.interpret.noisy import run_program_noisy
from hecompile.interpret.slots import run_program_slots, trace_slots
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import Layout
from hecompile.levels import program_depth, reads_top
from hecompile.numeric.parameters import Parameters
from hecompile.passbase import Context
from hecompile.passes.assign_scales import assign
from hecompile.passes.choose_parameters import ChooseParameters
from hecompile.passes.insert_management import InsertManagement
from hecompile.pipeline import parse_pipeline
from hecompile.placement import POLICIES
from hecompile.precision import missing_headroom, predict_noise

PERIOD = 8
SAMPLES = np.random.default_rng(5).uniform(-1, 1, (12, PERIOD))
CHECKS = parse_pipeline("check-levels,check-scales,check-parameters,check-precision")
RING, SCALE_BITS = 32768, 30


class Random:
    """Draws a program of every operation with values about 1."""

    def __init__(self, seed: int, steps: int = 14) -> None:
        self.random = np.random.default_rng(seed)
        self.build = Builder(name=f"random {seed}")
        place = {"period": PERIOD, "first": 0, "count": PERIOD, "stride": 1}
        first = self.build.emit(he.Input(label="x", dims=(PERIOD,), **place), "x")  # type: ignore[arg-type]
        self.values = [first]
        for _ in range(steps):
            self.values.append(self.step())
        layout = Layout(0, PERIOD)
        for label, value in zip("yz", self.values[-2:], strict=True):
            one = self.plain(he.MulPlain, value)
            placed = self.build.annotate(one, layout=layout)
            self.build.keep(he.Output(xs=(placed,), label=label, dims=(PERIOD,)))

    def program(self) -> Program:
        return parse_pipeline("dce,calibrate-slots").run(self.build.finish(), Context(INPUTS))

    def pick(self) -> Value:
        return self.values[
            int(self.random.integers(max(0, len(self.values) - 5), len(self.values)))
        ]

    def plain(self, kind: type[he.PlainBinary], value: Value) -> Value:
        size = int(self.random.choice([1, PERIOD]))
        constant = self.build.constant(self.random.uniform(-1, 1, size), "c")
        encoded = self.build.emit(he.Encode(value=constant, period=size))
        return self.build.emit(kind(x=value, p=encoded))

    def step(self) -> Value:
        emit = self.build.emit
        match int(self.random.integers(8)):
            case 0 | 1:
                return emit(he.Mul(x=self.pick(), y=self.pick()))
            case 2:
                return self.plain(he.MulPlain, self.pick())
            case 3:
                return self.plain(he.AddPlain, self.pick())
            case 4:
                return emit(he.Rotate(x=self.pick(), steps=int(self.random.integers(1, PERIOD))))
            case 5:
                xs = tuple(self.pick() for _ in range(3))
                rows = self.build.constant(self.random.uniform(-0.5, 0.5, (3, PERIOD)), "w")
                return emit(he.SumMulPlain(xs=xs, weights=rows, period=PERIOD))
            case 6:
                x, y = self.pick(), self.pick()
                # What is subtracted from itself hides nothing, and the checks refuse it.
                return emit(he.Sub(x=x, y=y) if x != y else he.Negate(x=x))
            case _:
                return emit(he.Add(x=self.pick(), y=self.pick()))


INPUTS = {"x": SAMPLES}


def planned(program: Program, units: tuple[int, ...], policy: str) -> Program:
    bits = [count * SCALE_BITS for count in units]
    parameters = Parameters(RING, (*bits, 60), SCALE_BITS, level_units=units)
    chosen = program.replace(parameters=parameters)
    return assign(InsertManagement(rescale=policy).run(chosen, Context()), parameters)


@pytest.mark.parametrize("seed", range(24))
def test_grouped_and_single_primes_mean_the_same(seed: int) -> None:
    program = Random(seed).program()
    exact = run_program_slots(program, INPUTS)
    demand = Demand.of(program)
    for number, units in enumerate(demand.groupings()):
        if max(units) > 2:
            continue
        wide = (2, *units[1:]) if units[0] == 1 else units
        finished = planned(program, wide, POLICIES[(seed + number) % 3])
        # q_0 has no headroom here, and random values need some.
        if max(missing_headroom(finished).values()) <= 0:
            CHECKS.run(finished, Context(INPUTS))
        else:
            parse_pipeline("check-levels,check-scales,check-parameters").run(finished, Context())
        found = run_program_slots(finished, INPUTS)
        for label, expected in exact.items():
            np.testing.assert_allclose(found[label], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_any_grouping_carries_any_program(seed: int) -> None:
    """Products of ciphertexts wait for the top of a group, whatever the groups."""
    program = Random(seed).program()
    random = np.random.default_rng(seed)
    for _ in range(4):
        units = (2, *(int(u) for u in random.integers(1, 3, 2 * program_depth(program))))
        if sum(units) * SCALE_BITS > 800:
            continue
        finished = planned(program, units, "early")
        parse_pipeline("check-levels,check-scales,check-parameters").run(finished, Context())
        exact, found = run_program_slots(program, INPUTS), run_program_slots(finished, INPUTS)
        for label, expected in exact.items():
            np.testing.assert_allclose(found[label], expected, rtol=0, atol=1e-9)


def mlp(width: int = 16) -> Program:
    """Plain, square, plain, square, plain: five levels, of which two have squares."""
    random = np.random.default_rng(0)
    build = Builder(name="mlp")
    place = {"period": width, "first": 0, "count": width, "stride": 1}
    value = build.emit(he.Input(label="x", dims=(1, width), **place), "x")  # type: ignore[arg-type]
    for layer in range(3):
        # The client packs what the first layer would rotate.
        steps = range(1, 4) if layer else ()
        turned = [value, *(build.emit(he.Rotate(x=value, steps=s)) for s in steps)]
        rows = build.constant(random.normal(size=(len(turned), width)) / 2, "w")
        value = build.emit(he.SumMulPlain(xs=tuple(turned), weights=rows, period=width))
        step = width // 2
        while step > 3:
            other = build.emit(he.Rotate(x=value, steps=step))
            value = build.emit(he.Add(x=value, y=other))
            step //= 2
        if layer < 2:
            value = build.emit(he.Mul(x=value, y=value))
    value = build.annotate(value, layout=Layout(0, width))
    build.keep(he.Output(xs=(value,), label="y", dims=(1, width)))
    return build.finish()


@pytest.fixture(scope="module")
def samples() -> Context:
    return Context({"x": np.random.default_rng(1).normal(size=(40, 1, 16)) / 4})


@pytest.fixture(scope="module")
def network(samples: Context) -> Program:
    return parse_pipeline("calibrate-slots").run(mlp(), samples)


def test_groupings_have_their_tops_where_ciphertexts_are_multiplied(network: Program) -> None:
    demand = Demand.of(network)
    assert demand.depth == 5
    assert demand.tops == {2, 4}
    groupings = demand.groupings()
    assert {(1, 1, 1, 1, 1, 1), (1, 2, 2, 1), (2, 1, 2, 1), (3, 2, 1)} <= set(groupings)
    for units in groupings:
        tops = set(np.cumsum(units) - 1)
        assert {2, 4, 5} <= tops
        assert sum(units) == 6


def test_fewer_primes_cost_less_and_late_rescales_are_quieter(
    network: Program, samples: Context
) -> None:
    seen = trace_slots(network, samples.calibration or {})
    seconds: dict[tuple[int, ...], float] = {}
    for units in ((1, 1, 1, 1, 1, 1), (1, 2, 2, 1), (2, 1, 2, 1)):
        parameters = chain(16384, 26, units, 8, 10)
        assert parameters is not None
        noise, cost = [], []
        for policy in ("early", "late"):
            managed = InsertManagement(rescale=policy).run(
                network.replace(parameters=parameters), samples
            )
            finished = assign(managed, parameters)
            CHECKS.run(finished, samples)
            noise.append(max(n.bound for n in predict_noise(finished, seen)))
            cost.append(estimate(finished).evaluator_seconds)
            found = run_program_noisy(finished, {"x": samples.calibration["x"][:4]})  # type: ignore[index]
            exact = run_program_slots(finished, {"x": samples.calibration["x"][:4]})  # type: ignore[index]
            assert np.abs(found["y"] - exact["y"]).max() <= noise[-1]
        assert noise[1] < noise[0]
        assert cost[0] <= cost[1]
        seconds[units] = cost[0]
    single = seconds.pop((1, 1, 1, 1, 1, 1))
    assert all(cost < 0.8 * single for cost in seconds.values())


def test_inside_a_group_nothing_is_rescaled_or_relinearized_early(network: Program) -> None:
    parameters = chain(16384, 26, (1, 2, 2, 1), 8, 10)
    assert parameters is not None
    managed = InsertManagement().run(network.replace(parameters=parameters), Context())
    finished = assign(managed, parameters)
    squares = finished.select(he.Mul)
    assert [he.cipher_type(op.defined).level for op in squares] == [2, 1]
    for op in squares:
        users = finished.users[op.defined.name]
        assert not any(isinstance(user, he.Rescale) for user in users)
    assert {he.cipher_type(op.x).level for op in finished.select(he.Rescale)} == {3, 2, 1}


def sum_of_squares() -> Program:
    """Squares weighted by plaintexts, then summed: one relinearization is enough."""
    build = Builder(name="sum of squares")
    values: list[Value] = []
    for label in "ab":
        place = {"period": 4, "first": 0, "count": 4, "stride": 1}
        x = build.emit(he.Input(label=label, dims=(1, 4), **place), label)  # type: ignore[arg-type]
        square = build.emit(he.Mul(x=x, y=x))
        rows = build.constant(np.arange(1.0, 5.0)[None] + len(values), "w")
        values.append(build.emit(he.SumMulPlain(xs=(square,), weights=rows, period=4)))
    total = build.emit(he.Add(x=values[0], y=values[1]))
    total = build.annotate(total, layout=Layout(0, 4))
    build.keep(he.Output(xs=(total,), label="y", dims=(1, 4)))
    parameters = Parameters(8192, (58, 60), 16, level_units=(3,))
    return build.finish(parameters=parameters)


def test_products_with_plaintexts_take_three_polynomials() -> None:
    program = sum_of_squares()
    assert program.parameters is not None
    finished = assign(InsertManagement().run(program, Context()), program.parameters)
    parse_pipeline("check-levels,check-scales").run(finished, Context())
    assert len(finished.select(he.Relinearize)) == 1
    assert {he.cipher_type(op.defined).polynomials for op in finished.select(he.SumMulPlain)} == {3}


def test_the_cheapest_grouping_that_is_precise_enough_is_chosen(
    network: Program, samples: Context
) -> None:
    chosen = ChooseParameters(ring=16384, noise=1e-3).run(network, samples)
    assert chosen.parameters is not None
    assert max(chosen.parameters.level_units) > 1
    finished = parse_pipeline("assign-scales").run(chosen, samples)
    CHECKS.run(finished, samples)
    seen = trace_slots(finished, samples.calibration or {})
    assert max(n.bound for n in predict_noise(finished, seen)) <= 1e-3
    single = chain(16384, 28, (1,) * 6, 8, 10)
    assert single is not None
    other = assign(InsertManagement().run(network.replace(parameters=single), samples), single)
    assert estimate(finished).evaluator_seconds < estimate(other).evaluator_seconds
    assert ChooseParameters(ring=16384, noise=1e-3).run(chosen, samples) == chosen


def test_encrypted_weights_need_no_top() -> None:
    build = Builder(name="weights")
    place = {"period": 4, "first": 0, "count": 4, "stride": 1}
    value = build.emit(he.Input(label="x", dims=(4,), **place), "x")  # type: ignore[arg-type]
    value = build.emit(he.Mul(x=value, y=value))
    symbol = build.constant(np.arange(4.0), "w")
    weight = build.emit(he.Weight(source="w", period=4, value=symbol), "weight")
    value = build.emit(he.Mul(x=value, y=weight))
    value = build.emit(he.Add(x=value, y=weight))
    value = build.annotate(value, layout=Layout(0, 4))
    build.keep(he.Output(xs=(value,), label="y", dims=(4,)))
    program = build.finish()
    assert [reads_top(program, op) for op in program.select(he.Mul)] == [True, False]
    parameters = Parameters(8192, (30, 52, 60), 26, level_units=(1, 2))
    managed = InsertManagement().run(program.replace(parameters=parameters), Context())
    finished = assign(managed, parameters)
    parse_pipeline("check-levels,check-scales").run(finished, Context())
    inputs = {"x": np.random.default_rng(0).normal(size=(3, 4))}
    exact, found = run_program_slots(program, inputs), run_program_slots(finished, inputs)
    np.testing.assert_allclose(found["y"], exact["y"], atol=1e-12)
    scales = [he.cipher_type(op.defined).scale for op in finished.select(he.Weight)]
    assert len(scales) == 2


def test_management_for_other_primes_is_refused(network: Program) -> None:
    single, grouped = (1,) * 6, (1, 2, 2, 1)
    for one, other in itertools.permutations([single, grouped]):
        first, second = chain(16384, 26, one, 8, 10), chain(16384, 26, other, 8, 10)
        assert first is not None
        assert second is not None
        managed = InsertManagement().run(network.replace(parameters=first), Context())
        with pytest.raises(PassError, match="run insert-management"):
            assign(managed, second)


def test_chains_fit_the_table_or_are_none() -> None:
    for margin in MARGINS:
        found = chain(8192, 26, (1, 2, 2, 1), 4, margin)
        assert found is None or found.modulus_bits <= 214
    assert chain(8192, 31, (1, 2, 2, 1), 4, 0) is None
    assert chain(8192, 20, (3, 3, 3), 4, -20) is None
    with pytest.raises(PassError, match="rescale is early, few, late"):
        InsertManagement(rescale="never").run(mlp(), Context())
    with pytest.raises(CompileError, match=r"least noise reached|do not fit"):
        ChooseParameters(ring=4096, noise=1e-9).run(
            parse_pipeline("calibrate-slots").run(mlp(), Context({"x": np.ones((2, 1, 16))})),
            Context({"x": np.ones((2, 1, 16))}),
        )
