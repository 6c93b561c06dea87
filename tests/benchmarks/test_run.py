"""The benchmark program itself: one small model, its table and its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hecompile.runtime.run import PHASES
from tests.benchmarks.cases import reference_file
from tests.benchmarks.measure import PER_SAMPLE
from tests.benchmarks.run import ROWS, main


def test_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not reference_file().is_file():
        pytest.skip(f"no reference models: {reference_file()} is no file")
    pytest.importorskip("torch", reason="the reference models are written in torch")
    out = tmp_path / "bench.json"
    assert main(["--models", "DiabetesMLP", "--samples", "2", "--json", str(out)]) == 0
    table = capsys.readouterr().out
    for row in ROWS:
        assert row.name.strip() in table
    document = json.loads(out.read_text())
    (found,) = document["models"]
    assert document["machine"]["cores"] >= 1
    assert document["machine"]["rotation_seconds"] > 1e-4
    assert set(found["phases"]) == {*PHASES} >= {*PER_SAMPLE}
    assert 0 < found["measured_error"] <= found["predicted_error"]
    assert found["measured_seconds"] == found["phases"]["evaluate"]["cpu"] > 0
    assert found["key_bytes"]["evaluation"] > found["key_bytes"]["secret"] > 0
    assert found["ciphertext_bytes"]["in"] > found["ciphertext_bytes"]["out"] > 0
    assert found["peak_memory_bytes"] > 10 << 20


def test_models_that_are_absent_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HECOMPILE_SHARED", str(tmp_path))
    assert main(["--models", "LeNet5", "--samples", "1"]) == 0
    assert "LeNet5: skipped: refmodels.py is not in the folder" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--models", "Nothing"], ["--samples", "0"]])
def test_wrong_words_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
