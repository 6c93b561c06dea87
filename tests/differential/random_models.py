"""Random small ONNX models over the operators that hecompile takes, drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.differential.random_graphs import Growing, RandomModel, Shape

MOST_ELEMENTS = 96
"""Elements that a value may have, so that programs stay small."""

HEAVY = 2
"""Activations and products of encrypted values that a model may have; they cost the depth."""

Step = Callable[[Growing, str, str], str]


@dataclass(frozen=True)
class Known:
    """A way to go on from a value.

    Attributes:
        step: takes graph, value and operator; gives the new value.
        ranks: axes that the value may have, the first one counting samples.
        heavy: how much of `HEAVY` it uses up.
        family: the first of the operators that it was registered for.
    """

    step: Step
    ranks: tuple[int, ...]
    heavy: int
    family: str


STEPS: dict[str, Known] = {}
"""By operator."""


def step(
    *operators: str, ranks: tuple[int, ...] = (2, 3, 4), heavy: int = 0
) -> Callable[[Step], Step]:
    """Decorator: register a step for these operators."""

    def register(function: Step) -> Step:
        STEPS.update(dict.fromkeys(operators, Known(function, ranks, heavy, operators[0])))
        return function

    return register


def models(most: int = 5) -> st.SearchStrategy[RandomModel]:
    """Models of one to `most` steps, some with two inputs, some with a step of the client.

    Hypothesis draws the number of steps and a seed, all else follows from the seed: drawn one by
    one, choices would be much alike. The same seed with fewer steps gives the beginning of the
    same model.
    """
    return st.builds(random_model, st.integers(0, 2**32 - 1), st.integers(1, most))


def random_model(seed: int, steps: int) -> RandomModel:
    """The model of a seed."""
    g = Growing(seed)
    x = g.input(*(g.whole(1, 5) for _ in range(g.whole(1, 3))))
    has_head, batch = g.whole(0, 3) == 0, g.whole(0, 1)
    outputs = []
    left = HEAVY
    for _ in range(steps):
        rank = len(g.shapes[x])
        fitting = [n for n, s in STEPS.items() if rank in s.ranks and s.heavy <= left]
        family = g.pick(list(dict.fromkeys(STEPS[n].family for n in fitting)))
        operator = g.pick([n for n in fitting if STEPS[n].family == family])
        left -= STEPS[operator].heavy
        x = STEPS[operator].step(g, x, operator)
        if g.whole(0, 7) == 0:
            outputs.append(x)
    if has_head:
        # What an argmax chose from tells how close the choice was.
        outputs.append(x)
        head = g.pick(("Softmax", "LogSoftmax", "Sigmoid", "ArgMax"))
        more = {} if head == "Sigmoid" else {"axis": g.whole(1, len(g.shapes[x]) - 1)}
        x = g.add(head, x, **more)
    return g.model(list(dict.fromkeys([*outputs, x])), "n" if batch else 1)


def _small(shape: Shape) -> bool:
    return int(np.prod(shape)) <= MOST_ELEMENTS


def _axis(g: Growing, x: str) -> int:
    """Any axis but the one that counts samples."""
    return g.whole(1, len(g.shapes[x]) - 1)


def _like(g: Growing, x: str) -> Shape:
    """A shape that broadcasts to a value's, without the axis of samples."""
    dims = g.shapes[x][1:]
    kept = g.whole(0, len(dims))
    return tuple(d if g.whole(0, 2) else 1 for d in dims[len(dims) - kept :])


@step("Add", "Sub", "Mul", "Div", "Sum", "Mean")
def _with_constant(g: Growing, x: str, kind: str) -> str:
    if kind == "Div":
        sign = g.pick((-1.0, 1.0))
        return g.add(kind, x, g.weight(sign * g.random.uniform(0.8, 2.0, _like(g, x))))
    constant = g.normal(*_like(g, x))
    # An encrypted value cannot divide, so it stays on the left there.
    pair = (x, constant) if g.whole(0, 1) else (constant, x)
    return g.add(kind, *pair)


