"""What the demonstration prints, and which of its promises a run did not keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from hecompile.cli import console

if TYPE_CHECKING:
    from hecompile.demo import Demo, TestSet, Ward
    from hecompile.demo_roles import Answer

MOST_POINTS_LOST: Final = 1.0
"""Points of accuracy that compilation may cost."""

ENTITLED: Final = {
    "doctor": "scores of each patient",
    "nurse": "labels of each patient",
    "researcher": "mean over the cohort",
    "auditor": "the audit log",
}
"""What each role is to get; everything else that is asked for is to be refused."""


BEATS_SHOWN: Final = 8
"""Beats whose scores are printed one by one: half of them the doctor's, half from all others."""


def find_failures(
    worst: float,
    bound: float,
    test: TestSet,
    wards: Sequence[Ward] = (),
    answers: Sequence[Answer] = (),
) -> list[str]:
    """What the demonstration promises and did not keep, one sentence each.

    Args:
        worst: Largest difference of an encrypted logit from onnxruntime's.
        bound: The error that the compiler predicted.
        test: All held-out beats in the clear.
        wards: The beats that were classified, in the order of doctor, nurse, researcher.
        answers: What was asked for, and what came of it.
    """
    found = []
    # A difference that is no number must fail as well.
    if not worst <= bound:
        found.append(
            f"an encrypted score differs by {worst:.2e}, above the predicted bound {bound:.2e}"
        )
    if not test.largest_difference <= bound:
        found.append(
            f"on the test set a score differs by {test.largest_difference:.2e}, above the "
            f"predicted bound {bound:.2e}"
        )
    if not test.points_lost <= MOST_POINTS_LOST:
        found.append(
            f"the compiled program loses {test.points_lost:.1f} points of accuracy, more than "
            f"{MOST_POINTS_LOST:g}"
        )
    for answer in answers:
        found += _broken(answer, wards, bound)
    return found


def _broken(answer: Answer, wards: Sequence[Ward], bound: float) -> list[str]:
    """What is wrong with one answer."""
    who = f"the {answer.role} '{answer.user}'"
    entitled = ENTITLED.get(answer.role) == answer.asked
    if answer.entry.allowed != (not answer.refusal):
        return [f"the audit log says otherwise than {who} was told about {answer.asked}"]
    if entitled == bool(answer.refusal):
        verb = "was refused" if entitled else "was granted"
        return [f"{who} {verb} {answer.asked}: {answer.refusal or answer.released}"]
    released = answer.released
    if released is None or released.raw is None or released.error is None:
        return []
    ward = wards[0] if answer.role == "doctor" else wards[-1]
    plain = np.array([beat.plain for beat in ward.beats])
    exact = plain.mean(axis=0) if answer.role == "researcher" else plain
    # What was told is about the encrypted program's answer, which is `bound` from onnxruntime's.
    off = float(np.abs(np.asarray(released.raw) - exact).max())
    if not off <= released.error + bound:
        return [
            f"what {who} was told differs by {off:.2e} from onnxruntime's, more than "
            f"{released.error + bound:.2e}"
        ]
    return []


def beats_text(wards: Sequence[Ward], classes: tuple[str, ...], bound: float) -> str:
    """The beats with both scores, for people."""
    from hecompile.demo import POSITIVE

    beats = [beat for ward in wards for beat in ward.beats]
    answers = [classes[beat.encrypted.index(max(beat.encrypted))] for beat in beats]
    rows = [
        (
            f"{beat.number}",
            beat.label,
            answer,
            f"{beat.encrypted[POSITIVE]:+.5f}",
            f"{beat.plain[POSITIVE]:+.5f}",
            f"{beat.difference:.1e}",
        )
        for beat, answer in ((beats[i], answers[i]) for i in _shown(len(beats)))
    ]
    right = sum(beat.label == answer for beat, answer in zip(beats, answers, strict=True))
    more = f"and {len(beats) - len(rows)} more (--json has all); " if len(beats) > len(rows) else ""
    head = ("beat", "truth", "answer", "encrypted", "onnxruntime", "difference")
    worst = max(beat.difference for beat in beats)
    return (
        f"   score: the logit of '{classes[POSITIVE]}'; difference: the largest over both logits;\n"
        "   encrypted: as the holder of the key could decrypt it, here for comparison alone\n"
        + console.table(rows, head, indent="   ")
        + f"   {more}{right} of {len(beats)} answers are the truth; "
        f"largest difference {worst:.2e}, predicted bound {bound:.2e}\n"
    )


