from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hecompile import demo as demo_module
from hecompile.access.decide import decide
from hecompile.access.policy import PROGRAM, Action, ObjectRef
from hecompile.access.policy_checks import check_policy, policy_warnings
from hecompile.access.policy_io import parse_policy
from hecompile.cli import console
from hecompile.cli.demo import find_failures
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
    assert policy_warnings(policy) == ()
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


def held_out(
    plain: float = 0.97, compiled: float = 0.96, difference: float = 0.1
) -> demo_module.TestSet:
    return demo_module.TestSet(1000, 0.58, plain, compiled, difference, 0.0)


def test_promises_kept_are_no_failures() -> None:
    assert find_failures(0.1, 0.1, held_out()) == []
    assert find_failures(0.0, 0.1, held_out(compiled=0.99)) == []


@pytest.mark.parametrize(
    ("worst", "test", "told"),
    [
        (0.11, held_out(), "an encrypted score differs by 1.10e-01, above the predicted bound"),
        (float("nan"), held_out(), "an encrypted score differs by nan"),
        (0.1, held_out(difference=0.2), "on the test set a score differs by 2.00e-01"),
        (0.1, held_out(difference=float("nan")), "on the test set a score differs by nan"),
        (0.1, held_out(compiled=0.959), "loses 1.1 points of accuracy, more than 1"),
    ],
)
def test_every_broken_promise_is_a_failure(
    worst: float, test: demo_module.TestSet, told: str
) -> None:
    [failure] = find_failures(worst, 0.1, test)
    assert told in failure


def test_difference_is_over_all_logits() -> None:
    assert Beat(0, "normal", (0.0, 1.0), (0.5, 1.25)).difference == 0.5


@pytest.mark.slow
def test_demonstration_keeps_its_promises(call: Caller, tmp_path: Path) -> None:
    document = call("demo", "--out", tmp_path / "out", "--json").document
    assert document["within_bound"] is True
    assert document["failures"] == []
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
