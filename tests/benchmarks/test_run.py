"""The benchmark program itself: one small row, its tables, its JSON and the page made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hecompile.runtime.run import PHASES
from tests.benchmarks.cases import make_case, reference_file
from tests.benchmarks.performance import page
from tests.benchmarks.plain import Dense, dense_layers
from tests.benchmarks.run import main
from tests.benchmarks.split import REST
from tests.benchmarks.tables import LINES


def test_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not reference_file().is_file():
        pytest.skip(f"no reference models: {reference_file()} is no file")
    pytest.importorskip("torch", reason="the reference models are written in torch")
    out = tmp_path / "bench.json"
    assert main(["--only", "features 16", "--rounds", "2", "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    (found,) = document["rows"]
    assert document["machine"]["cores"] >= 1
    assert document["machine"]["rotation_seconds"] > 1e-4
    assert set(found["phases"]) == {*PHASES}
    assert 0 < found["measured_error"] <= found["bound"] <= 1e-3
    assert found["measured_seconds"] == found["phases"]["evaluate"]["cpu"] > 0
    assert len(found["evaluate_rounds"]) == len(found["plain"]["evaluate_rounds"]) == 2
    assert found["plain"]["phases"]["evaluate"]["cpu"] > found["measured_seconds"]
    assert found["key_bytes"]["evaluation"] > found["key_bytes"]["secret"] > 0
    assert found["ciphertext_bytes"]["in"] > found["ciphertext_bytes"]["out"] > 0
    assert found["peak_memory_bytes"] > 10 << 20
    switches = sum(
        entry["count"]
        for entry in found["operations"]
        if entry["operation"] in ("he.rotate", "he.relinearize")
    )
    assert switches == found["report"]["key_switches"] > 0
    assert found["operations"][-1]["operation"] == REST
    assert "features 16" in capsys.readouterr().out
    assert "| 16 |" in page(document, ["features"])


def test_models_that_are_absent_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HECOMPILE_SHARED", str(tmp_path))
    assert main(["--only", "LeNet5", "--rounds", "1"]) == 0
    told = capsys.readouterr().out
    assert "LeNet5 degree 2: skipped: refmodels.py is not in the folder" in told
    assert not any(line.name in told for line in LINES)


@pytest.mark.parametrize("words", [["--only", "Nothing"], ["--rounds", "0"], ["--update"]])
def test_wrong_words_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


def test_a_dense_model_and_its_plain_program_agree(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the models are written in torch")
    case = make_case("dense-3-4-2", tmp_path, 5)
    assert case.samples.shape == (5, 3)
    program = Dense({name: array for name, array in case.weights.items()})
    assert program.depth == 3
    x = case.samples.astype(float)
    for i, (weight, bias) in enumerate(dense_layers(dict(case.weights))):
        x = (x * x if i else x) @ weight + bias
    assert abs(x - case.expected(case.samples)).max() < 1e-5
