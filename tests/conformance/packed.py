"""The node tests once more, through every pass down to slots, and the slot interpreter.

Polynomials are no exact activations, so the judgement has two halves. Packing must not change
anything: the slot interpreter gives what the tensor interpreter gives for the same polynomial
program. And the outputs are the expected ones within the error that the compiler states for the
polynomials, on calibration samples drawn around the test's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hecompile.calibration import Calibration
from hecompile.config import CompileOptions
from hecompile.errorbudget import Reference
from hecompile.errors import HecompileError, InputError, UnsupportedError
from hecompile.frontend import import_onnx
from hecompile.interpret.slots import run_program_slots
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.passbase import Context
from hecompile.pipelines import slot_planning, tensor_pipeline
from tests.conformance.node_tests import NodeTest, Secret, choices, compare, double, with_weights

RING = 8192
OPTIONS = CompileOptions(degree=15)
SAMPLES = 16
SPREAD = 0.05
"""Standard deviation of calibration samples around a test's inputs."""

PACKING = 1e-6
"""Largest change by packing, relative where outputs exceed 1."""

_TENSOR_PASSES = tensor_pipeline(OPTIONS)
_SLOT_PASSES = slot_planning(RING, OPTIONS)


@dataclass(frozen=True)
class Packed:
    """What became of a node test on its way to slots.

    Attributes:
        passed: the choices of secret inputs that gave the expected outputs.
        wrong: what differed, by the names of the secret inputs.
        refused: why the passes refused the last choice that they refused; empty if none.
    """

    passed: tuple[Secret, ...]
    wrong: tuple[str, ...]
    refused: str


def judge_packed(test: NodeTest, every: bool = False) -> Packed:
    """Run a node test down to slots, with its first choice of secrets that compiles.

    Args:
        test: a test that applies.
        every: go on to every choice that compiles.
    """
    passed: list[Secret] = []
    wrong: list[str] = []
    refused = ""
    for secret in choices(test):
        try:
            program = import_onnx(with_weights(test, secret))
        except (UnsupportedError, InputError):
            continue
        try:
            difference = _difference(test, program, calibration(test, secret))
        except HecompileError as error:
            refused = str(error)
            continue
        if difference:
            wrong.append(f"{' and '.join(secret)} secret: {difference}")
        else:
            passed.append(secret)
        if not every:
            break
    return Packed(tuple(passed), tuple(wrong), refused)


def calibration(test: NodeTest, secret: Secret, count: int = SAMPLES) -> dict[str, Array]:
    """The test's secret inputs, and samples around them: by name, (count, *shape)."""
    random = np.random.default_rng(0)
    samples = {}
    for name in secret:
        exact = double(test.inputs[name])
        around = SPREAD * random.standard_normal((count, *exact.shape))
        around[0] = 0.0
        samples[name] = exact + around
    return samples


def _difference(test: NodeTest, program: Program, samples: Mapping[str, Array]) -> str:
    """What is wrong with a test's program in slots; empty if nothing is."""
    polynomial = _TENSOR_PASSES.run(program, Context(samples))
    slots = _SLOT_PASSES.run(polynomial, Context(samples))
    inputs = {name: array[:1] for name, array in samples.items()}
    raw = run_program_slots(slots, inputs)
    for label, exact in run_tensor(polynomial, inputs).items():
        change = np.abs(raw[label] - exact) / np.maximum(1.0, np.abs(exact))
        if not change.max(initial=0.0) <= PACKING:
            return f"packing changes {label} by {change.max():.2g}"
    budget = Reference.of(program, Calibration(samples, samples)).budget(polynomial)
    if not budget.approximation <= budget.magnitude:
        return f"polynomials change the outputs by up to {budget.approximation:.2g}"
    return compare(test, program, raw, budget.approximation)