@step("second Add", "second Sub", "second Concat")
def _with_second(g: Growing, x: str, kind: str) -> str:
    """Join with a further input, or with an earlier value of the same shape."""
    dims = g.shapes[x][1:]
    same = [n for n, shape in g.shapes.items() if shape == (1, *dims)]
    other = g.pick(same) if g.whole(0, 1) or len(g.inputs) > 1 else g.input(*dims)
    operator = kind.removeprefix("second ")
    if operator != "Concat":
        return g.add(operator, x, other)
    joined = (1, 2 * dims[0], *dims[1:])
    return g.add("Concat", x, other, axis=1) if _small(joined) else g.add("Add", x, other)


@step("second Mul", heavy=1)
def _product(g: Growing, x: str, kind: str) -> str:
    same = [n for n, shape in g.shapes.items() if shape == g.shapes[x]]
    return g.add("Mul", x, g.pick(same))


@step("Pow", heavy=1)
def _power(g: Growing, x: str, kind: str) -> str:
    return g.add(kind, x, g.weight(np.float32(g.whole(1, 3))))


@step("Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Erf", "Mish", heavy=1)
def _activation(g: Growing, x: str, kind: str) -> str:
    return g.add(kind, x)


@step("LeakyRelu", "Elu", "Celu", "HardSigmoid", "Selu", heavy=1)
def _bent(g: Growing, x: str, kind: str) -> str:
    return g.add(kind, x, alpha=g.whole(1, 8) / 8) if g.whole(0, 1) else g.add(kind, x)


@step("Gelu", heavy=1)
def _gelu(g: Growing, x: str, kind: str) -> str:
    return g.add(kind, x, approximate=g.pick(("none", "tanh")))


@step("PRelu", heavy=1)
def _prelu(g: Growing, x: str, kind: str) -> str:
    slopes = g.random.uniform(0, 1, size=(g.shapes[x][1], *[1] * (len(g.shapes[x]) - 2)))
    return g.add(kind, x, g.weight(slopes))


@step("Clip", heavy=1)
def _clip(g: Growing, x: str, kind: str) -> str:
    return g.add(kind, x, g.weight(np.float32(-0.5)), g.weight(np.float32(g.whole(1, 6))))


@step("Neg", "Identity", "Dropout")
def _plain(g: Growing, x: str, kind: str) -> str:
    return g.add(kind, x)


@step("Cast")
def _cast(g: Growing, x: str, kind: str) -> str:
    return g.add(kind, x, to=1)


@step("Where")
def _where(g: Growing, x: str, kind: str) -> str:
    mask = g.random.integers(0, 2, size=g.shapes[x][1:]).astype(bool)
    return g.add(kind, g.weight(mask), x, g.normal(1))


@step("ReduceMean", "ReduceSum", ranks=(3, 4))
def _reduce(g: Growing, x: str, kind: str) -> str:
    axes = g.weight(np.array([_axis(g, x)]))
    return g.add(kind, x, axes, keepdims=g.whole(0, 1))


@step("Transpose", ranks=(3, 4))
def _transpose(g: Growing, x: str, kind: str) -> str:
    rest = list(range(1, len(g.shapes[x])))
    g.random.shuffle(rest)
    return g.add(kind, x, perm=[0, *rest])


@step("Reshape")
def _reshape(g: Growing, x: str, kind: str) -> str:
    count = int(np.prod(g.shapes[x]))
    first = g.pick([d for d in range(1, count + 1) if count % d == 0])
    return g.add(kind, x, g.weight(np.array([0, first, -1])))


@step("Flatten", ranks=(3, 4))
def _flatten(g: Growing, x: str, kind: str) -> str:
    return g.add(kind, x, axis=1)


@step("Unsqueeze", ranks=(2, 3))
def _unsqueeze(g: Growing, x: str, kind: str) -> str:
    return g.add(kind, x, g.weight(np.array([_axis(g, x)])))


@step("Squeeze", ranks=(2, 3))
def _squeeze(g: Growing, x: str, kind: str) -> str:
    axes = g.weight(np.array([_axis(g, x)]))
    return g.add(kind, g.add("Unsqueeze", x, axes), axes)


