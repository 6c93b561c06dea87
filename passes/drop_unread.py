"""Removal of what later operations cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import tensor_type
from hecompile.ir.types import TensorType
from hecompile.passbase import Context, Pass, register_pass
from hecompile.passes.dce import DeadCodeElimination
from hecompile.passes.merge_linear import MergeLinear

_NON_LINEAR = (tensor.Activation, tensor.Mul, tensor.Polynomial, tensor.Power)


@register_pass
@dataclass(frozen=True)
class DropUnread(Pass):
    """Compute only activations and products of which some element reaches an output.

    A sequence of steps that are joined, of which the last is cut out again, reads all of them;
    merge-linear sees through that, but comes after activations are fitted. This pass asks it
    before, so that no polynomials are fitted, and no degrees chosen, for nothing. Zeros take the
    place of values of which nothing is used; no affine map is written.

    Requires: a tensor program.
    Ensures: every tensor.activation, power, polynomial and product has elements that an output
    depends on, by the linear operations' weights that are not zero.
    """

    name: ClassVar[str] = "drop-unread"
    after: ClassVar[tuple[str, ...]] = ("unroll-recurrent",)

    def run(self, program: Program, context: Context) -> Program:
        """Find what merged operations read, and leave the rest out."""
        if not program.select(tensor.Activation):
            return program
        merged = MergeLinear().run(program, context)
        read = DeadCodeElimination().run(merged, context).definitions
        if all(op.defined.name in read for op in program if _counts(op)):
            return program
        build = Builder(program)
        renamed: dict[str, Value] = {}
        for op in program:
            if _counts(op) and op.defined.name not in read:
                renamed[op.defined.name] = _zeros(build, op)
            else:
                changed = _retyped(op.with_operands(renamed))
                build.keep(changed)
                if changed.result is not None and changed.result != op.result:
                    renamed[changed.result.name] = changed.result
        return DeadCodeElimination().run(build.finish(), context)


def _zeros(build: Builder, op: Operation) -> Value:
    """Append zeros in place of a result."""
    dims = tensor_type(op.defined).shape
    symbol = build.constant(np.zeros(dims), op.defined.name)
    zeros = tensor.ConstantTensor(value=symbol, dims=dims, location=op.location)
    return build.keep(zeros.with_result(Value(op.defined.name, TensorType(dims, False)))).defined


def _retyped(op: Operation) -> Operation:
    """An operation on operands of which some are no longer secret."""
    if op.result is None or not tensor_type(op.result).secret or not op.operands:
        return op
    if any(tensor_type(v).secret for v in op.operands):
        return op
    return op.with_result(Value(op.result.name, TensorType(tensor_type(op.result).shape, False)))


def _counts(op: Operation) -> bool:
    """Whether an operation is non-linear in what is secret."""
    return isinstance(op, _NON_LINEAR) and all(tensor_type(v).secret for v in op.operands)
