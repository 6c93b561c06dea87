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
    from hecompile.demo import Demo


@click.command("demo")
@click.option(
    "--out", type=PATH, default=Path("demo-out"), show_default=True, help="Folder, made anew."
)
@click.option(
    "--beats",
    default=72,
    show_default=True,
    help="Held-out beats to run encrypted: 4 for the doctor, 4 for the nurse, the rest a cohort.",
)
@click.option("--batch", default=8, show_default=True, help="Beats in one evaluation.")
@json_option
def command(out: Path, beats: int, batch: int, as_json: bool) -> int:
    """Train a CNN-LSTM on real heartbeats, compile it, and classify beats for a hospital's roles.

    Leaves with 1 if a score is farther from onnxruntime's than the compiler predicted, encrypted or
    on the test set, if what was released is farther from it than was told, if the policy refused or
    granted what it should not, or if the compiled program loses more than 1 point of accuracy.
    """
    from hecompile.demo import Demo

    demo = Demo(out, beats, batch, console.Progress())
    demo.prepare()
    try:
        with demo.own_settings():
            return _play(demo, as_json)
    except KeyboardInterrupt as error:
        shutil.rmtree(out, ignore_errors=True)
        raise stopped_by(error, f"{out} was removed") from error


def _play(demo: Demo, as_json: bool) -> int:
    """Go through all stages, telling what each gave."""
    from hecompile.cli.demo_text import (
        answers_text,
        beats_text,
        costs_text,
        find_failures,
        held_out_text,
        success_text,
        work_document,
    )
    from hecompile.cli.describe import report_text
    from hecompile.cli.describe_access import role_table
    from hecompile.demo import lstm_shape

    say = _Teller(as_json)
    trained = demo.train()
    say(f"1. trained a CNN-LSTM on {trained.data}")
    compiled = demo.compile()
    lstm = lstm_shape(compiled)
    report = compiled.report.to_json()
    say(f"   {lstm['steps']} LSTM steps, hidden size {lstm['hidden']}")
    bound = compiled.predicted_error
    say(f"\n2. compiled it: {demo.out / 'bundle'}, predicted error {bound:.2e}")
    say(f"   who sees what of it, by its manifest:\n{role_table(demo.manifest())}")
    demo.keygen()
    say(f"3. the vault made keys: {demo.out / 'keys'} for the others, {demo.out / 'vault'}\n")
    wards = demo.run()
    say("4. a process without the secret key classified encrypted beats")
    say(beats_text(wards, demo.classes(), bound))
    answers = demo.ask(wards)
    say("\n5. everybody asks; each answer with the entry that it left in the audit log")
    say(answers_text(answers))
    test = demo.test(compiled)
    say("\n6. all held-out beats, in the clear")
    say(held_out_text(test))
    say("\n7. what it took")
    say(costs_text(wards))
    say(report_text(report, operations=False))
    rows = [*demo.seconds.items(), ("together", sum(demo.seconds.values()))]
    say(console.table([(k, f"{v:.1f} s") for k, v in rows], ("stage", "time")))
    beats = [beat for ward in wards for beat in ward.beats]
    worst = max(beat.difference for beat in beats)
    failures = find_failures(worst, bound, test, wards, answers)
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
        "answers": [
            {
                **asdict(answer),
                "released": None if answer.released is None else str(answer.released),
                "values": None if answer.released is None else answer.released.values,
            }
            for answer in answers
        ],
        "test_set": asdict(test),
        "seconds": demo.seconds,
        **work_document(wards),
    }
    for failure in failures:
        console.say(f"FAILED: {failure}")
    text = "" if failures else success_text(worst, bound, demo)
    console.result(document, text, as_json)
    return 1 if failures else 0


class _Teller:
    """Prints as the demonstration goes: on stdout, or on stderr where stdout holds JSON."""

    def __init__(self, as_json: bool) -> None:
        self._err = as_json

    def __call__(self, text: str) -> None:
        console.clear_line()
        click.echo(text.rstrip("\n") if text.startswith("  ") else text, err=self._err)
