"""Policies and users documents that the compiler refuses: one sentence with file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.cli_calls import POLICY, USERS, Caller, save_mlp, save_policy, weights


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and samples, and nothing else."""
    monkeypatch.chdir(tmp_path)
    save_mlp(tmp_path / "m.onnx", weights(3, 4, 3, 2))
    np.savez(tmp_path / "cal.npz", x=np.random.default_rng(6).normal(size=(20, 4)))
    return tmp_path


def refused_compile(call: Caller, options: tuple[str, ...]) -> str:
    words = ("compile", "m.onnx", "--calibration", "cal.npz", "-o", "b", *options)
    found = call(*words, code=1)
    assert not found.out
    assert not Path("b").exists()
    _, error, tail = found.err.partition("error: ")
    assert error
    return tail


def unknown(old: str, new: str, text: str = POLICY) -> str:
    assert old in text
    return text.replace(old, new)


def unknown_user(old: str, new: str) -> str:
    return unknown(old, new, USERS)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (unknown('"input:x"', '"input:ecg"'), "'input:ecg'"),
        (unknown('"output:y"', '"output:z"'), "'output:z'"),
        (unknown('role = "evaluator"', 'role = "cloud"'), "'cloud'"),
        (unknown("[roles.researcher]", '[roles.researcher]\ninherits = ["boss"]'), "'boss'"),
        (
            unknown("[roles.researcher]", '[roles.researcher]\ninherits = ["researcher"]'),
            "in a circle",
        ),
        (unknown('"encrypt", "submit"', '"encrypt", "see"'), "'see'"),
        (unknown(', "key:secret"]\n[[permissions]]\nrole = "cu', ']\n[[permissions]]\nrole = "cu'),
         "hold"),
        (unknown('actions = ["evaluate"]\nobjects = ["program"]',
                 'actions = ["evaluate", "refresh"]\nobjects = ["program"]'), "S2"),
        (unknown("format = 2", "format = 9"), "format"),
        (unknown("format = 2", "format = 1"), "format"),
        (POLICY + '[users]\nanna = ["clinician"]\n', "users.toml"),
        ("format = 2\n[roles", "policy.toml"),
        ("", "policy.toml"),
    ],
)  # fmt: skip
def test_policies(place: Path, policy: str, told: str, call: Caller) -> None:
    error = refused_compile(call, save_policy(place, policy))
    assert told in error
    assert "policy.toml" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("users", "told"),
    [
        (unknown_user('anna = ["clinician"]', 'anna = ["clinican"]'), "'clinican'"),
        (unknown_user('cloud = ["evaluator"]', 'cloud = ["evaluator", "custodian"]'), "cloud"),
        (unknown_user('anna = ["clinician"]', 'anna = {roles = ["clinician"], key = "x"}'), "key"),
        (unknown_user("version = 1", "version = 0"), "version"),
        (unknown_user("format = 1", "format = 2"), "format"),
        ("format = 1\n[users", "users.toml"),
        ("", "users.toml"),
    ],
)
def test_users(place: Path, users: str, told: str, call: Caller) -> None:
    error = refused_compile(call, save_policy(place, users=users))
    assert told in error
    assert "users.toml" in error
    assert error.count("\n") == 1
