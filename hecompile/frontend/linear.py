"""Matrix products, batch normalisation and reductions."""

from __future__ import annotations

import math

import numpy as np

from hecompile.frontend.elementwise import scaled
from hecompile.frontend.site import Clear, Result, Site, converts
from hecompile.ir.movement_ops import Reshape, Transpose
from hecompile.ir.operation import Value
from hecompile.ir.tensor_ops import Add, BatchNorm, MatMul, Mul, ReduceMean, ReduceSum, tensor_type

LARGEST_SECRET_PRODUCT = 4096
"""Products of two encrypted numbers up to which a matrix product of two secrets is expanded."""


@converts("MatMul")
def matmul(site: Site) -> Result:
    """Matrix product, one side constant, or both secret and small."""
    return _product(site, site.value(0), site.value(1))


def _product(site: Site, x: Value, y: Value) -> Value:
    if not (tensor_type(x).secret and tensor_type(y).secret):
        return site.emit(MatMul(x=x, y=y))
    rows, columns = tensor_type(x).shape, tensor_type(y).shape
    if len(rows) < 2 or len(columns) < 2 or rows[-1] != columns[-2]:
        site.invalid(f"{rows} cannot be multiplied by {columns} where both are encrypted")
    stack = np.broadcast_shapes(rows[:-2], columns[:-2])
    products = math.prod(stack) * rows[-2] * rows[-1] * columns[-1]
    if products > LARGEST_SECRET_PRODUCT:
        site.refuse(
            f"it multiplies two encrypted matrices, {products} products of encrypted numbers "
            f"where {LARGEST_SECRET_PRODUCT} is the most",
            "make one side constant, or multiply element by element, and retrain",
        )
    # (..., rows, inner, 1) * (..., 1, inner, columns), summed over the inner axis.
    left = site.emit(Reshape(x=x, dims=(*rows, 1)))
    right = site.emit(Reshape(x=y, dims=(*columns[:-2], 1, *columns[-2:])))
    both = site.emit(Mul(x=left, y=right))
    return site.emit(ReduceSum(x=both, axes=(len(stack) + 1,), keepdims=False))


@converts("Gemm")
def gemm(site: Site) -> Result:
    """`alpha * A' B' + beta * C`, factors and transpositions of constants done here."""
    alpha, beta = site.number("alpha", 1.0), site.number("beta", 1.0)
    x = _factor(site, 0, site.flag("transA"), 1.0)
    y = _factor(site, 1, site.flag("transB"), alpha if site.is_clear(1) else 1.0)
    product = _product(site, x, y)
    if not site.is_clear(1):
        product = scaled(site, product, alpha)
    if not site.given(2) or beta == 0.0:
        return product
    return site.emit(Add(x=product, y=_factor(site, 2, False, beta)))


def _factor(site: Site, index: int, transposed: bool, factor: float) -> Value:
    state = site.state(index)
    if isinstance(state, Clear):
        array = state.array.astype(np.float64) * factor
        return site.lift(array.T if transposed else array, state.name)
    value = scaled(site, site.value(index), factor)
    return site.emit(Transpose(x=value, permutation=(1, 0))) if transposed else value


@converts("BatchNormalization")
def batch_normalization(site: Site) -> Result:
    """Inference only: the statistics are constants."""
    if site.flag("training_mode") or any(site.wanted[1:]):
        site.refuse("it is in training mode", "export the model after model.eval()")
    names = ("scales", "biases", "means", "variances")
    arrays = [site.numbers(i + 1, name) for i, name in enumerate(names)]
    epsilon = site.number("epsilon", 1e-5)
    if (arrays[3] + epsilon <= 0).any():
        site.invalid("it has a variance that is not positive")
    values = [site.value(i + 1) for i in range(4)]
    return site.emit(
        BatchNorm(
            x=site.value(0),
            scale=values[0],
            bias=values[1],
            mean=values[2],
            variance=values[3],
            epsilon=epsilon,
        )
    )


@converts("ReduceMean", "ReduceSum")
def reduce(site: Site) -> Result:
    """Over the axes of the attribute or the input; over all of them if none are given."""
    rank = len(site.shape(0))
    axes = site.axes(1)
    if not axes:
        if site.flag("noop_with_empty_axes"):
            return site.value(0)
        axes = tuple(range(rank))
    whole = tuple(sorted({site.axis(a, rank) for a in axes}))
    kind = {"ReduceMean": ReduceMean, "ReduceSum": ReduceSum}[site.node.op_type]
    return site.emit(kind(x=site.value(0), axes=whole, keepdims=site.flag("keepdims", True)))
