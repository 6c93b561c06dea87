"""What the parties' commands refuse before they look, and what they are not given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.unit.cli_calls import POLICY, Caller, save_policy
from tests.unit.cli_parties import Place, build, hand_over, lend_settings, make_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(autouse=True)
def settings(place: Place, hecompile_home: Path) -> None:
    lend_settings(place)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


COMMANDS = {
    "keygen": ["-o", "new"],
    "encrypt": ["--keys", "nowhere", "--input", "nothing", "-o", "new"],
    "evaluate": ["--keys", "nowhere", "--input", "nothing", "-o", "new"],
    "refresh": ["--keys", "nowhere", "--input", "nothing", "-o", "new"],
    "decrypt": ["--keys", "nowhere", "--input", "nothing"],
    "run": ["--input", "nothing", "-o", "new"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("user", ["rene", "nobody"])
def test_denied_before_anything_is_looked_at(
    place: Place,
    command: str,
    user: str,
    call: Caller,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    audit = tmp_path / "log" / "audit.jsonl"
    words = place.words(command, "--as", user, "--audit-log", audit, *COMMANDS[command])
    found = call(*words, code=3)
    assert found.err.startswith(f"Access Denied: user '{user}' may not ")
    assert found.err.count("\n") == 1
    assert not found.out
    assert not (tmp_path / "new").exists()
    entries = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [entry["decision"] for entry in entries] == ["deny"]
    assert call("audit", "verify", audit, "--json").document["entries"] == 1


def test_denial_comes_before_a_damaged_file_is_found(
    place: Place, call: Caller, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(place.bundle, copy)
    (copy / "server" / "program.hir").write_text("changed")
    words = ("--trust", place.signer, "--input", place.folder / "x.npz", "--as")
    assert "changed" in call("run", copy, *words, "anna", code=4).err
    assert "Access Denied" in call("run", copy, *words, "rene", code=3).err


def test_keys_of_another_run_do_not_fit(place: Place, call: Caller, tmp_path: Path) -> None:
    other = tmp_path / "other"
    made = call(*place.words("keygen", "-o", other, "--as", "vault", "--json")).document
    assert set(made["bytes"]) == {"secret", "public", "evaluation"}
    assert (
        "exists already" in call(*place.words("keygen", "-o", other, "--as", "vault"), code=1).err
    )
    handed = hand_over(other)
    sent, result = tmp_path / "in.hect", tmp_path / "out.hect"
    call(
        *place.words("encrypt", "--keys", handed / "public", "--as", "anna"),
        "--input", place.folder / "x.npz", "-o", sent,
    )  # fmt: skip
    words = place.words("evaluate", "--keys", place.evaluation, "--input", sent, "-o", result)
    assert "key" in call(*words, code=4).err
    found = place.words("evaluate", "--keys", handed / "evaluation", "--input", sent, "-o", result)
    call(*found)
    words = place.words("decrypt", "--keys", place.keys, "--input", result)
    assert "key" in call(*words, code=4).err
    missing = place.words("decrypt", "--keys", tmp_path / "none", "--input", result)
    assert "no secret key" in call(*missing, code=1).err


def test_keys_and_ciphertexts_are_bound_to_the_policy(
    place: Place, call: Caller, tmp_path: Path
) -> None:
    """The same model compiled under another policy opens neither the old keys nor ciphertexts."""
    more = POLICY + '[[permissions]]\nrole = "clinician"\nactions = ["read"]\nobjects = ["audit"]\n'
    other, sent = tmp_path / "b", tmp_path / "in.hect"
    call(
        "compile", place.folder / "m.onnx", "--calibration", place.folder / "cal.npz",
        *save_policy(tmp_path, more), "-o", other,
    )  # fmt: skip
    call("keygen", other, "-o", tmp_path / "keys", "--as", "vault")
    handed = hand_over(tmp_path / "keys")
    call(
        *place.words("encrypt", "--keys", place.public, "--as", "anna"),
        "--input", place.folder / "x.npz", "-o", sent,
    )  # fmt: skip
    words = ("evaluate", other, "--input", sent, "-o", tmp_path / "out", "--keys")
    found = call(*words, place.evaluation, code=4)
    assert "are for the bundle of manifest" in found.err
    found = call(*words, handed / "evaluation", code=4)
    assert "the encrypted input is for the bundle of manifest" in found.err
    run = ("run", other, "--as", "anna", "--input", place.folder / "x.npz", "--keys", place.keys)
    assert "make keys for this bundle" in call(*run, code=4).err


def test_an_input_by_who_may_not_submit_is_denied_where_it_arrives(
    call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A researcher may encrypt, so nothing holds a client up; the evaluator's gate does."""
    extra = '[[permissions]]\nrole = "researcher"\nactions = ["encrypt"]\nobjects = ["input:x"]\n'
    found = build(tmp_path, policy=POLICY + extra)
    call(*found.words("keygen", "-o", found.keys, "--as", "vault"))
    hand_over(found.keys)
    sent, audit, out = tmp_path / "in.hect", tmp_path / "audit.jsonl", tmp_path / "out.hect"
    call(
        *found.words("encrypt", "--keys", found.public, "--as", "rene"),
        "--input", found.folder / "x.npz", "-o", sent,
    )  # fmt: skip
    words = found.words("evaluate", "--keys", found.evaluation, "--as", "cloud", "--input", sent)
    told = call(*words, "-o", out, "--audit-log", audit, code=3).err
    assert "Access Denied: user 'rene' may not submit input:x" in told
    assert not list(tmp_path.glob("out.hect*"))
    entries = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(e["decision"], e["user"]) for e in entries] == [("allow", "cloud"), ("deny", "rene")]


