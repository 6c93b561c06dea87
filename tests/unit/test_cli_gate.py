"""What the parties' commands refuse before they look, and what they are not given."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any, Self

import pytest

from hecompile.cli.hectfile import read_parts, write_parts
from hecompile.runtime.processes import EvaluatorProcess
from hecompile.runtime.sandbox import BASE_MEMORY, CPU_SECONDS, WALL_SECONDS, Limits
from tests.unit.cli_calls import POLICY, Caller, save_policy
from tests.unit.cli_parties import Place, X, build, hand_over, lend_settings, make_place


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


@pytest.mark.parametrize(
    ("command", "user"),
    [
        *zip(COMMANDS, ("vault", "anna", "cloud", "vault", "anna", "anna"), strict=True),
        ("encrypt-model", "anna"),
        ("audit show", "rene"),
        # Nobody is named, and the policy leaves one user only.
        ("encrypt", None),
        ("evaluate", None),
        ("refresh", None),
        ("run", None),
    ],
)
def test_an_identity_of_the_users_name_is_not_the_users(
    place: Place,
    command: str,
    user: str | None,
    call: Caller,
    tmp_path: Path,
    hecompile_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine of one's own, without an identity and then with one of the right name."""
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(hecompile_home / "identities")
    audit = tmp_path / "audit.jsonl"
    acting = () if user is None else ("--as", user)
    if command == "audit show":
        words: tuple[object, ...] = ("audit", "show", audit, "--bundle", place.bundle,
                                     "--trust", place.signer, *acting)  # fmt: skip
    else:
        more = COMMANDS.get(command, ["--keys", "nowhere", "-o", "new"])
        words = place.words(command, *acting, "--audit-log", audit, *more)
    told = call(*words, code=3)
    assert " is not on this machine " in told.err
    for name in ("anna", "vault", "cloud", "rene"):
        call("identity", "new", name)
    told = call(*words, code=3)
    assert f"the users document has another key for user '{user or ''}" in told.err
    assert " here: " in told.err
    assert not told.out
    assert [path.name for path in tmp_path.iterdir()] == ["audit.jsonl"]
    entries = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [entry["decision"] for entry in entries] == ["deny", "deny"]
    assert {entry["user"] for entry in entries} <= {user or entries[0]["user"]}


def test_the_reader_of_a_log_is_let_in_by_its_identity(
    place: Place, call: Caller, tmp_path: Path
) -> None:
    audit = tmp_path / "audit.jsonl"
    words = ("audit", "show", audit, "--bundle", place.bundle, "--trust", place.signer, "--as")
    assert "rene" in call(*words, "rene").out
    assert "'anna' may not read audit" in call(*words, "anna", code=3).err


def test_who_plays_the_evaluator_in_a_run_must_be_here_too(
    place: Place, call: Caller, tmp_path: Path, hecompile_home: Path
) -> None:
    (hecompile_home / "identities" / "cloud.pem").unlink()
    call("identity", "new", "cloud")
    audit = tmp_path / "audit.jsonl"
    words = place.words("run", "--as", "anna", "--audit-log", audit)
    told = call(*words, "--input", place.folder / "x.npz", code=3).err
    assert "user 'cloud' may not evaluate program here: " in told
    entries = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [e["decision"] for e in entries if e["user"] == "cloud"] == ["deny"]


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


def test_a_run_limits_the_evaluating_process_too(
    place: Place, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Limits] = []

    class Noted(EvaluatorProcess):
        def __init__(self, *args: Any, limits: Limits, **more: Any) -> None:
            made.append(limits)
            super().__init__(*args, limits=limits, **more)

    monkeypatch.setattr("hecompile.runtime.run.EvaluatorProcess", Noted)
    words = place.words("run", "--as", "anna", "--input", place.folder / "x.npz")
    call(*words)
    predicted = made.pop()
    call(*words, "--memory-limit", "1G", "--cpu-limit", "60")
    said = made.pop()
    # By default what is predicted decides, not the size of the machine.
    assert BASE_MEMORY < predicted.memory < Limits.of_machine().memory
    assert predicted.cpu is not None
    assert predicted.cpu >= 2 * CPU_SECONDS
    assert (said.memory, said.cpu) == (1 << 30, 60)
    assert "allow at least 256 MiB" in call(*words, "--memory-limit", "100M", code=2).err


