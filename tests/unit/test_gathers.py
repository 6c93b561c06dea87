"""Gathers of refreshes: each kind of damage is refused, and what they take is what is given."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hecompile.errors import ProgramError
from hecompile.interpret.slots import run_slots
from hecompile.ir import he_ops as he
from hecompile.ir.gathers import gather_of
from hecompile.ir.operation import Symbol
from hecompile.ir.program import Builder, Program

PERIODS = (4, 2)


def program(table: np.ndarray | None, period: int = 0, operands: int = 2) -> Program:
    """One refresh of ciphertexts with the periods 4 and 2."""
    build = Builder(name="gather")
    xs = [
        build.emit(he.Input(label=f"x{i}", dims=(n,), period=n, first=0, count=n), f"x{i}")
        for i, n in enumerate(PERIODS)
    ]
    gather = None if table is None else build.constant(table, "gather")
    op = he.Refresh(xs=tuple(xs[:operands]), period=period, gather=gather)
    build.keep(he.Output(xs=(build.emit(op, "fresh"),), label="y", dims=(1,)))
    return build.finish()


GOOD = np.array([[0.0, 1.0, -1.0, 1.0], [3.0, 1.0, 0.0, 0.0]])


def damaged(row: int, slot: int, number: float) -> np.ndarray:
    table = GOOD.copy()
    table[row, slot] = number
    return table


def read(made: Program) -> None:
    gather_of(made.select(he.Refresh)[0], made)


def test_slots_come_from_where_the_gather_says() -> None:
    made = program(GOOD, 4)
    gather = gather_of(made.select(he.Refresh)[0], made)
    np.testing.assert_array_equal(gather.source, [0, 1, -1, 1])
    np.testing.assert_array_equal(gather.place, [3, 1, 0, 0])
    slots = {"x0": np.array([[1.0, 2.0, 3.0, 4.0]]), "x1": np.array([[5.0, 6.0]])}
    np.testing.assert_array_equal(run_slots(made, slots)["fresh"], [[4.0, 6.0, 0.0, 5.0]])


def test_without_gather_slots_stay_as_they_are() -> None:
    made = program(None, operands=1)
    gather = gather_of(made.select(he.Refresh)[0], made)
    np.testing.assert_array_equal(gather.source, [0, 0, 0, 0])
    np.testing.assert_array_equal(gather.place, [0, 1, 2, 3])


@pytest.mark.parametrize("anything", [-1.0, 0.0, 7.0])
def test_a_slot_that_is_zero_has_no_place(anything: float) -> None:
    made = program(damaged(1, 2, anything), 4)
    assert gather_of(made.select(he.Refresh)[0], made).place[2] == 0


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (GOOD[:, :3], "no table of"),
        (GOOD[:1], "no table of"),
        (np.concatenate([GOOD, GOOD]), "no table of"),
        (GOOD.ravel(), "no table of"),
        (damaged(0, 1, 0.5), "no table of"),
        (damaged(1, 1, 0.5), "no table of"),
        (damaged(0, 0, np.inf), "no table of"),
        (damaged(1, 0, 1e300), "no table of"),
        (damaged(0, 0, 2.0), "an operand that it does not have"),
        (damaged(0, 0, -2.0), "an operand that it does not have"),
        (damaged(1, 0, 4.0), "a slot that its operand does not have"),
        (damaged(1, 1, 2.0), "a slot that its operand does not have"),
        (damaged(1, 0, -1.0), "a slot that its operand does not have"),
    ],
)
def test_damaged_gathers_are_refused(table: np.ndarray, match: str) -> None:
    with pytest.raises(ProgramError, match=match):
        read(program(table, 4))


@pytest.mark.parametrize(
    ("table", "period", "operands"),
    [(None, 4, 1), (None, 0, 2), (None, 0, 0), (GOOD, 0, 2), (GOOD, -4, 2)],
)
def test_refreshes_that_do_not_say_what_they_take_are_refused(
    table: np.ndarray | None, period: int, operands: int
) -> None:
    with pytest.raises(ProgramError, match=r"he\.refresh with"):
        program(table, period, operands)


def test_a_gather_that_another_program_does_not_have_is_refused() -> None:
    made = program(GOOD, 4)
    op = dataclasses.replace(made.select(he.Refresh)[0], gather=Symbol("other"))
    with pytest.raises((ProgramError, KeyError)):
        gather_of(op, made)
