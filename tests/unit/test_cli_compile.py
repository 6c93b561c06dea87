from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hecompile.access.signing import SigningKey
from hecompile.cli.compile import parse_shapes
from hecompile.errors import UsageError
from hecompile.preprocess import Standardise, steps_to_json
from tests.unit.cli_calls import USERS, Caller, save_mlp, save_policy, weights

LAYERS = weights(1, 4, 3, 2)
REQUIRED = {
    "poly_modulus_degree",
    "coeff_modulus_bits",
    "security_bits",
}
KEYS = {
    "parameters", "depth", "levels", "op_counts", "key_switches", "galois_keys",
    "galois_key_bytes", "refreshes", "predicted_error", "predicted_seconds",
    "predicted_memory_bytes", "bundle", "policy",
}  # fmt: skip


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and samples, and nothing else."""
    monkeypatch.chdir(tmp_path)
    save_mlp(tmp_path / "m.onnx", LAYERS)
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.savez(tmp_path / "cal.npz", x=x, y=np.zeros(40))
    return tmp_path


def test_compile_prints_what_it_promises(place: Path, call: Caller) -> None:
    before = set(place.iterdir())
    found = call("compile", "m.onnx", "--calibration", "cal.npz", "-o", "b", "--json")
    assert found.document.keys() >= KEYS
    assert found.document["parameters"].keys() >= REQUIRED
    assert found.document["parameters"]["security_bits"] == 128
    assert "single-owner policy" in found.err
    assert set(place.iterdir()) - before == {place / "b"}
    shown = call("inspect", "b", "--json").document
    assert shown.keys() >= KEYS
    compiled = {k: v for k, v in found.document.items() if k in KEYS}
    assert {k: v for k, v in shown.items() if k in KEYS} == compiled
    text = call("inspect", "b").out
    for word in ("N = ", "depth", "rotation steps", "predicted error", "Galois keys", "sigmoid",
                 "owner", "cloud", "level"):  # fmt: skip
        assert word in text


def test_options_and_observers_reach_the_compiler(place: Path, call: Caller) -> None:
    governed = save_policy(place)
    steps = (Standardise((0.0, 0.0, 0.0, 0.0), (2.0, 2.0, 2.0, 2.0)),)
    (place / "pre.json").write_text(steps_to_json(steps))
    found = call(
        "compile", "m.onnx", "--calibration", "cal.npz", "-o", "b.hec", *governed,
        "--degree", 3, "--method", "chebyshev", "--margin", 0.2, "--ring", 8192, "--batch", 2,
        "--preprocess", "pre.json", "--timing", "--dump-dir", "dumps", "--print-after", "dce",
        "--pass", "cse,dce", "--json",
    )  # fmt: skip
    assert found.document["batch"] == 2
    assert found.document["activations"][0]["degree"] == 3
    assert found.document["users"]["anna"] == ["clinician"]
    assert "policy applies" not in found.err
    assert "// after" in found.err
    assert " s  changed" in found.err
    dumped = sorted(path.name for path in (place / "dumps").iterdir())
    assert dumped[0] == "00-input.hir"
    numbers = [int(name.partition("-")[0]) for name in dumped]
    assert numbers == list(range(len(dumped)))
    assert (place / "b.hec").is_file()
    call("inspect", "b.hec")


def test_polynomials_are_told_one_by_one_on_request(place: Path, call: Caller) -> None:
    words = ("compile", "m.onnx", "--calibration", "cal.npz", "--overwrite", "-o", "b")
    few, many = call(*words).err, call(*words, "--verbose").err
    assert "approximate: '" not in few
    assert "approximate: polynomials change the outputs" in few
    assert "approximate: '" in many


def test_a_policy_without_an_evaluator_is_warned_of(place: Path, call: Caller) -> None:
    governed = save_policy(place, users=USERS.replace('cloud = ["evaluator"]\n', ""))
    words = ("compile", "m.onnx", "--calibration", "cal.npz", "-o", "b", *governed)
    assert "warning: no user may evaluate program: " in call(*words).err
    assert "warning: no user may evaluate program: " in call("inspect", "b").out
    np.savez(place / "x.npz", x=np.zeros((1, 4)))
    found = call("run", "b", "--input", "x.npz", "--as", "anna", code=3)
    assert found.err.endswith("Access Denied: no user may evaluate program\n")


def test_overwrite_only_on_request(place: Path, call: Caller) -> None:
    words = ("compile", "m.onnx", "--calibration", "cal.npz", "-o", "b")
    call(*words)
    assert "exists already" in call(*words, code=1).err
    call(*words, "--overwrite")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--calibration", "missing.npz"], 1, "missing.npz"),
        (["--calibration", "text.npz"], 1, "text.npz"),
        (["--calibration", "empty.npz"], 1, "'x' is empty"),
        (["--calibration", "nan.npz"], 1, "nan"),
        (["--calibration", "other.npz"], 1, "'x' is missing"),
        (["--calibration", "wide.npz"], 1, "shape"),
        (["--policy", "missing.toml"], 1, "missing.toml"),
        (["--policy", "bad.toml"], 1, "bad.toml"),
        (["--precision", "0"], 2, "--precision"),
        (["--precision", "nan"], 2, "--precision"),
        (["--batch", "0"], 2, "--batch"),
        (["--ring", "1000"], 2, "--ring"),
        (["--method", "guess"], 2, "--method"),
        (["--mask-bits", "99"], 2, "--mask-bits"),
        (["--backend", "magic"], 2, "magic"),
        (["--input-shape", "x=4"], 2, "--input-shape"),
        (["--pass", "nope"], 1, "'nope'"),
        (["--load", "missing.py"], 1, "missing.py"),
        (["--preprocess", "missing.json"], 1, "missing.json"),
        (["--print-after", "nope"], 1, "'nope'"),
        (["--sign-key", "missing.pem"], 1, "missing.pem"),
        (["-o", "no/such/folder"], 1, "does not exist"),
        (["-o", "m.onnx"], 1, "exists already"),
    ],
)
def test_refusals_leave_nothing(
    place: Path, words: list[str], code: int, told: str, call: Caller
) -> None:
    x = np.zeros((3, 4), np.float32)
    (place / "text.npz").write_text("no npz")
    np.savez(place / "empty.npz", x=x[:0])
    np.savez(place / "nan.npz", x=x * np.nan)
    np.savez(place / "other.npz", z=x)
    np.savez(place / "wide.npz", x=np.zeros((3, 5), np.float32))
    (place / "bad.toml").write_text('format = 2\n[roles.a]\ninherits = "b"\n')
    before = sorted(place.rglob("*"))
    given = ["--calibration", "cal.npz", "-o", "b", *words]
    found = call("compile", "m.onnx", *given, code=code)
    assert told in found.err.splitlines()[-1].replace("NaN", "nan")
    assert not found.out
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_models_that_are_none(place: Path, content: bytes | None, call: Caller) -> None:
    model = place / "m.onnx"
    model.write_bytes(model.read_bytes()[:100] if content is None else content)
    found = call("compile", "m.onnx", "--calibration", "cal.npz", "-o", "b", code=1)
    assert "error: " in found.err
    assert not (place / "b").exists()


def test_a_precision_that_cannot_be_met_is_refused(place: Path, call: Caller) -> None:
    found = call(
        "compile", "m.onnx", "--calibration", "cal.npz", "-o", "b", "--precision", "1e-13", code=1
    )
    assert "precision" in found.err
    assert not (place / "b").exists()


def test_interrupted_compile_leaves_nothing(
    place: Path, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hecompile.bundle.writing as writing

    def stop(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "_fill", stop)
    before = sorted(place.iterdir())
    found = call("compile", "m.onnx", "--calibration", "cal.npz", "-o", "b", code=130)
    assert found.err.endswith("interrupted; nothing was written\n")
    assert sorted(place.iterdir()) == before


def test_sign_key_decides_who_is_trusted(place: Path, call: Caller) -> None:
    from tests.unit.cli_calls import save_signer

    secret, public = save_signer(place)
    keyid = SigningKey.load(secret).keyid
    call("compile", "m.onnx", "--calibration", "cal.npz", "-o", "b", "--sign-key", secret)
    refused = call("inspect", "b", code=4)
    assert keyid[:16] in refused.err
    assert "--trust" in refused.err
    call("inspect", "b", "--trust", public)
    assert keyid in call("trust", public).out
    assert keyid in call("trust").out
    call("inspect", "b")


def test_shapes_are_read() -> None:
    assert parse_shapes(["x:1x4x32", "a:b:2"]) == {"x": (1, 4, 32), "a:b": (2,)}
    for text in ("x", "x:", ":1", "x:1x", "x:0", "x:1xa", "x:-1"):
        with pytest.raises(UsageError):
            parse_shapes([text])
    with pytest.raises(UsageError):
        parse_shapes(["x:1", "x:2"])


def test_report_is_json_without_nan(place: Path, call: Caller) -> None:
    found = call("compile", "m.onnx", "--calibration", "cal.npz", "-o", "b", "--json")
    json.loads(found.out, parse_constant=lambda word: pytest.fail(word))
