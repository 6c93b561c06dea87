"""Measure the reference models: `python -m tests.benchmarks.run`, `make bench`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hecompile.cli.console import size, table
from hecompile.files import atomic_write_text
from hecompile.runtime.context import library_versions
from hecompile.runtime.run import PHASES
from tests.benchmarks.cases import NAMES
from tests.benchmarks.yardstick import predicted_seconds, rotation_seconds

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ("avx2", "avx512f", "avx512ifma", "sha_ni", "asimd")
Measured = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table: what it is called, and how it is written for a model."""

    name: str
    cell: Callable[[Measured], str]


def _seconds(phase: str) -> Row:
    def cell(found: Measured) -> str:
        spent = found["compile"] if phase == "compile" else found["phases"][phase]
        return f"{spent['cpu']:.2f} / {spent['wall']:.2f}"

    return Row(f"{phase}, CPU / wall s", cell)


def _ring(found: Measured) -> str:
    parameters = found["parameters"]
    bits = parameters["coeff_modulus_bits"]
    return f"{parameters['poly_modulus_degree']} / {sum(bits)}"


def _primes(found: Measured) -> str:
    first, *middle, special = found["parameters"]["coeff_modulus_bits"]
    return f"{first}+{len(middle)}x{middle[0] if middle else 0}+{special}"


def _sizes(*names: str) -> Callable[[Measured], str]:
    return lambda found: " / ".join(size(found["ciphertext_bytes"][name]) for name in names)


def _ratio(found: Measured) -> str:
    return f"{found['measured_seconds'] / found['predicted_seconds']:.2f}"


ROWS = (
    Row("ring N / modulus bits", _ring),
    Row("primes, bits", _primes),
    Row("security, bits", lambda m: str(m["parameters"]["security_bits"])),
    Row("scale, bits", lambda m: str(m["parameters"]["scale_bits"])),
    Row("depth / levels", lambda m: f"{m['depth']} / {m['levels']}"),
    Row("key switches", lambda m: str(m["key_switches"])),
    Row("refresh rounds", lambda m: str(m["refreshes"])),
    Row("Galois keys", lambda m: str(m["galois_keys"])),
    Row("Galois keys in memory", lambda m: size(m["galois_key_bytes"])),
    Row("evaluation keys, file", lambda m: size(m["key_bytes"]["evaluation"])),
    _seconds("compile"),
    *(_seconds(phase) for phase in PHASES),
    Row("predicted evaluate, s", lambda m: f"{m['predicted_seconds']:.2f}"),
    Row(
        "  measured / predicted", lambda m: f"{m['measured_seconds'] / m['predicted_seconds']:.2f}"
    ),
    Row("ciphertexts in / out", _sizes("in", "out")),
    Row("ciphertexts refreshed", _sizes("refresh")),
    Row("evaluator's peak memory", lambda m: size(m["peak_memory_bytes"])),
    Row("  predicted, no library", lambda m: size(m["predicted_memory_bytes"])),
    Row("compiler's peak memory", lambda m: size(m["compile_peak_memory_bytes"])),
    Row("predicted error (bound)", lambda m: f"{m['predicted_error']:.2e}"),
    Row("measured error (max)", lambda m: f"{m['measured_error']:.2e}"),
)


def machine() -> dict[str, object]:
    """The machine by what its processors can do and how fast they are now; libraries' versions."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()
    versions = library_versions()
    return {
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "features": [feature for feature in FEATURES if feature in words],
        "python": platform.python_version(),
        "tenseal": versions.tenseal,
        "seal": versions.seal,
        "rotation_seconds": rotation_seconds(),
        "predicted_rotation_seconds": predicted_seconds(),
    }


def measure(name: str, samples: int) -> Measured:
    """Measure a model in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.measure", name, str(samples)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return {"model": name, "failed": f"exit code {done.returncode}; see above"}
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def report(measured: Sequence[Measured]) -> str:
    """The table, one column a model, and a line for each model that has none."""
    good = [found for found in measured if "phases" in found]
    text = ""
    if good:
        rows = [[row.name, *(row.cell(found) for found in good)] for row in ROWS]
        text = table(rows, ["", *(str(found["model"]) for found in good)], indent="")
    for found in measured:
        for word in ("skipped", "failed"):
            if word in found:
                text += f"{found['model']}: {word}: {found[word]}\n"
    return text


def headline(about: Mapping[str, Any]) -> str:
    """The machine and libraries in two lines."""
    features = " ".join(about["features"])
    spent, predicted = about["rotation_seconds"], about["predicted_rotation_seconds"]
    return (
        f"{about['architecture']}, {about['cores']} cores, {features}; Python {about['python']}, "
        f"TenSEAL {about['tenseal']} with SEAL {about['seal']}\n"
        f"one rotation (N = 8192, 6 + 1 primes) before the runs: {spent * 1e3:.1f} ms, "
        f"{spent / predicted:.2f} times what the cost model takes"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and fail where a model failed or missed its bound."""
    parser = argparse.ArgumentParser(prog="tests.benchmarks.run", description=__doc__)
    parser.add_argument("--models", metavar="A,B", default=",".join(NAMES), help="by default all")
    parser.add_argument("--samples", metavar="N", type=int, default=3, help="per model (default 3)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything there")
    given = parser.parse_args(arguments)
    names = given.models.split(",")
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"no model {', '.join(unknown)}; choose among {', '.join(NAMES)}")
    if given.samples < 1:
        parser.error("--samples is 1 or more")
    about = machine()
    measured = []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr)
        measured.append(measure(name, given.samples))
    print(headline(about))
    print(report(measured), end="")
    if given.json is not None:
        document = {"machine": about, "samples": given.samples, "models": measured}
        atomic_write_text(given.json, json.dumps(document, indent=2) + "\n")
    missed = [m for m in measured if m.get("measured_error", 0) > m.get("predicted_error", 1)]
    for found in missed:
        print(f"{found['model']}: the error is larger than predicted", file=sys.stderr)
    return 1 if missed or any("failed" in found for found in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
