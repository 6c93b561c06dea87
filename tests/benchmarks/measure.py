"""Measure one row: `python -m tests.benchmarks.measure ROW ROUNDS` prints it as JSON.

A process of its own for each row keeps the peak of memory honest. The evaluator and the plain
TenSEAL program are processes of their own too; each round asks first the one, then the other, and
times a rotation before both, so that a machine that slows down slows both.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import hecompile
from hecompile.access.signing import SigningKey
from hecompile.bundle.layout import CONSTANTS_FILE, PROGRAM_FILE
from hecompile.compiler import Compiled
from hecompile.config import CompileOptions
from hecompile.costs import Profile
from hecompile.errors import HecompileError
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.public import public_form
from hecompile.preprocess import apply_steps
from hecompile.runtime.client import Client
from hecompile.runtime.custodian import Custodian
from hecompile.runtime.evaluator import Evaluator, galois_steps
from hecompile.runtime.keys import (
    load_evaluation_keys,
    load_public_key,
    load_secret_key,
    write_keys,
)
from hecompile.runtime.model_weights import OWNER_FILE, ModelOwner, read_owner
from hecompile.runtime.processes import EvaluatorProcess
from hecompile.runtime.profiling import TRANSFER, Profiler
from hecompile.runtime.program_files import load_program
from hecompile.runtime.run import MODEL_PHASE
from hecompile.runtime.usage import Phase, Stopwatch, peak_memory_bytes
from tests.benchmarks.cases import Case, MissingError, Samples, make_case
from tests.benchmarks.plain_process import PlainProcess, plain_process
from tests.benchmarks.rounds import Rounds, medians
from tests.benchmarks.rows import Row, find
from tests.benchmarks.split import split
from tests.benchmarks.yardstick import Yardstick

WARM_UP_SECONDS = 2.0
"""What evaluates in less is evaluated once more before its operations are timed."""


def measure(row: Row, rounds: int, folder: Path) -> dict[str, Any]:
    """Compile a row's model and run it encrypted.

    Raises:
        MissingError: the model or what it needs is not here.
        HecompileError: it does not compile, or does not run.
    """
    case = make_case(row.model, folder, row.batch if row.batch > 1 else rounds)
    watch = Stopwatch()
    with watch.measure("compile"):
        compiled = hecompile.compile(
            case.model,
            calibration={"x": case.calibration},
            preprocessing=case.preprocessing,
            precision=row.precision,
            options=CompileOptions(**row.options),
        )
    compile_memory = peak_memory_bytes()
    compiled.save(folder / "bundle", signing_key=SigningKey.generate())
    if row.options.get("encrypt_model") and not (folder / "bundle" / OWNER_FILE).exists():
        raise MissingError("the compiler left the weights plain")
    report = compiled.report
    bound = report.noise_error + report.reference_error if row.polynomial else None
    return {
        "row": row.name,
        "model": row.model,
        "series": row.series,
        "at": row.at,
        "batch": row.batch,
        "rounds": rounds,
        "compared_with": "polynomial model" if row.polynomial else "onnxruntime",
        "report": report.to_json(),
        "bound": bound if bound is not None else report.predicted_error,
        "noise_bound": report.noise_error,
        "compile": asdict(watch.phases["compile"]),
        "compile_peak_memory_bytes": compile_memory,
        **_run(row, rounds, case, compiled, folder),
    }


@dataclass(frozen=True)
class Parties:
    """Everybody who takes part in a round."""

    row: Row
    case: Case
    compiled: Compiled
    client: Client
    custodian: Custodian
    process: EvaluatorProcess
    plain: PlainProcess | None

    def chosen(self, number: int) -> Samples:
        """The samples of a round: another one each time, or all of a batch."""
        samples = self.case.samples
        return samples if self.row.batch > 1 else samples[number : number + 1]


def _run(row: Row, rounds: int, case: Case, compiled: Compiled, folder: Path) -> dict[str, Any]:
    spec, keys, bundle = compiled.spec, folder / "keys", folder / "bundle"
    watch = Stopwatch()
    with watch.measure("keygen"):
        write_keys(keys, spec.parameters, galois_steps(compiled.program), spec.program)
    public = load_public_key(keys, spec.parameters, spec.program)
    custodian = Custodian(spec, load_secret_key(keys, spec.parameters, spec.program))
    program, constants = ((bundle / name).read_bytes() for name in (PROGRAM_FILE, CONSTANTS_FILE))
    model = None
    if (bundle / OWNER_FILE).exists():
        with watch.measure(MODEL_PHASE):
            hidden = load_program(program, constants)
            weights = read_owner((bundle / OWNER_FILE).read_bytes(), hidden)
            model = ModelOwner(hidden, weights, public).encrypt()
    process = EvaluatorProcess(program, constants, spec, keys / "evaluation", model=model)
    with plain_process(row, case, folder) as plain, process:
        watch.add("load", process.phases["load"])
        parties = Parties(row, case, compiled, Client(spec, public), custodian, process, plain)
        done = _all_rounds(parties, rounds)
    phases = {name: asdict(spent) for name, spent in watch.phases.items()} | done.medians()
    pair = None
    if row.pair:
        two = EvaluatorProcess(
            program, constants, spec, keys / "evaluation", model=model, workers=2
        )
        pair = _pair(parties, two, rounds)
    profile = _profile(parties, keys / "evaluation", model, phases["evaluate"]["cpu"])
    shares = split(compiled.report.estimate, profile)
    return {
        "phases": phases,
        "evaluate_rounds": [run["evaluate"].cpu for run in done.phases],
        "measured_seconds": phases["evaluate"]["cpu"],
        "two_processes": pair,
        "machine_factor": median(done.factors),
        "operations": [asdict(share) for share in shares],
        "measured_error": max(done.errors),
        "polynomial_error": max(done.polynomial_errors),
        "refresh_rounds": done.refresh_rounds,
        "ciphertext_bytes": done.ciphertext_bytes,
        "key_bytes": _folder_sizes(keys),
        "peak_memory_bytes": process.peak_memory_bytes,
        "plain": plain.summary(done) if plain else None,
    }


def _all_rounds(parties: Parties, rounds: int) -> Rounds:
    """Every round: the yardstick, this program, the plain one."""
    done, yardstick = Rounds(), Yardstick()
    row, process = parties.row, parties.process
    for i in range(rounds):
        chosen = parties.chosen(i)
        expected = _expected(row, parties.case, parties.compiled, chosen)
        done.factors.append(yardstick.factor())
        before = process.phases.get("evaluate", Phase())
        one = _one(chosen, parties.client, parties.custodian, process)
        after = process.phases["evaluate"]
        one.watch.add("evaluate", Phase(after.cpu - before.cpu, after.wall - before.wall))
        done.phases.append(one.watch.phases)
        done.ciphertext_bytes = one.sizes
        done.refresh_rounds = one.rounds
        done.errors.append(_distance(one.output, expected))
        polynomial = _polynomial(parties.case, parties.compiled, chosen)
        done.polynomial_errors.append(_distance(one.output, polynomial))
        if parties.plain is not None:
            answer = parties.plain.ask(i)
            done.plain.append(answer)
            done.plain_errors.append(_distance(answer["output"], expected))
    done.factors.append(yardstick.factor())
    return done


def _profile(parties: Parties, keys: Path, model: bytes | None, seconds: float) -> Profile:
    """One evaluation more, in this process, to see where the time goes.

    Where the program is quick, one before warms up what is not looked at.
    """
    program, spec = public_form(parties.compiled.program), parties.compiled.spec
    steps = galois_steps(program)
    opened = load_evaluation_keys(keys, spec.parameters, spec.program, steps)
    evaluator = Evaluator(program, opened, model=model)
    (envelope,) = parties.client.encrypt({"x": parties.chosen(0)})
    if seconds < WARM_UP_SECONDS:
        _evaluate(evaluator, envelope, parties.custodian)
    profiler = Profiler(evaluator)
    answered = _evaluate(evaluator, envelope, parties.custodian)
    profile = profiler.profile(1)
    before = profile.operations[TRANSFER, 0]
    # The key holder's work is in the same process, but no part of the evaluation.
    rest = replace(before, seconds=max(0.0, before.seconds - answered))
    return replace(profile, operations={**profile.operations, (TRANSFER, 0): rest})


def _evaluate(evaluator: Evaluator, envelope: bytes, custodian: Custodian) -> float:
    """Evaluate and drop the result; the CPU seconds of the key holder's answers."""
    watch = Stopwatch()
    evaluation = evaluator.start(envelope)
    while (request := evaluation.advance()) is not None:
        with watch.measure("refresh"):
            response = custodian.refresh(request)
        evaluation.accept(response)
    evaluation.output()
    return watch.phases.get("refresh", Phase()).cpu


