"""The tables of recurrent networks: lines through the steps, growth of errors, the page."""

from __future__ import annotations

import pytest

from tests.benchmarks import recurrent_tables as tables
from tests.benchmarks.cases import MissingError, make_case
from tests.benchmarks.performance import page
from tests.benchmarks.plots import curves
from tests.benchmarks.rows import EVERY, RECURRENT
from tests.unit.benchmark_rows import by_steps, document, measured


def test_a_line_is_found_and_its_largest_deviation() -> None:
    steps = [4.0, 8.0, 16.0, 32.0]
    line = tables.fit_line(steps, [0.5 + 0.25 * n for n in steps])
    assert (line.slope, line.constant) == pytest.approx((0.25, 0.5))
    assert line.deviation < 1e-9
    bent = tables.fit_line(steps, [n * n for n in steps])
    assert bent.deviation > 0.3


def test_lines_are_fitted_from_four_steps_on_at_the_speed_of_the_cost_table() -> None:
    rows = by_steps(0.25, 0.5, 4, 8, 16, 32)
    odd = by_steps(9.0, 9.0, 1, 2)
    (evaluator, *_) = tables.line_rows([*odd, *rows])
    assert evaluator == ("evaluator, CPU / machine", "250 ms", "500 ms", "0.0%")
    assert tables.span(rows) == "4 to 32 steps"
    assert tables.line_rows([*odd, *rows[:2]]) == tables.growth_rows(rows[:2]) == []


def test_growth_is_between_the_ends() -> None:
    rows = by_steps(0.25, 0.5, 32, 4, 8)
    rows[0]["measured_error"] = 3e-5
    assert tables.growth_rows(rows)[-1] == ("error measured", "1.0e-05", "3.0e-05", "3.00")


def test_every_column_is_in_the_text_and_on_the_page() -> None:
    rows = [*by_steps(0.25, 0.5, 1, 4, 8, 16), measured("GRU 12 steps", "recurrent", 1)]
    told, written = tables.text(rows), page(document(*rows), ["steps"])
    for column in (*tables.COLUMNS, *tables.FURTHER):
        assert column.head in told
        assert column.head in written
    assert "performance/steps.svg" in written
    assert "| 16 | 7.2 s |" in written
    assert "| 2 / 3 | 200.0 kB / 300.0 kB |" in written
    assert "| evaluator, CPU / machine | 250 ms | 500 ms | 0.0% |" in written
    assert "- steps 32: not measured" in written
    assert "client and key holder" in curves(rows, "steps")
    assert "Recurrent networks" not in page(document(measured()), [])
    assert tables.text([measured()]) == ""


def test_steps_are_rows_of_the_reference_model() -> None:
    names = {row.model for row in RECURRENT}
    assert {"CNNLSTM-1", "CNNLSTM-32", "BiLSTM-24", "GRU-12", "RNN-12"} <= names
    assert {row.options["degree"] for row in RECURRENT} == {3}
    assert [row.name for row in EVERY if row.slow] == ["CNNLSTM 4 steps without refresh"]


@pytest.mark.parametrize("name", ["GRU-0", "GRU-x", "CNNLSTM-", "Transformer-4"])
def test_models_of_no_steps_are_none(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(MissingError, match="no model of this name"):
        make_case(name, tmp_path_factory.mktemp("none"), 1)