def test_an_identity_must_be_here_and_the_right_one(
    place: Place, call: Caller, tmp_path: Path, hecompile_home: Path
) -> None:
    words = place.words("encrypt", "--keys", place.public, "--as", "anna")
    more = ("--input", place.folder / "x.npz", "-o", tmp_path / "in.hect")
    (hecompile_home / "identities" / "anna.pem").unlink()
    assert "hecompile identity new anna" in call(*words, *more, code=1).err
    shutil.copy(
        hecompile_home / "identities" / "rene.pem", hecompile_home / "identities" / "anna.pem"
    )
    assert "is not the one in the users document" in call(*words, *more, code=4).err
    assert not (tmp_path / "in.hect").exists()


@pytest.mark.parametrize("command", ["encrypt", "evaluate"])
def test_a_party_is_not_given_the_secret_key(
    place: Place, command: str, call: Caller, tmp_path: Path
) -> None:
    who = {"encrypt": "anna", "evaluate": "cloud"}[command]
    words = ("--as", who, "--input", place.folder / "x.npz", "-o", tmp_path / "out", "--keys")
    for given in (place.keys, place.keys / "public", place.keys / "secret"):
        assert "the secret key lies in" in call(*place.words(command, *words, given), code=4).err


def test_limits_of_the_evaluating_process(place: Place, call: Caller, tmp_path: Path) -> None:
    sent, out = tmp_path / "in.hect", tmp_path / "out.hect"
    call(
        *place.words("encrypt", "--keys", place.public, "--as", "anna"),
        "--input", place.folder / "x.npz", "-o", sent,
    )  # fmt: skip
    words = place.words("evaluate", "--keys", place.evaluation, "--input", sent, "-o", out)
    assert "allow at least 256 MiB" in call(*words, "--memory-limit", "100M", code=2).err
    for wrong in ("much", "0", "-1", "4T", "G"):
        assert "is no size" in call(*words, "--memory-limit", wrong, code=2).err
    # Nothing of it has used the envelope up.
    call(*words, "--memory-limit", "1G", "--cpu-limit", "60")
    assert out.exists()


def test_files_that_are_no_ciphertexts(place: Place, call: Caller, tmp_path: Path) -> None:
    bad, out = tmp_path / "bad.hect", tmp_path / "out.hect"
    words = place.words("evaluate", "--keys", place.evaluation, "--input", bad, "-o", out)
    assert "cannot read" in call(*words, code=1).err
    for content in (b"", b"nonsense of some length", b"HECT\x01\x00\x02\x00\x00\x00"):
        bad.write_bytes(content)
        assert "bad.hect" in call(*words, code=4).err
    assert not out.exists()
    words = place.words("evaluate", "--keys", place.evaluation, "-o", out)
    assert "--resume" in call(*words, code=2).err
