"""Convolution and pooling of the tensor interpreter against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hecompile.ir.program import Builder
from hecompile.ir.tensor_ops import AveragePool, Conv
from tests.unit.interpreting import clear, finish, onnx_answer, run_one, secret

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "1d": {"x": (1, 3, 11), "w": (4, 3, 3)},
    "1d batch": {"x": (2, 3, 11), "w": (4, 3, 3), "strides": (2,)},
    "1d pads": {"x": (1, 2, 7), "w": (3, 2, 4), "pads": (3, 1)},
    "1d dilated": {"x": (1, 2, 13), "w": (3, 2, 3), "dilations": (3,), "pads": (2, 2)},
    "1d depthwise": {"x": (1, 4, 9), "w": (8, 1, 3), "groups": 4},
    "2d": {"x": (1, 2, 6, 7), "w": (3, 2, 3, 2), "strides": (2, 1), "pads": (1, 0, 2, 1)},
    "2d groups": {"x": (1, 4, 5, 5), "w": (6, 2, 3, 3), "groups": 2, "dilations": (1, 2)},
    "3d": {"x": (1, 2, 4, 5, 4), "w": (2, 2, 2, 3, 2), "strides": (1, 2, 2)},
}


@pytest.mark.parametrize("case", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
@pytest.mark.parametrize("with_bias", [True, False])
def test_conv_as_onnxruntime(case: dict[str, Any], with_bias: bool) -> None:
    rank = len(case["x"]) - 2
    attributes: dict[str, Any] = {"strides": (1,) * rank, "dilations": (1,) * rank}
    attributes["pads"] = (0,) * 2 * rank
    attributes |= {k: v for k, v in case.items() if k in attributes}
    groups = case.get("groups", 1)
    random = np.random.default_rng(1)
    x, w = random.normal(size=(3, *case["x"])), random.normal(size=case["w"])
    b = random.normal(size=case["w"][:1]) if with_bias else None
    builder = Builder(name="m")
    bias = clear(builder, b) if b is not None else None
    op = Conv(
        x=secret(builder, "x", *case["x"]),
        weight=clear(builder, w),
        bias=bias,
        groups=groups,
        **attributes,
    )
    got = run_one(finish(builder, y=builder.emit(op)), x=x)
    for sample, answer in zip(x, got, strict=True):
        expected = onnx_answer("Conv", attributes | {"group": groups}, [sample, w, b])[0]
        np.testing.assert_allclose(answer, expected, atol=1e-4)


def test_conv_with_weights_of_each_sample() -> None:
    random = np.random.default_rng(1)
    x, w = random.normal(size=(3, 1, 2, 9)), random.normal(size=(3, 4, 2, 3))
    builder = Builder(name="m")
    data, weight = secret(builder, "x", 1, 2, 9), secret(builder, "w", 4, 2, 3)
    op = Conv(x=data, weight=weight, strides=(1,), pads=(0, 0), dilations=(1,))
    got = run_one(finish(builder, y=builder.emit(op)), x=x, w=w)
    for i in range(3):
        expected = onnx_answer("Conv", {}, [x[i], w[i]])[0]
        np.testing.assert_allclose(got[i], expected, atol=1e-4)


POOLS: dict[str, dict[str, Any]] = {
    "1d": {"x": (1, 3, 10), "kernel": (2,), "strides": (2,), "pads": (0, 0)},
    "1d ceil": {"x": (1, 3, 10), "kernel": (3,), "strides": (2,), "pads": (0, 0)},
    "1d pads": {"x": (1, 3, 9), "kernel": (3,), "strides": (2,), "pads": (1, 1)},
    "1d dropped window": {"x": (1, 1, 4), "kernel": (1,), "strides": (3,), "pads": (0, 0)},
    "1d wide pads": {"x": (1, 2, 7), "kernel": (4,), "strides": (3,), "pads": (2, 3)},
    "2d": {"x": (1, 2, 7, 6), "kernel": (3, 2), "strides": (2, 2), "pads": (1, 0, 1, 1)},
    "2d all": {"x": (2, 2, 4, 4), "kernel": (4, 4), "strides": (1, 1), "pads": (0, 0, 0, 0)},
    "2d dilated": {
        "x": (1, 2, 9, 8),
        "kernel": (3, 2),
        "strides": (2, 2),
        "pads": (1, 1, 1, 1),
        "dilations": (2, 3),
    },
}


@pytest.mark.parametrize("case", POOLS.values(), ids=POOLS.keys())
@pytest.mark.parametrize("ceil", [True, False], ids=["ceil", "floor"])
@pytest.mark.parametrize("include", [True, False], ids=["count all", "count inside"])
def test_average_pool_as_onnxruntime(case: dict[str, Any], ceil: bool, include: bool) -> None:
    dilations = case.get("dilations", (1,) * len(case["kernel"]))
    x = np.random.default_rng(2).normal(size=(2, *case["x"]))
    builder = Builder(name="m")
    op = AveragePool(
        x=secret(builder, "x", *case["x"]),
        kernel=case["kernel"],
        strides=case["strides"],
        pads=case["pads"],
        dilations=dilations,
        ceil=ceil,
        count_include_pad=include,
    )
    got = run_one(finish(builder, y=builder.emit(op)), x=x)
    attributes = {
        "kernel_shape": case["kernel"],
        "strides": case["strides"],
        "pads": case["pads"],
        "dilations": dilations,
        "ceil_mode": int(ceil),
        "count_include_pad": int(include),
    }
    for sample, answer in zip(x, got, strict=True):
        expected = onnx_answer("AveragePool", attributes, [sample])[0]
        np.testing.assert_allclose(answer, expected, atol=1e-5)
