"""The plain TenSEAL program beside a row, in a process of its own that is asked for samples."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hecompile.errors import HecompileError
from hecompile.runtime.usage import Phase
from tests.benchmarks.cases import Case
from tests.benchmarks.plain import SAMPLES_FILE, WEIGHTS_FILE
from tests.benchmarks.rounds import Rounds, medians
from tests.benchmarks.rows import Row

ROOT = Path(__file__).resolve().parents[2]


class PlainProcess:
    """A plain TenSEAL program that waits for samples."""

    def __init__(self, program: str, folder: Path) -> None:
        """Start it and wait for its keys.

        Raises:
            HecompileError: it ended.
        """
        command = [sys.executable, "-m", "tests.benchmarks.plain", program, str(folder)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._about = self._read()

    def ask(self, sample: int) -> dict[str, Any]:
        """Have it evaluate a sample.

        Raises:
            HecompileError: it ended.
        """
        if self._process.stdin is None:
            raise HecompileError("the plain program has no pipe")
        self._process.stdin.write(f"{sample}\n")
        self._process.stdin.flush()
        return self._read()

    def summary(self, done: Rounds) -> dict[str, Any]:
        """All about it: parameters, medians, error, memory."""
        return self._about | {
            "phases": {
                name: medians([Phase(**answer["phases"][name]) for answer in done.plain])
                for name in ("encrypt", "evaluate", "decrypt")
            },
            "evaluate_rounds": [answer["phases"]["evaluate"]["cpu"] for answer in done.plain],
            "measured_error": max(done.plain_errors),
            "peak_memory_bytes": max(answer["peak_memory_bytes"] for answer in done.plain),
        }

    def end(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise HecompileError("the plain program ended; see above")
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.contextmanager
def plain_process(row: Row, case: Case, folder: Path) -> Iterator[PlainProcess | None]:
    if row.plain is None:
        yield None
        return
    weights: dict[str, Any] = dict(case.weights)
    np.savez(folder / WEIGHTS_FILE, **weights)
    np.save(folder / SAMPLES_FILE, case.samples)
    process = PlainProcess(row.plain, folder)
    try:
        yield process
    finally:
        process.end()
