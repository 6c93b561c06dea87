"""Plots of the scaling curves, as SVG files that are the same for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.recurrent_tables import client_seconds
from tests.benchmarks.tables import good, lower_bound

AXES = {
    "steps": "steps of CNNLSTM",
    "features": "features of a dense network N-32-1",
    "layers": "squares in a dense network of width 16",
    "batch": "samples in one evaluation of DiabetesMLP",
}


def curves(measured: Sequence[Mapping[str, Any]], series: str) -> dict[str, list[float]]:
    """The lines of one plot, CPU seconds of one evaluation at each point.

    Returns:
        By legend; "at" holds the places on the axis. A plain program's line is there only if every
        point has one.
    """
    points = sorted(good(measured, series), key=lambda found: found["at"])
    lines = {
        "at": [float(found["at"]) for found in points],
        "measured": [float(found["measured_seconds"]) for found in points],
        "cost model, at the machine's speed": [lower_bound(found) for found in points],
    }
    if series == "steps":
        lines["client and key holder"] = [client_seconds(found) for found in points]
    if all(found["plain"] for found in points):
        lines["plain TenSEAL"] = [
            float(found["plain"]["phases"]["evaluate"]["cpu"]) for found in points
        ]
    if series == "batch":
        lines["measured, per sample"] = [
            found["measured_seconds"] / found["batch"] for found in points
        ]
    return lines


def draw(measured: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """Write a plot for each series of two points or more.

    Args:
        measured: the rows.
        folder: where the files go; it is made.

    Returns:
        The series drawn.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    mpl.rcParams.update({"svg.hashsalt": "hecompile", "svg.fonttype": "none"})
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for series, axis in AXES.items():
        lines = curves(measured, series)
        places = lines.pop("at")
        if len(places) < 2:
            continue
        figure, plot = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
        for legend, values in lines.items():
            plot.plot(places, values, marker="o", label=legend)
        plot.set_xlabel(axis)
        plot.set_ylabel("CPU seconds")
        plot.set_yscale("log")
        if series != "layers":
            plot.set_xscale("log", base=2)
        plot.set_xticks(places, [f"{place:.0f}" for place in places])
        plot.xaxis.set_minor_formatter(NullFormatter())
        plot.grid(visible=True, which="major", alpha=0.3)
        plot.legend()
        figure.savefig(folder / f"{series}.svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
        drawn.append(series)
    return drawn
