"""Groups of samples shared by several processes: the same answers, every cost counted."""

from __future__ import annotations

import io

import numpy as np
import pytest

from hecompile.errors import HecompileError
from hecompile.ir.printer import print_program
from hecompile.ir.program import Program
from hecompile.runtime.crew import advance_all
from hecompile.runtime.run import Server, run_parties
from hecompile.runtime.spec import spec_from_program
from tests.encrypted.runtime_parties import Parties, make_parties
from tests.encrypted.runtime_programs import matrix_program, refresh_program

X = np.array([[0.5, -1.0, 1.1, 0.0], [1.0, 0.9, 0.1, -0.2], [0.2, 0.4, 0.6, 0.8]])


def server_of(program: Program) -> Server:
    buffer = io.BytesIO()
    arrays = {symbol: constant.array for symbol, constant in program.constants.items()}
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return Server(print_program(program).encode(), buffer.getvalue())


def test_two_processes_answer_three_groups_with_refreshes() -> None:
    program = refresh_program()
    result = run_parties(server_of(program), spec_from_program(program), {"x": X}, workers=2)
    assert np.abs(result.raw_outputs["y"] - (X**8 + X**2)).max() < 1e-7
    assert result.refresh_rounds == 3
    assert result.timings["he.mul"].count == 9
    assert result.phases["evaluate"].cpu > 0


def test_the_first_error_ends_all_processes() -> None:
    program = refresh_program()
    spec = spec_from_program(program)
    with pytest.raises(HecompileError, match="did not finish"):
        run_parties(server_of(program), spec, {"x": X}, workers=2, timeout=1e-3)


@pytest.fixture(scope="module")
def powers() -> Parties:
    return make_parties(refresh_program())


@pytest.mark.parametrize("workers", [1, 2])
def test_evaluations_go_on_where_forked_processes_stopped(powers: Parties, workers: int) -> None:
    started = [powers.evaluator.start(data) for data in powers.client.encrypt({"x": X})]
    outcomes = advance_all(started, workers)
    assert all(outcome.request and outcome.state and not outcome.output for outcome in outcomes)
    resumed = []
    for outcome in outcomes:
        evaluation = powers.evaluator.resume(outcome.state)
        evaluation.accept(powers.custodian.refresh(outcome.request))
        resumed.append(evaluation)
    finished = advance_all(resumed, workers)
    raw = [powers.custodian.decrypt(outcome.output).raw["y"] for outcome in finished]
    assert np.abs(np.concatenate(raw) - (X**8 + X**2)).max() < 1e-7


def test_evaluations_without_refreshes_end_in_one_go() -> None:
    parties = make_parties(matrix_program(np.eye(4) * 2, np.ones(4)))
    started = [parties.evaluator.start(data) for data in parties.client.encrypt({"x": X})]
    outcomes = advance_all(started, 2)
    raw = [parties.custodian.decrypt(outcome.output).raw["y"] for outcome in outcomes]
    assert np.abs(np.concatenate(raw) - (2 * X + 1)).max() < 1e-5
