"""Evaluation of polynomials on ciphertexts at the least depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder


def evaluate_polynomial(
    build: Builder, x: Value, coefficients: Array, basis: str = "monomial"
) -> Value:
    """Emit `sum of coefficients[k] * B_k(x)` slot by slot, B_k(x) = x**k or T_k(x).

    The polynomial is split at the largest power of two s up to its degree, as `high * B_s + low`,
    down to sums of plaintext products with the first few basis polynomials. How many is chosen so
    that there are the fewest products of ciphertexts. Depth is ceil(log2(degree + 1)) levels, the
    products with coefficients included: where a part has no level to spare, it is split down to
    linear factors (Paterson and Stockmeyer, SIAM J. Comput. 1973; for Chebyshev bases and CKKS:
    Chen, Chillotti and Song, EUROCRYPT 2019, section 4; at optimal depth: Bossuat, Mouchet,
    Troncoso-Pastoriza and Hubaux, EUROCRYPT 2021, section 4).

    Args:
        build: where operations go.
        x: the ciphertext; within [-1, 1] for the Chebyshev basis.
        coefficients: (degree + 1, slots of the period or 1), ascending.
        basis: "monomial" or "chebyshev".

    Raises:
        PassError: the polynomial does not depend on x.
    """
    degree = degree_of(coefficients)
    if degree == 0:
        raise PassError(f"lower-to-slots: the polynomial of {x} is constant")
    evaluation = _Chebyshev(build, x) if basis == "chebyshev" else _Monomial(build, x)
    return evaluation.emit(coefficients[: degree + 1])


def degree_of(coefficients: Array) -> int:
    """Largest power whose coefficient is not zero in every slot."""
    return int(max(np.flatnonzero(coefficients.any(axis=1)), default=0))


def divided(coefficients: Array, split: int, basis: str) -> tuple[Array, Array]:
    """Quotient and remainder by the basis polynomial of degree `split`.

    Args:
        coefficients: ascending, of a degree below twice `split`.
        split: degree of the divisor, at most that of the dividend.
        basis: "monomial" or "chebyshev" (by T_s T_i = (T_(s+i) + T_|s-i|) / 2).
    """
    high, low = coefficients[split:].copy(), coefficients[:split].copy()
    if basis == "chebyshev":
        for i in range(1, len(high)):
            low[split - i] -= high[i]
            high[i] *= 2
    return high, low


def _depth(degree: int) -> int:
    """Levels of a basis polynomial of this degree."""
    return (degree - 1).bit_length()


@dataclass(frozen=True, eq=False)
class _Plan:
    """How to compute a polynomial: `sum of factor * B_k`, by k, plus a constant.

    Attributes:
        products: factors that are polynomials themselves.
        terms: factors that are constants.
        constant: what is added in each slot.
    """

    products: Mapping[int, _Plan]
    terms: Mapping[int, Array]
    constant: Array


class _Monomial:
    """Evaluation in powers of x."""

    def __init__(self, build: Builder, x: Value) -> None:
        self._build = build
        self._basis = {1: x}

    def emit(self, coefficients: Array) -> Value:
        """Emit a polynomial of degree 1 or more, whose leading coefficient is not zero."""
        levels = (len(coefficients) - 1).bit_length()
        plans = [self._plan(coefficients, levels, 1 << k) for k in range(1, levels + 1)]
        return self._follow(min(plans, key=self._cost))

    def _plan(self, coefficients: Array, levels: int, width: int) -> _Plan:
        """Split a polynomial until parts of fewer than `width` terms fit the levels as they are."""
        products: dict[int, _Plan] = {}
        terms: dict[int, Array] = {}
        while degree := degree_of(coefficients):
            if degree < width and _depth(degree) < levels:
                terms |= {k: c for k, c in enumerate(coefficients) if k and c.any()}
                break
            split = 1 << (degree.bit_length() - 1)
            high, coefficients = self._divide(coefficients[: degree + 1], split)
            if len(high) > 1:
                products[split] = self._plan(high, levels - 1, width)
            else:
                terms[split] = high[0]
        return _Plan(products, terms, coefficients[0])

    def _cost(self, plan: _Plan) -> int:
        """Number of products of ciphertexts."""
        needed: set[int] = set()
        count = _count(plan, needed)
        # The larger come first, so that each sees who needs it.
        for k in range(max(needed), 1, -1):
            if k in needed:
                needed |= {(k + 1) // 2, k // 2}
        return count + len(needed - {1})

    def _follow(self, plan: _Plan) -> Value:
        parts = [
            self._build.emit(he.Mul(x=self._at(k), y=self._follow(factor)))
            for k, factor in plan.products.items()
        ]
        parts += [self._times(self._at(k), factor) for k, factor in plan.terms.items()]
        total = parts[0]
        for part in parts[1:]:
            total = self._build.emit(he.Add(x=total, y=part))
        return self._plus(total, plan.constant)

    def _at(self, degree: int) -> Value:
        """The basis polynomial of this degree."""
        if degree not in self._basis:
            self._basis[degree] = self._join(degree)
        return self._basis[degree]

    def _join(self, degree: int) -> Value:
        """The basis polynomial from two of half the degree."""
        return self._build.emit(he.Mul(x=self._at((degree + 1) // 2), y=self._at(degree // 2)))

    def _divide(self, coefficients: Array, split: int) -> tuple[Array, Array]:
        """Quotient and remainder by the basis polynomial of degree `split`."""
        return divided(coefficients, split, "monomial")

    def _times(self, value: Value, factor: Array) -> Value:
        if (factor == 1.0).all():
            return value
        return self._build.emit(he.MulPlain(x=value, p=self._encode(factor)))

    def _plus(self, value: Value, constant: Array) -> Value:
        if not constant.any():
            return value
        return self._build.emit(he.AddPlain(x=value, p=self._encode(constant)))

    def _encode(self, vector: Array) -> Value:
        vector = np.atleast_1d(vector)
        if (vector == vector[0]).all():
            vector = vector[:1]
        symbol = self._build.constant(vector, "coefficients")
        return self._build.emit(he.Encode(value=symbol, period=len(vector)))


class _Chebyshev(_Monomial):
    """Evaluation in Chebyshev polynomials, by T_s T_i = (T_(s+i) + T_|s-i|) / 2."""

    def _divide(self, coefficients: Array, split: int) -> tuple[Array, Array]:
        return divided(coefficients, split, "chebyshev")

    def _join(self, degree: int) -> Value:
        """T_2n = 2 T_n**2 - 1, T_(2n+1) = 2 T_(n+1) T_n - T_1."""
        product = super()._join(degree)
        twice = self._build.emit(he.Add(x=product, y=product))
        if degree % 2 == 0:
            return self._plus(twice, np.array([-1.0]))
        # As a product T_1 joins the sum before its rescale, whatever its level.
        first = self._times(self._at(1), np.array([-1.0]))
        return self._build.emit(he.Add(x=twice, y=first))


def _count(plan: _Plan, needed: set[int]) -> int:
    """Number of products in a plan; degrees of the basis polynomials that it names are added."""
    needed |= plan.products.keys() | plan.terms.keys()
    return sum(1 + _count(factor, needed) for factor in plan.products.values())
