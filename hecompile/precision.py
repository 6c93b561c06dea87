"""Prediction of a program's ciphertext noise and of the room its values need in the modulus.

A slot vector that repeats with period p holds each value slots / p times, and the key holder
averages the copies. Noise from keys and rescaling differs from copy to copy and averages out; the
rounding of encoded plaintexts repeats with the plaintext and does not. The two are kept apart.

A product multiplies noise by values, which differ from slot to slot. Both the mean over the slots
and the worst slot are followed; a sum of products over many slots comes close to the mean, the
closer the more evenly its weights are spread; of the terms of one linear map only one is taken to
be the worst.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.numeric import noise
from hecompile.numeric.parameters import Parameters

Variance = NDArray[np.float64]
"""Variances [[own, shared] of the mean slot, [own, shared] of the worst slot].

Own is the noise that each copy has for itself, shared what repeats in all of them.
"""

_TINY = 1e-300
_OWN = np.array([[1.0, 0.0], [1.0, 0.0]])
_SHARED = np.array([[0.0, 1.0], [0.0, 1.0]])


@dataclass(frozen=True)
class OutputNoise:
    """Predicted noise of one output: standard deviation and bound of a slot's error."""

    label: str
    deviation: float
    bound: float


def predict_noise(program: Program) -> tuple[OutputNoise, ...]:
    """Predict the error that encryption adds to each output, in units of the output.

    Variances are propagated operation by operation (average case, canonical embedding; see
    `numeric.noise`), with the bounds of the slot values where noise is multiplied by a value. The
    bound holds for all elements of an output at once with a probability of 1 - 1e-6.

    Raises:
        ProgramError: a value has no level, scale or bound.
    """
    return _Propagation(program).run()


