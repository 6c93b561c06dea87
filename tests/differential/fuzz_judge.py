"""What random models must give: onnxruntime's answers within stated bounds, or a refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from onnx import printer

import hecompile
from hecompile.calibration import Calibration
from hecompile.compiler import Compiled
from hecompile.config import CompileOptions
from hecompile.errorbudget import Reference
from hecompile.errors import (
    CompileError,
    HecompileError,
    InputError,
    PassError,
    UnsupportedError,
)
from hecompile.frontend import import_onnx
from hecompile.interpret.slots import run_program_slots
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Output, tensor_type
from hecompile.passbase import Context
from hecompile.pipelines import slot_planning, tensor_pipeline
from hecompile.runtime.postprocess import post_process
from tests.differential.random_graphs import Arrays, RandomModel
from tests.encrypted.compiled_models import run_encrypted
from tests.encrypted.runtime_parties import make_parties

OPTIONS = CompileOptions(degree=7)
CALIBRATION = 64
UNSEEN = 8
"""Samples that are judged on and calibration has not seen."""

MOST_CHANGED = 0.25
"""Error of the polynomials, of the largest output, beyond which a model is refused."""

RING = 4096
PACKING = 1e-6
"""Largest change by packing, relative where values exceed 1."""

STEEPEST = 2.0
"""No step of the client that is not an argmax enlarges errors more than this."""

REFUSALS = (UnsupportedError, InputError, CompileError, PassError)


@dataclass
class Tally:
    """Counts what became of models.

    Attributes:
        passed: models whose answers were right.
        refused: refusals by their reason.
    """

    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def take(self, model: RandomModel, judge: Callable[[RandomModel], None]) -> None:
        """Judge a model; a refusal is counted, all else that is wrong names the model.

        That a program is not well-formed (ProgramError) is no refusal, for the compiler made it,
        nor is a pass that fails by an error of another kind.
        """
        try:
            judge(model)
        except REFUSALS as error:
            if error.__cause__ is not None and not isinstance(error.__cause__, HecompileError):
                error.add_note(printer.to_text(model.proto))
                raise
            self.refused[_reason(error)] += 1
            return
        except Exception as error:
            error.add_note(printer.to_text(model.proto))
            raise
        self.passed += 1

    def __str__(self) -> str:
        told = "".join(f"\n  {count}: {reason}" for reason, count in self.refused.most_common())
        return f"{self.passed} models right, {self.refused.total()} refused{told}"

    @property
    def share(self) -> float:
        """Share of models that were refused."""
        return self.refused.total() / max(1, self.passed + self.refused.total())


def _reason(error: HecompileError) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[-1].strip()[:200]}"


def judge_slots(model: RandomModel) -> None:
    """Compare onnxruntime with the slot interpreter, after every pass down to slots.

    Both answer samples that calibration has not seen. Packing may not change anything, and
    polynomials no more than the compiler states for them. Where they change much, this refuses
    the model, and refusals are counted: at all of the outputs' size the compiler does so too.
    """
    samples = model.samples(CALIBRATION)
    program = import_onnx(model.proto)
    polynomial = tensor_pipeline(OPTIONS).run(program, Context(samples))
    slots = slot_planning(RING, OPTIONS).run(polynomial, Context(samples))
    budget = Reference.of(program, Calibration(samples, samples)).budget(polynomial)
    few = model.samples(UNSEEN, seed=1)
    raw = run_program_slots(slots, few)
    for label, exact in run_tensor(polynomial, few).items():
        change = np.abs(raw[label] - exact) / np.maximum(1.0, np.abs(exact))
        assert change.max(initial=0.0) <= PACKING, f"packing changes {label} by {change.max():.2g}"
    if budget.approximation > MOST_CHANGED * budget.magnitude:
        raise CompileError("polynomials of this degree change the outputs by much of their size")
    _compare(program, model.answers(few), raw, budget.approximation + budget.reference)


def judge_encrypted(model: RandomModel) -> None:
    """Compare onnxruntime with real encryption at 128 bits, on samples of its own."""
    samples = model.samples(CALIBRATION)
    rows = {name: array.reshape(-1, *array.shape[2:]) for name, array in samples.items()}
    compiled = hecompile.compile(model.proto, calibration=rows)
    unseen = model.samples(2, seed=1)
    parties = make_parties(compiled.program, spec=compiled.spec)
    flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in unseen.items()}
    raw = run_encrypted(parties, flat).raw
    shaped = _shaped(compiled, raw, 2)
    for label, exact in run_tensor(compiled.polynomial, unseen).items():
        noise = np.abs(shaped[label] - exact).max(initial=0.0)
        assert noise <= compiled.report.noise_error, f"the noise of {label} is {noise:.2g}"
    _compare(compiled.original, model.answers(unseen), shaped, compiled.predicted_error)


def _shaped(compiled: Compiled, raw: Arrays, count: int) -> Arrays:
    """Decrypted outputs with an axis of samples, as the interpreters give them."""
    shapes = {op.label: tensor_type(op.x).shape for op in compiled.original.select(Output)}
    return {label: array.reshape(count, *shapes[label]) for label, array in raw.items()}


def _compare(program: Program, expected: Arrays, raw: Arrays, bound: float) -> None:
    for op in program.select(Output):
        found = post_process(op.post, raw[op.label])
        wanted = expected[op.label].astype(np.float64)
        assert found.shape == wanted.shape, f"{op.label} has shape {found.shape}"
        if any(text.startswith("argmax") for text in op.post):
            continue
        room = bound * (STEEPEST if op.post else 1.0)
        rounding = 1e-5 * np.maximum(1.0, np.abs(wanted)) if op.post else 0.0
        off = np.abs(found - wanted)
        assert np.all(off <= room + rounding), (
            f"{op.label} is off by {off.max():.2g}, not {room:.2g}"
        )
