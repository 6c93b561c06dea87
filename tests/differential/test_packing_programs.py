"""Packed programs compute what their tensors say, whatever layouts the search chooses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hecompile.ir import he_ops as he
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array, SparseMap
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import tensor_type
from hecompile.ir.verifier import verify
from hecompile.passbase import Context
from hecompile.pipeline import parse_pipeline
from tests.differential.meaning import assert_same_meaning

SHAPES = ((1, 1), (1, 3), (1, 4), (1, 2, 4), (1, 2, 3, 3), (1, 1, 4, 4))
BATCHES = (1, 3, 8)


class Writer:
    """Random operations on random values, all numbers of ordinary size."""

    def __init__(self, seed: int, batch: int) -> None:
        self.random = np.random.default_rng(seed)
        self.build = Builder(name="random", batch=batch)
        self.values: list[Value] = []

    def input(self, label: str) -> None:
        dims = SHAPES[self.random.integers(len(SHAPES))]
        self.values.append(self.build.emit(tensor.Input(label=label, dims=dims), label))

    def step(self) -> None:
        """Append one operation; linear maps are half of them."""
        kinds = (self._binary, self._polynomial, self._slice, self._negate, self._reshape)
        kind = self._affine if self.random.random() < 0.5 else kinds[self.random.integers(5)]
        self.values.append(kind(self._pick()))

    def finish(self, outputs: int) -> Program:
        """The latest values leave."""
        for i, value in enumerate(self.values[-outputs:]):
            self.build.keep(tensor.Output(x=value, label=f"y{i}"))
        return self.build.finish()

    def _pick(self) -> Value:
        # Mostly what came last, so that programs grow deep.
        late = self.values[-2:] if self.random.random() < 0.7 else self.values
        return late[self.random.integers(len(late))]

    def _affine(self, x: Value) -> Value:
        dims = SHAPES[self.random.integers(len(SHAPES))]
        rows = math.prod(dims)
        xs = (x, self._pick())[: 1 + (self.random.random() < 0.25)]
        maps = tuple(
            self.build.constant(SparseMap.from_dense(self._matrix(rows, v)).to_array(), "map")
            for v in xs
        )
        bias = self.random.normal(size=rows) * (self.random.random() < 0.7)
        op = move.Affine(xs=xs, maps=maps, bias=self.build.constant(bias, "bias"), dims=dims)
        return self.build.emit(op)

    def _matrix(self, rows: int, x: Value) -> Array:
        """Dense, sparse, a window that moves, or with groups of equal columns."""
        columns = tensor_type(x).size
        dense: Array = self.random.uniform(-1, 1, (rows, columns)) / np.sqrt(columns)
        match self.random.integers(5):
            case 0:
                dense *= self.random.random(dense.shape) < 0.2
            case 1:
                distance = np.arange(columns)[None] - np.arange(rows)[:, None] * columns // rows
                dense *= (distance >= 0) & (distance < 3)
            case 2 if columns % 2 == 0:
                dense[:, columns // 2 :] = dense[:, : columns // 2]
            case 3 if columns % 2 == 0:
                dense[:, 1::2] = dense[:, ::2]
        return dense

    def _binary(self, x: Value) -> Value:
        shape = tensor_type(x).shape
        others = [v for v in self.values if tensor_type(v).shape == shape]
        kind = (tensor.Add, tensor.Sub, tensor.Mul)[self.random.integers(3)]
        return self.build.emit(kind(x=x, y=others[self.random.integers(len(others))]))

    def _polynomial(self, x: Value) -> Value:
        width, degree = tensor_type(x).shape[-1], int(self.random.integers(1, 5))
        sections = (1, width - 1) if width > 1 and self.random.random() < 0.5 else ()
        size = (degree + 1, max(len(sections), 1))
        coefficients = self.random.uniform(0.1, 0.5, size) * self.random.choice([-1, 1], size)
        symbol = self.build.constant(coefficients, "coefficients")
        functions = ("tanh",) * size[1]
        op = tensor.Polynomial(
            x=x,
            coefficients=symbol,
            degree=degree,
            functions=functions,
            lower=(-1.0,) * size[1],
            upper=(1.0,) * size[1],
            sections=sections,
        )
        return self.build.emit(op)

    def _slice(self, x: Value) -> Value:
        shape = tensor_type(x).shape
        axis = next((i for i, extent in enumerate(shape) if extent > 1), 0)
        start = int(self.random.integers(shape[axis]))
        stop = int(self.random.integers(start, shape[axis])) + 1
        return self.build.emit(move.Slice(x=x, axis=axis, start=start, stop=stop))

    def _negate(self, x: Value) -> Value:
        return self.build.emit(tensor.Neg(x=x))

    def _reshape(self, x: Value) -> Value:
        return self.build.emit(move.Reshape(x=x, dims=(1, tensor_type(x).size)))


def random_program(seed: int, batch: int, inputs: int, steps: int, outputs: int) -> Program:
    writer = Writer(seed, batch)
    for i in range(inputs):
        writer.input(f"x{i}")
    for _ in range(steps):
        writer.step()
    return writer.finish(outputs)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("search", ["true", "false"])
def test_packing_keeps_the_meaning(batch: int, search: str) -> None:
    @settings(
        deadline=None,
        derandomize=True,
        max_examples=60,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(
        st.integers(0, 2**32 - 1),
        st.integers(1, 2),
        st.integers(1, 7),
        st.integers(1, 2),
        st.sampled_from([16, 32, 64]),
    )
    def check(seed: int, inputs: int, steps: int, outputs: int, slots: int) -> None:
        program = random_program(seed, batch, inputs, steps, outputs)
        pipeline = f"lower-to-slots{{slots={slots} search={search}}},cse,plan-rotations,cse,dce"
        after = parse_pipeline(pipeline).run(program, Context())
        verify(after)
        labels = {op.label for op in after.select(he.Input)}
        assert labels == {op.label for op in program.select(tensor.Input)}
        assert all(op.period <= slots for op in after.select(he.Input))
        assert_same_meaning(program, after, 1e-8, pipeline)

    check()
