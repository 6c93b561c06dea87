"""Constants, operations, programs, the builder, and the graph view."""

from __future__ import annotations

import dataclasses
import math

import networkx as nx
import numpy as np
import pytest

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir import tensor_ops as to
from hecompile.ir.constants import Constant, SparseMap
from hecompile.ir.graph import critical_path, dataflow, multiplicative_depth, to_dot
from hecompile.ir.operation import Value, register_operation
from hecompile.ir.parser import parse
from hecompile.ir.printer import print_program
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType, Interval, Layout, TensorType
from hecompile.ir.verifier import verify


def test_constants_are_equal_by_content() -> None:
    source = np.array([1.0, 2.0])
    one, other = Constant(source), Constant(np.array([1.0, 2.0]))
    source[0] = 9.0
    assert one == other
    assert hash(one) == hash(other)
    assert one.array[0] == 1.0
    assert Constant(np.array([[1.0, 2.0]])) != one
    assert Constant(np.array([0.0])) != Constant(np.array([-0.0]))
    with pytest.raises(ValueError, match="read-only"):
        one.array[0] = 3.0
    with pytest.raises(ProgramError, match="holds NaN"):
        Constant(np.array([math.nan]))


def test_sparse_map_from_dense_and_back() -> None:
    matrix = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, -3.0]])
    sparse = SparseMap.from_constant(SparseMap.from_dense(matrix).to_array())
    np.testing.assert_array_equal(sparse.dense(2, 3), matrix)
    np.testing.assert_array_equal(sparse.apply(np.eye(3), 2), matrix.T)
    with pytest.raises(ProgramError, match="3 x entries"):
        SparseMap.from_constant(np.ones((2, 2)))


def test_types_refuse_impossible_facts() -> None:
    with pytest.raises(ProgramError, match="finite"):
        Interval(0.0, math.inf)
    with pytest.raises(ProgramError, match="names no slots"):
        Layout(0, 0)
    assert Interval(-3.0, 2.0).magnitude == 3.0
    assert Layout(2, 3, stride=4, offset=1).end == 13
    assert TensorType((2, 3)).size == 6
    assert TensorType(()).size == 1


def test_operations_know_operands_attributes_and_symbols() -> None:
    x, y = Value("x", CipherType(4)), Value("y", CipherType(4))
    b = Builder(name="m")
    weights = b.constant(np.ones((2, 4)))
    op = he.SumMulPlain(xs=(x, y), weights=weights, period=4)
    assert op.operands == (x, y)
    assert op.attributes == {"weights": weights, "period": 4}
    assert list(op.symbols) == [weights]
    z = Value("z", CipherType(4))
    assert op.with_operands({"y": z}).operands == (x, z)
    assert op.with_operands({"q": z}) is op
    with pytest.raises(ProgramError, match=r"he\.sum_mul_plain defines no value"):
        _ = op.defined


def test_operation_names_are_checked() -> None:
    class Again(to.Neg):
        pass

    class Odd(to.Neg):
        name = "Odd"

    with pytest.raises(ProgramError, match="registered twice"):
        register_operation(Again)

    with pytest.raises(ProgramError, match=r"write dialect\.mnemonic"):
        register_operation(Odd)


def test_equality_ignores_locations_only() -> None:
    x = Value("x", TensorType((2,)))
    op = to.Input(label="x", dims=(2,), result=x, location="here")
    assert op == dataclasses.replace(op, location="there")
    assert op != dataclasses.replace(op, label="y")
    assert Program("m", (op,)) != Program("m", (op,), batch=2)


def _diamond() -> Program:
    b = Builder(name="m")
    x = b.emit(to.Input(label="x", dims=(2,)), "x")
    left = b.emit(to.Mul(x=x, y=x), "left")
    right = b.emit(to.Neg(x=x), "right")
    y = b.emit(to.Mul(x=left, y=right), "y")
    b.keep(to.Output(x=y, label="y"))
    return b.finish()


