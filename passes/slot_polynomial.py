"""Evaluation of polynomials on ciphertexts at the least depth."""

from __future__ import annotations

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
    down to linear factors. Depth is ceil(log2(degree + 1)) levels, the products with coefficients
    included (Paterson and Stockmeyer 1973; for Chebyshev bases and CKKS: Chen, Chillotti and Song,
    EUROCRYPT 2019, section 4).

    Args:
        build: where operations go.
        x: the ciphertext; within [-1, 1] for the Chebyshev basis.
        coefficients: (degree + 1, slots of the period or 1), ascending.
        basis: "monomial" or "chebyshev".

    Raises:
        PassError: the polynomial does not depend on x.
    """
    degree = _degree(coefficients)
    if degree == 0:
        raise PassError(f"lower-to-slots: the polynomial of {x} is constant")
    evaluation = _Chebyshev(build, x) if basis == "chebyshev" else _Monomial(build, x)
    return evaluation.emit(coefficients[: degree + 1])


def _degree(coefficients: Array) -> int:
    """Largest power whose coefficient is not zero in every slot."""
    return int(max(np.flatnonzero(coefficients.any(axis=1)), default=0))


class _Monomial:
    """Evaluation in powers of x."""

    def __init__(self, build: Builder, x: Value) -> None:
        self._build = build
        self._powers = {1: x}

    def emit(self, coefficients: Array) -> Value:
        """Emit a polynomial of degree 1 or more, whose leading coefficient is not zero."""
        degree = len(coefficients) - 1
        split = 1 << (degree.bit_length() - 1)
        if degree == 2 and self._nests(coefficients):
            split = 1
        high, low = self._divide(coefficients, split)
        value = self._product(self._power(split), high)
        if low[1:].any():
            return self._build.emit(he.Add(x=value, y=self.emit(low[: _degree(low) + 1])))
        return self._add_constant(value, low[0])

    def _nests(self, coefficients: Array) -> bool:
        """Whether `(c2 x + c1) x + c0` serves: the same depth, one product less."""
        return bool(coefficients[1].any())

    def _divide(self, coefficients: Array, split: int) -> tuple[Array, Array]:
        """Quotient and remainder by the basis polynomial of degree `split`."""
        return coefficients[split:], coefficients[:split]

    def _double(self, half: Value) -> Value:
        """The basis polynomial of twice the degree."""
        return self._build.emit(he.Mul(x=half, y=half))

    def _product(self, power: Value, high: Array) -> Value:
        high = high[: _degree(high) + 1]
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
            self._powers[exponent] = self._double(self._power(exponent // 2))
        return self._powers[exponent]

    def _encode(self, vector: Array) -> Value:
        vector = np.atleast_1d(vector)
        if (vector == vector[0]).all():
            vector = vector[:1]
        symbol = self._build.constant(vector, "coefficients")
        return self._build.emit(he.Encode(value=symbol, period=len(vector)))


class _Chebyshev(_Monomial):
    """Evaluation in Chebyshev polynomials, by T_s T_i = (T_(s+i) + T_|s-i|) / 2."""

    def _nests(self, coefficients: Array) -> bool:
        return False

    def _divide(self, coefficients: Array, split: int) -> tuple[Array, Array]:
        high, low = coefficients[split:].copy(), coefficients[:split].copy()
        for i in range(1, len(high)):
            low[split - i] -= high[i]
            high[i] *= 2
        return high, low

    def _double(self, half: Value) -> Value:
        """T_2n = 2 T_n**2 - 1."""
        square = self._build.emit(he.Mul(x=half, y=half))
        twice = self._build.emit(he.Add(x=square, y=square))
        return self._add_constant(twice, np.array([-1.0]))
