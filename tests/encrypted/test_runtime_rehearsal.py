"""A rehearsal changes no result, and reaches every kind of operation."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.runtime import rehearsal
from hecompile.runtime.pair import Pair
from tests.encrypted.runtime_parties import make_parties
from tests.encrypted.runtime_programs import matrix_program, polynomial_program
from tests.encrypted.test_runtime_pair import single_program

X = np.random.default_rng(1).normal(size=(1, 8))


def test_every_rotation_and_kind_is_rehearsed_once() -> None:
    matrix = np.random.default_rng(0).normal(size=(8, 8))
    parties = make_parties(matrix_program(matrix, np.ones(8)))
    # Seven rotations, one sum, one rescale, one addition.
    assert parties.evaluator.machine.rehearse() == 10
    assert not parties.evaluator.timings
    parties.evaluator.rehearse()
    assert np.abs(parties.raw(X) - (X @ matrix.T + 1)).max() < 1e-3


def test_mixed_operations_are_rehearsed() -> None:
    parties = make_parties(polynomial_program(np.ones(4)))
    assert parties.evaluator.machine.rehearse() >= 9
    x = np.array([[0.5, -1.0, 0.25, 0.0]])
    assert np.abs(parties.raw(x) - x * x).max() < 1e-4


def test_a_rehearsal_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    parties = make_parties(matrix_program(np.eye(8), np.ones(8)))
    monkeypatch.setattr(rehearsal, "MOST_SECONDS", -1.0)
    assert parties.evaluator.machine.rehearse() == 0


def test_both_processes_rehearse() -> None:
    parties = make_parties(single_program())
    assert parties.evaluator.start_helper()
    assert isinstance(parties.evaluator.pair, Pair)
    for _ in range(2):
        parties.evaluator.rehearse()
        raw = parties.raw(X)
        assert np.abs(raw - sum(np.roll(X, -k) ** 2 for k in range(1, 8))).max() < 1e-4
    parties.evaluator.close()