@step("Slice")
def _slice(g: Growing, x: str, kind: str) -> str:
    axis = _axis(g, x)
    extent = g.shapes[x][axis]
    start = g.whole(0, extent - 1)
    bounds = (start, extent, g.whole(1, 2)) if g.whole(0, 1) else (start, -extent - 1, -1)
    return g.add(kind, x, *(g.weight(np.array([v])) for v in (*bounds[:2], axis, bounds[2])))


@step("Gather")
def _gather(g: Growing, x: str, kind: str) -> str:
    axis = _axis(g, x)
    extent = g.shapes[x][axis]
    places = g.random.integers(-extent, extent, size=g.whole(1, 3))
    return g.add(kind, x, g.weight(places), axis=axis)


@step("GatherElements", ranks=(2, 3))
def _gather_elements(g: Growing, x: str, kind: str) -> str:
    axis = _axis(g, x)
    # The indices have the axis of samples too, of one sample; a batch would need as many.
    shape = g.shapes[x]
    places = g.random.integers(0, shape[axis], size=shape)
    return g.add(kind, x, g.weight(places), axis=axis)


@step("Compress")
def _compress(g: Growing, x: str, kind: str) -> str:
    axis = _axis(g, x)
    kept = g.random.integers(0, 2, size=g.shapes[x][axis]).astype(bool)
    kept[0] = True
    shape = g.shapes[x]
    name = g.add(kind, x, g.weight(kept), axis=axis)
    # Shape inference does not look into the condition.
    g.shapes[name] = (*shape[:axis], int(kept.sum()), *shape[axis + 1 :])
    return name


@step("Split")
def _split(g: Growing, x: str, kind: str) -> str:
    axis = _axis(g, x)
    extent = g.shapes[x][axis]
    if extent == 1:
        return g.split(x, axis, [1])[0]
    cut = g.whole(1, extent - 1)
    one, other = g.split(x, axis, [cut, extent - cut])
    return g.add("Concat", other, one, axis=axis) if g.whole(0, 1) else one


@step("Tile", "Expand")
def _repeat(g: Growing, x: str, kind: str) -> str:
    axis, times = _axis(g, x), g.whole(1, 3)
    shape = g.shapes[x]
    if not _small((*shape, times)):
        return g.add("Identity", x)
    if kind == "Tile":
        return g.add(
            kind, x, g.weight(np.array([times if i == axis else 1 for i in range(len(shape))]))
        )
    wide = [times if i == axis and d == 1 else d for i, d in enumerate(shape)]
    return g.add(kind, x, g.weight(np.array(wide)))


@step("Pad")
def _pad(g: Growing, x: str, kind: str) -> str:
    shape = g.shapes[x]
    mode = g.pick(("constant", "reflect", "edge"))
    before, after = ([0] * len(shape) for _ in range(2))
    axis = _axis(g, x)
    most = min(2, shape[axis] - 1) if mode == "reflect" else 2
    before[axis], after[axis] = g.whole(0, most), g.whole(0, most)
    pads = g.weight(np.array([*before, *after]))
    extra = [g.normal()] if mode == "constant" and g.whole(0, 1) else []
    return g.add(kind, x, pads, *extra, mode=mode)


@step("DepthToSpace", "SpaceToDepth", ranks=(4,))
def _blocks(g: Growing, x: str, kind: str) -> str:
    _, c, h, w = g.shapes[x]
    fits = c % 4 == 0 if kind == "DepthToSpace" else h % 2 == w % 2 == 0
    if not fits:
        if not _small((4, c, h, w)):
            return g.add("Identity", x)
        repeats = [1, 4, 1, 1] if kind == "DepthToSpace" else [1, 1, 2, 2]
        x = g.add("Tile", x, g.weight(np.array(repeats)))
    return g.add(kind, x, blocksize=2)