def _distance(found: ArrayLike, expected: np.ndarray) -> float:
    return float(np.abs(np.ravel(found) - expected.ravel()).max())


def _pair(parties: Parties, two: EvaluatorProcess, rounds: int) -> dict[str, float]:
    """CPU and wall seconds of an evaluation that two processes share, medians."""
    spent = []
    with two:
        for i in range(rounds):
            chosen = parties.chosen(i)
            before = two.phases.get("evaluate", Phase())
            _one(chosen, parties.client, parties.custodian, two)
            after = two.phases["evaluate"]
            spent.append(Phase(after.cpu - before.cpu, after.wall - before.wall))
    return medians(spent)


def _expected(row: Row, case: Case, compiled: Compiled, chosen: Samples) -> np.ndarray:
    return _polynomial(case, compiled, chosen) if row.polynomial else case.expected(chosen)


def _polynomial(case: Case, compiled: Compiled, chosen: Samples) -> np.ndarray:
    """What the polynomial model gives for raw samples in the clear, in float64."""
    inputs = apply_steps(case.steps, chosen).astype(np.float64)
    (exact,) = run_tensor(compiled.polynomial, {"x": inputs[:, None]}).values()
    return exact.reshape(len(chosen), -1)


@dataclass
class Single:
    """One evaluation.

    Attributes:
        output: what was decrypted.
        watch: the client's and key holder's seconds.
        sizes: bytes in and out of the evaluator, and of refreshes: both ways, up, down.
        rounds: with the key holder.
    """

    output: np.ndarray
    watch: Stopwatch
    sizes: dict[str, int]
    rounds: int


