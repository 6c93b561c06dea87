"""The node tests once more, through every pass down to slots, and the slot interpreter.

Polynomials are no exact activations, so the judgement has two halves. Packing must not change
anything: the slot interpreter gives what the tensor interpreter gives for the same polynomial
program. And the outputs are the expected ones, for the test's own inputs, which calibration has
not seen: its samples are drawn around them. They may be off by the error that the compiler states
for the polynomials, but by no more than a fixed tolerance.
"""

from __future__ import annotations

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

TOLERANCE = 1e-5
"""What polynomials may change on an output, whatever error the compiler states."""

KINK = "the function has a kink, or a jump in a derivative, among its inputs"
WIDE = "a smooth function on a wide range, for which this degree is low"

EXCEPTIONS = {
    **dict.fromkeys(("celu", "celu_expanded"), (1e-4, KINK)),
    **dict.fromkeys(("hardsigmoid_example", "hardsigmoid_example_expanded_ver18"), (5e-4, KINK)),
    **dict.fromkeys(("clip_example", "hardswish", "hardswish_expanded"), (1e-3, KINK)),
    **dict.fromkeys(("clip_outbounds", "clip_splitbounds"), (3e-3, KINK)),
    **dict.fromkeys(("hardsigmoid_default", "hardsigmoid_default_expanded_ver18"), (3e-3, KINK)),
    "elu_default": (6e-3, KINK),
    **dict.fromkeys(("elu_example", "leakyrelu_example"), (0.02, KINK)),
    **dict.fromkeys(("hardsigmoid", "hardsigmoid_expanded_ver18"), (0.03, KINK)),
    **dict.fromkeys(("clip", "clip_default_max", "clip_default_min"), (0.06, KINK)),
    **dict.fromkeys(("elu", "leakyrelu", "leakyrelu_default"), (0.06, KINK)),
    **dict.fromkeys(("relu", "relu_expanded_ver18"), (0.06, KINK)),
    **dict.fromkeys(("selu_default", "selu_example"), (0.06, KINK)),
    **dict.fromkeys(("prelu_broadcast", "prelu_example"), (0.08, KINK)),
    "selu": (0.2, KINK),
    "rnn_seq_length": (1e-4, WIDE),
    "softsign_example": (5e-4, KINK),
    **dict.fromkeys(("gelu_tanh_2_expanded", "tanh"), (1e-3, WIDE)),
    "erf": (3e-3, WIDE),
    "softsign": (0.02, KINK),
    **dict.fromkeys(("mish", "mish_expanded"), (0.05, WIDE)),
    "gru_seq_length": (0.06, WIDE),
}
"""Tests with a tolerance of their own, and why."""

PACKING = 1e-6
"""Largest change by packing, relative where outputs exceed 1."""


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


def judge_packed(test: NodeTest, every: bool = False, options: CompileOptions = OPTIONS) -> Packed:
    """Run a node test down to slots, with its first choice of secrets that compiles.

    Args:
        test: a test that applies.
        every: go on to every choice that compiles.
        options: how to compile.
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
            difference = _difference(test, program, secret, options)
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
    """Samples around the test's secret inputs, but not these: by name, (count, *shape)."""
    random = np.random.default_rng(0)
    samples = {}
    for name in secret:
        exact = double(test.inputs[name])
        samples[name] = exact + SPREAD * random.standard_normal((count, *exact.shape))
    return samples


def unseen(test: NodeTest, secret: Secret) -> dict[str, Array]:
    """The test's secret inputs as one sample, which calibration does not see: (1, *shape)."""
    return {name: double(test.inputs[name])[None] for name in secret}


def _difference(test: NodeTest, program: Program, secret: Secret, options: CompileOptions) -> str:
    """What is wrong with a test's program in slots; empty if nothing is."""
    samples, inputs = calibration(test, secret), unseen(test, secret)
    polynomial = tensor_pipeline(options).run(program, Context(samples))
    slots = slot_planning(RING, options).run(polynomial, Context(samples))
    raw = run_program_slots(slots, inputs)
    for label, exact in run_tensor(polynomial, inputs).items():
        change = np.abs(raw[label] - exact) / np.maximum(1.0, np.abs(exact))
        if not change.max(initial=0.0) <= PACKING:
            return f"packing changes {label} by {change.max():.2g}"
    budget = Reference.of(program, Calibration(samples, samples)).budget(polynomial)
    tolerance, _ = EXCEPTIONS.get(test.name, (TOLERANCE, ""))
    return compare(test, program, raw, min(budget.approximation, tolerance))
