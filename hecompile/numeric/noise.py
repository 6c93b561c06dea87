"""How much noise each CKKS operation of SEAL adds, on average over slots and keys.

Every function returns the VARIANCE of the real part of one slot, in message units (the ring
element divided by its scale), unless it says otherwise. The model is the average case in the
canonical embedding: a polynomial whose N coefficients are independent with variance v has slots
whose real parts have variance v * N / 2, and products of polynomials become products of slots.
Sources: Costache, Curtis, Hales, Murphy, Ogilvie, Player, "On the precision loss in approximate
homomorphic encryption" (SAC 2023); the operations as SEAL 4 implements them.

A fact that averages hide: SEAL's key-switch digits lie in [0, q_i), so each digit has a constant
part (q_i / 2) * (1 + X + ... + X^(N-1)). In the slot at the root zeta it is (q_i / 2) * 2 /
(1 - zeta), which is huge at the few roots next to 1. Slot 0 is such a root, and its key-switch
noise has about sqrt(12 N) / pi times (100 times at N = 8192) the standard deviation of a typical
slot, the same offset every time that the same key is used. `key_switch_slots` gives it slot by
slot. A special prime 10 bits larger than the largest data prime makes the matter vanish beside
the rounding by that prime; with 6 bits slot 0 is still some 7 times noisier than the others.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import CompileError
from hecompile.numeric.parameters import Parameters

Array = NDArray[np.float64]

ERROR_VARIANCE: Final = 10.5
"""Variance of SEAL's fresh errors: centred binomial on 21 + 21 bits, standard deviation 3.24."""

SECRET_VARIANCE: Final = 2.0 / 3.0
"""Variance of a coefficient of the secret key: uniform over -1, 0, 1."""

FAILURE: Final = 1e-4
"""Probability that an error of one evaluation exceeds its bound, in this model."""

_UNIFORM: Final = 1.0 / 12.0
_SLOT_GENERATOR: Final = 3
_SHARES: Final = np.geomspace(1e-4, 1.0 - 1e-9, 400)


def encoding(parameters: Parameters, scale: float, period: int | None = None) -> float:
    """Return the variance that encoding a vector of real numbers adds: coefficients are rounded.

    The polynomial of a real vector is antisymmetric (c_(N-k) = -c_k) and so is its rounding
    error: the whole error, N * 1/12 and not half of it, falls on the real parts. A vector of
    period p has only 2 p coefficients that are not zero, and zeros are exact.

    Args:
        parameters: Parameters of the context.
        scale: Scale of the plaintext.
        period: Length after which the slot vector repeats; all slots if None.
    """
    return 2.0 * _UNIFORM * (parameters.slots if period is None else period) / scale**2


def encryption(parameters: Parameters, scale: float, level: int | None = None) -> float:
    """Return the variance that public-key encryption adds (encoding is counted apart).

    SEAL encrypts zero modulo one prime more than asked for (the special prime at the top level,
    q_(level+1) below it) and divides by that prime with rounding. The variance of a coefficient
    is ERROR_VARIANCE * (1 + 2 N * 2/3) / prime**2 for e_0 + u e_pk + s e_1, which is negligible,
    plus that of a rounding as in `rescale`.

    Args:
        parameters: Parameters of the context.
        scale: Scale of the plaintext.
        level: Level of the plaintext; the top level if None.

    Raises:
        CompileError: If the parameters have no such level.
    """
    index = parameters.levels if level is None else level
    _check_level(parameters, index)
    prime = float(parameters.primes[index + 1])
    degree = parameters.poly_modulus_degree
    fresh = ERROR_VARIANCE * (1.0 + 2.0 * degree * SECRET_VARIANCE) / prime**2
    return _to_slots(parameters, scale, fresh) + rescale(parameters, scale)


def symmetric_encryption(parameters: Parameters, scale: float) -> float:
    """Return the variance that encryption with the secret key adds (encoding is counted apart).

    SEAL encrypts zero at the level itself, (-(a s + e), a), so that no division follows and the
    fresh error is all.

    Args:
        parameters: Parameters of the context.
        scale: Scale of the plaintext.
    """
    return _to_slots(parameters, scale, ERROR_VARIANCE)


def rescale(parameters: Parameters, scale_after: float, polynomials: int = 2) -> float:
    """Return the variance that the rounding of a rescale adds.

    Each polynomial is rounded, an error of variance 1/12 per coefficient, and the k-th meets the
    secret's k-th power: in a slot E|s|^2 = 2N/3, E|s|^4 = 2 (2N/3)^2, since a slot of s is nearly
    a complex Gaussian.

    Args:
        parameters: Parameters of the context.
        scale_after: Scale after the rescale.
        polynomials: 2, or 3 for a product that is not yet relinearized.

    Raises:
        CompileError: If `polynomials` is neither 2 nor 3.
    """
    if polynomials not in (2, 3):
        raise CompileError(
            f"the noise of a ciphertext of {polynomials} polynomials is not modelled; relinearize"
            f" it to 2 before it grows beyond 3."
        )
    secret = parameters.poly_modulus_degree * SECRET_VARIANCE
    factor = 1.0 + secret + (2.0 * secret**2 if polynomials == 3 else 0.0)
    return _to_slots(parameters, scale_after, _UNIFORM * factor)


def drop_level() -> float:
    """Return the variance that dropping a prime without rescaling adds: none, it is exact."""
    return 0.0


