"""Prediction of a program's ciphertext noise and of the room its values need in the modulus.

A slot vector that repeats with period p holds each value slots / p times, and the key holder
averages the copies. Noise from keys and rescaling differs from copy to copy and averages out; the
rounding of encoded plaintexts repeats with the plaintext and does not. The two are kept apart.

Variances are followed slot by slot, for products multiply the noise of each slot by its own values
and sums of products weigh slots differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import ProgramError
from hecompile.interpret.slots import repeat_to, sum_of_products
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.numeric import noise
from hecompile.numeric.parameters import Parameters

Variance = NDArray[np.float64]
"""Variances of the slots, (2, period or a divisor of it): of own and of shared noise."""

CORRELATION = 2.0
"""Allowance in the variance for terms that share noise, such as the powers of one value.

They are added as if they were independent; on small recurrent programs that fell short by 3 %.
"""

_OWN = np.array([[1.0], [0.0]])
_SHARED = np.array([[0.0], [1.0]])


@dataclass(frozen=True)
class OutputNoise:
    """Predicted noise of one output: largest standard deviation and bound of a slot's error."""

    label: str
    deviation: float
    bound: float


def predict_noise(
    program: Program, magnitudes: Mapping[str, Array] | None = None
) -> tuple[OutputNoise, ...]:
    """Predict the error that encryption adds to each output, in units of the output.

    Variances are propagated operation by operation (average case, canonical embedding; see
    `numeric.noise`). The bound allows for Laplace tails in all elements of an output at once, with
    a failure probability of 1e-6 in that model; it is no proof.

    Args:
        program: with levels, scales and bounds.
        magnitudes: largest absolute value of each slot on representative samples, by value name,
            as `interpret.slots.trace_slots` gives them; without them every slot counts as large as
            its ciphertext's bound. Values that are not named are derived from their operands.

    Raises:
        ProgramError: a value has no level, scale or bound.
    """
    return _Propagation(program, magnitudes or {}).run()