def _shown(count: int) -> list[int]:
    """Which of so many beats are printed."""
    if count <= BEATS_SHOWN:
        return list(range(count))
    half = BEATS_SHOWN // 2
    return [*range(half), *np.linspace(half, count - 1, BEATS_SHOWN - half).astype(int).tolist()]


def work_document(wards: Sequence[Ward]) -> dict[str, object]:
    """What the encrypted evaluations took, as JSON values."""
    done = [ward.evaluated for ward in wards]
    return {
        "evaluations": sum(len(one.envelopes) for one in done),
        "refresh_rounds": sum(one.rounds for one in done),
        "encrypt_seconds": sum(one.encrypting for one in done),
        "evaluate_seconds": sum(one.evaluating for one in done),
        "ciphertext_bytes_in": sum(one.sent for one in done),
        "ciphertext_bytes_out": sum(one.received for one in done),
        "refresh_bytes": sum(one.refreshed for one in done),
    }


def costs_text(wards: Sequence[Ward]) -> str:
    """What the encrypted evaluations took, for people."""
    done = [ward.evaluated for ward in wards]
    count = sum(len(one.envelopes) for one in done)
    per = sum(one.evaluating for one in done) / count
    sent, received = sum(one.sent for one in done), sum(one.received for one in done)
    return (
        f"   {console.counted(count, 'evaluation')}, {per:.2f} s each with the vault's answers to "
        f"{console.counted(sum(one.rounds for one in done), 'refresh request')}; "
        f"{console.size(sent)} to the evaluator, {console.size(received)} from it, "
        f"{console.size(sum(one.refreshed for one in done))} of refreshes\n"
    )


def answers_text(answers: Sequence[Answer]) -> str:
    """What was asked for and what came of it, for people."""
    return "".join(map(_answer_text, answers))


def _answer_text(answer: Answer) -> str:
    lines = [f"   {answer.role} '{answer.user}' asks for {answer.asked}"]
    if answer.refusal:
        lines.append(f"     {answer.refusal}")
    elif answer.released is None:
        lines.append("     granted")
    else:
        values = np.asarray(answer.released.values if answer.released.raw is None else
                            answer.released.raw)  # fmt: skip
        shown = " ".join(_number(value) for value in values.ravel())
        lines.append(f"     {shown}   ({answer.released})")
    entry = answer.entry
    decision = "allow" if entry.allowed else "DENY"
    purpose = f" for {entry.purpose}" if entry.purpose else ""
    lines.append(
        f"     log {entry.number}: {decision} {entry.user} {entry.action} {entry.object}{purpose}: "
        f"{entry.rule}"
    )
    return "\n".join(lines) + "\n"


def _number(value: object) -> str:
    return f"{value:+.2f}" if isinstance(value, float) else str(value)


def held_out_text(test: TestSet) -> str:
    """All held-out beats in the clear, for people."""
    rows = [
        ("beats", f"{test.beats}"),
        ("always the most frequent answer", f"{test.majority_baseline:.1%}"),
        ("plain model (onnxruntime)", f"{test.plain_accuracy:.1%}"),
        ("compiled program (slot interpreter)", f"{test.compiled_accuracy:.1%}"),
        ("accuracy lost", f"{test.points_lost:.1f} points"),
        ("largest difference of a logit", f"{test.largest_difference:.2e}"),
        ("beats outside the calibrated ranges", f"{test.warned}, the client warns of each"),
        ("largest difference among those", f"{test.largest_warned:.2e}, not promised"),
        ("values outside the fitted ranges", f"{test.outside:.3%}"),
    ]
    return console.table(rows, indent="   ")


def success_text(worst: float, bound: float, demo: Demo) -> str:
    """What was kept, and where to look on."""
    return (
        f"every encrypted score is within the predicted bound: {worst:.2e} <= {bound:.2e};\n"
        "everybody got what the manifest grants, and nobody more\n"
        f"look on: export HECOMPILE_HOME={demo.settings}\n"
        f"         hecompile inspect {demo.out / 'bundle'}\n"
        "         hecompile audit show --decision deny"
    )
