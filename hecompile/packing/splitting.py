"""Polynomials of high degree as several of lower degree, so that a refresh can stand between."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.packing.depth import Levels
from hecompile.packing.polynomial import degree_of, divided


def split_polynomials(program: Program, levels: int) -> Program:
    """Write polynomials that take more levels as sums of products of ones that do not.

    With s = 2**levels, `p = high * B_t + low` for the largest t = s, 2 s, 4 s, ... up to the
    degree, down to degrees below s; B_t are basis polynomials, each the square of the one before
    but for the Chebyshev recurrence (Paterson and Stockmeyer, SIAM J. Comput. 1973). The depth
    stays the same.

    Args:
        program: a tensor program.
        levels: most levels of one polynomial, 1 or more.
    """
    own = Levels(program)
    deep = {
        op.defined.name
        for op in program.select(tensor.Polynomial)
        if own.of(op) > levels and op.degree >= 1 << levels
    }
    if not deep:
        return program
    build = Builder(program)
    for op in program:
        if isinstance(op, tensor.Polynomial) and op.defined.name in deep:
            _Split(build, op, 1 << levels).emit(program.array(op.coefficients))
        else:
            build.keep(op)
    return build.finish()


@dataclass
class _Split:
    """Writes one polynomial; the last operation defines its result."""

    build: Builder
    op: tensor.Polynomial
    width: int

    def emit(self, coefficients: Array) -> None:
        self._powers: dict[int, Value] = {}
        # A sum with zero ends what was emitted under the name of the result.
        last = self._evaluated(coefficients[: degree_of(coefficients) + 1])
        named = self._piece(last, np.array([[0.0], [1.0]]))
        self.build.keep(named.with_result(self.op.defined))

    def _evaluated(self, coefficients: Array) -> Value:
        degree = len(coefficients) - 1
        if degree < self.width:
            return self._add(self._piece(self.op.x, coefficients, self.op.basis))
        split = self.width
        while 2 * split <= degree:
            split *= 2
        high, low = divided(coefficients, split, self.op.basis)
        power = self._power(split)
        if degree_of(high):
            factor = self._evaluated(high[: degree_of(high) + 1])
            term = self._add(tensor.Mul(x=factor, y=power))
        else:
            term = self._add(self._piece(power, np.stack([0 * high[0], high[0]])))
        if degree_of(low):
            rest = self._evaluated(low[: degree_of(low) + 1])
            return self._add(tensor.Add(x=term, y=rest))
        return self._add(self._piece(term, np.stack([low[0], 0 * low[0] + 1.0])))

    def _power(self, degree: int) -> Value:
        """The basis polynomial of this degree."""
        if degree not in self._powers:
            if degree == self.width:
                unit = np.zeros((degree + 1, 1))
                unit[degree] = 1.0
                value = self._add(self._piece(self.op.x, unit, self.op.basis))
            else:
                root = self._power(degree // 2)
                value = self._add(tensor.Mul(x=root, y=root))
                if self.op.basis == "chebyshev":
                    twice = self._add(tensor.Add(x=value, y=value))
                    value = self._add(self._piece(twice, np.array([[-1.0], [1.0]])))
            self._powers[degree] = value
        return self._powers[degree]

    def _piece(self, x: Value, coefficients: Array, basis: str = "monomial") -> tensor.Polynomial:
        symbol = self.build.constant(coefficients, f"{self.op.defined.name}.piece")
        sections = self.op.sections if coefficients.shape[1] > 1 else ()
        return tensor.Polynomial(
            x=x,
            coefficients=symbol,
            degree=len(coefficients) - 1,
            sections=sections,
            basis=basis,
            location=self.op.location,
        )

    def _add(self, op: Operation) -> Value:
        name = self.build.fresh(self.op.defined.name)
        value = Value(name, self.op.defined.type)
        return self.build.keep(replace(op, result=value, location=self.op.location)).defined
