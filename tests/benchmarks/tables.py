"""What was measured, laid out for people: text tables and the cells that documents share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hecompile.cli.console import size, table

Measured = Mapping[str, Any]

PHASES = ("keygen", "encrypt-model", "load", "encrypt", "evaluate", "refresh", "decrypt")
NONE = "-"


@dataclass(frozen=True)
class Line:
    """One line of a table: what it is called, and how it is written for a row."""

    name: str
    cell: Callable[[Measured], str]


def good(measured: Sequence[Measured], series: str = "") -> list[Measured]:
    """The rows of a series that were measured, neither skipped nor failed."""
    return [found for found in measured if "phases" in found and found["series"] == series]


def seconds(value: float) -> str:
    """Three digits, in seconds or milliseconds: `2.31 s`, `84.2 ms`."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def both(found: Measured, phase: str) -> str:
    """CPU and wall seconds of a phase."""
    spent = found["compile"] if phase == "compile" else found["phases"].get(phase)
    return f"{seconds(spent['cpu'])} / {seconds(spent['wall'])}" if spent else NONE


def ring(found: Measured) -> str:
    """Ring degree and the bits of its modulus."""
    parameters = found["report"]["parameters"]
    return f"{parameters['poly_modulus_degree']} / {sum(parameters['coeff_modulus_bits'])}"


def primes(bits: Sequence[int]) -> str:
    """Sizes of the primes, equal neighbours together: `30 + 2x52 + 26 + 54`."""
    runs: list[list[int]] = []
    for size_ in bits:
        if runs and runs[-1][0] == size_:
            runs[-1].append(size_)
        else:
            runs.append([size_])
    return " + ".join(f"{len(run)}x{run[0]}" if len(run) > 1 else str(run[0]) for run in runs)


def lower_bound(found: Measured) -> float:
    """Sum of the operations' primitive times on this machine as fast as it was, CPU seconds."""
    return float(found["report"]["predicted_seconds"] * found["machine_factor"])


def over_bound(found: Measured) -> float:
    """Measured evaluation over the lower bound."""
    return float(found["measured_seconds"]) / lower_bound(found)


def shared(found: Measured) -> str:
    """CPU and wall seconds where two processes share the evaluation."""
    pair = found["two_processes"]
    return f"{seconds(pair['cpu'])} / {seconds(pair['wall'])}" if pair else NONE


def speed_up(found: Measured) -> float | None:
    """How many times more CPU the plain TenSEAL program takes; None where there is none."""
    beside = found["plain"]
    if beside is None:
        return None
    return float(beside["phases"]["evaluate"]["cpu"]) / float(found["measured_seconds"])


def _plain(found: Measured) -> str:
    times = speed_up(found)
    if times is None:
        return NONE
    return f"{seconds(found['plain']['phases']['evaluate']['cpu'])}, {times:.1f} times"


def _plain_error(found: Measured) -> str:
    return f"{found['plain']['measured_error']:.1e}" if found["plain"] else NONE


def per_sample(found: Measured) -> str:
    """CPU seconds of an evaluation for each of its samples."""
    return seconds(found["measured_seconds"] / found["batch"])


def _phase_line(phase: str) -> Line:
    return Line(f"{phase}, CPU / wall", lambda found: both(found, phase))


