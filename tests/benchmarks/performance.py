"""Write docs/performance.md and its plots from measured rows: `make performance`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hecompile.cli.console import size
from hecompile.files import atomic_write_text
from tests.benchmarks import plots
from tests.benchmarks import recurrent_tables as recurrent_rows
from tests.benchmarks.others import CITATIONS, MEASURED, OTHERS
from tests.benchmarks.rows import MAIN, RECURRENT
from tests.benchmarks.tables import (
    NONE,
    PHASES,
    Measured,
    absent,
    both,
    good,
    headline,
    over_bound,
    per_sample,
    primes,
    ring,
    seconds,
    shared,
    speed_up,
)

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "performance"
SOURCE, PAGE = FOLDER / "bench.json", ROOT / "docs" / "performance.md"
LARGEST_SHARES = 4

INTRODUCTION = """\
# Performance

`make performance` writes this page from what `make bench` measured; [benchmarks.md](benchmarks.md)
says how, and what each figure means. All parameters give 128 bits of security. *CPU* are processor
seconds of one evaluation on one thread, medians over the rounds.

Machines differ, and one machine differs from hour to hour: *machine* says how many times longer a
rotation took during the row than in the shipped cost table. Compare ratios, not seconds.
"""

PLAIN = """\
The plain programs are what TenSEAL's own tutorials show: `CKKSVector.mm` for dense layers,
`im2col_encoding`, `conv2d_im2col` and `pack_vectors` for the convolution, `square` between them, on
the tutorials' primes, as many as the depth needs. They run on one thread, in the same rounds.
`CKKSVector.mm` reads copies of its operand behind the vector's end, and a bias that was added
before is not in those copies: that, not noise, is most of their error.
"""

RECURRENT_TEXT = """\
Polynomials of degree 3, and refreshes whose masks hide values by 40 bits. *Noise* is the distance
from the same polynomials computed in float64 in the clear, *error* that from onnxruntime; each
beside what the compiler promised. *Bytes* are those of all rounds of one evaluation.
"""

LINES_TEXT = """\
Lines through {span}, fitted by least squares of the relative deviations; seconds are divided by
*machine*. The second table says how errors grow between these numbers of steps.
"""

BOUND = """\
The bound is the sum of the operations' times in the cost table, times *machine*. *Over the bound*
is what the evaluator itself adds, and what the table gets wrong.
"""


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, the others are figures."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def page(document: Mapping[str, Any], drawn: Sequence[str]) -> str:
    """The whole page.

    Args:
        document: what `run` wrote.
        drawn: series that have a plot in the folder `performance/`.
    """
    measured: list[Measured] = document["rows"]
    rows = good(measured)
    parts = [INTRODUCTION, headline(document["machine"])]
    parts += ["## Evaluation\n", _evaluation(rows)]
    known = {found["row"] for found in measured}
    recurrent = recurrent_markdown(measured, drawn)
    missing = absent(measured).splitlines()
    missing += [f"{row.name}: not measured" for row in (*MAIN, *RECURRENT) if row.name not in known]
    parts += ["".join(f"- {line}\n" for line in missing)] if missing else []
    parts += ["## Recurrent networks\n", *recurrent] if recurrent else []
    parts += ["## Beside plain TenSEAL\n", PLAIN, _plain(rows)]
    parts += ["## Beside the cost model\n", BOUND, _bounds(rows)]
    parts += ["## Phases\n", "CPU / wall time.\n", _phases(rows)]
    parts += ["## Sizes\n", _sizes(rows)]
    parts += ["## Where the time goes\n", _shares(rows)]
    parts += ["## Scaling\n", *_scaling(measured, drawn)]
    parts += ["## Other libraries\n", _others(rows)]
    return "\n".join(parts)


def recurrent_markdown(measured: Sequence[Measured], drawn: Sequence[str]) -> list[str]:
    """The recurrent networks' part, without its heading; nothing where none was measured."""
    tables = recurrent_rows
    heads = [column.head for column in tables.COLUMNS]
    steps, others = tables.steps_rows(measured), tables.other_rows(measured)
    if not steps and not others:
        return []
    parts = [RECURRENT_TEXT]
    if "steps" in drawn:
        parts.append("![CPU seconds by steps of CNNLSTM](performance/steps.svg)\n")
    parts += [markdown(("steps of CNNLSTM", *heads), steps)] if steps else []
    if tables.fitted(measured):
        parts += [f"{LINES_TEXT.format(span=tables.span(measured))}"]
        parts += [markdown(tables.LINE_HEAD, tables.line_rows(measured))]
        parts += [markdown(tables.GROWTH_HEAD, tables.growth_rows(measured))]
    parts += [markdown(("network", *heads), others)] if others else []
    head = ("row", *(column.head for column in tables.FURTHER))
    return [*parts, markdown(head, tables.further_rows(measured))]


def _evaluation(rows: Sequence[Measured]) -> str:
    return markdown(
        ("row", "CPU", "per sample", "N / bits", "primes", "key switches", "refreshes",
         "error promised", "error measured", "rounds"),
        [(m["row"], seconds(m["measured_seconds"]), per_sample(m), ring(m),
          primes(m["report"]["parameters"]["coeff_modulus_bits"]),
          str(m["report"]["key_switches"]), str(m["report"]["refreshes"]), f"{m['bound']:.1e}",
          f"{m['measured_error']:.1e}", str(m["rounds"])) for m in rows],
    )  # fmt: skip


