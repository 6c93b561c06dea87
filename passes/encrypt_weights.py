"""Weights that the model's owner encrypts, so that the evaluator sees neither data nor model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.passbase import Context, Pass, register_pass

MOST_WEIGHTS = 1 << 14
"""Encrypted weights that a program may have: each is a ciphertext of a megabyte or less."""


@register_pass
@dataclass(frozen=True)
class EncryptWeights(Pass):
    """Replace products and sums with constants of the model by those with encrypted weights.

    A `he.sum_mul_plain` becomes products of ciphertexts, one `he.weight` for each row, summed
    with three polynomials each, so that one relinearization serves all (as for the inner product
    of two encrypted vectors: Blatt et al., PNAS 2020). `he.mul_plain` and `he.add_plain` become
    `he.mul` and `he.add`. Depth stays the same. Every use gets a weight of its own, encrypted at
    the level of that use; `cse` joins those of one source that end up alike.

    Hidden: the values of all weights, zeros within a vector included. Not hidden: shapes, layouts,
    rotations and periods; which diagonals, biases and coefficients are zero in every slot; which
    sums have only weights that do not differ between slots (period 1); which encoded constants
    are equal; and encoded constants that are 1 or -1 in every slot, such as those of Chebyshev
    recurrences, which stay plain.

    Requires: a program of `he.*` without levels.
    Ensures: every plaintext product or sum that is left is with 1 or -1.
    """

    name: ClassVar[str] = "encrypt-weights"
    after: ClassVar[tuple[str, ...]] = ("lower-to-slots", "plan-rotations")
    stage: ClassVar[str] = "slots"

    def run(self, program: Program, context: Context) -> Program:
        """Rewrite every operation with a constant; a program without any stays as it is."""
        if program.dialect != "he":
            raise PassError(f"{self.name}: run lower-to-slots first")
        if program.parameters is not None or program.select(he.Rescale):
            raise PassError(f"{self.name}: run it before choose-parameters and insert-management")
        if not any(isinstance(op, he.PlainBinary | he.SumMulPlain) for op in program):
            return program
        rewritten = _Rewriting(program).run()
        count = len(rewritten.select(he.Weight))
        if count > MOST_WEIGHTS:
            raise PassError(
                f"{self.name}: program '{program.name}' needs {count} encrypted weights, more than "
                f"{MOST_WEIGHTS}; compile for another --batch, or with plain weights"
            )
        return rewritten


class _Rewriting:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._build = Builder(program)
        self._renamed: dict[str, Value] = {}
        self._plain = {
            op.p.name
            for op in program
            if isinstance(op, he.PlainBinary) and _is_unit(self._encoded(op.p)[1])
        }

    def run(self) -> Program:
        for original in self._program:
            op = original.with_operands(self._renamed)
            match op:
                case he.Encode() if op.defined.name not in self._plain:
                    continue
                case he.PlainBinary() if op.p.name not in self._plain:
                    self._keep(self._binary(op))
                case he.SumMulPlain():
                    self._keep(self._sum(op))
                case _:
                    self._keep(op)
        return self._build.finish()

    def _encoded(self, plain: Value) -> tuple[he.Encode, Array]:
        encode = self._program.definitions[plain.name]
        if not isinstance(encode, he.Encode):
            raise PassError(f"encrypt-weights: {plain} is not encoded from a constant")
        return encode, self._program.array(encode.value)

    def _binary(self, op: he.PlainBinary) -> Operation:
        encode, array = self._encoded(op.p)
        shrinks = he.cipher_type(op.x).period >= encode.period and _is_uniform(array)
        weight = self._weight(array[:1] if shrinks else array, op.p.name)
        kind = he.Mul if isinstance(op, he.MulPlain) else he.Add
        return kind(x=op.x, y=weight, result=op.result, location=op.location)

    def _sum(self, op: he.SumMulPlain) -> Operation:
        rows = self._program.array(op.weights)
        longest = max(he.cipher_type(x).period for x in op.xs)
        if longest >= op.period and all(_is_uniform(row) for row in rows):
            rows = rows[:, :1]
        total: Value | None = None
        for i, (x, row) in enumerate(zip(op.xs, rows, strict=True)):
            weight = self._weight(row, f"{op.defined.name}/{i}")
            product = he.Mul(x=x, y=weight, location=op.location)
            if len(rows) == 1:
                return product.with_result(op.defined)
            value = self._build.emit(product)
            if total is None:
                total = value
            elif i < len(rows) - 1:
                total = self._build.emit(he.Add(x=total, y=value, location=op.location))
            else:
                return he.Add(x=total, y=value, result=op.result, location=op.location)
        raise PassError(f"encrypt-weights: {op.result} is a sum of nothing")

    def _weight(self, array: Array, source: str) -> Value:
        symbol = self._build.constant(array, "weight")
        op = he.Weight(source=source, period=len(array), value=symbol)
        return self._build.emit(op, "weight")

    def _keep(self, op: Operation) -> None:
        """Append an operation; products make the polynomials of all that follows three."""
        if op.result is None or isinstance(op, he.Encode):
            self._build.keep(op)
            return
        old, inferred = he.cipher_type(op.result), op.infer()
        polynomials = getattr(inferred, "polynomials", old.polynomials)
        value = Value(op.result.name, dataclasses.replace(old, polynomials=polynomials))
        self._build.keep(op.with_result(value))
        self._renamed[value.name] = value


def _is_uniform(array: Array) -> bool:
    return bool((array == array[0]).all())


def _is_unit(array: Array) -> bool:
    return _is_uniform(array) and bool(np.abs(array[0]) == 1.0)
