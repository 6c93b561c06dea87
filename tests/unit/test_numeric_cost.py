from typing import Any

import pytest

from hecompile.errors import CompileError, InputError
from hecompile.numeric.cost import (
    DEFAULT_COST_MODEL,
    KEY_SWITCHES,
    OPERATIONS,
    CostModel,
    active_cost_model,
    using_cost_model,
)
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.wire import galois_key_file_bytes, packed_share

TABLE = {op: {8192: ((1, 1e-3), (2, 2e-3), (4, 8e-3))} for op in OPERATIONS}


def model(**changed: Any) -> CostModel:
    return CostModel("made up", TABLE | changed)


def test_points_are_met_and_interpolated_on_a_log_log_scale() -> None:
    found = model()
    for primes, seconds in ((1, 1e-3), (2, 2e-3), (4, 8e-3), (8, 32e-3)):
        assert found.seconds("rotate", 8192, primes) == pytest.approx(seconds)
    assert found.seconds("rotate", 8192, 3) == pytest.approx(2e-3 * (3 / 2) ** 2)


def test_a_single_point_is_prolonged_in_proportion() -> None:
    found = model(rotate={8192: ((2, 1e-3),)})
    assert found.seconds("rotate", 8192, 6) == pytest.approx(3e-3)


def test_rings_that_were_not_measured_follow_the_nearest() -> None:
    larger = model().seconds("rotate", 16384, 2)
    assert larger == pytest.approx(2e-3 * 2 * 14 / 13)


@pytest.mark.parametrize("op", sorted(OPERATIONS))
def test_three_polynomials_cost_half_as_much_again_where_it_matters(op: str) -> None:
    two, three = (DEFAULT_COST_MODEL.seconds(op, 8192, 3, n) for n in (2, 3))
    alike = KEY_SWITCHES | {
        "multiply", "square", "add_plain", "encode", "encode_scalar", "encrypt",
        "encrypt_symmetric", "decode", "galois_key", "galois_key_load",
    }  # fmt: skip
    assert three == pytest.approx(two if op in alike else 1.5 * two)


@pytest.mark.parametrize(
    ("op", "figures"),
    [
        # Milliseconds on a quiet core at (8192, 6), (16384, 13) and (32768, 26).
        ("rotate", (7.8, 61.0, 520.0)),
        ("multiply_plain", (0.4, 2.0, 10.0)),
        ("rescale", (1.5, 7.0, 34.0)),
        ("encrypt", (6.0, 25.0, 110.0)),
    ],
)
def test_the_shipped_table_is_near_single_measurements(op: str, figures: Any) -> None:
    places = ((8192, 6), (16384, 13), (32768, 26))
    for (degree, primes), figure in zip(places, figures, strict=True):
        seconds = DEFAULT_COST_MODEL.seconds(op, degree, primes)
        assert seconds == pytest.approx(figure * 1e-3, rel=0.25)


@pytest.mark.parametrize("op", sorted(OPERATIONS))
def test_shipped_costs_grow_with_ring_and_primes(op: str) -> None:
    for degree, top in ((4096, 3), (8192, 6), (16384, 13), (32768, 27)):
        costs = [DEFAULT_COST_MODEL.seconds(op, degree, primes) for primes in range(1, top + 1)]
        assert costs == sorted(costs)
        assert costs[0] > 0
    for primes in (2, 3):
        costs = [DEFAULT_COST_MODEL.seconds(op, n, primes) for n in (4096, 8192, 16384, 32768)]
        assert costs == sorted(costs)


def test_bad_questions_are_refused() -> None:
    with pytest.raises(CompileError, match="'bootstrap' has no known cost"):
        DEFAULT_COST_MODEL.seconds("bootstrap", 8192, 3)
    with pytest.raises(CompileError, match="0 primes left"):
        DEFAULT_COST_MODEL.seconds("rotate", 8192, 0)


@pytest.mark.parametrize(
    "rings",
    [
        {},
        {8191: ((1, 1e-3),)},
        {8192: ()},
        {8192: ((0, 1e-3),)},
        {8192: ((2, 1e-3), (1, 1e-3))},
        {8192: ((1, 1e-3), (1, 1e-3))},
        {8192: ((1, 0.0),)},
        {8192: ((1, -1.0),)},
        {8192: ((1, float("nan")),)},
        {8192: ((1, float("inf")),)},
    ],
)
def test_tables_that_are_none_are_refused(rings: Any) -> None:
    with pytest.raises(InputError, match="'rotate'"):
        model(rotate=rings)


def test_a_table_has_every_primitive_and_no_other() -> None:
    lacking = {op: rings for op, rings in TABLE.items() if op != "rotate"}
    with pytest.raises(InputError, match="rotate"):
        CostModel("lacking", lacking)
    with pytest.raises(InputError, match="bootstrap"):
        model(bootstrap=TABLE["rotate"])


def test_another_model_is_in_use_within_a_block_only() -> None:
    assert active_cost_model() is DEFAULT_COST_MODEL
    with using_cost_model(model()):
        assert active_cost_model().name == "made up"
    assert active_cost_model() is DEFAULT_COST_MODEL

    def fails() -> None:
        with using_cost_model(model()):
            raise InputError("out of the block")

    with pytest.raises(InputError):
        fails()
    assert active_cost_model() is DEFAULT_COST_MODEL


@pytest.mark.parametrize(
    ("bits", "saved"),
    # Bytes of a ciphertext of one prime at ring degree 8192, as SEAL wrote it.
    [(28, 71634), (30, 71915), (53, 122685)],
)
def test_compressed_sizes_are_near_what_was_written(bits: int, saved: int) -> None:
    assert 2 * 8192 * 8 * packed_share(bits) == pytest.approx(saved, rel=0.05)


def test_a_saved_key_is_half_a_key_compressed() -> None:
    parameters = Parameters(8192, (30,) * 7, 20)
    assert galois_key_file_bytes(parameters) == pytest.approx(1550217, rel=0.05)
    assert packed_share(60) == 1.0