def key_switch(parameters: Parameters, level: int, scale: float) -> float:
    """Return the variance that a rotation or relinearization adds, averaged over all slots.

    The ciphertext is cut into one digit per prime q_i, i <= level, uniform in [0, q_i), each of
    which meets a fresh error of the key: a coefficient gains sum_i N q_i^2 / 3 * ERROR_VARIANCE /
    P^2, and the division by the special prime P a rounding as in `rescale`. A quarter of the
    first part is spread over all slots and three quarters sit in slot 0 and few others: see
    `key_switch_slots`.

    Raises:
        CompileError: If the parameters have no such level.
    """
    degree = parameters.poly_modulus_degree
    digits = degree / 3.0 * _digit_noise(parameters, level)
    return _to_slots(parameters, scale, digits) + rescale(parameters, scale)


def key_switch_slots(parameters: Parameters, level: int, scale: float) -> Array:
    """Return the variance that a rotation or relinearization adds to each slot.

    The sum of both `key_switch_parts`; the mean over slots is `key_switch`.

    Returns:
        Array of shape (slots,).

    Raises:
        CompileError: If the parameters have no such level.
    """
    changing, repeated = key_switch_parts(parameters, level, scale)
    return np.asarray(changing + repeated, dtype=np.float64)


def key_switch_parts(parameters: Parameters, level: int, scale: float) -> tuple[float, Array]:
    """Return what a key switch adds to each slot: what is drawn anew, and what repeats.

    A digit's random part adds N q_i^2 / 12 everywhere, its constant part q_i^2 / |1 - zeta_j|^2
    in slot j, where zeta_j = exp(i pi 3^j / N). The second part, divided by the scale, is the same
    number in every key switch with the same key at the same level, so that it adds up coherently
    in a sum of such results.

    Returns:
        The variance of what differs from one key switch to the next, rounding included, equal in
        all slots; and that of what repeats, an array of shape (slots,).

    Raises:
        CompileError: If the parameters have no such level.
    """
    degree = parameters.poly_modulus_degree
    digits = _digit_noise(parameters, level) * degree / 2.0 / scale**2
    return digits * degree / 12.0 + rescale(parameters, scale), digits * _constant_part(degree)


def float_rounding(parameters: Parameters, magnitude: float) -> float:
    """Return the variance that double-precision encoding and decoding of a vector add.

    The relative error of one transform grows like sqrt(log2 N) units of 2^-53 (Higham, Accuracy
    and Stability of Numerical Algorithms, chapter 24), with a constant of 1/2 as measured.

    Args:
        parameters: Parameters of the context.
        magnitude: Root mean square of the slot values.
    """
    stages = math.log2(parameters.poly_modulus_degree)
    return 2.0 * stages * (0.5 * 2.0**-53 * magnitude) ** 2


def rounding_error(values: Array | float, scale: float) -> Array:
    """Return by how much numbers change that are encoded one by one, each for all slots.

    One coefficient holds such a number, rounded to a multiple of 1 / scale. The error is known.
    """
    return np.asarray(np.round(values * scale) / scale - values, dtype=np.float64)


def bound(variance: float, count: int, failure: float = FAILURE, terms: float = 1.0) -> float:
    """Return what |error| exceeds in none of `count` slots but with probability `failure`.

    Rounding errors meet the secret key in each slot, a product of two complex Gaussians whose
    real part follows a Laplace law, P(|error| > t) = exp(-t sqrt(2 / variance)). A sum of many
    has lighter tails: Chernoff's bound with the moments of m equal Laplace terms, which are
    (1 - s^2 variance / 2 m)^-m at s.

    Args:
        variance: Of the error in one slot.
        count: Number of slots.
        failure: Probability allowed.
        terms: Number m of independent terms of equal variance that the error is like, at least 1
            (the square of the sum of the variances over the sum of their squares).
    """
    exponent = math.log(count / failure)
    laplace = math.sqrt(variance / 2.0) * exponent
    if terms <= 1.0:
        return laplace
    share = _SHARES * -math.expm1(-exponent / terms)
    tails = (exponent + math.log(2.0) - terms * np.log1p(-share)) / np.sqrt(2.0 * terms * share)
    return min(laplace, math.sqrt(variance) * float(tails.min()))


def _to_slots(parameters: Parameters, scale: float, coefficient_variance: float) -> float:
    return coefficient_variance * parameters.poly_modulus_degree / 2.0 / scale**2


def _digit_noise(parameters: Parameters, level: int) -> float:
    """Return the sum over digits of q_i^2 * ERROR_VARIANCE / P^2."""
    _check_level(parameters, level)
    special = float(parameters.special_prime)
    ratios = (prime / special for prime in parameters.primes[: level + 1])
    return ERROR_VARIANCE * sum(ratio**2 for ratio in ratios)


def _check_level(parameters: Parameters, level: int) -> None:
    if not 0 <= level <= parameters.levels:
        raise CompileError(
            f"level {level} does not exist; these parameters have levels 0 to {parameters.levels}."
        )


@lru_cache(maxsize=16)
def _constant_part(degree: int) -> Array:
    """Return 1 / |1 - zeta_j|^2 for each slot j; read-only, since it is shared."""
    exponents = np.empty(degree // 2)
    power = 1
    for slot in range(degree // 2):
        exponents[slot] = power
        power = power * _SLOT_GENERATOR % (2 * degree)
    weights = 0.25 / np.sin(np.pi * exponents / (2 * degree)) ** 2
    weights.setflags(write=False)
    return np.asarray(weights, dtype=np.float64)
