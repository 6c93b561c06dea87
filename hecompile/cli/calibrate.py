"""`hecompile calibrate`: measure what the compiler's cost model predicts."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import check_output, json_option, output_option

if TYPE_CHECKING:
    from hecompile.numeric.cost import CostModel

SHOWN = ("rotate", "multiply", "multiply_plain", "rescale", "encode", "encrypt", "galois_key")
"""Primitives that are told after a measurement."""

SHOWN_POINTS = ((8192, 3), (8192, 6), (16384, 10), (32768, 12))
"""Ring degrees and primes at which they are told."""


@click.command("calibrate")
@output_option("Where the table goes; by default where compile looks for it.", metavar="COST.json")
@json_option
def command(output: Path | None, as_json: bool) -> None:
    """Measure SEAL's primitives on this machine, in less than a minute.

    Plans are then compared, and times predicted, by what this machine takes. Leave the machine
    alone meanwhile.
    """
    from hecompile.costs import default_cost_path, write_cost_model
    from hecompile.files import private_folder
    from hecompile.numeric.cost import DEFAULT_COST_MODEL, CostModel
    from hecompile.runtime.context import library_versions
    from hecompile.runtime.primitives import measure_primitives

    check_output(output)
    table = measure_primitives(progress=console.Progress())
    machine = f"{platform.machine()}, {console.counted(os.cpu_count() or 1, 'core')}"
    day = datetime.now(UTC).date().isoformat()
    name = f"measured {day} on {machine}, TenSEAL {library_versions().tenseal}"
    model = CostModel(name, table)
    path = output if output is not None else default_cost_path()
    if output is None:
        private_folder(path.parent)
    write_cost_model(path, model)
    pace = model.seconds("rotate", 8192, 3) / DEFAULT_COST_MODEL.seconds("rotate", 8192, 3)
    document = {
        "cost_model": str(path),
        "name": name,
        "pace": pace,
        "milliseconds": {
            op: {
                f"{ring}/{primes}": _milliseconds(model, op, ring, primes)
                for ring, primes in SHOWN_POINTS
            }
            for op in SHOWN
        },
    }
    text = f"{_table(model)}this machine takes {pace:.2f} times what the shipped table says\n"
    if output is None:
        text += f"wrote {path}, which compile uses from now on"
    else:
        text += f"wrote {path}; compile uses it with --cost-model {path}"
    console.result(document, text, as_json)


def _milliseconds(model: CostModel, op: str, ring: int, primes: int) -> float:
    return model.seconds(op, ring, primes) * 1e3


def _table(model: CostModel) -> str:
    rows = [
        (op, *(_milliseconds(model, op, ring, primes) for ring, primes in SHOWN_POINTS))
        for op in SHOWN
    ]
    heads = (f"N={ring}, {primes} primes" for ring, primes in SHOWN_POINTS)
    return console.table(rows, ("milliseconds", *heads), indent="")
