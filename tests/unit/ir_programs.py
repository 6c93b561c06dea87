"""Random programs over all operations, with all facts that types can carry."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from hecompile.ir import he_ops as he
from hecompile.ir import movement_ops as mo
from hecompile.ir import recurrent_ops as ro
from hecompile.ir import tensor_ops as to
from hecompile.ir.constants import SparseMap
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import GARBAGE, ZERO, CipherType, Interval, Layout, PlainType, TensorType
from hecompile.numeric.parameters import Parameters

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=8).filter(lambda t: "\r" not in t)
Draw = st.DrawFn
Step = Callable[[Draw, Builder, list[Value]], Operation | None]


def _numbers(draw: Draw, *shape: int) -> np.ndarray:
    count = math.prod(shape)
    return np.array(draw(st.lists(NUMBERS, min_size=count, max_size=count))).reshape(shape)


def _shape(value: Value) -> tuple[int, ...]:
    return to.tensor_type(value).shape


def _constant(draw: Draw, b: Builder, *shape: int) -> Value:
    return b.emit(to.ConstantTensor(value=b.constant(_numbers(draw, *shape)), dims=shape))


def _pick(draw: Draw, values: list[Value], rank: int = 0) -> Value | None:
    fitting = [v for v in values if len(_shape(v)) >= rank]
    return draw(st.sampled_from(fitting)) if fitting else None


def _binary(draw: Draw, b: Builder, values: list[Value]) -> Operation:
    x = draw(st.sampled_from(values))
    y = draw(st.sampled_from([v for v in values if _shape(v) == _shape(x)]))
    return draw(st.sampled_from([to.Add, to.Sub, to.Mul]))(x=x, y=y)


def _unary(draw: Draw, b: Builder, values: list[Value]) -> Operation:
    x = draw(st.sampled_from(values))
    kinds = [to.Neg(x=x), to.Power(x=x, exponent=draw(st.integers(1, 9)))]
    return draw(st.sampled_from(kinds))


def _activation(draw: Draw, b: Builder, values: list[Value]) -> Operation | None:
    x = _pick(draw, values, 1)
    if x is None or _shape(x)[-1] < 2:
        return to.Activation(x=values[0], functions=("relu",))
    cut = _shape(x)[-1] - 1
    return to.Activation(x=x, functions=("tanh", "leaky_relu(alpha=0.1)"), sections=(cut, 1))


def _polynomial(draw: Draw, b: Builder, values: list[Value]) -> Operation:
    x, degree = draw(st.sampled_from(values)), draw(st.integers(0, 4))
    lower = draw(NUMBERS)
    return to.Polynomial(
        x=x,
        coefficients=b.constant(_numbers(draw, degree + 1, 1), "poly"),
        degree=degree,
        functions=draw(st.sampled_from([(), ("tanh",)])),
        lower=(lower,),
        upper=(max(lower, draw(NUMBERS)),),
        fit_error=draw(st.floats(0, 1)),
        basis=draw(st.sampled_from(["monomial", "chebyshev"])),
    )


def _matmul(draw: Draw, b: Builder, values: list[Value]) -> Operation | None:
    x = _pick(draw, values, 1)
    return to.MatMul(x=x, y=_constant(draw, b, _shape(x)[-1], 2)) if x is not None else None


def _conv(draw: Draw, b: Builder, values: list[Value]) -> Operation | None:
    x = _pick(draw, values, 3)
    if x is None or len(_shape(x)) > 4:
        return None
    rank, channels = len(_shape(x)) - 2, _shape(x)[1]
    weight = _constant(draw, b, 2, channels, *(1,) * rank)
    bias = _constant(draw, b, 2) if draw(st.booleans()) else None
    ones, pads = (1,) * rank, tuple(draw(st.integers(0, 1)) for _ in range(2 * rank))
    return to.Conv(x=x, weight=weight, bias=bias, strides=ones, pads=pads, dilations=ones)


def _pool(draw: Draw, b: Builder, values: list[Value]) -> Operation | None:
    x = _pick(draw, values, 3)
    if x is None:
        return None
    ones = (1,) * (len(_shape(x)) - 2)
    return to.AveragePool(
        x=x,
        kernel=ones,
        strides=ones,
        pads=(0,) * 2 * len(ones),
        dilations=ones,
        ceil=draw(st.booleans()),
        count_include_pad=draw(st.booleans()),
    )


def _batch_norm(draw: Draw, b: Builder, values: list[Value]) -> Operation | None:
    x = _pick(draw, values, 2)
    if x is None:
        return None
    s, o, m, v = (_constant(draw, b, _shape(x)[1]) for _ in range(4))
    return to.BatchNorm(x=x, scale=s, bias=o, mean=m, variance=v, epsilon=draw(st.floats(0, 1)))


def _reduce(draw: Draw, b: Builder, values: list[Value]) -> Operation | None:
    x = _pick(draw, values, 2)
    kind = draw(st.sampled_from([to.ReduceSum, to.ReduceMean]))
    return kind(x=x, axes=(1,), keepdims=draw(st.booleans())) if x is not None else None


def _move(draw: Draw, b: Builder, values: list[Value]) -> Operation | None:
    x = _pick(draw, values, 1)
    if x is None:
        return None
    shape = _shape(x)
    rank, extent = len(shape), shape[-1]
    stop = draw(st.integers(1, extent))
    kinds = [
        mo.Pad(x=x, pads=(0,) * (2 * rank - 1) + (1,), fill=draw(NUMBERS)),
        mo.Reshape(x=x, dims=(1, math.prod(shape))),
        mo.Transpose(x=x, permutation=tuple(reversed(range(rank)))),
        mo.Slice(x=x, axis=rank - 1, start=stop - 1, stop=stop, step=draw(st.integers(1, 3))),
        mo.Gather(x=x, axis=rank - 1, indices=(0, stop - 1), dims=(2, 1)),
        mo.Concat(xs=(x, x), axis=0),
        mo.Expand(x=x, dims=(2, *shape)),
    ]
    return draw(st.sampled_from(kinds))


def _affine(draw: Draw, b: Builder, values: list[Value]) -> Operation:
    xs = tuple(draw(st.lists(st.sampled_from(values), min_size=1, max_size=3)))
    maps = []
    for x in xs:
        sparse = SparseMap.from_dense(np.ones((2, to.tensor_type(x).size)) * draw(NUMBERS))
        maps.append(b.constant(sparse.to_array(), "map"))
    bias = b.constant(_numbers(draw, 2), "bias")
    return mo.Affine(xs=xs, maps=tuple(maps), bias=bias, dims=(1, 2))


def _recurrent(draw: Draw, b: Builder, values: list[Value]) -> Operation | None:
    x = _pick(draw, [v for v in values if len(_shape(v)) == 3])
    if x is None:
        return None
    _, batch, features = _shape(x)
    kind: Any = draw(st.sampled_from([ro.Lstm, ro.Gru, ro.Rnn]))
    # One number in all of them: many weights would leave room for little else in a program.
    number = draw(NUMBERS)

    def filled(*shape: int) -> Value:
        return b.emit(to.ConstantTensor(value=b.constant(np.full(shape, number)), dims=shape))

    own: dict[str, Any] = {}
    if kind is ro.Lstm:
        own["p"] = filled(1, 3) if draw(st.booleans()) else None
        own["c0"] = filled(1, batch, 1) if draw(st.booleans()) else None
    elif kind is ro.Gru:
        own["linear_before_reset"] = draw(st.booleans())
    made: Operation = kind(
        x=x,
        w=filled(1, kind.gates, features),
        r=filled(1, kind.gates, 1),
        hidden=1,
        output=draw(st.sampled_from(kind.outputs)),
        **own,
    )
    return made


TENSOR_STEPS: list[Step] = [_binary, _unary, _activation, _polynomial, _matmul, _conv, _pool]
TENSOR_STEPS += [_batch_norm, _reduce, _move, _move, _move, _affine, _recurrent]


@st.composite
def tensor_programs(draw: Draw) -> Program:
    """A valid tensor program."""
    b = Builder(name=draw(TEXTS), batch=draw(st.integers(1, 4)))
    ranks = st.sampled_from([3, 3, 4, 2, 1, 0])
    shapes = [
        tuple(draw(st.integers(1, 3)) for _ in range(draw(ranks)))
        for _ in range(draw(st.integers(1, 3)))
    ]
    values = [
        b.emit(to.Input(label=f"x{i}", dims=s, location=draw(TEXTS))) for i, s in enumerate(shapes)
    ]
    for step in draw(st.lists(st.sampled_from(TENSOR_STEPS), min_size=1, max_size=6)):
        op = step(draw, b, values)
        if op is not None and _modest(op):
            values.append(b.emit(op, draw(TEXTS)))
    post = tuple(draw(st.lists(TEXTS, max_size=2)))
    b.keep(to.Output(x=values[-1], label=draw(TEXTS), post=post))
    return _decorated(draw, b.finish())


def _modest(op: Operation) -> bool:
    kind = op.infer()
    return isinstance(kind, TensorType) and kind.size <= 200


def _cipher_step(draw: Draw, b: Builder, values: list[Value]) -> Operation:
    x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))
    period = 1 << draw(st.integers(0, 3))
    plain = b.emit(he.Encode(value=b.constant(_numbers(draw, period)), period=period))
    kinds: list[Operation] = [he.Add(x=x, y=y), he.Sub(x=x, y=y), he.Negate(x=x)]
    kinds += [he.AddPlain(x=x, p=plain), he.MulPlain(x=x, p=plain), he.Rescale(x=x)]
    kinds += [he.DropLevel(x=x, levels=draw(st.integers(1, 3))), he.Relinearize(x=x)]
    weights = b.constant(_numbers(draw, 2, period), "weights")
    kinds.append(he.SumMulPlain(xs=(x, y), weights=weights, period=period))
    if he.cipher_type(x).polynomials == 2:
        kinds.append(he.Refresh(xs=(x,), mask_bits=draw(st.integers(1, 60)), group=0))
        if he.cipher_type(x).period > 1:
            steps = draw(st.integers(1, he.cipher_type(x).period - 1))
            kinds.append(he.Rotate(x=x, steps=steps))
        if he.cipher_type(y).polynomials == 2:
            kinds.append(he.Mul(x=x, y=y))
    return draw(st.sampled_from(kinds))


@st.composite
def cipher_programs(draw: Draw) -> Program:
    """A valid ciphertext program; its levels and scales need not make sense."""
    b = Builder(name=draw(TEXTS))
    values = []
    for _ in range(draw(st.integers(1, 3))):
        count, stride = draw(st.integers(1, 4)), 1 << draw(st.integers(0, 2))
        period = 1 << draw(st.integers(4, 6))
        op = he.Input(label="x", dims=(8,), period=period, first=1, count=count, stride=stride)
        values.append(b.emit(op))
    for _ in range(draw(st.integers(0, 8))):
        values.append(b.emit(_cipher_step(draw, b, values), draw(TEXTS)))
    last = tuple(v for v in values if he.cipher_type(v).polynomials == 2)[-2:]
    b.keep(he.Output(xs=last, label="y", dims=(draw(st.integers(1, 9)),)))
    grouped = Parameters(8192, (50, 30, 60, 50), 30, level_units=(1, 1, 2))
    parameters = st.sampled_from([None, Parameters(8192, (50, 30, 30, 50), 30), grouped])
    return _decorated(draw, b.finish(parameters=draw(parameters)))


def _decorated(draw: Draw, program: Program) -> Program:
    """The program with facts in its types that inference leaves open."""
    renamed: dict[str, Value] = {}
    operations = []
    for old in program:
        op = old.with_operands(renamed)
        if op.result is not None:
            value = dataclasses.replace(op.result, type=_facts(draw, op.result))
            renamed[value.name] = value
            op = op.with_result(value)
        operations.append(op)
    return program.replace(operations=tuple(operations))


def _facts(draw: Draw, value: Value) -> TensorType | CipherType | PlainType:
    kind = value.type
    level = draw(st.none() | st.integers(0, 30))
    positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
    if isinstance(kind, TensorType):
        ends = sorted([draw(NUMBERS), draw(NUMBERS)])
        interval = draw(st.sampled_from([None, Interval(*ends)]))
        return dataclasses.replace(kind, interval=interval)
    scale = draw(st.none() | positive)
    if isinstance(kind, PlainType):
        return dataclasses.replace(kind, level=level, scale=scale)
    rest = draw(st.sampled_from([ZERO, GARBAGE]))
    layout = Layout(draw(st.integers(0, 9)), 1, 1, draw(st.integers(0, kind.period - 1)), rest)
    chosen = draw(st.sampled_from([None, kind.layout, layout]))
    bound = draw(st.none() | positive)
    return dataclasses.replace(kind, layout=chosen, bound=bound, level=level, scale=scale)
