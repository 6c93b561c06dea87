"""Errors that are known before parameters are chosen, and what they leave to the noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hecompile import errorbudget
from hecompile.calibration import Calibration
from hecompile.errorbudget import SCARCE_SAMPLES, Reference
from hecompile.errors import CompileError
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import Add, Mul
from hecompile.passbase import UNSEEN_FACTOR
from tests.unit.interpreting import clear, finish, secret

SAMPLES = {"x": np.linspace(-2.0, 1.5, 40).reshape(10, 4)}
CALIBRATION = Calibration(SAMPLES, SAMPLES)


def shifted(by: float) -> Program:
    """y = x + by, which stands for a polynomial form that is off by so much."""
    b = Builder(name="m")
    x = secret(b, "x", 4)
    return finish(b, y=b.emit(Add(x=x, y=clear(b, np.full(4, by)))))


def test_the_model_runs_once_for_all_of_its_polynomial_forms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = shifted(0.0)
    runs: list[Program] = []

    def counted(program: Program, *arguments: Any, **more: Any) -> Any:
        runs.append(program)
        return run_tensor(program, *arguments, **more)

    monkeypatch.setattr(errorbudget, "run_tensor", counted)
    reference = Reference.of(original, CALIBRATION)
    # In double and in single precision, and in double on stretched samples.
    assert runs == 3 * [original]
    for by in (0.5, 0.125):
        budget = reference.budget(shifted(by))
        expected = UNSEEN_FACTOR * (1 + SCARCE_SAMPLES / 10) * by
        assert budget.approximation == pytest.approx(expected)
        assert budget.magnitude == 2.0
        assert 0 < budget.reference < 1e-5
    assert len(runs) == 5


def test_samples_held_back_count_too() -> None:
    far = {"x": np.full((2, 4), 8.0)}
    reference = Reference.of(shifted(0.0), Calibration(SAMPLES, far))
    assert reference.magnitude == 8.0
    assert reference.answers["y"].shape == (2 * 12, 4)


def test_a_form_that_is_good_on_calibration_alone_is_not_trusted() -> None:
    b = Builder(name="m")
    x = secret(b, "x", 4)
    steep = x
    for _ in range(5):
        steep = b.emit(Mul(x=steep, y=steep))
    # x + (x / 2)^32 is off by 1 at the ends of the range, and by far more a tenth beyond.
    scaled = b.emit(Mul(x=steep, y=clear(b, np.full(4, 2.0**-32))))
    budget = Reference.of(shifted(0.0), CALIBRATION).budget(finish(b, y=b.emit(Add(x=x, y=scaled))))
    within = UNSEEN_FACTOR * (1 + SCARCE_SAMPLES / 10)
    assert budget.approximation > 5 * within


def test_a_form_that_overflows_is_infinitely_far() -> None:
    b = Builder(name="m")
    x = secret(b, "x", 4)
    huge = x
    for _ in range(12):
        huge = b.emit(Mul(x=huge, y=huge))
    budget = Reference.of(shifted(0.0), CALIBRATION).budget(finish(b, y=huge))
    assert budget.approximation == np.inf


def test_noise_gets_what_is_left() -> None:
    budget = Reference.of(shifted(0.0), CALIBRATION).budget(shifted(0.001))
    assert budget.noise(None, promised=True) is None
    left = budget.noise(0.1, promised=True)
    assert left == pytest.approx(0.1 - budget.approximation - budget.reference)
    assert budget.noise(0.1, promised=False) == pytest.approx(0.1 - budget.reference)
    with pytest.raises(CompileError, match="out of reach before anything is encrypted"):
        budget.noise(0.001, promised=True)