class _Propagation:
    def __init__(self, program: Program, magnitudes: Mapping[str, Array]) -> None:
        if program.parameters is None:
            raise ProgramError(f"program '{program.name}' has no parameters; run choose-parameters")
        self._program = program
        self._parameters: Parameters = program.parameters
        self._magnitudes = dict(magnitudes)
        self._variance: dict[str, Variance] = {}
        self._switching: dict[tuple[int, float], float] = {}
        self._rules: Mapping[type[Operation], Callable[..., Variance]] = {
            he.Input: self._input,
            he.Add: self._add,
            he.Sub: self._add,
            he.AddPlain: self._add_plain,
            he.Mul: self._mul,
            he.MulPlain: self._mul_plain,
            he.SumMulPlain: self._sum_mul_plain,
            he.Negate: self._same,
            he.DropLevel: self._same,
            he.Rotate: self._rotate,
            he.Relinearize: self._relinearize,
            he.Rescale: self._rescale,
            he.Refresh: self._refresh,
        }

    def run(self) -> tuple[OutputNoise, ...]:
        # Where noise feeds on itself it may grow past all numbers; the bound then is infinite.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._run()

    def _run(self) -> tuple[OutputNoise, ...]:
        outputs = []
        last = self._program.last_uses
        for position, op in enumerate(self._program):
            if isinstance(op, he.Output):
                outputs.append(self._output(op))
            elif op.result is not None and isinstance(op.result.type, CipherType):
                found = self._rules[type(op)](op)
                self._variance[op.result.name] = _cut(found, op.result.type.period)
            for value in op.operands:
                if last.get(value.name) == position:
                    self._variance.pop(value.name, None)
        return tuple(outputs)

    def _output(self, op: he.Output) -> OutputNoise:
        elements = math.prod(op.dims) * self._program.batch
        worst = [float(self._averaged(v).max()) for v in op.xs]
        rounded = (w + self._decoding(_bound(v)) for w, v in zip(worst, op.xs, strict=True))
        variance = CORRELATION * max(rounded)
        if not math.isfinite(variance):
            return OutputNoise(op.label, math.inf, math.inf)
        return OutputNoise(op.label, math.sqrt(variance), noise.bound(variance, elements))

    def _averaged(self, value: Value) -> Array:
        """Variance of the mean of a value's copies, slot by slot."""
        own, shared = self._of(value)
        return np.asarray(own / (self._parameters.slots // he.cipher_type(value).period) + shared)

    def _decoding(self, magnitude: float) -> float:
        return noise.float_rounding(self._parameters, magnitude)

    def _of(self, value: Value) -> Variance:
        return self._variance[value.name]

    def _squares(self, value: Value) -> Array:
        """Largest square of each slot."""
        return np.asarray(self._magnitude(value) ** 2)

    def _magnitude(self, value: Value) -> Array:
        if value.name not in self._magnitudes:
            self._magnitudes[value.name] = self._derive(value)
        return self._magnitudes[value.name]

    def _derive(self, value: Value) -> Array:
        """What management and refreshes inserted keeps the values of its operand."""
        match self._program.definitions[value.name]:
            case he.Rotate() as op:
                return np.roll(self._magnitude(op.x), -op.steps)
            case he.Rescale() | he.Relinearize() | he.DropLevel() | he.Refresh() as op:
                return self._magnitude(op.x)
            case he.MulPlain() as op:
                factor = np.abs(self._plain(op.p))
                return np.asarray(_multiply(factor, self._magnitude(op.x)))
            case _:
                return np.array([_bound(value)])

    def _plain(self, value: Value) -> Array:
        encode = self._program.definitions[value.name]
        if not isinstance(encode, he.Encode):
            raise ProgramError(f"{value} is not encoded from a constant")
        return self._program.array(encode.value)

    def _input(self, op: he.Input) -> Variance:
        return self._fresh(op.defined, op.period)

    def _fresh(self, value: Value, period: int) -> Variance:
        level, scale = _level(value), _scale(value)
        own = noise.encryption(self._parameters, scale, level)
        return np.asarray(own * _OWN + self._encoding(scale, period) * _SHARED)

    def _encoding(self, scale: float, period: int) -> float:
        if period == 1:
            return noise.encoding_scalar(self._parameters, scale)
        return noise.encoding(self._parameters, scale, period)

    def _same(self, op: he.Unary) -> Variance:
        return self._of(op.x)

    def _add(self, op: he.Binary) -> Variance:
        if op.x.name == op.y.name:
            return 4 * self._of(op.x)
        return _add(self._of(op.x), self._of(op.y))

    def _add_plain(self, op: he.AddPlain) -> Variance:
        return np.asarray(self._of(op.x) + self._encoded(op.p) * _SHARED)

    def _encoded(self, plain: Value) -> float:
        facts = he.plain_type(plain)
        if facts.scale is None:
            raise ProgramError(f"{plain} has no scale; run assign-scales")
        return self._encoding(facts.scale, facts.period)

    def _mul(self, op: he.Mul) -> Variance:
        x, y = self._of(op.x), self._of(op.y)
        if op.x.name == op.y.name:
            both = 4 * _multiply(x, self._squares(op.x))
            return _add(both, 2 * x * x.sum(axis=0))
        both = _add(_multiply(y, self._squares(op.x)), _multiply(x, self._squares(op.y)))
        return _add(both, _multiply(x, y.sum(axis=0)))

    def _mul_plain(self, op: he.MulPlain) -> Variance:
        rounding = self._squares(op.x) * self._encoded(op.p) * _SHARED
        return _add(_multiply(self._of(op.x), self._plain(op.p) ** 2), rounding)

    def _sum_mul_plain(self, op: he.SumMulPlain) -> Variance:
        squares = self._program.array(op.weights) ** 2
        variances = [self._of(v) for v in op.xs]
        if all(v.shape[1] == 1 for v in variances):
            carried = np.hstack(variances) @ squares
        else:
            carried = sum_of_products(variances, squares)
        scale = _scale(op.defined) / _scale(op.xs[0])
        values = [repeat_to(self._squares(v), op.period) for v in op.xs]
        rounding = self._encoding(scale, op.period) * np.sum(values, axis=0) * _SHARED
        return np.asarray(carried + rounding)

    def _key_switch(self, value: Value) -> Variance:
        key = (_level(value), _scale(value))
        if key not in self._switching:
            slots = noise.key_switch_slots(self._parameters, *key)
            self._switching[key] = float(slots.max())
        return self._switching[key] * _OWN

    def _rotate(self, op: he.Rotate) -> Variance:
        return np.roll(self._of(op.x), -op.steps, axis=1) + self._key_switch(op.defined)

    def _relinearize(self, op: he.Relinearize) -> Variance:
        return self._of(op.x) + self._key_switch(op.defined)

    def _rescale(self, op: he.Rescale) -> Variance:
        polynomials = he.cipher_type(op.x).polynomials
        own = noise.rescale(self._parameters, _scale(op.defined), polynomials)
        return self._of(op.x) + own * _OWN

    def _refresh(self, op: he.Refresh) -> Variance:
        masked = _bound(op.x) * (1 + 2.0**op.mask_bits)
        period = he.cipher_type(op.x).period
        # The mask is added, decoded, encoded again and subtracted, each in double precision.
        rounding = 4 * self._decoding(masked)
        rounding += 2 * noise.encoding(self._parameters, _scale(op.x), period)
        carried = (rounding + self._averaged(op.x)) * _SHARED
        return np.asarray(self._fresh(op.defined, period) + carried)


def _multiply(x: Array, y: Array) -> Array:
    period = max(x.shape[-1], y.shape[-1])
    return np.asarray(repeat_to(x, period) * repeat_to(y, period))


def _add(x: Array, y: Array) -> Array:
    period = max(x.shape[-1], y.shape[-1])
    return np.asarray(repeat_to(x, period) + repeat_to(y, period))


def _cut(variance: Variance, period: int) -> Variance:
    """The variance over a period that may be shorter than the operands' (the result of a fold)."""
    if variance.shape[1] <= period:
        return variance
    return np.asarray(variance.reshape(2, -1, period).max(axis=1))


def missing_headroom(program: Program) -> dict[str, float]:
    """Bits that the modulus lacks for each ciphertext's largest value; negative where it has more.

    A slot value times its scale must stay below half the modulus of its level, with one bit to
    spare; what is handed over for a refresh carries its mask too.

    Raises:
        ProgramError: a value has no level, scale or bound.
    """
    if program.parameters is None:
        raise ProgramError(f"program '{program.name}' has no parameters; run choose-parameters")
    missing: dict[str, float] = {}
    for op in program:
        if op.result is not None and isinstance(op.result.type, CipherType):
            missing[op.result.name] = _lacking(program.parameters, op.defined, 0)
        if isinstance(op, he.Refresh):
            masked = _lacking(program.parameters, op.x, op.mask_bits + 1)
            missing[op.x.name] = max(missing[op.x.name], masked)
    return missing


def _lacking(parameters: Parameters, value: Value, mask_bits: int) -> float:
    needed = math.log2(_bound(value)) + mask_bits + math.log2(_scale(value)) + 2
    return needed - math.log2(parameters.modulus(_level(value)))


def _bound(value: Value) -> float:
    bound = he.cipher_type(value).bound
    if bound is None:
        raise ProgramError(f"{value} has no bound; run calibrate-slots")
    return bound


def _level(value: Value) -> int:
    level = he.cipher_type(value).level
    if level is None:
        raise ProgramError(f"{value} has no level; run assign-scales")
    return level


def _scale(value: Value) -> float:
    scale = he.cipher_type(value).scale
    if scale is None:
        raise ProgramError(f"{value} has no scale; run assign-scales")
    return scale
