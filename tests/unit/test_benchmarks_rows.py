"""The benchmarks' rows: which are measured, how results are merged, split and judged."""

from __future__ import annotations

from typing import Any

import pytest

from hecompile.config import CompileOptions
from hecompile.costs import Profile, Spent
from hecompile.estimate import Estimate
from hecompile.runtime.profiling import TRANSFER
from hecompile.runtime.usage import Phase
from tests.benchmarks.cases import MissingError, widths
from tests.benchmarks.plain import LARGEST, PROGRAMS, RINGS, choose_ring
from tests.benchmarks.rounds import medians
from tests.benchmarks.rows import EVERY, MAIN, choose, find
from tests.benchmarks.run import broken, merge
from tests.benchmarks.split import REST, split
from tests.unit.benchmark_rows import measured


def test_every_row_can_be_measured() -> None:
    assert len({row.name for row in EVERY}) == len(EVERY)
    for row in EVERY:
        assert CompileOptions(**row.options).batch == row.batch
        assert row.plain is None or row.plain in PROGRAMS
        assert row.plain is None or row.batch == 1
        assert find(row.name) is row


def test_choosing_rows() -> None:
    assert choose([], quick=False, slow=True) == EVERY
    usual = choose([], quick=False)
    (slow,) = (row for row in EVERY if row not in usual)
    assert slow.options["refresh"] == "never"
    assert choose([slow.name], quick=False) == (slow,)
    quick = choose([], quick=True)
    assert [row for row in MAIN if not row.heavy] == [*quick] != [*MAIN]
    chosen = [row.name for row in choose(["cryptonets", " DiabetesMLP", "BATCH 1"], quick=True)]
    assert chosen == ["CryptoNets 1e-3", "CryptoNets 1e-6", "DiabetesMLP", "CryptoNets x4096",
                      "batch 1"]  # fmt: skip
    with pytest.raises(ValueError, match="no row's name begins with 'nets'"):
        choose(["Nets"], quick=False)
    with pytest.raises(ValueError, match="there is no row 'CryptoNets'"):
        find("CryptoNets")


def test_merging_keeps_the_order_and_prefers_new_rows() -> None:
    old = [measured("CryptoNets 1e-6"), measured("DiabetesMLP") | {"measured_error": 0.5}]
    new = [measured("DiabetesMLP"), measured("CryptoNets 1e-3")]
    merged = merge(old, new)
    assert [found["row"] for found in merged] == ["CryptoNets 1e-3", "CryptoNets 1e-6",
                                                  "DiabetesMLP"]  # fmt: skip
    assert merged[2]["measured_error"] == 1e-5


def test_what_is_broken_is_told() -> None:
    good = measured()
    rows: list[dict[str, Any]] = [
        good,
        good | {"row": "worse", "measured_error": 2e-3},
        good | {"row": "no number", "measured_error": float("nan")},
        {"row": "crashed", "failed": "exit code 1"},
        {"row": "absent", "skipped": "no torch"},
        good | {"row": "noisy", "polynomial_error": 6e-4},
    ]
    told = [line.partition(":")[0] for line in broken(rows)]
    assert told == ["crashed", "worse", "no number", "noisy"]


def test_medians_are_taken_of_each_by_itself() -> None:
    phases = [Phase(1.0, 9.0), Phase(2.0, 2.0), Phase(3.0, 3.0)]
    assert medians(phases) == {"cpu": 2.0, "wall": 3.0}


def test_split_adds_up_levels_and_keeps_the_rest_last() -> None:
    predicted = _estimate(
        {("he.rotate", 2): 0.2, ("he.rotate", 1): 0.1, ("he.input", 2): 0.01, ("he.mul", 1): 0.05}
    )
    operations = {
        ("he.mul", 1): Spent(4, 0.2),
        ("he.rotate", 2): Spent(12, 0.6),
        ("he.rotate", 1): Spent(8, 0.2),
        (TRANSFER, 0): Spent(2, 3.0),
    }
    shares = split(predicted, Profile("p", 2, operations))
    assert [share.operation for share in shares] == ["he.rotate", "he.mul", REST]
    assert shares[0].count == 10
    assert shares[0].predicted == pytest.approx(0.3)
    assert shares[0].measured == pytest.approx(0.4)
    assert shares[2].predicted == pytest.approx(0.01)
    assert shares[2].measured == pytest.approx(1.5)


def _estimate(seconds: dict[tuple[str, int], float]) -> Estimate:
    return Estimate(
        op_counts={},
        op_counts_by_level={},
        key_switches=0,
        rotation_steps=(),
        galois_key_bytes=0,
        refreshes=0,
        refreshed_ciphertexts=0,
        evaluator_seconds=sum(seconds.values()),
        client_seconds=0.0,
        weight_bytes=0,
        memory_bytes=0,
        input_bytes=0,
        output_bytes=0,
        seconds_by_operation=seconds,
    )


@pytest.mark.parametrize(
    ("depth", "slots", "degree", "inner"),
    [(5, 48, 8192, 26), (6, 4096, 8192, 26), (6, 5408, 16384, 40), (7, 32, 16384, 40),
     (14, 32, 16384, 26), (15, 32, 32768, 40)],
)  # fmt: skip
def test_plain_programs_take_the_first_ring_that_is_large_enough(
    depth: int, slots: int, degree: int, inner: int
) -> None:
    ring = choose_ring(depth, slots)
    assert (ring.degree, ring.inner) == (degree, inner)
    assert sum(ring.bits(depth)) <= LARGEST[degree]


def test_no_ring_is_deep_enough_for_everything() -> None:
    with pytest.raises(ValueError, match="a depth of 99"):
        choose_ring(99, 1)
    assert {ring.degree for ring in RINGS} == {*LARGEST}


@pytest.mark.parametrize("name", ["dense-", "dense-12", "dense-12-x", "dense-12-0", "dense-1--2"])
def test_dense_models_have_two_numbers_or_more(name: str) -> None:
    with pytest.raises(MissingError):
        widths(name)
