"""One evaluation on two processes: the same residues, and errors that end neither in silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hecompile.errors import HecompileError, ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, Layout
from hecompile.numeric.cost import DEFAULT_COST_MODEL
from hecompile.runtime import pair as pairs
from hecompile.runtime.admission import facts
from hecompile.runtime.context import Context
from hecompile.runtime.crew import advance_all
from hecompile.runtime.handover import Handover
from hecompile.runtime.machine import Machine
from hecompile.runtime.residues import (
    LayoutError,
    ResidueAccess,
    load_residues,
    residue_access,
)
from hecompile.runtime.schedule import HELPER, MAIN, plan_segments
from tests.encrypted.runtime_parties import Parties, make_parties, opened
from tests.encrypted.runtime_programs import MEDIUM, Writer, matrix_program, refresh_program

X = np.random.default_rng(0).normal(size=(1, 8))


def sum_of_squares(write: Writer) -> tuple[Value, Value]:
    """An input x of 8 slots, and the sum of the squares of its seven rotations."""
    x = write.input("x", 8, 8, 3)
    parts = []
    for k in range(1, 8):
        turned = write.same(he.Rotate(x=x, steps=k))
        square = write.same(he.Relinearize(x=write.mul(turned, turned)), polynomials=2)
        parts.append(write.rescale(square))
    total = parts[0]
    for part in parts[1:]:
        total = write.same(he.Add(x=total, y=part), layout=Layout(0, 8))
    return x, total


def wide_program() -> Program:
    """As `single_program`, then a refresh, and two outputs."""
    write = Writer(MEDIUM, "wide")
    x, total = sum_of_squares(write)
    fresh = write.emit(
        he.Refresh(xs=(total,), mask_bits=10, group=0), *write.facts(total), bound=64.0
    )
    left = write.same(he.Rotate(x=fresh, steps=1))
    right = write.same(he.Rotate(x=fresh, steps=2))
    both = write.same(he.Add(x=left, y=right))
    y = write.same(he.Add(x=both, y=total), layout=Layout(0, 8))
    write.output([y, x], "y", 8)
    return write.finish()


def single_program() -> Program:
    """y = sum over k of (rotate(x, k) * rotate(x, k)), each product by itself."""
    write = Writer(MEDIUM, "single")
    _, total = sum_of_squares(write)
    write.output([total], "y", 8)
    return write.finish()


@pytest.fixture
def parties() -> Iterator[Parties]:
    found = make_parties(single_program())
    yield found
    found.evaluator.close()


def blobs(parties: Parties, data: bytes) -> tuple[bytes, ...]:
    evaluation = parties.evaluator.start(data)
    assert evaluation.advance() is None
    output = evaluation.output()
    spec = parties.spec
    return opened(output, spec.output_ciphertexts, spec.parameters).ciphertexts


def test_two_processes_give_the_same_residues_and_count_their_time(parties: Parties) -> None:
    data = parties.client.encrypt({"x": X})[0]
    alone = blobs(parties, data)
    counts = {name: timing.count for name, timing in parties.evaluator.timings.items()}
    assert parties.evaluator.start_helper()
    assert blobs(parties, data) == alone
    assert blobs(parties, data) == alone
    assert parties.evaluator.helper_seconds > 0
    for name, timing in parties.evaluator.timings.items():
        assert timing.count == 3 * counts[name]
    raw = parties.raw(X)
    assert np.abs(raw - sum(np.roll(X, -k) ** 2 for k in range(1, 8))).max() < 1e-4


def test_a_segment_between_refreshes_is_shared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "WORTH", 2.0)
    parties = make_parties(refresh_program())
    assert parties.evaluator.start_helper()
    x = np.array([[0.5, -1.0, 1.1, 0.0]])
    for _ in range(2):
        assert np.abs(parties.raw(x) - (x**8 + x**2)).max() < 1e-7
    parties.evaluator.close()


def test_groups_of_values_share_places_without_mixing_them_up() -> None:
    program = wide_program()
    context = Context(MEDIUM)
    names = [op.result.name for op in program if op.result is not None][:3]
    handover = Handover(program, context, {0: names[:2], 7: names[1:]})
    ciphertexts = {}
    for number, name in enumerate(names):
        value = program.definitions[name].defined
        found, polynomials = facts(value), he.cipher_type(value).polynomials
        shape = (polynomials, found.level + 1, 8192)
        residues = np.full(shape, number + 1, dtype=np.uint64)
        ciphertexts[name] = load_residues(context, residues, found.level, found.scale)
    for group, chosen in handover.groups.items():
        assert [handover.put(group, name, ciphertexts[name]) for name in chosen] == [0, 1]
        for name in chosen:
            again = handover.get(group, name)
            assert again.scale == ciphertexts[name].scale
            view = residue_access(context).view
            assert np.array_equal(view(again), view(ciphertexts[name]))
    os.ftruncate(handover._files[0], 100)
    with pytest.raises(HecompileError, match="handed over wrongly"):
        handover.get(7, names[1])
    handover.close()


def test_a_helper_that_dies_is_an_error_and_the_next_evaluation_goes_on_alone(
    parties: Parties,
) -> None:
    data = parties.client.encrypt({"x": X})[0]
    assert parties.evaluator.start_helper()
    pair = parties.evaluator.pair
    assert pair is not None
    os.kill(pair._helper, signal.SIGKILL)
    with pytest.raises(HecompileError, match="second process"):
        blobs(parties, data)
    assert blobs(parties, data)


def fail_in_the_helper(patch: pytest.MonkeyPatch, owner: type, name: str, error: Exception) -> None:
    """Make a method raise in every process but this one."""
    here, real = os.getpid(), getattr(owner, name)

    def method(*arguments: Any) -> Any:
        if os.getpid() != here:
            raise error
        return real(*arguments)

    patch.setattr(owner, name, method)


@pytest.mark.parametrize(
    ("owner", "name", "error", "kind", "text"),
    [
        (Machine, "perform", ValueError("a fault"), HecompileError, "failed with ValueError: a f"),
        (Machine, "perform", ProgramError("%v cannot run."), ProgramError, "%v cannot run"),
        (Handover, "put", OSError(28, "No space left"), HecompileError, r"failed with OSError: \["),
        (ResidueAccess, "view", LayoutError("moved"), ProgramError, "handed over: moved; use one"),
    ],
)
def test_what_the_helper_fails_of_is_told_and_the_next_evaluation_goes_on_alone(
    parties: Parties,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    error: Exception,
    kind: type[HecompileError],
    text: str,
) -> None:
    data = parties.client.encrypt({"x": X})[0]
    alone = blobs(parties, data)
    fail_in_the_helper(monkeypatch, owner, name, error)
    assert parties.evaluator.start_helper()
    with pytest.raises(HecompileError, match=text) as told:
        blobs(parties, data)
    assert type(told.value) is kind
    assert blobs(parties, data) == alone


def test_what_a_helper_had_said_before_it_ended_is_found_by_who_writes_to_it(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pairs, "end_with_parent", fail)
    assert parties.evaluator.start_helper()
    pair = parties.evaluator.pair
    assert pair is not None
    os.waitid(os.P_PID, pair._helper, os.WEXITED | os.WNOWAIT)
    with pytest.raises(HecompileError, match="No space left on device"):
        parties.evaluator.rehearse()


BUSY = """
import os, time
from hecompile.runtime import pair
from tests.encrypted.runtime_parties import make_parties
from tests.encrypted.test_runtime_pair import single_program

