"""Outputs that a policy releases, each to another role in its own grain, by separate programs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hecompile.cli import main
from tests.unit.cli_calls import Caller, save_policy
from tests.unit.test_cli_outputs import TOP, save_model

POLICY = """\
format = 2
purposes = ["care", "research"]
[roles.technician]
[roles.doctor]
[roles.nurse]
[roles.chief]
[roles.researcher]
[roles.custodian]
[roles.evaluator]
[[permissions]]
role = "technician"
actions = ["encrypt", "submit"]
objects = ["input:x"]
[[permissions]]
role = "doctor"
actions = ["declassify"]
objects = ["output:risk"]
purpose = ["care"]
obligations = {flood = 30, round = 0.1, budget = 4}
[[permissions]]
role = "nurse"
actions = ["declassify"]
objects = ["output:risk"]
obligations = {flood = 30, label_only = true, budget = 40}
[[permissions]]
role = "chief"
actions = ["decrypt", "hold"]
objects = ["output:risk", "key:secret"]
[[permissions]]
role = "chief"
actions = ["declassify"]
objects = ["output:risk"]
obligations = {flood = 30, round = 0.1, budget = 4}
[[permissions]]
role = "researcher"
actions = ["declassify"]
objects = ["output:risk"]
scope = "cohort"
purpose = ["research"]
[permissions.obligations]
flood = 30
budget = 4
dp = {rho = 1.0, total_rho = 1.5, lower = -3.0, upper = 3.0, least = 10}
[[permissions]]
role = "custodian"
actions = ["hold", "refresh"]
objects = ["key:secret", "program"]
[[permissions]]
role = "evaluator"
actions = ["evaluate"]
objects = ["program"]
"""
USERS = """\
format = 1
version = 1
[users]
lab = ["technician"]
dora = ["doctor"]
nina = ["nurse"]
rene = ["researcher"]
cora = ["chief"]
vault = ["custodian"]
cloud = ["evaluator"]
"""
UNUSED = 'unused = ["output:cost"]\n'
PEOPLE = 12


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, its keys and the settings of all parties, made once."""
    folder = tmp_path_factory.mktemp("built")
    save_model(folder / "m.onnx")
    rng = np.random.default_rng(0)
    np.savez(folder / "cal.npz", x=rng.normal(size=(60, 4)).astype(np.float32))
    for name, count in (("two", 2), ("many", PEOPLE)):
        np.savez(folder / f"{name}.npz", x=rng.normal(size=(count, 4)).clip(-1.5, 1.5))
    (folder / "pass").write_text("correct horse\n")
    (folder / "pass").chmod(0o600)
    policy = save_policy(folder, POLICY.replace("purposes", UNUSED + "purposes", 1), USERS)
    compiling = ["compile", "m.onnx", "--calibration", "cal.npz", *policy, "-o", "b"]
    making = ["keygen", "b", "-o", "keys", "--secret-dir", "safe", "--as", "vault"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HECOMPILE_HOME", str(folder / "home"))
        assert main([*compiling, "--batch", str(PEOPLE)]) == 0
        assert main([*making, "--passphrase-file", "pass"]) == 0
    return folder


@pytest.fixture
def place(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, settings and ledger included, for one test."""
    shutil.copytree(built, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("HECOMPILE_HOME", str(tmp_path / "place" / "home"))
    return tmp_path / "place"


def evaluated(call: Caller, samples: str) -> str:
    call(
        "encrypt", "b", "--keys", "keys/public", "--input", f"{samples}.npz", "-o", "in",
        "--as", "lab",
    )  # fmt: skip
    call(
        "evaluate", "b", "--keys", "keys/evaluation", "--input", "in", "-o", f"{samples}.out",
        "--as", "cloud",
    )  # fmt: skip
    return f"{samples}.out"


def exact(place: Path, samples: str) -> np.ndarray:
    with np.load(place / f"{samples}.npz") as stored:
        return np.asarray(stored["x"] @ TOP)


def asked(user: str, source: str, *more: object) -> tuple[object, ...]:
    return (
        "decrypt", "b", "--keys", "safe", "--passphrase-file", "pass", "--input", source,
        "--as", user, "--audit-log", "log", *more,
    )  # fmt: skip


def entries(place: Path) -> list[dict[str, Any]]:
    lines = (place / "log").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "decision" in entry]


def test_each_role_gets_its_own_grain(place: Path, call: Caller) -> None:
    source = evaluated(call, "two")
    # No purpose, no answer; nothing of it is spent or used up.
    told = call(*asked("dora", source), code=3).err
    assert told == "Access Denied: user 'dora' may not decrypt output:risk\n"
    assert [entry["decision"] for entry in entries(place)] == ["deny"]

    found = call(*asked("dora", source, "--purpose", "care", "--only", "risk", "--json")).document
    scores = np.array(found["raw_outputs"]["risk"])
    told = found["released"]["risk"]
    assert np.abs(scores / 0.1 - np.rint(scores / 0.1)).max() < 1e-9
    assert np.abs(scores - exact(place, "two")).max() <= told["error"] < 0.11
    assert (told["mechanism"], told["release"], told["limit"]) == ("rounded", 2, 4)
    last = entries(place)[-1]
    assert (last["user"], last["action"], last["decision"]) == ("dora", "declassify", "allow")
    assert "release 2 of 4" in last["rule"]

    assert "received before" in call(*asked("nina", source, "--only", "risk"), code=4).err
    text = call(*asked("nina", evaluated(call, "two"), "--only", "risk", "-o", "y.npz")).out
    assert text.startswith("risk (labels only, release 2 of 40):\n")
    with np.load(place / "y.npz") as stored:
        assert stored["risk"].tolist() == exact(place, "two").argmax(axis=1).tolist()


def test_who_may_see_raw_values_can_have_them_released(place: Path, call: Caller) -> None:
    source = evaluated(call, "two")
    words = ("--only", "risk", "--json")
    raw = call(*asked("cora", source, *words)).document
    assert "released" not in raw
    scores = np.array(raw["raw_outputs"]["risk"])
    assert 0 < np.abs(scores - exact(place, "two")).max() < 0.01
    assert np.abs(scores / 0.1 - np.rint(scores / 0.1)).max() > 1e-3

    # Raw values use neither the outputs nor the budget up.
    found = call(*asked("cora", source, *words, "--release", "-o", "y.npz")).document
    scores, told = np.array(found["raw_outputs"]["risk"]), found["released"]["risk"]
    assert np.abs(scores / 0.1 - np.rint(scores / 0.1)).max() < 1e-9
    assert np.abs(scores - exact(place, "two")).max() <= told["error"] < 0.11
    assert (told["mechanism"], told["release"], told["limit"]) == ("rounded", 2, 4)
    with np.load(place / "y.npz") as stored:
        assert (stored["risk"] == scores).all()
    actions = {e["action"] for e in entries(place) if e["user"] == "cora"}
    assert actions == {"decrypt", "declassify"}
    assert "received before" in call(*asked("cora", source, *words, "--release"), code=4).err
    # Without a right to release, asking for a release does not fall back to raw values.
    told = call(*asked("vault", evaluated(call, "two"), *words, "--release"), code=3).err
    assert "'vault' may not declassify output:risk" in told


def test_a_researcher_gets_a_mean_of_many(place: Path, call: Caller) -> None:
    words = ("--purpose", "research", "--only", "risk")
    few, many = evaluated(call, "two"), evaluated(call, "many")
    cohort = (*words, "--scope", "cohort")
    assert "Access Denied" in call(*asked("rene", many, *words), code=3).err
    assert "at least 10 persons, not 2" in call(*asked("rene", few, *cohort), code=3).err
    text = call(*asked("rene", many, *cohort)).out
    assert text.startswith("risk (a private mean, exact to ")
    assert "rho 1, which is epsilon 8.43 at delta 1e-06, release 1 of 4):" in text
    told = call(*asked("rene", evaluated(call, "many"), *cohort), code=3).err
    assert "privacy loss of rho = 1, of which 0.5 of 1.5 is left" in told


def test_a_budget_ends(place: Path, call: Caller) -> None:
    words = ("--purpose", "care", "--only", "risk")
    for _ in range(2):
        call(*asked("dora", evaluated(call, "two"), *words))
    told = call(*asked("dora", evaluated(call, "two"), *words), code=3).err
    assert "the permission's budget allows 4 releases, 4 were made" in told
    last = entries(place)[-1]
    assert (last["user"], last["decision"]) == ("dora", "deny")
    assert "4 were made" in last["rule"]


def test_the_key_opens_with_its_passphrase_alone(place: Path, call: Caller) -> None:
    source = evaluated(call, "two")
    words = ("--as", "dora", "--purpose", "care", "--only", "risk")
    ask = ("decrypt", "b", "--keys", "safe", "--input", source, *words)
    assert "give it with --passphrase-file" in call(*ask, code=1).err
    (place / "other").write_text("battery staple\n")
    (place / "other").chmod(0o600)
    assert "the passphrase is wrong" in call(*ask, "--passphrase-file", "other", code=4).err
    call(*ask, "--passphrase-file", "pass")


def test_an_identity_made_up_here_opens_nothing(place: Path, call: Caller) -> None:
    source = evaluated(call, "two")
    (place / "home" / "identities" / "nina.pem").unlink()
    call("identity", "new", "nina")
    told = call(*asked("nina", source, "--only", "risk"), code=3).err
    assert "the users document has another key for user 'nina'" in told
    assert [(e["user"], e["decision"]) for e in entries(place)] == [("nina", "deny")]
    run = ("run", "b", "--input", "two.npz", "--as", "nina", "--only", "risk")
    assert "Access Denied" in call(*run, code=3).err


def test_run_releases_what_may_not_be_seen_raw(place: Path, call: Caller) -> None:
    policy = POLICY.replace(
        'role = "technician"\nactions = ["encrypt", "submit"]',
        'role = "nurse"\nactions = ["encrypt", "submit"]',
    ).replace("purposes", UNUSED + "purposes", 1)
    words = ("--calibration", "cal.npz", *save_policy(place, policy, USERS), "-o", "c")
    call("compile", "m.onnx", *words)
    found = call("run", "c", "--input", "two.npz", "--as", "nina", "--only", "risk", "--json")
    assert found.document["outputs"]["risk"] == exact(place, "two").argmax(axis=1).tolist()
    assert found.document["raw_outputs"] == {}
    assert found.document["released"]["risk"]["mechanism"] == "label"


def test_ways_to_protect_a_key_exclude_each_other(place: Path, call: Caller) -> None:
    words = ("keygen", "b", "-o", "more", "--as", "vault")
    told = call(*words, "--passphrase-file", "pass", "--kms", "cat", code=2).err
    assert "either --passphrase-file or --kms" in told
    told = call(*words, "--passphrase", "--kms", "cat", code=2).err
    assert "one of --passphrase, --passphrase-file and --kms" in told
    assert "no terminal to ask" in call(*words, "--passphrase", code=1).err
    assert "exists already" in call(*words, "--secret-dir", "safe", code=1).err
    assert not (place / "more").exists()


def test_a_key_without_a_passphrase_is_this_machines(place: Path, call: Caller) -> None:
    found = call("keygen", "b", "-o", "more", "--as", "vault")
    assert "protects copies of the key folder, not this machine" in found.err
    assert (place / "home" / "vault.key").stat().st_mode & 0o777 == 0o600


def test_keys_are_made_by_who_has_the_identity(place: Path, call: Caller) -> None:
    (place / "home" / "identities" / "vault.pem").unlink()
    told = call("keygen", "b", "-o", "more", "--as", "vault", code=3).err
    assert "hecompile identity new vault" in told
    assert not (place / "more").exists()
