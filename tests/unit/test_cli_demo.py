from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hecompile.access.decide import decide
from hecompile.access.policy import PROGRAM, Action, ObjectRef
from hecompile.access.policy_checks import check_policy
from hecompile.access.policy_io import parse_policy
from hecompile.cli import console
from hecompile.demo import MARKER, POLICY, Beat, Demo
from hecompile.errors import InputError
from tests.unit.cli_calls import Caller


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


def demo(out: Path, beats: int = 16) -> Demo:
    return Demo(out, beats, 1, console.Progress())


def test_policy_separates_the_roles() -> None:
    policy = parse_policy(POLICY)
    check_policy(policy, ["x"], ["logits"], refreshes=10)
    decrypt = ObjectRef.output("logits")
    may = {
        user: decide(policy, user, Action.DECRYPT, decrypt).allowed
        for user in ("anna", "hospital", "cloud", "rene")
    }
    assert may == {"anna": True, "hospital": False, "cloud": False, "rene": False}
    assert decide(policy, "cloud", Action.EVALUATE, PROGRAM).allowed


def test_folder_is_made_anew_only_where_it_is_a_demonstration(tmp_path: Path) -> None:
    out = tmp_path / "out"
    demo(out).prepare()
    (out / "old").write_text("")
    demo(out).prepare()
    assert sorted(p.name for p in out.iterdir()) == [MARKER, "policy.toml"]
    (out / MARKER).unlink()
    with pytest.raises(InputError, match="no earlier demonstration"):
        demo(out).prepare()
    assert (out / "policy.toml").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--beats", 0], "at least one beat"),
        (["--batch", 0], "at least one beat"),
        (["--beats", 1001], "1000 held-out beats"),
    ],
)
def test_options_are_checked_first(
    words: list[object], told: str, call: Caller, tmp_path: Path
) -> None:
    assert told in call("demo", "--out", tmp_path / "out", *words, code=1).err
    assert not (tmp_path / "out").exists()


def test_difference_is_over_all_logits() -> None:
    assert Beat(0, "normal", (0.0, 1.0), (0.5, 1.25)).difference == 0.5


@pytest.mark.slow
def test_demonstration_keeps_its_promises(call: Caller, tmp_path: Path) -> None:
    document = call("demo", "--out", tmp_path / "out", "--json").document
    assert document["within_bound"] is True
    assert len(document["beats"]) == 16
    for beat in document["beats"]:
        difference = np.abs(np.subtract(beat["encrypted"], beat["plain"])).max()
        assert difference <= document["predicted_error"]
    assert {beat["label"] for beat in document["beats"]} == {"normal", "abnormal"}
    assert document["lstm"]["steps"] >= 4
    assert document["lstm"]["hidden"] >= 16
    test = document["test_set"]
    assert test["compiled_accuracy"] >= test["plain_accuracy"] - 0.01
    assert test["plain_accuracy"] > test["majority_baseline"] + 0.2
    assert document["denied"].startswith("Access Denied: user 'rene'")
    assert sum(document["seconds"].values()) < 300
    assert document["report"]["parameters"]["security_bits"] == 128
    # Again, in batches, into the same folder.
    words = ("demo", "--out", tmp_path / "out", "--json", "--batch", 16)
    assert call(*words).document["within_bound"] is True
