"""Measure one model, the evaluator in a second process: `python -m tests.benchmarks.measure`.

A process of its own for each model keeps the peak of memory honest.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import hecompile
from hecompile.access.signing import SigningKey
from hecompile.bundle.assemble import CONSTANTS_FILE, PROGRAM_FILE
from hecompile.compiler import Compiled
from hecompile.runtime.client import Client
from hecompile.runtime.custodian import Custodian
from hecompile.runtime.evaluator import galois_steps
from hecompile.runtime.keys import load_public_key, load_secret_key, write_keys
from hecompile.runtime.processes import EvaluatorProcess
from hecompile.runtime.usage import Phase, Stopwatch, peak_memory_bytes
from tests.benchmarks.cases import Case, MissingError, Samples, make_case

PER_SAMPLE = ("encrypt", "evaluate", "refresh", "decrypt")


@dataclass(frozen=True)
class Encrypted:
    """What the encrypted runs gave and took.

    Attributes:
        phases: seconds of keygen and load, and medians over the samples of the other phases.
        ciphertext_bytes: envelopes of one sample: in, out, and both ways of all refreshes.
        key_bytes: sizes of the key folders on the disk.
        peak_memory_bytes: of the evaluator's process.
        measured_error: largest distance from onnxruntime over samples and outputs.
    """

    phases: dict[str, Phase]
    ciphertext_bytes: dict[str, int]
    key_bytes: dict[str, int]
    peak_memory_bytes: int
    measured_error: float


def measure(name: str, count: int, folder: Path) -> dict[str, Any]:
    """Compile a model and run `count` samples encrypted, one by one.

    Raises:
        MissingError: the model or what it needs is not here.
    """
    case = make_case(name, folder, count)
    watch = Stopwatch()
    with watch.measure("compile"):
        compiled = hecompile.compile(
            case.model,
            calibration={"x": case.calibration},
            preprocessing=case.preprocessing,
        )
        compiled.save(folder / "bundle", signing_key=SigningKey.generate())
    compile_memory = peak_memory_bytes()
    ran = _run(case, compiled, folder)
    report = compiled.report.to_json()
    return {
        "model": name,
        "samples": count,
        **report,
        "compile": asdict(watch.phases["compile"]),
        "compile_peak_memory_bytes": compile_memory,
        "phases": {phase: asdict(spent) for phase, spent in ran.phases.items()},
        "measured_seconds": ran.phases["evaluate"].cpu,
        "measured_error": ran.measured_error,
        "ciphertext_bytes": ran.ciphertext_bytes,
        "key_bytes": ran.key_bytes,
        "peak_memory_bytes": ran.peak_memory_bytes,
    }


def _run(case: Case, compiled: Compiled, folder: Path) -> Encrypted:
    spec, keys = compiled.spec, folder / "keys"
    watch = Stopwatch()
    with watch.measure("keygen"):
        write_keys(keys, spec.parameters, galois_steps(compiled.program), spec.program)
    client = Client(spec, load_public_key(keys, spec.parameters, spec.program))
    custodian = Custodian(spec, load_secret_key(keys, spec.parameters, spec.program))
    program, constants = (
        (folder / "bundle" / file).read_bytes() for file in (PROGRAM_FILE, CONSTANTS_FILE)
    )
    runs: list[Mapping[str, Phase]] = []
    sizes = {"in": 0, "out": 0, "refresh": 0}
    worst = 0.0
    with EvaluatorProcess(program, constants, spec, keys / "evaluation") as process:
        watch.add("load", process.phases["load"])
        for sample in np.split(case.samples, len(case.samples)):
            before = process.phases.get("evaluate", Phase()), process.refresh_bytes
            single, result, sent, received = _one(sample, client, custodian, process)
            after = process.phases["evaluate"]
            single.add("evaluate", Phase(after.cpu - before[0].cpu, after.wall - before[0].wall))
            runs.append(single.phases)
            sizes = {"in": sent, "out": received, "refresh": process.refresh_bytes - before[1]}
            worst = max(worst, float(np.abs(result - case.expected(sample)).max()))
        peak = process.peak_memory_bytes
    for phase in PER_SAMPLE:
        watch.add(phase, _median([run.get(phase, Phase()) for run in runs]))
    return Encrypted(watch.phases, sizes, _folder_sizes(keys), peak, worst)


def _one(
    sample: Samples, client: Client, custodian: Custodian, process: EvaluatorProcess
) -> tuple[Stopwatch, np.ndarray, int, int]:
    """One sample: the client's and key holder's seconds, the output, bytes in and out."""
    watch = Stopwatch()

    def answer(request: bytes) -> bytes:
        with watch.measure("refresh"):
            return custodian.refresh(request)

    with watch.measure("encrypt"):
        (envelope,) = client.encrypt({"x": sample})
    output = process.evaluate(envelope, answer)
    with watch.measure("decrypt"):
        decrypted = custodian.decrypt(output)
    (raw,) = decrypted.raw.values()
    return watch, raw, len(envelope), len(output)


def _median(phases: list[Phase]) -> Phase:
    return Phase(
        statistics.median(p.cpu for p in phases), statistics.median(p.wall for p in phases)
    )


def _folder_sizes(keys: Path) -> dict[str, int]:
    return {
        part.name: sum(file.stat().st_size for file in part.iterdir())
        for part in sorted(keys.iterdir())
    }


def main(arguments: list[str]) -> int:
    """Measure the model named first on as many samples as named second; print JSON."""
    name, count = arguments[0], int(arguments[1])
    with tempfile.TemporaryDirectory(prefix="hecompile-bench-") as folder:
        try:
            document = measure(name, count, Path(folder))
        except MissingError as error:
            document = {"model": name, "skipped": str(error)}
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
