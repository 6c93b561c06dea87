"""Levels that tensor operations take once they are packed."""

from __future__ import annotations

from collections.abc import Mapping

from hecompile.ir import he_ops as he
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Operation
from hecompile.ir.program import Builder, Program
from hecompile.levels import program_depth
from hecompile.packing.polynomial import evaluate_polynomial


class Levels:
    """Levels of the operations of one tensor program."""

    def __init__(self, program: Program) -> None:
        """Look at nothing yet."""
        self._program = program
        self._polynomials: dict[tuple[str, str], int] = {}

    def of(self, op: Operation) -> int:
        """Levels of one operation: a map or product takes one, a polynomial what it turns into."""
        if isinstance(op, tensor.Polynomial):
            key = op.coefficients, op.basis
            if key not in self._polynomials:
                self._polynomials[key] = self._probed(op)
            return self._polynomials[key]
        return 1 if isinstance(op, move.Affine | tensor.Mul) else 0

    def used(self) -> Mapping[str, int]:
        """Levels on the deepest chain up to each value, by name; a refresh begins anew."""
        found: dict[str, int] = {}
        for op in self._program:
            if op.result is not None:
                before = max((found.get(v.name, 0) for v in op.operands), default=0)
                fresh = isinstance(op, move.Refresh)
                found[op.result.name] = 0 if fresh else before + self.of(op)
        return found

    def total(self) -> int:
        """Levels on the deepest chain."""
        return max(self.used().values(), default=0)

    def _probed(self, op: tensor.Polynomial) -> int:
        coefficients = self._program.array(op.coefficients)
        build = Builder(name="polynomial")
        width = coefficients.shape[1]
        period = 1 << max(width - 1, 0).bit_length()
        padded = (
            coefficients
            if width == period
            else coefficients[:, list(range(width)) + [0] * (period - width)]
        )
        source = he.Input(label="x", dims=(period,), period=period, first=0, count=period)
        value = evaluate_polynomial(build, build.emit(source), padded, op.basis)
        build.keep(he.Output(xs=(value,), label="y", dims=(period,)))
        return program_depth(build.finish())