@step("Gemm", ranks=(2,))
def _gemm(g: Growing, x: str, kind: str) -> str:
    wide, high = g.shapes[x][1], g.whole(1, 6)
    turned = g.whole(0, 1)
    matrix = g.normal(*((high, wide) if turned else (wide, high)), fan=wide)
    bias = [g.normal(high)] if g.whole(0, 1) else []
    return g.add(kind, x, matrix, *bias, transB=turned, alpha=g.pick((1.0, 0.5)))


@step("MatMul")
def _matmul(g: Growing, x: str, kind: str) -> str:
    shape = g.shapes[x]
    if len(shape) > 2 and g.whole(0, 1):
        high = g.whole(1, 4)
        return g.add(kind, g.normal(high, shape[-2], fan=shape[-2]), x)
    return g.add(kind, x, g.normal(shape[-1], g.whole(1, 6), fan=shape[-1]))


@step("BatchNormalization")
def _batch_norm(g: Growing, x: str, kind: str) -> str:
    count = g.shapes[x][1]
    numbers = [g.normal(count) for _ in range(3)]
    return g.add(kind, x, *numbers, g.weight(g.random.uniform(0.5, 2, count)))


@step("Conv", ranks=(3, 4))
def _conv(g: Growing, x: str, kind: str) -> str:
    _, channels, *spatial = g.shapes[x]
    group = channels if g.whole(0, 3) == 0 else 1
    kernel = [g.whole(1, min(3, extent)) for extent in spatial]
    high = group * g.whole(1, 2)
    fan = channels // group * int(np.prod(kernel))
    inputs = [g.normal(high, channels // group, *kernel, fan=fan)]
    if g.whole(0, 1):
        inputs.append(g.normal(high))
    more: dict[str, Any] = {"strides": [g.whole(1, 2) for _ in spatial], "group": group}
    if g.whole(0, 1):
        more["pads"] = [g.whole(0, k - 1) for k in kernel] * 2
    return g.add(kind, x, *inputs, **more)


@step("AveragePool", ranks=(3, 4))
def _average_pool(g: Growing, x: str, kind: str) -> str:
    kernel = [g.whole(1, min(3, extent)) for extent in g.shapes[x][2:]]
    more: dict[str, Any] = {"strides": [g.whole(1, 2) for _ in kernel]}
    if g.whole(0, 1):
        more["pads"] = [k // 2 for k in kernel] * 2
        more["count_include_pad"] = g.whole(0, 1)
    return g.add(kind, x, kernel_shape=kernel, ceil_mode=g.whole(0, 1), **more)


@step("GlobalAveragePool", ranks=(3, 4))
def _global_pool(g: Growing, x: str, kind: str) -> str:
    return g.add(kind, x)


@step("LSTM", "GRU", "RNN", heavy=2)
def _recurrent(g: Growing, x: str, kind: str) -> str:
    """One or two steps, in any direction; other ranks become sequences first."""
    if len(g.shapes[x]) != 3:
        shape = [0, 1, -1] if len(g.shapes[x]) == 2 else [0, 0, -1]
        x = g.add("Reshape", x, g.weight(np.array(shape)))
    if g.shapes[x][1] > 2:
        x = g.add("Slice", x, *(g.weight(np.array([v])) for v in (0, 2, 1)))
    features = g.shapes[x][2]
    gates, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], g.whole(1, 3)
    direction = g.pick(("forward", "reverse", "bidirectional"))
    d = 2 if direction == "bidirectional" else 1
    inputs = [
        g.add("Transpose", x, perm=[1, 0, 2]),
        g.normal(d, gates * hidden, features, fan=features),
        g.normal(d, gates * hidden, hidden, fan=hidden),
    ]
    if g.whole(0, 1):
        inputs.append(g.normal(d, 2 * gates * hidden, fan=4))
    more: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if kind == "GRU":
        more["linear_before_reset"] = g.whole(0, 1)
    if g.whole(0, 1):
        last = g.add(kind, *inputs, outputs=2, **more)
        return g.add("Transpose", last, perm=[1, 0, 2])
    turned = g.add("Transpose", g.add(kind, *inputs, **more), perm=[2, 0, 1, 3])
    return g.add("Reshape", turned, g.weight(np.array([0, 0, -1])))
