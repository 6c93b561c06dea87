"""`hecompile calibrate`, and what reads what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hecompile.costs import default_cost_path, read_cost_model, write_cost_model
from hecompile.numeric.cost import DEFAULT_COST_MODEL, CostModel, Points
from tests.unit.cli_calls import Caller, save_mlp, weights

LAYERS = weights(1, 4, 3, 2)


def slowed(factor: float) -> dict[str, dict[int, Points]]:
    return {
        op: {n: tuple((p, s * factor) for p, s in points) for n, points in rings.items()}
        for op, rings in DEFAULT_COST_MODEL.table.items()
    }


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Caller:
    """Calls of a command line whose machine takes thrice the shipped costs."""
    monkeypatch.setattr("hecompile.runtime.primitives.measure_primitives", lambda **_: slowed(3.0))
    return Caller(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_mlp(tmp_path / "m.onnx", LAYERS, "Sigmoid")
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.savez(tmp_path / "cal.npz", x=x)
    return tmp_path


COMPILE = ("compile", "m.onnx", "--calibration", "cal.npz", "--degree", 3, "--overwrite",
           "-o", "b")  # fmt: skip


def test_what_calibrate_writes_compile_uses(place: Path, call: Caller) -> None:
    shipped = call(*COMPILE, "--json")
    assert shipped.document["cost_model"] == "shipped"
    assert "costs are those" not in shipped.err
    found = call("calibrate", "-o", "c.json", "--json").document
    assert found["pace"] == pytest.approx(3.0)
    assert found["milliseconds"]["rotate"]["8192/6"] == pytest.approx(3 * 7.8)
    assert not default_cost_path().exists()
    slow = call(*COMPILE, "--cost-model", "c.json", "--json")
    assert slow.document["cost_model"] == found["name"] == read_cost_model(Path("c.json")).name
    for name in ("predicted_seconds", "predicted_client_seconds", "predicted_keygen_seconds"):
        assert slow.document[name] == pytest.approx(3 * shipped.document[name])
    assert "costs are those of c.json: measured" in slow.err
    assert json.loads((place / "b/report.json").read_text())["cost_model"] == found["name"]
    assert found["name"] in call("inspect", "b").out


def test_the_default_place_is_used_and_told(place: Path, call: Caller) -> None:
    text = call("calibrate").out
    assert "takes 3.00 times what the shipped table says" in text
    assert f"wrote {default_cost_path()}" in text
    found = call(*COMPILE, "--json")
    assert found.document["cost_model"].startswith("measured 20")
    assert f"costs are those of {default_cost_path()}" in found.err


@pytest.mark.parametrize("where", ["named", "default"])
def test_a_broken_table_stops_compile(place: Path, call: Caller, where: str) -> None:
    path = default_cost_path() if where == "default" else place / "c.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"format": 1}')
    words = ("--cost-model", path) if where == "named" else ()
    found = call(*COMPILE, *words, code=1)
    assert f"{path}: the top level lacks the key 'name'" in found.err
    assert "make it again with hecompile calibrate" in found.err
    assert not (place / "b").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--max-key-memory", "1kB"), "--max-key-memory is 0.001 MB, and the least reached is "),
        (("--max-client-bytes", "10B"), "--max-client-bytes is 0.00001 MB, and the least"),
    ],
)
def test_limits_that_no_plan_keeps(
    place: Path, call: Caller, words: tuple[object, ...], told: str
) -> None:
    found = call(*COMPILE, *words, code=1)
    assert told in found.err
    assert not (place / "b").exists()


def test_limits_that_plans_keep_and_objectives(place: Path, call: Caller) -> None:
    limits = ("--max-key-memory", "1GB", "--max-client-bytes", "100MB")
    found = call(*COMPILE, *limits, "--optimize", "keys", "--json").document
    assert found["evaluation_key_bytes"] <= 10**9
    assert found["upload_bytes"] + found["download_bytes"] <= 10**8


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--max-key-memory", "lots"), "--max-key-memory is a size such as 500MB"),
        (("--max-client-bytes", "5"), "--max-client-bytes is a size such as 500MB"),
        (("--optimize", "speed"), "'speed' is not one of"),
    ],
)
def test_bad_words(place: Path, call: Caller, words: tuple[object, ...], told: str) -> None:
    assert told in call(*COMPILE, *words, code=2).err


def test_measured_beside_predicted(place: Path, call: Caller) -> None:
    call(*COMPILE)
    said = call("keygen", "b", "-o", "keys", "--secret-dir", "safe", "--as", "owner").err
    assert "Galois key" in said.partition("generating")[0]
    assert "CPU s to make" in said.partition("generating")[0]
    np.savez("x.npz", x=np.random.default_rng(1).normal(size=(2, 4)))
    call("encrypt", "b", "--keys", "keys/public", "--input", "x.npz", "-o", "i", "--as", "owner")
    call("evaluate", "b", "--keys", "keys/evaluation", "--input", "i", "-o", "o", "--as", "cloud",
         "--profile", "p.json")  # fmt: skip
    found = call("inspect", "b", "--measured", "p.json", "--json").document
    assert found["cost_model"] == "shipped"
    rows = {(row["operation"], row["level"]): row for row in found["operations"]}
    assert rows["transfer", 0]["count"] == 2
    relinearized = [row for name, row in rows.items() if name[0] == "he.relinearize"]
    assert sum(row["count"] for row in relinearized) % 2 == 0
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["measured"] / row["predicted"])
    for part in ("predicted", "measured"):
        assert found[part] == pytest.approx(sum(row[part] for row in rows.values()))
    write_cost_model(Path("c.json"), CostModel("thrice", slowed(3.0)))
    words = ("inspect", "b", "--measured", "p.json", "--cost-model", "c.json")
    slow = call(*words, "--json").document
    assert slow["predicted"] == pytest.approx(3 * found["predicted"])
    assert slow["measured"] == found["measured"]
    text = call(*words).out
    assert "predicted by the cost model 'thrice'" in text
    assert "transfer" in text
    assert "\n  all " in text


def test_profiles_of_other_programs_are_refused(place: Path, call: Caller) -> None:
    call(*COMPILE)
    row = {"operation": "he.add", "level": 0, "count": 1, "seconds": 1.0}
    document = {"format": 1, "program": "f" * 64, "evaluations": 1, "operations": [row]}
    Path("p.json").write_text(json.dumps(document))
    assert "another program" in call("inspect", "b", "--measured", "p.json", code=1).err
    assert "--measured" in call("inspect", "b", "--cost-model", "c.json", code=2).err
