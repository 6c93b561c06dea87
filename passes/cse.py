"""Common subexpression elimination."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from hecompile.ir import he_ops, tensor_ops
from hecompile.ir.operation import (
    AttributeValue,
    Operation,
    Symbol,
    Value,
    attribute_fields,
    operand_fields,
)
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType, TensorType, Type
from hecompile.passbase import Context, Pass, register_pass

_UNIQUE = (tensor_ops.Input, tensor_ops.Output, he_ops.Input, he_ops.Output)
_COMMUTATIVE = (tensor_ops.Add, tensor_ops.Mul, he_ops.Add, he_ops.Mul)


@register_pass
@dataclass(frozen=True)
class CommonSubexpressionElimination(Pass):
    """Compute equal expressions once.

    Two operations are equal when they are of one kind, read the same values (in any order where
    the operation commutes), have equal attributes (constants compare by content), and give the
    same type; ranges observed in calibration do not count.

    Requires: a program of any level.
    Ensures: no two operations are equal; the first one stays.
    """

    name: ClassVar[str] = "cse"

    def run(self, program: Program, context: Context) -> Program:
        """Walk forwards and replace each repetition by its first occurrence."""
        builder = Builder(program)
        first: dict[object, Value] = {}
        renamed: dict[str, Value] = {}
        for original in program:
            op = original.with_operands(renamed)
            if op.result is None or isinstance(op, _UNIQUE):
                builder.keep(op)
                continue
            known = first.setdefault(_key(op, program), op.result)
            if known is op.result:
                builder.keep(op)
            else:
                renamed[op.result.name] = known
        return builder.finish()


def _key(op: Operation, program: Program) -> object:
    operands = [_names(getattr(op, field)) for field in operand_fields(type(op))]
    if isinstance(op, _COMMUTATIVE):
        operands.sort(key=str)
    attributes = [_content(getattr(op, f), program) for f in attribute_fields(type(op))]
    return type(op), tuple(operands), tuple(attributes), _facts(op.defined.type)


def _names(content: Value | tuple[Value, ...] | None) -> object:
    if isinstance(content, tuple):
        return tuple(v.name for v in content)
    return content.name if content is not None else None


def _content(value: AttributeValue | None, program: Program) -> object:
    """What an attribute stands for; the type keeps 1, 1.0 and true apart."""
    if isinstance(value, tuple):
        return tuple(_content(item, program) for item in value)
    if isinstance(value, Symbol):
        return Symbol, program.constants[value].digest
    return type(value), repr(value)


def _facts(declared: Type) -> Type:
    """The type without what calibration observed."""
    if isinstance(declared, CipherType):
        return dataclasses.replace(declared, bound=None)
    if isinstance(declared, TensorType):
        return dataclasses.replace(declared, interval=None)
    return declared
