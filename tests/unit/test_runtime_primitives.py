"""Measuring primitives: what is timed, and what becomes of drifts and noise. No clock is read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hecompile.numeric.cost import OPERATIONS, CostModel
from hecompile.runtime.primitives import Kernel, cpu_timer, measure_primitives


def counting(factors: Iterator[float]) -> tuple[list[Kernel], object]:
    """A timer that runs each kernel once and tells 1 ms times the next factor."""
    seen: list[Kernel] = []

    def timer(kernel: Kernel) -> float:
        kernel()
        seen.append(kernel)
        return 1e-3 * next(factors)

    return seen, timer


def _ones() -> Iterator[float]:
    while True:
        yield 1.0


def test_every_primitive_is_measured_on_real_operands() -> None:
    told: list[tuple[int, int]] = []
    _, timer = counting(_ones())
    table = measure_primitives(
        {4096: (1, 3)},
        timer,  # type: ignore[arg-type]
        lambda _task, done, total: told.append((done, total)),
    )
    found = CostModel("fake", table)
    assert set(found.table) == set(OPERATIONS)
    measured = set(OPERATIONS) - {name for name in OPERATIONS if name.startswith("scalar_matrix")}
    for name in measured:
        points = found.table[name][4096]
        primes = {"rescale": [3], "drop_level": [3], "galois_key": [2, 3]}
        assert [n for n, _ in points] == primes.get(name.removesuffix("_load"), [1, 3]), name
        assert [seconds for _, seconds in points] == pytest.approx([1e-3] * len(points))
    assert told == [(0, 1), (1, 1)]


def test_a_change_of_pace_cancels_out() -> None:
    """Every third timing is a kernel's, between two of the yardstick; the pace doubles midway."""

    def drifting() -> Iterator[float]:
        for n in range(10**6):
            pace = 1.0 if n < 90 else 2.0
            yield pace * (5.0 if n % 3 == 1 else 1.0)

    _, timer = counting(drifting())
    table = measure_primitives({4096: (2, 3)}, timer)  # type: ignore[arg-type]
    seconds = {s for op in ("rotate", "add", "encode") for _, s in table[op][4096]}
    assert max(seconds) == pytest.approx(min(seconds))
    assert min(seconds) in (pytest.approx(5e-3), pytest.approx(1e-2))


def test_costs_do_not_fall_where_a_prime_is_added() -> None:
    def falling() -> Iterator[float]:
        for n in range(10**6):
            yield 1.0 / (1.0 + n) if n % 3 == 1 else 1.0

    _, timer = counting(falling())
    table = measure_primitives({4096: (1, 2, 3)}, timer)  # type: ignore[arg-type]
    for rings in table.values():
        costs = [seconds for _, seconds in rings[4096]]
        assert costs == sorted(costs)


def test_the_clock_is_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr("time.process_time", lambda: next(ticks) * 1e-3)
    calls: list[int] = []
    assert cpu_timer(lambda: calls.append(1)) == pytest.approx(1e-3)
    assert 3 < len(calls) < 20
