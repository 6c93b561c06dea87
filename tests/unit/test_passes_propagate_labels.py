"""The pass that states at each output what flows into it."""

from __future__ import annotations

import pytest

from hecompile.access.policy import FieldLabels, ObjectRef
from hecompile.errors import PipelineError, ProgramError
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.parser import parse
from hecompile.ir.printer import print_program
from hecompile.ir.program import Builder, Program
from hecompile.passbase import Context
from hecompile.pipeline import parse_pipeline
from tests.unit.interpreting import clear, finish, secret

PASS = "propagate-labels"
LABELS = ("vitals.hr", "labs.glucose")


def two_maps() -> Program:
    """Two products of matrices; the second undoes what the first takes from one field."""
    build = Builder(name="m")
    x = secret(build, "x", 1, 2)
    inner = build.emit(tensor.MatMul(x=x, y=clear(build, [[1.0, 2.0], [3.0, 3.0]])))
    outer = build.emit(tensor.MatMul(x=inner, y=clear(build, [[1.0], [-1.0]])))
    return finish(build, y=outer)


def context(*labels: str, axis: int | None = None) -> Context:
    return Context(labels=(FieldLabels(ObjectRef.input("x"), axis, labels),))


def stated(program: Program) -> dict[str, tuple[str, ...] | None]:
    return {op.label: op.labels for op in program.select(tensor.Output)}


def test_zeros_that_merging_shows_cut_a_flow() -> None:
    program, given = two_maps(), context(*LABELS, axis=0)
    before = parse_pipeline(PASS).run(program, given)
    assert stated(before) == {"y": tuple(sorted(LABELS))}
    merged = parse_pipeline(f"merge-linear,{PASS}").run(program, given)
    assert stated(merged) == {"y": ("vitals.hr",)}


def test_nothing_but_the_statement_changes() -> None:
    program = two_maps()
    after = parse_pipeline(PASS).run(program, context(*LABELS, axis=0))
    assert after.operations[:-1] == program.operations[:-1]
    assert after.constants == program.constants


def test_the_pass_finds_the_same_again() -> None:
    given = context(*LABELS, axis=0)
    once = parse_pipeline(PASS).run(two_maps(), given)
    assert parse_pipeline(PASS).run(once, given) == once


def test_later_passes_keep_the_statement() -> None:
    after = parse_pipeline(f"merge-linear,{PASS},cse,dce,require-polynomial").run(
        two_maps(), context("vitals.hr")
    )
    assert stated(after) == {"y": ("vitals.hr",)}


def test_it_comes_after_merging() -> None:
    with pytest.raises(PipelineError, match="must run after merge-linear"):
        parse_pipeline(f"{PASS},merge-linear")


@pytest.mark.parametrize("labels", [(), ("vitals.hr",), LABELS, ('odd " name\\',)])
def test_statements_survive_the_text(labels: tuple[str, ...]) -> None:
    build = Builder(name="m")
    build.keep(tensor.Output(x=secret(build, "x", 1, 2), label="y", labels=labels))
    program = build.finish()
    assert parse(print_program(program)) == program


def test_an_output_without_a_statement_prints_none() -> None:
    assert "labels" not in print_program(two_maps())


@pytest.mark.parametrize("written", ['"vitals.hr"', "[1]", "@x", "[true]"])
def test_a_statement_is_a_list_of_texts(written: str) -> None:
    text = print_program(two_maps()).replace("post = []", f"post = [], labels = {written}")
    with pytest.raises(ProgramError, match="attribute 'labels' is of another kind"):
        parse(text)


def test_slots_are_the_same_with_and_without_labels() -> None:
    pipeline = f"merge-linear,cse,dce,{PASS},lower-to-slots{{slots=16}}"
    plain = parse_pipeline(pipeline).run(two_maps(), Context())
    assert parse_pipeline(pipeline).run(two_maps(), context("vitals.hr")) == plain
