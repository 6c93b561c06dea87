"""Measure the rows: `python -m tests.benchmarks.run`, `make bench`."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hecompile.files import atomic_write_text
from hecompile.runtime.context import library_versions
from tests.benchmarks import recurrent_tables
from tests.benchmarks.rows import EVERY, Row, choose
from tests.benchmarks.tables import headline, report
from tests.benchmarks.yardstick import Yardstick, predicted_seconds

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ("avx2", "avx512f", "avx512ifma", "sha_ni", "asimd")
DEFAULT_ROUNDS = 3
SLOWEST_ROW_SECONDS = 3600
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""For the compiler and the timing of single operations; the evaluator's process sees to itself."""


def machine() -> dict[str, Any]:
    """Facts about this machine and its libraries, and how fast it is before the first row."""
    flags: set[str] = set()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        flags = set(info.read_text(encoding="ascii", errors="replace").split())
    versions = library_versions()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "features": [name for name in FEATURES if name in flags],
        "python": platform.python_version(),
        "tenseal": versions.tenseal,
        "seal": versions.seal,
        "rotation_seconds": Yardstick().seconds(),
        "predicted_rotation_seconds": predicted_seconds(),
    }


def measure(row: Row, rounds: int) -> dict[str, Any]:
    """Measure a row in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.measure", row.name, str(rounds)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=SLOWEST_ROW_SECONDS,
            env={**os.environ, **ONE_THREAD},
        )
    except subprocess.TimeoutExpired:
        return {"row": row.name, "failed": f"not done after {SLOWEST_ROW_SECONDS} s"}
    if done.returncode != 0:
        return {"row": row.name, "failed": f"exit code {done.returncode}; see above"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def merge(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows in the order of the tables, new ones instead of old ones of the same name."""
    by_name = {found["row"]: found for found in (*old, *new)}
    return [by_name[row.name] for row in EVERY if row.name in by_name]


def broken(measured: Sequence[dict[str, Any]]) -> list[str]:
    """What went wrong: rows that failed, and errors beyond their bound."""
    told = [f"{found['row']}: failed" for found in measured if "failed" in found]
    told += [
        f"{found['row']}: the error {found['measured_error']:.2e} is larger than"
        f" predicted, {found['bound']:.2e}"
        for found in measured
        if "bound" in found and not found["measured_error"] <= found["bound"]
    ]
    told += [
        f"{found['row']}: the ciphertexts' noise {found['polynomial_error']:.2e} is larger than"
        f" predicted, {found['noise_bound']:.2e}"
        for found in measured
        if "noise_bound" in found and not found["polynomial_error"] <= found["noise_bound"]
    ]
    return told


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="tests.benchmarks.run", description=__doc__)
    made.add_argument(
        "--only",
        metavar="A,B",
        default="",
        help="rows of these names, or whose names begin so; by default all",
    )
    made.add_argument(
        "--rounds", metavar="N", type=int, help=f"evaluations a row (default {DEFAULT_ROUNDS})"
    )
    made.add_argument(
        "--quick", action="store_true", help="one round, no curves, nothing that takes minutes"
    )
    made.add_argument(
        "--slow", action="store_true", help="also rows that need minutes and gigabytes for keys"
    )
    made.add_argument("--json", metavar="FILE", type=Path, help="also write everything there")
    made.add_argument(
        "--update", action="store_true", help="keep the other rows of the file that is there"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and fail where a row failed or missed its bound."""
    command = parser()
    given = command.parse_args(arguments)
    rounds = given.rounds if given.rounds is not None else 1 if given.quick else DEFAULT_ROUNDS
    if rounds < 1:
        command.error("--rounds is 1 or more")
    if given.update and given.json is None:
        command.error("--update needs --json")
    try:
        words = [word for word in given.only.split(",") if word.strip()]
        rows = choose(words, given.quick, given.slow)
    except ValueError as error:
        command.error(str(error))
    kept: list[dict[str, Any]] = []
    if given.update and given.json.is_file():
        kept = json.loads(given.json.read_text(encoding="utf-8"))["rows"]
    about = machine()
    measured: list[dict[str, Any]] = []
    for row in rows:
        print(f"measuring {row.name} ...", file=sys.stderr, flush=True)
        measured.append(measure(row, rounds))
        if given.json is not None:
            # After every row, for the whole takes long.
            document = {"machine": about, "rows": merge(kept, measured)}
            atomic_write_text(given.json, json.dumps(document, indent=1) + "\n")
    print(headline(about))
    print(report(measured), end="")
    further = recurrent_tables.text(measured)
    print(f"\n{further}" if further else "", end="")
    for line in broken(measured):
        print(line, file=sys.stderr)
    return 1 if broken(measured) else 0


if __name__ == "__main__":
    sys.exit(main())
