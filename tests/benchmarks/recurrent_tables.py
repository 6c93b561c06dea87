"""The recurrent networks' tables: cost and error by steps, and how straight the lines are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hecompile.cli.console import size, table
from tests.benchmarks.tables import Measured, both, good, primes, ring, seconds

CLIENT = ("encrypt", "refresh", "decrypt")
FIRST_FITTED = 4
"""Fewest steps that a line is fitted to: shorter sequences get other parameters and plans."""


@dataclass(frozen=True)
class Column:
    """A column: its head, and how it is written for a row."""

    head: str
    cell: Callable[[Measured], str]


@dataclass(frozen=True)
class Quantity:
    """Something that grows with the steps: what it is called, its number, how that is written."""

    name: str
    value: Callable[[Measured], float]
    text: Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """A line through points.

    Attributes:
        slope: for each step more.
        constant: at no steps.
        deviation: largest distance of a point from the line, as a share of the line there.
    """

    slope: float
    constant: float
    deviation: float


def ciphertexts(found: Measured, way: str) -> int:
    """Ciphertexts of all rounds: "requests" go up to the key holder, "responses" come down."""
    return int(sum(segment[way] for segment in found["report"]["segments"]))


def client_seconds(found: Measured) -> float:
    """CPU seconds of encryption, of the key holder's part of all rounds, and of decryption."""
    return float(sum(found["phases"][phase]["cpu"] for phase in CLIENT))


def _sent(found: Measured, way: str) -> str:
    return size(found["ciphertext_bytes"][way])


COLUMNS = (
    Column("evaluator, CPU", lambda m: seconds(m["measured_seconds"])),
    Column("client and key holder, CPU", lambda m: seconds(client_seconds(m))),
    Column("machine", lambda m: f"{m['machine_factor']:.2f}"),
    Column("N / bits", ring),
    Column("key switches", lambda m: str(m["report"]["key_switches"])),
    Column("rounds", lambda m: str(m["refresh_rounds"])),
    Column("ciphertexts up / down", lambda m: (
        f"{ciphertexts(m, 'requests')} / {ciphertexts(m, 'responses')}")),
    Column("bytes up / down", lambda m: f"{_sent(m, 'up')} / {_sent(m, 'down')}"),
    Column("noise promised", lambda m: f"{m['noise_bound']:.1e}"),
    Column("noise measured", lambda m: f"{m['polynomial_error']:.1e}"),
    Column("error promised", lambda m: f"{m['bound']:.1e}"),
    Column("error measured", lambda m: f"{m['measured_error']:.1e}"),
)  # fmt: skip
"""Noise is the distance from the polynomial model in float64, error that from onnxruntime."""

FURTHER = (
    Column("primes", lambda m: primes(m["report"]["parameters"]["coeff_modulus_bits"])),
    Column("Galois keys", lambda m: (
        f"{m['report']['galois_keys']}, {size(m['report']['galois_key_bytes'])}")),
    Column("compile, CPU / wall", lambda m: both(m, "compile")),
    Column("keygen, CPU / wall", lambda m: both(m, "keygen")),
    Column("evaluator's peak", lambda m: size(m["peak_memory_bytes"])),
)  # fmt: skip

QUANTITIES = (
    Quantity("evaluator, CPU / machine", lambda m: m["measured_seconds"] / m["machine_factor"],
             seconds),
    Quantity("client and key holder, CPU / machine",
             lambda m: client_seconds(m) / m["machine_factor"], seconds),
    Quantity("evaluator, predicted", lambda m: m["report"]["predicted_seconds"], seconds),
    Quantity("key switches", lambda m: m["report"]["key_switches"], lambda n: f"{n:.3g}"),
    Quantity("bytes up and down", lambda m: m["ciphertext_bytes"]["refresh"], size),
)  # fmt: skip

ERRORS = (
    ("noise promised", "noise_bound"),
    ("noise measured", "polynomial_error"),
    ("error promised", "bound"),
    ("error measured", "measured_error"),
)