def test_definitions_users_and_last_uses() -> None:
    program = _diamond()
    assert program.dialect == "tensor"
    assert list(program.definitions) == ["x", "left", "right", "y"]
    assert [op.name for op in program.users["x"]] == ["tensor.mul", "tensor.neg"]
    assert program.users["y"] == (program.operations[-1],)
    assert program.last_uses == {"x": 2, "left": 3, "right": 3, "y": 4}
    assert program.select(to.Neg) == (program.definitions["right"],)
    with pytest.raises(ProgramError, match="no constant @k"):
        program.array("k")


def test_builder_gives_fresh_names_that_the_text_can_hold() -> None:
    b = Builder(name="m")
    hints = ["a", "a", "1st", "", "a b/c", "größe", "v0"]
    values = [b.emit(to.Input(label=str(i), dims=(1,)), h) for i, h in enumerate(hints)]
    names = [v.name for v in values]
    assert len(set(names)) == len(names)
    assert names[0] == "a"
    assert names[4] == "a_b_c"
    program = b.finish()
    assert parse(print_program(program)) == program


def test_builder_finds_equal_constants_and_drops_unused_ones() -> None:
    b = Builder(name="m")
    one = b.constant(np.ones(2), "layer 1/weight")
    assert b.constant(np.ones(2), "other") == one
    assert b.constant(np.zeros(2), "layer 1/weight") != one
    b.emit(to.ConstantTensor(value=one, dims=(2,)))
    program = b.finish()
    assert list(program.constants) == [one]
    assert parse(print_program(program)) == program
    np.testing.assert_array_equal(b.array(one), 1.0)
    with pytest.raises(ProgramError, match="no constant @k"):
        b.array("k")


def test_builder_from_a_program_avoids_its_names() -> None:
    source = _diamond()
    b = Builder(source)
    for op in source.operations[:-1]:
        b.keep(op)
    new = b.emit(to.Neg(x=b.keep(source.operations[0]).defined), "left")
    assert new.name not in source.definitions
    with pytest.raises(ProgramError, match="append it with keep"):
        b.emit(to.Output(x=new, label="y"))
    assert Builder(source).finish(batch=3).batch == 3


def test_a_pass_that_changes_nothing_gives_an_equal_program() -> None:
    source = _diamond()
    b = Builder(source)
    for op in source:
        b.keep(op)
    assert b.finish() == source


def test_depth_and_critical_path() -> None:
    program = _diamond()
    assert multiplicative_depth(program) == 2
    path = [op.result.name if op.result else op.name for op in critical_path(program)]
    assert path == ["x", "left", "y"]
    everything = critical_path(program, lambda op: float(op.name == "tensor.neg"))
    assert "right" in [op.result.name for op in everything if op.result]
    assert critical_path(Program("empty", ())) == ()
    assert multiplicative_depth(Program("empty", ())) == 0


def test_a_refresh_starts_the_depth_again() -> None:
    b = Builder(name="m")
    value = b.emit(he.Input(label="x", dims=(4,), period=4, first=0, count=4))
    for i in range(4):
        square = b.emit(he.Mul(x=value, y=value))
        value = b.emit(he.Relinearize(x=square))
        if i == 2:
            value = b.emit(he.Refresh(xs=(value,)))
    program = b.finish()
    verify(program)
    assert multiplicative_depth(program) == 3


def test_graph_view_and_drawing() -> None:
    program = _diamond()
    graph = dataflow(program)
    assert nx.is_directed_acyclic_graph(graph)
    assert sorted(graph.edges) == [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]
    assert graph.nodes[2]["operation"].name == "tensor.neg"
    dot = to_dot(program.replace(name='a "quoted" name'))
    assert dot.startswith('digraph "a \\"quoted\\" name" {')
    assert 'n3 [label="%y = tensor.mul"];' in dot
    assert 'n2 -> n3 [label="%right"];' in dot
    assert dot.endswith("}\n")
