"""Interpreter of managed ciphertext programs with simulated CKKS noise.

Each operation adds Gaussian noise of the variance that `numeric.noise` predicts; products and
sums of noisy values then carry it on by themselves. What is drawn anew for each run and what is
drawn once follows the scheme: encryption and rescaling round anew each time, an encoded weight is
rounded once for all runs, and the coherent part of a key switch (see `numeric.noise`) is the same
number in every use of one key at one level. A vector that repeats is rounded alike in all of its
copies, of which the key holder takes the mean, in outputs as in refreshes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from hecompile.errors import ProgramError
from hecompile.interpret.scope import Scope
from hecompile.interpret.slots import (
    SLOT_KERNELS,
    SlotKernel,
    mean_of_copies,
    refreshed,
    repeat_to,
    run_program_slots,
    sum_of_products,
    weight_array,
)
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, PlainType
from hecompile.numeric import noise
from hecompile.numeric.parameters import Parameters

_RELINEARIZATION = 0


def run_program_noisy(
    program: Program, inputs: Mapping[str, ArrayLike], seed: int = 0
) -> dict[str, Array]:
    """Run a program on samples as an encrypted evaluation would, noise included.

    Args:
        program: a verified `he.*` program with parameters, levels and scales.
        inputs: by label, each (S, *dims of the input).
        seed: of the noise; equal seeds give equal results.

    Returns:
        By output label: arrays (S, *dims), before their `post` steps.

    Raises:
        InputError: an input is missing, has another shape, or is not finite.
        ProgramError: the program lacks parameters, or a value lacks its level or scale.
    """
    if program.parameters is None:
        raise ProgramError(
            f"program '{program.name}' has no parameters; run choose-parameters before noise is"
            " simulated"
        )
    kernels = _Simulator(program.parameters, seed).kernels()
    return run_program_slots(program, inputs, kernels, program.parameters.slots)


class _Simulator:
    """Kernels that compute on all slots and add noise."""

    def __init__(self, parameters: Parameters, seed: int) -> None:
        self._parameters = parameters
        self._random = np.random.default_rng(seed)
        self._encoded: dict[tuple[str, float], Array] = {}
        self._offsets: dict[tuple[int, int], Array] = {}

    def kernels(self) -> dict[type[Operation], SlotKernel]:
        noisy: dict[type[Operation], SlotKernel] = {
            he.Input: self._input,
            he.Encode: self._encode,
            he.Weight: self._weight,
            he.SumMulPlain: self._sum_mul_plain,
            he.Rotate: self._rotate,
            he.Relinearize: self._relinearize,
            he.Rescale: self._rescale,
            he.Refresh: self._refresh,
        }
        return {**SLOT_KERNELS, **noisy}

    def _input(self, op: he.Input, at: Scope) -> Array:
        level, scale = managed(op)
        packed = repeat_to(at(op.defined), op.period)
        rounded = self._normal(packed, noise.encoding(self._parameters, scale, op.period))
        return self._disturbed(rounded, noise.encryption(self._parameters, scale, level))

    def _encode(self, op: he.Encode, at: Scope) -> Array:
        _, scale = managed(op)
        return self._rounded(op.value, at.constant(op.value)[None], scale)

    def _weight(self, op: he.Weight, at: Scope) -> Array:
        """Encrypted once, so that all runs see the same noise."""
        level, scale = managed(op)
        key = (str(op.defined), scale)
        if key not in self._encoded:
            rounded = self._rounded(op.value or "", weight_array(op, at)[None], scale)
            variance = noise.encryption(self._parameters, scale, level)
            self._encoded[key] = self._disturbed(rounded, variance)
        return self._encoded[key]

    def _sum_mul_plain(self, op: he.SumMulPlain, at: Scope) -> Array:
        _, product_scale = managed(op)
        operand_scale = he.cipher_type(op.xs[0]).scale
        if operand_scale is None:
            raise ProgramError(f"{op.name}: {op.xs[0]} has no scale; run assign-scales first")
        scale = product_scale / operand_scale
        weights = self._rounded(op.weights, at.constant(op.weights), scale)
        return sum_of_products([at(x) for x in op.xs], weights)

    def _rotate(self, op: he.Rotate, at: Scope) -> Array:
        rotated = np.roll(at(op.x), -op.steps, axis=-1)
        return self._key_switched(op, rotated, op.steps)

    def _relinearize(self, op: he.Relinearize, at: Scope) -> Array:
        return self._key_switched(op, at(op.x), _RELINEARIZATION)

    def _rescale(self, op: he.Rescale, at: Scope) -> Array:
        _, scale = managed(op)
        polynomials = he.cipher_type(op.x).polynomials
        return self._disturbed(at(op.x), noise.rescale(self._parameters, scale, polynomials))

    def _refresh(self, op: he.Refresh, at: Scope) -> Array:
        """The gathered value and its gathered mask are rounded one by one, the former encrypted."""
        _, scale = managed(op)
        means = {
            x.name: mean_of_copies(self._hidden(op, x, at), he.cipher_type(x).period) for x in op.xs
        }
        exact = refreshed(op, Scope(at.program, means))
        rounding = 2.0 * noise.encoding(self._parameters, scale, exact.shape[-1])
        encrypted = noise.symmetric_encryption(self._parameters, scale)
        return self._disturbed(self._normal(exact, rounding), encrypted)

    def _hidden(self, op: he.Refresh, x: Value, at: Scope) -> Array:
        """What is handed over, with the encryption of zero that hides where it comes from."""
        scale = he.cipher_type(x).scale
        if not op.mask_bits or scale is None:
            return at(x)
        return self._disturbed(at(x), noise.rescale(self._parameters, scale, 2))

    def _key_switched(self, op: he.Rotate | he.Relinearize, exact: Array, key: int) -> Array:
        level, scale = managed(op)
        variances = noise.key_switch_slots(self._parameters, level, scale)
        # The coherent part all but vanishes in the slot where it is least.
        changing = float(variances.min())
        if (key, level) not in self._offsets:
            self._offsets[key, level] = self._random.normal(size=variances.shape)
        offset = self._offsets[key, level] * np.sqrt(variances - changing)
        return self._disturbed(exact, changing) + offset

    def _disturbed(self, exact: Array, variance: float) -> Array:
        return self._normal(repeat_to(exact, self._parameters.slots), variance)

    def _normal(self, exact: Array, variance: float) -> Array:
        return exact + self._random.normal(scale=np.sqrt(variance), size=exact.shape)

    def _rounded(self, symbol: str, exact: Array, scale: float) -> Array:
        """A constant (rows, period) as its encoding holds it, the same at every call."""
        if (symbol, scale) not in self._encoded:
            period = exact.shape[-1]
            vector = noise.encoding(self._parameters, scale, period)
            errors = self._random.normal(scale=np.sqrt(vector), size=exact.shape)
            # Rows of one number are encoded as that number: one error for all slots.
            uniform = (exact == exact[:, :1]).all(axis=1)
            known = noise.rounding_error(exact[:, :1], scale)
            self._encoded[symbol, scale] = exact + np.where(uniform[:, None], known, errors)
        return self._encoded[symbol, scale]


def managed(op: Operation) -> tuple[int, float]:
    """Level and scale of an operation's result.

    Raises:
        ProgramError: they are not assigned yet.
    """
    kind = op.defined.type
    if not isinstance(kind, CipherType | PlainType) or kind.level is None or kind.scale is None:
        raise ProgramError(
            f"{op.name}: {op.defined} has no level and scale; run assign-scales before noise is"
            " simulated"
        )
    return kind.level, kind.scale