def encrypted(place: Place, call: Caller, path: Path, *more: object) -> Path:
    words = place.words("encrypt", "--keys", place.public, "--as", "anna", *more)
    call(*words, "--input", place.folder / "x.npz", "-o", path)
    return path


def test_evaluate_does_not_wait_for_ever(
    place: Place, call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody stops the process that computes; by default, too, there is a limit by the clock."""
    sent, out = encrypted(place, call, tmp_path / "in.hect"), tmp_path / "out.hect"
    words = place.words("evaluate", "--keys", place.evaluation, "--input", sent, "-o", out)
    seconds: list[float] = []

    class Stopped(EvaluatorProcess):
        def __init__(self, *args: Any, timeout: float, **more: Any) -> None:
            seconds.append(timeout)
            super().__init__(*args, timeout=timeout, **more)

        def __enter__(self) -> Self:
            found = super().__enter__()
            os.kill(self._process.pid, signal.SIGSTOP)
            self._timeout = 0.5
            return found

    with monkeypatch.context() as patch:
        patch.setattr("hecompile.runtime.processes.EvaluatorProcess", Stopped)
        told = call(*words, code=1).err
        assert "did not finish within 0.5 seconds" in told
        assert "--timeout" in told
        call(*words, "--timeout", "20", code=4)
    assert seconds == [len(X) * WALL_SECONDS, 20]
    assert not out.exists()
    # One that is not even loaded in time uses nothing up.
    again = encrypted(place, call, tmp_path / "again.hect")
    words = place.words("evaluate", "--keys", place.evaluation, "--input", again, "-o", out)
    assert "within 0.01 seconds" in call(*words, "--timeout", "0.01", code=1).err
    call(*words)
    assert out.exists()


def test_a_replay_in_a_file_uses_none_of_its_envelopes_up(
    place: Place, call: Caller, tmp_path: Path
) -> None:
    old, new = (encrypted(place, call, tmp_path / name) for name in ("old.hect", "new.hect"))
    out, mixed = tmp_path / "out.hect", tmp_path / "mixed.hect"
    words = place.words("evaluate", "--keys", place.evaluation, "-o", out, "--input")
    call(*words, old)
    out.unlink()
    write_parts(mixed, [*read_parts(new), *read_parts(old)])
    assert "received before" in call(*words, mixed, code=4).err
    write_parts(mixed, [*read_parts(new), *read_parts(new)])
    assert f"came twice: number {len(X) + 1} is a copy" in call(*words, mixed, code=4).err
    assert not out.exists()
    call(*words, new)
    assert out.exists()


PURPOSES = """\
purposes = ["care", "research"]
"""


def test_the_sender_s_purpose_decides_and_no_receiver_s(call: Caller, tmp_path: Path) -> None:
    """Anna may encrypt for any purpose, and submit for one; the evaluator states none of hers."""
    policy = POLICY.replace("format = 2\n", f"format = 2\n{PURPOSES}").replace(
        'actions = ["encrypt", "submit", "decrypt", "hold"]',
        'actions = ["encrypt", "decrypt", "hold"]',
    )
    policy += (
        '[[permissions]]\nrole = "clinician"\nactions = ["submit"]\nobjects = ["input:x"]\n'
        'purpose = ["care"]\n'
    )
    found = build(tmp_path, policy=policy)
    call(*found.words("keygen", "-o", found.keys, "--as", "vault"))
    hand_over(found.keys)
    out, audit = tmp_path / "out.hect", tmp_path / "audit.jsonl"
    words = found.words("evaluate", "--keys", found.evaluation, "--as", "cloud", "-o", out)
    for stated in ((), ("--purpose", "research")):
        sent = encrypted(found, call, tmp_path / "in.hect", *stated)
        told = call(*words, "--input", sent, "--purpose", "care", code=3).err
        assert "user 'anna' may not submit input:x" in told
    sent = encrypted(found, call, tmp_path / "in.hect", "--purpose", "care")
    call(*words, "--input", sent, "--audit-log", audit)
    entries = [json.loads(line) for line in audit.read_text().splitlines()]
    purposes = [(e["user"], e["action"], e["purpose"]) for e in entries]
    assert purposes == [("cloud", "evaluate", ""), *[("anna", "submit", "care")] * len(X)]


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
