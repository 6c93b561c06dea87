"""A program with two outputs, each granted to another role."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.unit.cli_calls import Caller, save_policy, weights

TOP, SIDE = weights(7, 4, 2)[0], weights(8, 4, 3)[0]
POLICY = """\
format = 2
[roles.clinician]
[roles.billing]
[roles.chief]
inherits = ["clinician", "billing"]
[roles.custodian]
[roles.evaluator]
[[permissions]]
role = "clinician"
actions = ["encrypt", "submit", "decrypt", "hold"]
objects = ["input:x", "output:risk", "key:secret"]
[[permissions]]
role = "billing"
actions = ["decrypt", "hold"]
objects = ["output:cost", "key:secret"]
[[permissions]]
role = "custodian"
actions = ["hold"]
objects = ["key:secret"]
[[permissions]]
role = "evaluator"
actions = ["evaluate"]
objects = ["program"]
"""
USERS = """\
format = 1
version = 1
[users]
anna = ["clinician"]
bill = ["billing"]
carl = ["chief"]
vault = ["custodian"]
cloud = ["evaluator"]
"""


def save_model(path: Path) -> None:
    """Write risk = x TOP, cost = x SIDE."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "top"], ["risk"], "head"),
            helper.make_node("MatMul", ["x", "side"], ["cost"], "tail"),
        ],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [
            helper.make_tensor_value_info("risk", TensorProto.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("cost", TensorProto.FLOAT, ["n", 3]),
        ],
        [numpy_helper.from_array(TOP, "top"), numpy_helper.from_array(SIDE, "side")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.fixture
def place(tmp_path: Path, call: Caller, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "cal.npz", x=rng.normal(size=(60, 4)).astype(np.float32))
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(2, 4)).astype(np.float32))
    words = ("--calibration", "cal.npz", *save_policy(tmp_path, POLICY, USERS), "-o", "b", "--json")
    call("compile", "m.onnx", *words)
    return tmp_path


def expected(place: Path, matrix: np.ndarray) -> np.ndarray:
    with np.load(place / "x.npz") as stored:
        return np.asarray(stored["x"] @ matrix)


def decisions(log: Path) -> list[tuple[str, str, str]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(line["action"], line["object"], line["decision"]) for line in lines]


def test_decrypt_gives_what_is_granted(place: Path, call: Caller) -> None:
    call("keygen", "b", "-o", "keys", "--secret-dir", "safe", "--as", "vault")
    call("encrypt", "b", "--keys", "keys", "--input", "x.npz", "-o", "in", "--as", "anna")
    call("evaluate", "b", "--keys", "keys", "--input", "in", "-o", "out")
    decrypt = ("decrypt", "b", "--keys", "safe", "--input", "out", "--audit-log", "log", "--json")

    found = call(*decrypt, "--as", "anna", "-o", "y.npz")
    assert list(found.document["outputs"]) == list(found.document["raw_outputs"]) == ["risk"]
    assert np.abs(np.array(found.document["outputs"]["risk"]) - expected(place, TOP)).max() < 1e-3
    assert "'anna' may not decrypt cost: left out" in found.err
    assert Path("y.npz").stat().st_mode & 0o777 == 0o600
    with np.load("y.npz") as stored:
        assert stored.files == ["risk"]
    # Then those who evaluated are asked for, envelope by envelope.
    sent = ("evaluate", "program", "allow")
    assert decisions(Path("log")) == [("decrypt", "output:risk", "allow"), sent, sent]

    found = call(*decrypt, "--as", "bill")
    assert np.abs(np.array(found.document["outputs"]["cost"]) - expected(place, SIDE)).max() < 1e-3
    found = call(*decrypt, "--as", "carl")
    assert list(found.document["outputs"]) == ["risk", "cost"]
    assert "left out" not in found.err
    found = call(*decrypt, "--as", "carl", "--only", "cost")
    assert list(found.document["outputs"]) == ["cost"]
    assert decisions(Path("log"))[-3:] == [("decrypt", "output:cost", "allow"), sent, sent]


def test_decrypt_refuses_before_anything_is_read(place: Path, call: Caller) -> None:
    words = ("decrypt", "b", "--keys", "none", "--input", "none", "--audit-log", "log", "-o", "y")
    asked = call(*words, "--as", "anna", "--only", "risk", "--only", "cost", code=3)
    assert asked.err == "Access Denied: user 'anna' may not decrypt output:cost\n"
    assert "may not decrypt output:risk" in call(*words, "--as", "vault", code=3).err
    assert decisions(Path("log")) == [
        ("decrypt", "output:risk", "allow"),
        ("decrypt", "output:cost", "deny"),
        ("decrypt", "output:risk", "deny"),
    ]
    told = call(*words, "--as", "anna", "--only", "grade", code=2).err
    assert "no output 'grade'; its outputs are risk, cost" in told
    told = call(*words, code=2).err
    assert "who may decrypt output:risk or decrypt output:cost here: anna, bill, carl" in told
    assert not Path("y").exists()


def test_only_granted_outputs_are_warned_of(place: Path, call: Caller) -> None:
    np.savez(place / "far.npz", x=np.full((1, 4), 50.0))
    run = ("run", "b", "--input", "far.npz", "--json")
    for user, labels in (("anna", ["risk"]), ("carl", ["risk", "cost"])):
        found = call(*run, "--as", user)
        told = [text for text in found.document["warnings"] if text.startswith("output ")]
        assert [text.split("'")[1] for text in told] == labels
        assert ("output 'cost' holds" in found.err) == ("cost" in labels)


def test_run_gives_what_is_granted(place: Path, call: Caller) -> None:
    run = ("run", "b", "--input", "x.npz", "--audit-log", "log", "--json")
    found = call(*run, "--as", "anna", "-o", "y.npz")
    assert list(found.document["outputs"]) == list(found.document["raw_outputs"]) == ["risk"]
    assert np.abs(np.array(found.document["outputs"]["risk"]) - expected(place, TOP)).max() < 1e-3
    assert "'anna' may not decrypt cost: left out" in found.err
    assert Path("y.npz").stat().st_mode & 0o777 == 0o600
    assert decisions(Path("log")) == [
        ("encrypt", "input:x", "allow"),
        ("decrypt", "output:risk", "allow"),
        ("hold", "key:secret", "allow"),
        ("evaluate", "program", "allow"),
    ]
    found = call(*run, "--as", "carl", "--only", "cost")
    assert list(found.document["outputs"]) == ["cost"]
    assert "output:cost" in call(*run, "--as", "anna", "--only", "cost", code=3).err
    assert "encrypt input:x" in call(*run, "--as", "bill", code=3).err