def _plain(rows: Sequence[Measured]) -> str:
    return markdown(
        ("row", "CPU", "plain TenSEAL, CPU", "times", "its N", "its error", "its memory"),
        [(m["row"], seconds(m["measured_seconds"]),
          seconds(m["plain"]["phases"]["evaluate"]["cpu"]), f"{speed_up(m):.1f}",
          str(m["plain"]["poly_modulus_degree"]), f"{m['plain']['measured_error']:.1e}",
          size(m["plain"]["peak_memory_bytes"])) for m in rows if m["plain"]],
    )  # fmt: skip


def _bounds(rows: Sequence[Measured]) -> str:
    return markdown(
        ("row", "predicted", "machine", "measured", "over the bound"),
        [(m["row"], seconds(m["report"]["predicted_seconds"]), f"{m['machine_factor']:.2f}",
          seconds(m["measured_seconds"]), f"{over_bound(m):.2f}") for m in rows],
    )  # fmt: skip


def _phases(rows: Sequence[Measured]) -> str:
    names = ("compile", *(p for p in PHASES if any(p in m["phases"] for m in rows)))
    head = ("row", *names, "evaluate by two processes")
    return markdown(head, [(m["row"], *(both(m, p) for p in names), shared(m)) for m in rows])


def _sizes(rows: Sequence[Measured]) -> str:
    return markdown(
        ("row", "Galois keys", "in memory", "key file", "ciphertexts in", "out", "refreshed",
         "evaluator's peak", "compiler's peak"),
        [(m["row"], str(m["report"]["galois_keys"]), size(m["report"]["galois_key_bytes"]),
          size(m["key_bytes"]["evaluation"]),
          *(size(m["ciphertext_bytes"][way]) for way in ("in", "out", "refresh")),
          size(m["peak_memory_bytes"]), size(m["compile_peak_memory_bytes"])) for m in rows],
    )  # fmt: skip


def _shares(rows: Sequence[Measured]) -> str:
    def told(found: Measured) -> list[str]:
        entries = sorted(found["operations"], key=lambda entry: -entry["measured"])
        total = sum(entry["measured"] for entry in entries) or 1.0
        cells = [
            f"{e['operation']}, {e['count']:.0f}: {e['measured'] / total:.0%}"
            for e in entries[:LARGEST_SHARES]
        ]
        return cells + [""] * (LARGEST_SHARES - len(cells))

    head = ("row", "largest", "second", "third", "fourth")
    return markdown(head, [(m["row"], *told(m)) for m in rows])


def _scaling(measured: Sequence[Measured], drawn: Sequence[str]) -> list[str]:
    parts = []
    for series, axis in plots.AXES.items():
        if series == "steps":
            continue
        points = sorted(good(measured, series), key=lambda found: found["at"])
        if not points:
            continue
        if series in drawn:
            parts.append(f"![CPU seconds by {axis}](performance/{series}.svg)\n")
        rows = []
        for m in points:
            times = speed_up(m)
            beside = NONE if times is None else f"{times:.1f}"
            rows.append(
                (str(m["at"]), seconds(m["measured_seconds"]), per_sample(m), ring(m),
                 str(m["report"]["key_switches"]), f"{over_bound(m):.2f}", beside)
            )  # fmt: skip
        head = (axis, "CPU", "per sample", "N / bits", "key switches", "over the bound",
                "plain TenSEAL, times")  # fmt: skip
        parts.append(markdown(head, rows))
    return parts or ["Not measured.\n"]


def _others(rows: Sequence[Measured]) -> str:
    by_name = {found["row"]: found for found in rows}
    lines = []
    for other in OTHERS:
        found = by_name.get(other.row)
        here = NONE if found is None else seconds(found["measured_seconds"])
        error = NONE if found is None else f"{found['measured_error']:.1e}"
        keys = NONE if other.key_bytes is None else size(other.key_bytes)
        lines.append((other.row, other.name, other.setting, seconds(other.seconds), here,
                      f"{other.error:.1e}", error, keys))  # fmt: skip
    text = (
        f"Measured once, on {MEASURED}, on one thread of a two-core Xeon of the Sapphire Rapids"
        " kind, and not in these rounds: machines drift by half from day to day. The figures come"
        " from running the libraries on the same models; the papers below only describe them."
        " A library that computes more precisely than the row asks for also pays for that.\n\n"
    )
    head = ("row", "library", "setting", "its CPU", "CPU here", "its error", "error here",
            "its keys")  # fmt: skip
    text += markdown(head, lines) + "\n"
    return text + "".join(f"- {name}: {where}.\n" for name, where in CITATIONS.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the rows, draw the plots, write the page."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.performance", description=__doc__)
    parser.add_argument(
        "--json", metavar="FILE", type=Path, default=SOURCE, help="what `make bench` wrote"
    )
    given = parser.parse_args(arguments)
    if not given.json.is_file():
        parser.error(f"{given.json.name} is not there; make it with make bench ARGS='--json FILE'")
    document = json.loads(given.json.read_text(encoding="utf-8"))
    drawn = plots.draw(document["rows"], FOLDER)
    atomic_write_text(PAGE, page(document, drawn))
    print(f"wrote {PAGE.relative_to(ROOT)} and {len(drawn)} plots", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