LINE_HEAD = ("quantity", "for each step", "constant", "largest deviation")
GROWTH_HEAD = ("quantity", "at the first", "at the last", "times")


def text(measured: Sequence[Measured]) -> str:
    """All of it for a terminal, the tables turned so that they are not too wide."""
    parts = []
    named = [(("steps of CNNLSTM",), COLUMNS, steps_rows), (("",), (*COLUMNS,), other_rows)]
    for head, columns, lines in named:
        rows = lines(measured)
        heads = [*head, *(column.head for column in columns)]
        turned = [list(cells) for cells in zip(heads, *rows, strict=True)]
        parts.append(table(turned[1:], turned[0], indent="") if rows else "")
    further = further_rows(measured)
    if further:
        parts.append(table(further, ["", *(column.head for column in FURTHER)], indent=""))
    if fitted(measured):
        parts.append(f"Lines through {span(measured)}:\n" + table(line_rows(measured), LINE_HEAD))
        parts.append(f"Errors, {span(measured)}:\n" + table(growth_rows(measured), GROWTH_HEAD))
    return "\n".join(part for part in parts if part)


def points(measured: Sequence[Measured]) -> list[Measured]:
    """The rows of the reference model by steps, the shortest first."""
    return sorted(good(measured, "steps"), key=lambda found: found["at"])


def fitted(measured: Sequence[Measured]) -> list[Measured]:
    """Those of them that lines are fitted to; none where that are fewer than three."""
    chosen = [found for found in points(measured) if found["at"] >= FIRST_FITTED]
    return chosen if len(chosen) > 2 else []


def fit_line(steps: Sequence[float], values: Sequence[float]) -> Line:
    """The line of least squares of relative deviations."""
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    slope, constant = np.polyfit(x, y, 1, w=1 / y)
    line = slope * x + constant
    return Line(float(slope), float(constant), float(np.abs(y / line - 1).max()))


def steps_rows(measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    """One line for each number of steps; `COLUMNS` follow the number."""
    return [(str(m["at"]), *(c.cell(m) for c in COLUMNS)) for m in points(measured)]


def line_rows(measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    """What grows with the steps: slope, constant and largest relative deviation of its line."""
    chosen = fitted(measured)
    rows: list[tuple[str, ...]] = []
    for quantity in QUANTITIES if chosen else ():
        values = [quantity.value(found) for found in chosen]
        line = fit_line([found["at"] for found in chosen], values)
        sign = "-" if line.constant < 0 else ""
        rows.append((quantity.name, quantity.text(line.slope),
                     sign + quantity.text(abs(line.constant)),
                     f"{line.deviation:.1%}"))  # fmt: skip
    return rows


def growth_rows(measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    """Errors of the shortest and the longest sequence that lines are fitted to, and their ratio."""
    chosen = fitted(measured)
    if not chosen:
        return []
    first, last = chosen[0], chosen[-1]
    return [
        (name, f"{first[key]:.1e}", f"{last[key]:.1e}", f"{last[key] / first[key]:.2f}")
        for name, key in ERRORS
    ]


def span(measured: Sequence[Measured]) -> str:
    """The steps that lines are fitted to, in words."""
    chosen = fitted(measured)
    return f"{chosen[0]['at']} to {chosen[-1]['at']} steps" if chosen else ""


def other_rows(measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    """One line for each other recurrent network; `COLUMNS` follow its name."""
    rows = sorted(good(measured, "recurrent"), key=lambda found: found["at"])
    return [(m["row"], *(c.cell(m) for c in COLUMNS)) for m in rows]


def further_rows(measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    """Parameters, keys and memory of all recurrent rows; `FURTHER` follow the name."""
    rows = sorted(good(measured, "recurrent"), key=lambda found: found["at"])
    return [(m["row"], *(c.cell(m) for c in FURTHER)) for m in (*points(measured), *rows)]
