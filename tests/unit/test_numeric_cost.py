from typing import Any

import pytest

from hecompile.errors import CompileError
from hecompile.numeric.cost import DEFAULT_COST_MODEL, KEY_SWITCHES

OPERATIONS = sorted(KEY_SWITCHES | set(DEFAULT_COST_MODEL.operations))


@pytest.mark.parametrize("op", ["rotate", "relinearize"])
def test_key_switches_follow_the_measurements(op: Any) -> None:
    for degree, points in DEFAULT_COST_MODEL.key_switch.items():
        for primes, milliseconds in points:
            assert DEFAULT_COST_MODEL.seconds(op, degree, primes) == pytest.approx(
                milliseconds * 1e-3
            )


@pytest.mark.parametrize(
    ("op", "figures"),
    [
        ("multiply_plain", (0.4, 2.0, 14.0)),
        ("rescale", (1.5, 6.0, 35.0)),
        ("encode", (0.8, 3.1, 19.0)),
        ("encrypt", (5.0, 25.0, 130.0)),
    ],
)
def test_other_operations_are_near_the_measurements(op: Any, figures: Any) -> None:
    for (degree, primes), figure in zip(
        ((8192, 6), (16384, 13), (32768, 27)), figures, strict=True
    ):
        seconds = DEFAULT_COST_MODEL.seconds(op, degree, primes)
        assert seconds == pytest.approx(figure * 1e-3, rel=0.25)


@pytest.mark.parametrize("op", OPERATIONS)
def test_cost_grows_with_ring_and_primes(op: Any) -> None:
    for degree, top in ((4096, 2), (8192, 6), (16384, 13), (32768, 27)):
        costs = [DEFAULT_COST_MODEL.seconds(op, degree, primes) for primes in range(1, top + 1)]
        assert costs == sorted(costs)
        assert costs[0] > 0
    for primes in (1, 2):
        costs = [DEFAULT_COST_MODEL.seconds(op, n, primes) for n in (4096, 8192, 16384, 32768)]
        assert costs == sorted(costs)


def test_bad_questions_are_refused() -> None:
    with pytest.raises(CompileError, match="'bootstrap' has no known cost"):
        DEFAULT_COST_MODEL.seconds("bootstrap", 8192, 3)
    with pytest.raises(CompileError, match="0 primes left"):
        DEFAULT_COST_MODEL.seconds("rotate", 8192, 0)
