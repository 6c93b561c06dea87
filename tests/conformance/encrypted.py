"""One node test of every operator, compiled and run with real keys at 128 bits."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

import hecompile
from hecompile.compiler import Compiled
from hecompile.errors import CompileError, InputError, UnsupportedError
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.constants import Array
from tests.conformance.node_tests import NodeTest, Outcome, choices, with_weights
from tests.conformance.packed import calibration, unseen
from tests.encrypted.compiled_models import run_encrypted
from tests.encrypted.runtime_parties import make_parties

LOOSE = 0.1
"""Precision asked for where a model is refused without one."""


def sample(outcomes: Iterable[Outcome]) -> NodeTest | None:
    """The smallest of an operator's tests that apply; None if none does."""
    return min((one.test for one in outcomes if one.applies), key=_size, default=None)


def _size(test: NodeTest) -> tuple[bool, int, str]:
    arrays = (*test.inputs.values(), *test.outputs.values())
    return "_expanded" in test.name, sum(np.size(array) for array in arrays), test.name


def check_encrypted(test: NodeTest) -> str:
    """What is wrong with the decrypted outputs of a test that applies; empty if nothing is.

    On inputs that calibration has not seen, they must keep within the bounds that the compiler
    predicts, for the noise alone and for all errors together, before the client's last steps: an
    argmax of equal values has no right answer under noise.
    """
    compiled, inputs = _compiled(test)
    parties = make_parties(compiled.program, spec=compiled.spec)
    found = run_encrypted(parties, {name: array[0] for name, array in inputs.items()})
    for what, program, bound in (
        ("noise", compiled.polynomial, compiled.report.noise_error),
        ("error", compiled.original, compiled.predicted_error),
    ):
        for label, exact in run_tensor(program, inputs).items():
            off = float(np.abs(found.raw[label].reshape(exact.shape) - exact).max())
            if not off <= bound:
                return f"the {what} of {label} is {off:.2g}, more than {bound:.2g}"
    return ""


def _compiled(test: NodeTest) -> tuple[Compiled, dict[str, Array]]:
    """The test with its first choice of secrets that compiles, and its inputs as one sample."""
    for secret in choices(test):
        samples = calibration(test, secret)
        rows = {name: array.reshape(-1, *array.shape[2:]) for name, array in samples.items()}
        model = with_weights(test, secret)
        try:
            return hecompile.compile(model, calibration=rows), unseen(test, secret)
        except CompileError:
            # The polynomials that are taken without a promise were too coarse.
            return hecompile.compile(model, calibration=rows, precision=LOOSE), unseen(test, secret)
        except (UnsupportedError, InputError):
            continue
    raise AssertionError(f"{test} does not apply")
