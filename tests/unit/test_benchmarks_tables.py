"""The benchmarks' figures on paper: cells, tables, the page."""

from __future__ import annotations

import pytest

from tests.benchmarks.others import CITATIONS, OTHERS
from tests.benchmarks.performance import markdown, page
from tests.benchmarks.plots import curves
from tests.benchmarks.rows import EVERY
from tests.benchmarks.tables import (
    LINES,
    absent,
    curve_table,
    good,
    lower_bound,
    main_table,
    over_bound,
    primes,
    report,
    seconds,
    speed_up,
)
from tests.unit.benchmark_rows import document, measured


def test_bound_and_ratios() -> None:
    found = measured()
    assert lower_bound(found) == pytest.approx(0.16)
    assert over_bound(found) == pytest.approx(1.25)
    assert speed_up(found) == pytest.approx(12.5)
    assert speed_up(found | {"plain": None}) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.0842, "84.2 ms"), (2.306, "2.31 s"), (0.0, "0 ms"), (1.0, "1 s")]
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("bits", "text"),
    [((30, 52, 52, 26, 54), "30 + 2x52 + 26 + 54"), ((31, 31), "2x31"), ((60,), "60"), ((), "")],
)
def test_primes(bits: tuple[int, ...], text: str) -> None:
    assert primes(bits) == text


def test_main_table_has_a_line_for_everything_and_breaks_into_columns() -> None:
    rows = [measured(str(i)) for i in range(5)]
    text = main_table(rows, columns=3)
    for line in LINES:
        assert text.count(line.name) >= 2
    assert "2.5 s, 12.5 times" in text
    # Rows of a curve are in another table.
    assert main_table([measured(series="batch")]) == ""


def test_rows_that_are_not_there_are_told_and_nothing_else() -> None:
    rows = [{"row": "A", "skipped": "no torch"}, {"row": "B", "failed": "exit code 1"}]
    assert good(rows) == []
    assert absent(rows) == report(rows) == "A: skipped: no torch\nB: failed: exit code 1\n"


def test_curves_have_all_lines_that_all_points_have() -> None:
    points = [measured(f"features {n}", "features", n) for n in (64, 16)]
    lines = curves(points, "features")
    assert lines["at"] == [16, 64]
    assert lines["plain TenSEAL"] == [2.5, 2.5]
    points[0]["plain"] = None
    assert "plain TenSEAL" not in curves(points, "features")
    assert curves(points, "layers")["at"] == []
    assert curve_table(points).count("features") == 2


def test_batches_are_shown_per_sample() -> None:
    assert curves([measured(series="batch", at=4)], "batch")["measured, per sample"] == [0.05]


def test_markdown() -> None:
    assert markdown(("a", "b"), [("1", "2")]) == "| a | b |\n|---|---:|\n| 1 | 2 |\n"


def test_page_says_what_was_measured_and_what_was_not() -> None:
    rows = [
        measured(),
        {"row": "LeNet5 degree 2", "skipped": "no torch"},
        measured("features 16", "features", 16),
    ]
    text = page(document(*rows), ["features"])
    assert text.startswith("# Performance\n")
    assert "| DiabetesMLP | 200 ms | 50 ms | 8192 / 214 |" in text
    assert "- LeNet5 degree 2: skipped: no torch\n" in text
    assert "- CryptoNets 1e-6: not measured\n" in text
    assert "DiabetesMLP: not measured" not in text
    assert "performance/features.svg" in text
    assert "performance/layers.svg" not in text
    assert "he.rotate, 10: 75%" in text
    assert all(name in text for name in CITATIONS)
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_a_page_of_nothing_has_no_curves() -> None:
    assert "Not measured." in page(document(), [])


def test_other_libraries_figures_are_for_rows_that_there_are_and_cited() -> None:
    names = {row.name for row in EVERY}
    for other in OTHERS:
        assert other.row in names
        assert other.name in CITATIONS
        assert other.seconds > 0
