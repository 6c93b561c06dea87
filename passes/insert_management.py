"""Relinearize and rescale, as late as they can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType
from hecompile.levels import PRODUCTS
from hecompile.passbase import Context, Pass, register_pass

_NEEDS_RESCALED = (*PRODUCTS, he.Output, he.Refresh)
_NEEDS_TWO_POLYNOMIALS = (*PRODUCTS, he.Rotate, he.Output, he.Refresh)
_MANAGEMENT = (he.Relinearize, he.Rescale, he.DropLevel)


@register_pass
@dataclass(frozen=True)
class InsertManagement(Pass):
    """Insert `he.relinearize` and `he.rescale` where a value is first needed without them.

    Sums, rotations and folds work on products as they are, so that a sum of products is
    relinearized once and rescaled once (lazy relinearization and rescaling: Blatt et al., PNAS
    2020; Dathathri et al., "EVA", PLDI 2020, section 5). A product that anyone needs rescaled is
    rescaled for all. Key switching comes before the rescale, which divides its noise.

    Requires: a program of `he.*` without relinearize, rescale or drop_level.
    Ensures: operands of products, outputs and refreshes are rescaled and have two polynomials, and
    both operands of a sum are rescaled or neither.
    """

    name: ClassVar[str] = "insert-management"
    after: ClassVar[tuple[str, ...]] = ("plan-rotations", "insert-refresh")

    def run(self, program: Program, context: Context) -> Program:
        """Insert what is missing; a managed program is returned as it is."""
        if any(isinstance(op, _MANAGEMENT) for op in program):
            return program
        if program.dialect != "he":
            raise PassError(f"{self.name}: run lower-to-slots first")
        return _Management(program).run()


class _Management:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._build = Builder(program)
        self._eager = _needed_rescaled(program)
        self._renamed: dict[str, Value] = {}
        self._products: set[str] = set()
        self._rescaled: dict[str, Value] = {}
        self._linear: dict[str, Value] = {}

    def run(self) -> Program:
        for op in self._program:
            op = op.with_operands(self._renamed)
            if isinstance(op, _NEEDS_TWO_POLYNOMIALS):
                op = self._each_operand(op, self._relinearize)
            if isinstance(op, _NEEDS_RESCALED) or self._mixed(op):
                op = self._each_operand(op, self._rescale)
            self._append(op)
        return self._build.finish()

    def _append(self, op: Operation) -> None:
        if op.result is None or not isinstance(op.result.type, CipherType):
            self._build.keep(op)
            return
        old = op.result
        inferred = op.infer()
        if not isinstance(inferred, CipherType):
            raise PassError(f"insert-management: {op.name} gives no ciphertext")
        new_type = dataclasses.replace(he.cipher_type(old), polynomials=inferred.polynomials)
        value = Value(old.name, new_type)
        self._build.keep(op.with_result(value))
        if isinstance(op, PRODUCTS) or any(v.name in self._products for v in op.operands):
            self._products.add(value.name)
        if old.name in self._eager and value.name in self._products:
            value = self._rescale(value)
        self._renamed[old.name] = value

    def _mixed(self, op: Operation) -> bool:
        states = {v.name in self._products for v in _ciphertexts(op)}
        return isinstance(op, he.Add | he.Sub) and len(states) == 2

    def _each_operand(self, op: Operation, change: Callable[[Value], Value]) -> Operation:
        return op.with_operands({v.name: change(v) for v in _ciphertexts(op)})

    def _relinearize(self, value: Value) -> Value:
        if he.cipher_type(value).polynomials == 2:
            return value
        if value.name not in self._linear:
            linear = self._insert(he.Relinearize(x=value), value)
            if value.name in self._products:
                self._products.add(linear.name)
            self._linear[value.name] = linear
        return self._linear[value.name]

    def _rescale(self, value: Value) -> Value:
        if value.name not in self._products:
            return value
        # Dividing three polynomials rounds against the square of the secret: far more noise.
        value = self._relinearize(value)
        if value.name not in self._rescaled:
            self._rescaled[value.name] = self._insert(he.Rescale(x=value), value)
        return self._rescaled[value.name]

    def _insert(self, op: Operation, source: Value) -> Value:
        old = he.cipher_type(source)
        value = self._build.emit(op)
        return self._build.annotate(value, **old.slot_facts)


def _ciphertexts(op: Operation) -> list[Value]:
    return [v for v in op.operands if isinstance(v.type, CipherType)]


def _needed_rescaled(program: Program) -> set[str]:
    """Names of values with a user that needs them rescaled."""
    return {v.name for op in program if isinstance(op, _NEEDS_RESCALED) for v in _ciphertexts(op)}