def _one(
    chosen: Samples, client: Client, custodian: Custodian, process: EvaluatorProcess
) -> Single:
    watch = Stopwatch()
    up, down = [], []

    def answer(request: bytes) -> bytes:
        with watch.measure("refresh"):
            response = custodian.refresh(request)
        up.append(len(request))
        down.append(len(response))
        return response

    with watch.measure("encrypt"):
        (envelope,) = client.encrypt({"x": chosen})
    output = process.evaluate(envelope, answer)
    with watch.measure("decrypt"):
        decrypted = custodian.decrypt(output)
    (raw,) = decrypted.raw.values()
    refreshed = {"refresh": sum(up) + sum(down), "up": sum(up), "down": sum(down)}
    return Single(raw, watch, {"in": len(envelope), "out": len(output), **refreshed}, len(up))


def _folder_sizes(keys: Path) -> dict[str, int]:
    return {
        part.name: sum(file.stat().st_size for file in part.iterdir())
        for part in sorted(keys.iterdir())
    }


def main(arguments: list[str]) -> int:
    """Measure the row named first for as many rounds as named second; print JSON."""
    row, rounds = find(arguments[0]), int(arguments[1])
    with tempfile.TemporaryDirectory(prefix="hecompile-bench-") as folder:
        try:
            document = measure(row, rounds, Path(folder))
        except MissingError as error:
            document = {"row": row.name, "skipped": str(error)}
        except HecompileError as error:
            document = {"row": row.name, "failed": str(error)}
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
