"""`hecompile demo`: a CNN-LSTM trained on heartbeats, compiled, and run on encrypted beats."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hecompile.cli import console
from hecompile.cli.guard import stopped_by
from hecompile.cli.options import PATH, json_option

if TYPE_CHECKING:
    from hecompile.demo import Beat, Demo, TestSet

MOST_POINTS_LOST = 1.0
"""Points of accuracy that compilation may cost."""


@click.command("demo")
@click.option(
    "--out", type=PATH, default=Path("demo-out"), show_default=True, help="Folder, made anew."
)
@click.option("--beats", default=16, show_default=True, help="Held-out beats to run encrypted.")
@click.option("--batch", default=1, show_default=True, help="Beats in one evaluation.")
@json_option
def command(out: Path, beats: int, batch: int, as_json: bool) -> int:
    """Train a CNN-LSTM on real heartbeats, compile it, and classify encrypted beats.

    Leaves with 1 if a score is farther from onnxruntime's than the compiler predicted, encrypted or
    on the test set, or if the compiled program loses more than 1 point of accuracy.
    """
    from hecompile.demo import Demo

    demo = Demo(out, beats, batch, console.Progress())
    demo.prepare()
    try:
        return _play(demo, as_json)
    except KeyboardInterrupt as error:
        shutil.rmtree(out, ignore_errors=True)
        raise stopped_by(error, f"{out} was removed") from error


def _play(demo: Demo, as_json: bool) -> int:
    """Go through all stages, telling what each gave."""
    from hecompile.cli.describe import report_text
    from hecompile.cli.run import costs, costs_text
    from hecompile.demo import lstm_shape

    say = _Teller(as_json)
    trained = demo.train()
    say(f"1. trained a CNN-LSTM on {trained.data}")
    compiled = demo.compile()
    lstm = lstm_shape(compiled)
    report = compiled.report.to_json()
    say(f"   {lstm['steps']} LSTM steps, hidden size {lstm['hidden']}")
    say(f"\n2. compiled it: {demo.out / 'bundle'}\n{report_text(report)}")
    demo.keygen()
    say(f"3. the hospital made keys: {demo.out / 'keys'}\n")
    beats, result = demo.run()
    bound = compiled.predicted_error
    say("4. a process without the secret key classified encrypted beats")
    say(_beats_text(beats, demo.classes(), bound))
    say(costs_text(result))
    denied = demo.denied()
    say(f"5. user 'rene', a researcher, asks to decrypt:\n   {denied}\n")
    test = demo.test(compiled)
    say("6. all held-out beats, in the clear")
    say(_test_text(test))
    rows = [*demo.seconds.items(), ("together", sum(demo.seconds.values()))]
    say(console.table([(k, f"{v:.1f} s") for k, v in rows], ("stage", "time")))
    worst = max(beat.difference for beat in beats)
    failures = find_failures(worst, bound, test)
    document: dict[str, Any] = {
        "out": str(demo.out),
        "training": trained.to_dict(),
        "lstm": lstm,
        "report": report,
        "beats": [{**asdict(beat), "difference": beat.difference} for beat in beats],
        "largest_difference": worst,
        "predicted_error": bound,
        "within_bound": worst <= bound,
        "failures": failures,
        "denied": denied,
        "test_set": asdict(test),
        "seconds": demo.seconds,
        **costs(result),
    }
    for failure in failures:
        console.say(f"FAILED: {failure}")
    text = "" if failures else _success(worst, bound, demo.out)
    console.result(document, text, as_json)
    return 1 if failures else 0


def find_failures(worst: float, bound: float, test: TestSet) -> list[str]:
    """What the demonstration promises and did not keep, one sentence each.

    Args:
        worst: Largest difference of an encrypted logit from onnxruntime's.
        bound: The error that the compiler predicted.
        test: All held-out beats in the clear.
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
    return found


class _Teller:
    """Prints as the demonstration goes: on stdout, or on stderr where stdout holds JSON."""

    def __init__(self, as_json: bool) -> None:
        self._err = as_json

    def __call__(self, text: str) -> None:
        console.clear_line()
        click.echo(text.rstrip("\n") if text.startswith("  ") else text, err=self._err)


def _beats_text(beats: list[Beat], classes: tuple[str, ...], bound: float) -> str:
    from hecompile.demo import POSITIVE

    rows = [
        (
            f"{beat.number}",
            beat.label,
            classes[beat.encrypted.index(max(beat.encrypted))],
            f"{beat.encrypted[POSITIVE]:+.5f}",
            f"{beat.plain[POSITIVE]:+.5f}",
            f"{beat.difference:.1e}",
        )
        for beat in beats
    ]
    head = ("beat", "truth", "answer", "encrypted", "onnxruntime", "difference")
    worst = max(beat.difference for beat in beats)
    return (
        f"   score: the logit of '{classes[POSITIVE]}'; difference: the largest over both logits\n"
        + console.table(rows, head, indent="   ")
        + f"   largest difference {worst:.2e}, predicted bound {bound:.2e}\n"
    )


def _test_text(test: TestSet) -> str:
    rows = [
        ("beats", f"{test.beats}"),
        ("always the most frequent answer", f"{test.majority_baseline:.1%}"),
        ("plain model (onnxruntime)", f"{test.plain_accuracy:.1%}"),
        ("compiled program (slot interpreter)", f"{test.compiled_accuracy:.1%}"),
        ("accuracy lost", f"{test.points_lost:.1f} points"),
        ("largest difference of a logit", f"{test.largest_difference:.2e}"),
        ("values outside the fitted ranges", f"{test.outside:.3%}"),
    ]
    return console.table(rows, indent="   ")


def _success(worst: float, bound: float, out: Path) -> str:
    return (
        f"every encrypted score is within the predicted bound: {worst:.2e} <= {bound:.2e}\n"
        f"look on: hecompile inspect {out / 'bundle'}"
    )
