from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from hecompile import demo as demo_module
from hecompile.access.audit import AuditEntry
from hecompile.cli import console
from hecompile.cli.demo_text import ENTITLED, answers_text, beats_text, find_failures
from hecompile.demo import MARKER, POLICY_FILE, USERS_FILE, Beat, Demo, Ward
from hecompile.demo_roles import Answer, Evaluated
from hecompile.errors import InputError
from hecompile.files import config_home
from hecompile.runtime.release import Mechanism, ReleasedOutput
from tests.unit.cli_calls import Caller

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


def demo(out: Path, beats: int = 16) -> Demo:
    return Demo(out, beats, 1, console.Progress())


@pytest.mark.parametrize(
    ("packaged", "example"),
    [(POLICY_FILE, "hospital.toml"), (USERS_FILE, "hospital-users.toml")],
)
def test_the_demonstration_plays_the_examples_hospital(packaged: str, example: str) -> None:
    own = (resources.files("hecompile") / packaged).read_bytes()
    assert own == (ROOT / "examples" / "policies" / example).read_bytes()


def test_the_users_settings_are_left_alone(tmp_path: Path) -> None:
    before = config_home()
    one = demo(tmp_path / "out")
    with one.own_settings():
        assert config_home() == tmp_path / "out" / "settings"
    assert config_home() == before


def test_folder_is_made_anew_only_where_it_is_a_demonstration(tmp_path: Path) -> None:
    out = tmp_path / "out"
    demo(out).prepare()
    (out / "old").write_text("")
    demo(out).prepare()
    assert sorted(p.name for p in out.iterdir()) == [
        MARKER,
        "policy.toml",
        "settings",
        "users.toml",
    ]
    (out / MARKER).unlink()
    with pytest.raises(InputError, match="no earlier demonstration"):
        demo(out).prepare()
    assert (out / "policy.toml").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--beats", 0], "at least one beat"),
        (["--batch", 0], "1 to 15 in a batch"),
        (["--batch", 16], "1 to 15 in a batch"),
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
    return demo_module.TestSet(1000, 0.58, plain, compiled, difference, 14, 1.0, 0.0)


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


def entry(user: str, allowed: bool) -> AuditEntry:
    return AuditEntry(
        7, "2026-01-31T12:00:00.000000+00:00", user, ("doctor",), "doctor", "declassify",
        "output:logits", "care", "", allowed, "permission 2; release 1 of 64", "ab" * 32, (),
        "cd" * 32,
    )  # fmt: skip


WARD = Ward((Beat(0, "normal", (1.0, -1.0), (1.0, -1.0)),), Evaluated((b"",), 1, 0.1, 0.2, 3, 4, 5))


def scores(*values: float) -> ReleasedOutput:
    raw = np.array([values])
    return ReleasedOutput("logits", Mechanism.ROUNDED, raw, raw, 0.05, 0.05, 1, 64)


def doctors(released: ReleasedOutput | None, refusal: str = "") -> Answer:
    asked = ENTITLED["doctor"]
    return Answer("anna", "doctor", asked, released, refusal, entry("anna", not refusal))


def test_answers_that_were_due_are_no_failures() -> None:
    assert find_failures(0.0, 0.1, held_out(), [WARD], [doctors(scores(1.1, -0.9))]) == []
    text = answers_text([doctors(scores(1.1, -0.9))])
    assert "doctor 'anna' asks for scores of each patient" in text
    assert "+1.10 -0.90" in text
    assert "log 7: allow anna declassify output:logits for care" in text


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (doctors(None, "Access Denied: no"), "was refused scores of each patient: Access Denied"),
        (replace(doctors(scores(1.0, -1.0)), asked="raw values"), "was granted raw values"),
        (doctors(scores(1.3, -1.0)), "differs by 3.00e-01 from onnxruntime's"),
        (doctors(scores(float("nan"), -1.0)), "differs by nan"),
        (replace(doctors(scores(1.0, -1.0)), entry=entry("anna", False)), "says otherwise"),
    ],
)
def test_every_wrong_answer_is_a_failure(answer: Answer, told: str) -> None:
    [failure] = find_failures(0.0, 0.1, held_out(), [WARD], [answer])
    assert told in failure


def test_few_beats_are_printed_and_all_are_counted() -> None:
    beats = tuple(
        Beat(100 + i, "abnormal" if i == 11 else "normal", (1.0, -1.0), (1.0, -1.0 + i / 1000))
        for i in range(12)
    )
    wards = [replace(WARD, beats=beats[:5]), replace(WARD, beats=beats[5:])]
    text = beats_text(wards, ("normal", "abnormal"), 0.5)
    printed = [line.split()[0] for line in text.splitlines() if line.startswith("   1")]
    assert printed == ["100", "101", "102", "103", "104", "106", "108", "111"]
    assert "and 4 more (--json has all); 11 of 12 answers are the truth" in text
    assert "largest difference 1.10e-02, predicted bound 5.00e-01" in text
    assert "more" not in beats_text(wards[:1], ("normal", "abnormal"), 0.5)


@pytest.mark.slow
def test_demonstration_keeps_its_promises(call: Caller, tmp_path: Path) -> None:
    document = call("demo", "--out", tmp_path / "out", "--json").document
    assert document["within_bound"] is True
    assert document["failures"] == []
    assert len(document["beats"]) == 72
    for beat in document["beats"]:
        difference = np.abs(np.subtract(beat["encrypted"], beat["plain"])).max()
        assert difference <= document["predicted_error"]
    assert {beat["label"] for beat in document["beats"]} == {"normal", "abnormal"}
    assert document["lstm"]["steps"] >= 4
    assert document["lstm"]["hidden"] >= 16
    test = document["test_set"]
    assert test["compiled_accuracy"] >= test["plain_accuracy"] - 0.01
    assert test["plain_accuracy"] > test["majority_baseline"] + 0.2
    got = {answer["role"]: answer for answer in document["answers"] if not answer["refusal"]}
    assert set(got) == {"doctor", "nurse", "researcher", "auditor"}
    assert "rounded to 0.25" in got["doctor"]["released"]
    assert got["nurse"]["released"].startswith("labels only")
    assert "epsilon" in got["researcher"]["released"]
    refused = [answer["asked"] for answer in document["answers"] if answer["refusal"]]
    assert "a patient's scores" in refused
    assert "mean over 8" in refused
    assert sum(document["seconds"].values()) < 300
    assert document["report"]["parameters"]["security_bits"] == 128
    # Again, one beat at a time and too few for a cohort, into the same folder.
    words = ("demo", "--out", tmp_path / "out", "--json", "--batch", 1, "--beats", 8)
    assert call(*words).document["within_bound"] is True