LINES = (
    Line("samples in one evaluation", lambda m: str(m["batch"])),
    Line("ring N / modulus bits", ring),
    Line("primes, bits", lambda m: primes(m["report"]["parameters"]["coeff_modulus_bits"])),
    Line("scale, bits", lambda m: str(m["report"]["parameters"]["scale_bits"])),
    Line("depth / levels", lambda m: f"{m['report']['depth']} / {m['report']['levels']}"),
    Line("key switches", lambda m: str(m["report"]["key_switches"])),
    Line("refresh rounds", lambda m: str(m["report"]["refreshes"])),
    Line("Galois keys", lambda m: str(m["report"]["galois_keys"])),
    Line("Galois keys in memory", lambda m: size(m["report"]["galois_key_bytes"])),
    Line("evaluation keys, file", lambda m: size(m["key_bytes"]["evaluation"])),
    Line("ciphertexts in / out", lambda m: " / ".join(
        size(m["ciphertext_bytes"][way]) for way in ("in", "out"))),
    Line("ciphertexts refreshed", lambda m: size(m["ciphertext_bytes"]["refresh"])),
    Line("compile, CPU / wall", lambda m: both(m, "compile")),
    *map(_phase_line, PHASES),
    Line("  by two processes", shared),
    Line("evaluate, CPU per sample", per_sample),
    Line("predicted evaluate", lambda m: seconds(m["report"]["predicted_seconds"])),
    Line("machine, times slower", lambda m: f"{m['machine_factor']:.2f}"),
    Line("measured / (predicted x machine)", lambda m: f"{over_bound(m):.2f}"),
    Line("plain TenSEAL, evaluate CPU", _plain),
    Line("plain TenSEAL, error", _plain_error),
    Line("evaluator's peak memory", lambda m: size(m["peak_memory_bytes"])),
    Line("compiler's peak memory", lambda m: size(m["compile_peak_memory_bytes"])),
    Line("compared with", lambda m: str(m["compared_with"])),
    Line("predicted error (bound)", lambda m: f"{m['bound']:.1e}"),
    Line("measured error (max)", lambda m: f"{m['measured_error']:.1e}"),
)  # fmt: skip


def main_table(measured: Sequence[Measured], columns: int = 4) -> str:
    """The main rows, one column each, `columns` of them side by side."""
    rows = good(measured)
    text = ""
    for i in range(0, len(rows), columns):
        chosen = rows[i : i + columns]
        lines = [[line.name, *(line.cell(found) for found in chosen)] for line in LINES]
        text += table(lines, ["", *(str(found["row"]) for found in chosen)], indent="") + "\n"
    return text


def split_table(measured: Sequence[Measured]) -> str:
    """Where the time of each main row's evaluation goes."""
    rows: list[tuple[object, ...]] = []
    for found in good(measured):
        total = sum(entry["measured"] for entry in found["operations"]) or 1.0
        rows += [(found["row"], entry["operation"], f"{entry['count']:.0f}",
                  seconds(entry["measured"]), f"{entry['measured'] / total:.0%}",
                  seconds(entry["predicted"]))
                 for entry in found["operations"]]  # fmt: skip
    head = ("row", "operation", "count", "CPU", "share", "predicted")
    return table(rows, head, indent="") if rows else ""


def curve_table(measured: Sequence[Measured]) -> str:
    """The points of all scaling curves."""
    rows = [
        (found["row"], ring(found), str(found["report"]["key_switches"]), both(found, "evaluate"),
         per_sample(found), seconds(found["report"]["predicted_seconds"]),
         f"{over_bound(found):.2f}", _plain(found))
        for series in ("features", "layers", "batch")
        for found in good(measured, series)
    ]  # fmt: skip
    head = ("point", "N / bits", "key switches", "evaluate, CPU / wall", "per sample",
            "predicted", "over bound", "plain TenSEAL")  # fmt: skip
    return table(rows, head, indent="") if rows else ""


def absent(measured: Sequence[Measured]) -> str:
    """A line for each row that was skipped or failed."""
    return "".join(
        f"{found['row']}: {word}: {found[word]}\n"
        for found in measured
        for word in ("skipped", "failed")
        if word in found
    )


def report(measured: Sequence[Measured]) -> str:
    """All tables, and what is missing."""
    parts = (main_table(measured), split_table(measured), curve_table(measured), absent(measured))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def headline(about: Mapping[str, Any]) -> str:
    """The machine and libraries in one line."""
    return (
        f"{about['architecture']}, {about['cores']} cores, {' '.join(about['features'])}; "
        f"Python {about['python']}, TenSEAL {about['tenseal']} with SEAL {about['seal']}; "
        f"{about['date']}\n"
    )
