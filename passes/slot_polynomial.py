"""Evaluation of polynomials on ciphertexts at the least depth."""

from __future__ import annotations

import numpy as np

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder


def evaluate_polynomial(build: Builder, x: Value, coefficients: Array) -> Value:
    """Emit `sum of coefficients[k] * x**k` slot by slot.

    The polynomial is split at the largest power of two 2**m up to its degree, as
    `high * x**(2**m) + low`, down to linear factors. Depth is ceil(log2(degree + 1)) levels, the
    products with coefficients included (Paterson and Stockmeyer 1973 in the form that CKKS uses,
    Chen, Chillotti and Song, EUROCRYPT 2019, section 5).

    Args:
        build: where operations go.
        x: the ciphertext.
        coefficients: (degree + 1, slots of the period or 1), ascending.

    Raises:
        PassError: the polynomial does not depend on x.
    """
    degree = max(np.flatnonzero(coefficients.any(axis=1)), default=0)
    if degree == 0:
        raise PassError(f"lower-to-slots: the polynomial of {x} is constant")
    return _Evaluation(build, x).emit(coefficients[: degree + 1])


class _Evaluation:
    def __init__(self, build: Builder, x: Value) -> None:
        self._build = build
        self._powers = {1: x}

    def emit(self, coefficients: Array) -> Value:
        degree = len(coefficients) - 1
        split = 1 << (degree.bit_length() - 1)
        if degree == split > 1 and _cheap_square(coefficients):
            split //= 2
        high, low = coefficients[split:], coefficients[:split]
        value = self._product(self._power(split), high)
        if low[1:].any():
            return self._build.emit(he.Add(x=value, y=self.emit(_trim(low))))
        return self._add_constant(value, low[0])

    def _product(self, power: Value, high: Array) -> Value:
        high = _trim(high)
        if len(high) > 1:
            return self._build.emit(he.Mul(x=power, y=self.emit(high)))
        if (high == 1.0).all():
            return power
        return self._build.emit(he.MulPlain(x=power, p=self._encode(high[0])))

    def _add_constant(self, value: Value, constant: Array) -> Value:
        if not constant.any():
            return value
        return self._build.emit(he.AddPlain(x=value, p=self._encode(constant)))

    def _power(self, exponent: int) -> Value:
        if exponent not in self._powers:
            half = self._power(exponent // 2)
            self._powers[exponent] = self._build.emit(he.Mul(x=half, y=half))
        return self._powers[exponent]

    def _encode(self, vector: Array) -> Value:
        vector = np.atleast_1d(vector)
        if (vector == vector[0]).all():
            vector = vector[:1]
        symbol = self._build.constant(vector, "coefficients")
        return self._build.emit(he.Encode(value=symbol, period=len(vector)))


def _trim(coefficients: Array) -> Array:
    """Leave out leading powers whose coefficients are zero in every slot."""
    degree = max(np.flatnonzero(coefficients.any(axis=1)), default=0)
    return coefficients[: degree + 1]


def _cheap_square(coefficients: Array) -> bool:
    """Whether `(c2 x + c1) x + c0` serves: the same depth, a product with coefficients less."""
    return len(coefficients) == 3 and bool(coefficients[1].any())
