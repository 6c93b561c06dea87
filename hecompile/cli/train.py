"""`hecompile train`: from data to a folder that the compiler takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import PATH, json_option
from hecompile.errors import UsageError

if TYPE_CHECKING:
    from hecompile.models.recipes import TrainReport
    from hecompile.models.train import Epoch


@click.command("train")
@click.option("--data", default="ecg5000", show_default=True, help="ecg5000, a .csv or an .npz.")
@click.option("--model", default="cnn-lstm", show_default=True, help="cnn-lstm or mlp.")
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="Folder to make.")
@click.option("--seed", default=0, show_default=True, help="Fixes weights and order.")
@click.option("--epochs", type=int, help="The most epochs.")
@click.option("--activation", default="square", show_default=True, help="Of hidden layers.")
@click.option("--class-weights", is_flag=True, help="Weigh classes by inverse frequency.")
@click.option(
    "--exporter", type=click.Choice(["dynamo", "torchscript"]), help="PyTorch's exporter."
)
@click.option("--target", metavar="COLUMN", help="The column to predict, or the array of labels.")
@click.option("--feature", "features", multiple=True, metavar="COLUMN", help="Use; repeatable.")
@click.option("--group", metavar="COLUMN", help="Groups that must not be in both parts.")
@click.option("--time", "time_column", metavar="COLUMN", help="Sort by this column (CSV).")
@click.option("--test-fraction", default=0.25, show_default=True, help="Part held out.")
@click.option("--random-rows", is_flag=True, help="Split at random rows.")
@click.option("--window", nargs=2, type=int, metavar="LENGTH STEP", help="Cut series into windows.")
@click.option("--overwrite", is_flag=True, help="Replace an existing folder.")
@json_option
def command(
    data: str,
    model: str,
    output: Path,
    seed: int,
    epochs: int | None,
    activation: str,
    class_weights: bool,
    exporter: str | None,
    target: str | None,
    features: tuple[str, ...],
    group: str | None,
    time_column: str | None,
    test_fraction: float,
    random_rows: bool,
    window: tuple[int, int] | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a model and write model.onnx, preprocess.json, calibration.npz and test.npz."""
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists already; name another folder, or give --overwrite")
    from hecompile.models import train_to_directory
    from hecompile.models.recipes import DataOptions

    given = DataOptions(
        target, features, group, time_column, test_fraction, random_rows, window or None
    )
    report = train_to_directory(
        data,
        model,
        output,
        seed=seed,
        epochs=epochs,
        options=None if given == DataOptions() else given,
        activation=activation,
        class_weights=class_weights,
        exporter=exporter,  # type: ignore[arg-type]  # click has checked the choice
        overwrite=overwrite,
        progress=show_epochs(),
    )
    console.result({"output": str(output), **report.to_dict()}, _text(report, output), as_json)


def show_epochs() -> Callable[[Epoch], None]:
    """Progress of a training: one step an epoch."""
    progress = console.Progress()

    def show(epoch: Epoch) -> None:
        progress("training", epoch.number, epoch.epochs)

    return show


def _text(report: TrainReport, output: Path) -> str:
    baseline = f"{report.majority_baseline:.1%}"
    rows = [
        ("data", report.data),
        ("classes", ", ".join(report.classes)),
        ("model", f"{report.model}, {report.parameters} numbers"),
        ("epochs", f"{report.epochs}, the best was {report.best_epoch}"),
        ("accuracy", f"{report.accuracy:.1%} on the held-out part (majority answer {baseline})"),
        ("seconds", f"{report.seconds:.1f}"),
        ("written", str(output)),
    ]
    return console.table(rows, indent="")