def busy(*_):
    os.write(1, f"{os.getpid()}\\n".encode())
    while True:
        sum(range(1000))

pair.rehearse = busy
evaluator = make_parties(single_program()).evaluator
evaluator.start_helper()
evaluator.rehearse()
"""


def test_a_helper_at_work_ends_when_its_process_is_killed() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, cwd=root
    ) as process:
        assert process.stdout is not None
        both = {int(process.stdout.readline()) for _ in range(2)}
        (helper,) = both - {process.pid}
        process.kill()
        try:
            # The pipe ends only when the last process that can write to it has ended.
            assert process.communicate(timeout=10)[0] == b""
        except subprocess.TimeoutExpired:
            os.kill(helper, signal.SIGKILL)
            raise


def test_forked_evaluations_leave_the_helper_alone(parties: Parties) -> None:
    parties.evaluator.start_helper()
    data = parties.client.encrypt({"x": np.concatenate([X, X])})
    outcomes = advance_all([parties.evaluator.start(one) for one in data], 2)
    raw = [parties.custodian.decrypt(outcome.output).raw["y"] for outcome in outcomes]
    assert np.abs(raw[0] - raw[1]).max() < 1e-4


def test_a_program_that_gains_nothing_gets_no_helper() -> None:
    program = refresh_program()
    assert not make_parties(program).evaluator.start_helper()


@pytest.mark.parametrize(
    "program", [single_program(), wide_program(), matrix_program(np.eye(8), np.ones(8))]
)
def test_schedules_run_every_operation_once_after_its_operands(program: Program) -> None:
    idle = (he.Input, he.Encode, he.Output, he.Refresh)
    for segment in plan_segments(program, DEFAULT_COST_MODEL):
        wanted = [
            n
            for n in range(segment.start, segment.end)
            if not isinstance(program.operations[n], idle)
        ]
        assert sorted([*segment.orders[MAIN], *segment.orders[HELPER]]) == wanted
        assert segment.seconds <= segment.alone * 1.0001
        for who, order in enumerate(segment.orders):
            known = set(segment.given) if who == HELPER else None
            for n in order:
                op = program.operations[n]
                names = [x.name for x in op.operands if isinstance(x.type, CipherType)]
                assert known is None or all(
                    name in known or name in segment.handed for name in names
                )
                if known is not None:
                    known.add(op.defined.name)