class _Propagation:
    def __init__(self, program: Program) -> None:
        if program.parameters is None:
            raise ProgramError(f"program '{program.name}' has no parameters; run choose-parameters")
        self._program = program
        self._parameters: Parameters = program.parameters
        self._variance: dict[str, Variance] = {}
        self._sums: set[str] = set()
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
            he.Rotate: self._key_switch,
            he.Relinearize: self._key_switch,
            he.Rescale: self._rescale,
            he.Refresh: self._refresh,
        }

    def run(self) -> tuple[OutputNoise, ...]:
        # Where noise feeds on itself it may grow past all numbers; the bound then is infinite.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._run()

    def _run(self) -> tuple[OutputNoise, ...]:
        outputs = []
        for op in self._program:
            if isinstance(op, he.Output):
                outputs.append(self._output(op))
            elif op.result is not None and isinstance(op.result.type, CipherType):
                self._variance[op.result.name] = self._rules[type(op)](op)
                if isinstance(op, he.SumMulPlain) or self._carries_sum(op):
                    self._sums.add(op.result.name)
        return tuple(outputs)

    def _carries_sum(self, op: Operation) -> bool:
        """Whether an operation passes sums of products on without making slots values again."""
        passing = isinstance(op, he.Add | he.Sub | he.AddPlain | he.Rotate)
        ciphers = [v.name for v in op.operands if isinstance(v.type, CipherType)]
        return passing and self._sums.issuperset(ciphers)

    def _output(self, op: he.Output) -> OutputNoise:
        elements = math.prod(op.dims) * self._program.batch
        worst = [float(self._averaged(v)[1]) for v in op.xs]
        variance = max(w + self._decoding(_bound(v)) for w, v in zip(worst, op.xs, strict=True))
        if not math.isfinite(variance):
            return OutputNoise(op.label, math.inf, math.inf)
        return OutputNoise(op.label, math.sqrt(variance), noise.bound(variance, elements))

    def _averaged(self, value: Value) -> NDArray[np.float64]:
        """Variance of the mean of a value's copies, in the mean slot and in the worst."""
        own, shared = self._of(value).T
        return np.asarray(own / (self._parameters.slots // he.cipher_type(value).period) + shared)

    def _decoding(self, magnitude: float) -> float:
        return noise.float_rounding(self._parameters, magnitude)

    def _of(self, value: Value) -> Variance:
        return self._variance[value.name]

    def _input(self, op: he.Input) -> Variance:
        return self._fresh(op.defined, op.period)

    def _fresh(self, value: Value, period: int) -> Variance:
        level, scale = _level(value), _scale(value)
        own = noise.encryption(self._parameters, scale, level)
        return own * _OWN + noise.encoding(self._parameters, scale, period) * _SHARED

    def _same(self, op: he.Unary) -> Variance:
        return self._of(op.x)

    def _add(self, op: he.Binary) -> Variance:
        if op.x.name == op.y.name:
            return 4 * self._of(op.x)
        x, y = self._of(op.x), self._of(op.y)
        if not {op.x.name, op.y.name} <= self._sums:
            return x + y
        # Terms of one linear map read different slots, and only one of them is the worst.
        mean = x[0] + y[0]
        return np.stack([mean, mean + np.maximum(x[1] - x[0], y[1] - y[0])])

    def _add_plain(self, op: he.AddPlain) -> Variance:
        return self._of(op.x) + self._encoded(op.p) * _SHARED

    def _encoded(self, plain: Value) -> float:
        facts = he.plain_type(plain)
        if facts.scale is None:
            raise ProgramError(f"{plain} has no scale; run assign-scales")
        if facts.period == 1:
            return noise.encoding_scalar(self._parameters, facts.scale)
        return noise.encoding(self._parameters, facts.scale, facts.period)

    def _mul(self, op: he.Mul) -> Variance:
        x, y = self._of(op.x), self._of(op.y)
        if op.x.name == op.y.name:
            return np.asarray(4 * _squares(op.x) * x + 2 * x * x.sum(axis=1, keepdims=True))
        both = _squares(op.x) * y + _squares(op.y) * x
        return np.asarray(both + x * y.sum(axis=1, keepdims=True))

    def _mul_plain(self, op: he.MulPlain) -> Variance:
        encode = self._program.definitions[op.p.name]
        if not isinstance(encode, he.Encode):
            raise ProgramError(f"{op.p} is not encoded from a constant")
        largest = float(np.abs(self._program.array(encode.value)).max())
        rounding = _squares(op.x) * self._encoded(op.p) * _SHARED
        return np.asarray(largest**2 * self._of(op.x) + rounding)

    def _sum_mul_plain(self, op: he.SumMulPlain) -> Variance:
        squares = self._program.array(op.weights) ** 2
        variances = np.array([self._of(v) for v in op.xs])
        mean = squares.mean(axis=1) @ variances[:, 0]
        at_slots = variances.reshape(-1, 4).T @ squares
        total = squares.sum(axis=0)
        # Share of the heaviest weight: 1 where one slot decides, small where many are summed.
        share = squares.max(axis=0) / np.maximum(total, _TINY)
        worst = (at_slots[:2] + share * (at_slots[2:] - at_slots[:2])).max(axis=1)
        scale = _scale(op.defined) / _scale(op.xs[0])
        values = sum(_squares(v)[0, 0] for v in op.xs)
        rounding = noise.encoding(self._parameters, scale, op.period) * values * _SHARED
        return np.asarray(np.stack([mean, worst]) + rounding)

    def _key_switch(self, op: he.Unary) -> Variance:
        key = (_level(op.defined), _scale(op.defined))
        if key not in self._switching:
            slots = noise.key_switch_slots(self._parameters, *key)
            self._switching[key] = float(slots.max())
        return self._of(op.x) + self._switching[key] * _OWN

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
        fresh = self._fresh(op.defined, period)
        carried = (rounding + self._averaged(op.x))[:, None] * _SHARED
        return np.asarray(fresh + carried)


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


def _squares(value: Value) -> Variance:
    """Squares of the value in the mean slot and in the worst slot, as a column."""
    bound, rms = _bound(value), he.cipher_type(value).rms
    return np.array([[rms**2 if rms is not None else bound**2], [bound**2]])


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
