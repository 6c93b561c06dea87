"""`hecompile inspect` on a bundle whose policy publishes: what it tells of safety and access."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.cli_calls import Caller, save_mlp, weights

POLICY = """\
format = 2
purposes = ["care"]
[roles.technician]
[roles.doctor]
clearance = ["vitals.*"]
[roles.nurse]
clearance = ["vitals.*"]
[roles.custodian]
[roles.evaluator]
[[permissions]]
role = "technician"
actions = ["encrypt", "submit"]
objects = ["input:x"]
[[permissions]]
role = "doctor"
actions = ["declassify"]
objects = ["output:y"]
purpose = ["care"]
obligations = { flood = 30, round = 0.25, budget = 4 }
[[permissions]]
role = "nurse"
actions = ["declassify"]
objects = ["output:y"]
obligations = { flood = 30, label_only = true, budget = 2 }
[[permissions]]
role = "custodian"
actions = ["hold", "refresh"]
objects = ["key:secret", "program"]
[[permissions]]
role = "evaluator"
actions = ["evaluate"]
objects = ["program"]
[labels]
"input:x" = { axis = 0, names = ["vitals.hr", "vitals.hr", "vitals.bp", "vitals.bp"] }
"""
USERS = """\
format = 1
version = 1
[users]
anna = ["doctor"]
tom = ["technician"]
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its samples, a policy and users."""
    folder = tmp_path_factory.mktemp("inspect")
    save_mlp(folder / "model.onnx", weights(1, 4, 3, 2))
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    np.savez(folder / "calibration.npz", x=x)
    (folder / "policy.toml").write_text(POLICY)
    (folder / "users.toml").write_text(USERS)
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


def compile_to(call: Caller, folder: Path, bundle: Path, *words: object) -> None:
    call(
        "compile", folder / "model.onnx", "--calibration", folder / "calibration.npz", "--policy",
        folder / "policy.toml", "-o", bundle, *words,
    )  # fmt: skip


def test_a_bundle_tells_who_sees_what_and_how_safely(
    call: Caller, compiled: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    compile_to(
        call, compiled, bundle, "--users", compiled / "users.toml", "--not-after",
        "2099-01-31T12:00:00Z",
    )  # fmt: skip
    found = call("inspect", bundle, "--json").document
    security = found["security"]
    assert security["bits"] == 128
    assert security["margin"] == security["limit"] - security["modulus_bits"] >= 0
    assert found["signers"]["threshold"] == 1
    assert (found["version"], found["not_after"]) == (1, "2099-01-31T12:00:00Z")
    [plan] = found["releases"]
    assert (plan["output"], plan["releases"], plan["flood_bits"]) == ("y", 6, 30)
    assert found["users"] == {"anna": ["doctor"], "tom": ["technician"]}
    rows = {(row["role"], row["action"]): row for row in found["policy"]}
    assert rows["doctor", "declassify"]["granularity"] == "values rounded to 0.25 (4 a key)"
    assert rows["doctor", "declassify"]["purposes"] == ["care"]

    text = call("inspect", bundle).out
    assert f"{security['margin']} to spare" in text
    assert "version 1, from " in text
    assert "to 2099-01-31T12:00:00Z" in text
    [doctor] = [
        line for line in text.splitlines() if line.strip().startswith("y") and "doc" in line
    ]
    assert f"{plan['sigma']:.2g} (30 bits)" in doctor
    table = text[text.index("who sees what:") : text.index("who may do what:")]
    assert "label (2 a key)" in table
    assert "clinician" not in table


def test_flows_are_drawn(call: Caller, compiled: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    compile_to(call, compiled, bundle, "--users", compiled / "users.toml")
    assert "vitals.hr" in call("inspect", bundle, "--flows").out
    found = call("inspect", bundle, "--flows", "--json").document
    assert found["flows"][0]["labels"] == ["vitals.bp", "vitals.hr"]
    assert found["labels"][0]["object"] == "input:x"
    words = ("inspect", bundle, "--flows", "--measured", tmp_path / "profile.json")
    assert "give one of them" in call(*words, code=2).err


def test_a_bundle_without_users_says_that_nobody_may_do_anything(
    call: Caller, compiled: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    compile_to(call, compiled, bundle)
    assert "nobody may do anything yet" in call("inspect", bundle).out
    assert call("inspect", bundle, "--json").document["users"] == {}


def test_the_log_is_read_by_whom_the_policy_lets(
    call: Caller, compiled: Path, tmp_path: Path
) -> None:
    (tmp_path / "policy.toml").write_text(
        POLICY + '[roles.auditor]\n[[permissions]]\nrole = "auditor"\nactions = ["read"]\n'
        'objects = ["audit"]\n'
    )
    users = tmp_path / "users.toml"
    users.write_text(USERS + 'ada = ["auditor"]\n')
    bundle = tmp_path / "bundle"
    call(
        "compile", compiled / "model.onnx", "--calibration", compiled / "calibration.npz",
        "--policy", tmp_path / "policy.toml", "--users", users, "-o", bundle,
    )  # fmt: skip
    shown = ("audit", "show", "--bundle", bundle, "--json")
    assert "Access Denied" in call(*shown, "--as", "anna", code=3).err
    entries = call(*shown, "--as", "ada").document["entries"]
    assert [(entry["user"], entry["allowed"]) for entry in entries] == [
        ("anna", False),
        ("ada", True),
    ]
    assert "not in the users document" in call(*shown, "--as", "nobody", code=3).err
