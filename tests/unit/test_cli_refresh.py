"""A program that needs the key holder on its way, run by parties that share only files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.cli_calls import Caller, plain_mlp, save_mlp, weights

LAYERS = weights(4, 4, 4, 4, 2)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.fixture
def place(tmp_path: Path, call: Caller, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_mlp(tmp_path / "m.onnx", LAYERS)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "cal.npz", x=rng.normal(size=(60, 4)).astype(np.float32))
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(2, 4)).astype(np.float32))
    found = call(
        "compile", "m.onnx", "--calibration", "cal.npz", "-o", "b", "--ring", 8192,
        "--degree", 7, "--precision", 0.1, "--json",
    )  # fmt: skip
    assert found.document["refreshes"] >= 1
    call("keygen", "b", "-o", "keys", "--secret-dir", "vault")
    call("encrypt", "b", "--keys", "keys/public", "--input", "x.npz", "-o", "in.hect")
    return tmp_path


def test_refreshes_go_by_files(place: Path, call: Caller) -> None:
    words: list[object] = ["--input", "in.hect"]
    rounds = 0
    plan = call("inspect", "b", "--json").document["segments"]
    while True:
        step = call(
            "evaluate", "b", "--keys", "keys/evaluation", "-o", "out.hect", *words, "--json"
        )
        if step.document["status"] == "done":
            break
        rounds += 1
        request, state = step.document["request"], step.document["state"]
        assert Path(state).stat().st_mode & 0o077 == 0
        assert not (place / "out.hect").exists()
        call("refresh", "b", "--keys", "vault", "--input", request, "-o", "response")
        # Two samples are two evaluations, whose requests travel in one file.
        for file, bytes_ in ((request, "request_bytes"), ("response", "response_bytes")):
            predicted = 2 * plan[rounds - 1][bytes_]
            assert Path(file).stat().st_size == pytest.approx(predicted, rel=0.03)
        words = ["--resume", state, "--response", "response"]
    assert not Path(request).exists()
    assert len(plan) == rounds + 1
    document = call("inspect", "b", "--json").document
    assert rounds == document["refreshes"]
    assert not (place / "out.hect.state").exists()
    found = call("decrypt", "b", "--keys", "vault", "--input", "out.hect", "--json").document
    with np.load(place / "x.npz") as stored:
        expected = plain_mlp(LAYERS, stored["x"])
    worst = np.abs(np.array(found["raw_outputs"]["y"]) - expected).max()
    assert worst <= document["predicted_error"]


def test_a_request_is_told_and_guarded(place: Path, call: Caller) -> None:
    words = ("evaluate", "b", "--keys", "keys/evaluation", "-o", "out.hect", "--input", "in.hect")
    assert "have out.hect.request answered" in call(*words).out
    ask = ("refresh", "b", "--keys", "vault", "--input", "out.hect.request", "-o", "r")
    assert "Access Denied" in call(*ask, "--as", "cloud", code=3).err
    assert not (place / "r").exists()
    resume = ("evaluate", "b", "--keys", "keys", "-o", "o", "--resume", "out.hect.state")
    # The request itself is no answer.
    assert "error: " in call(*resume, "--response", "out.hect.request", code=4).err
    assert not (place / "o").exists()


def test_a_used_state_is_removed_under_whatever_name_it_goes_on(place: Path, call: Caller) -> None:
    words: list[object] = ["--input", "in.hect"]
    states: list[Path] = []
    for name in range(100):
        step = call(
            "evaluate", "b", "--keys", "keys/evaluation", "-o", f"o{name}.hect", *words, "--json"
        )
        left = {*place.glob("*.state"), *place.glob("*.request")}
        if step.document["status"] == "done":
            break
        request, state = place / step.document["request"], place / step.document["state"]
        assert left == {request, state}
        call("refresh", "b", "--keys", "vault", "--input", request, "-o", "response")
        states.append(state)
        words = ["--resume", state, "--response", "response"]
    assert len(states) >= 1
    assert not left
