"""Prediction of a program's ciphertext noise and of the room its values need in the modulus."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.numeric import noise
from hecompile.numeric.parameters import Parameters


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
        self._variance: dict[str, float] = {}
        self._switching: dict[tuple[int, float], float] = {}
        self._rules: Mapping[type[Operation], Callable[..., float]] = {
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
        outputs = []
        for op in self._program:
            if isinstance(op, he.Output):
                outputs.append(self._output(op))
            elif op.result is not None and isinstance(op.result.type, CipherType):
                self._variance[op.result.name] = self._rules[type(op)](op)
        return tuple(outputs)

    def _output(self, op: he.Output) -> OutputNoise:
        elements = math.prod(op.dims) * self._program.batch
        variance = max(self._of(v) + self._decoding(v) for v in op.xs)
        return OutputNoise(op.label, math.sqrt(variance), noise.bound(variance, elements))

    def _decoding(self, value: Value) -> float:
        return noise.float_rounding(self._parameters, _bound(value))

    def _of(self, value: Value) -> float:
        return self._variance[value.name]

    def _input(self, op: he.Input) -> float:
        return self._fresh(op.defined, op.period)

    def _fresh(self, value: Value, period: int) -> float:
        level, scale = _level(value), _scale(value)
        rounding = noise.encoding(self._parameters, scale, period)
        return rounding + noise.encryption(self._parameters, scale, level)

    def _same(self, op: he.Unary) -> float:
        return self._of(op.x)

    def _add(self, op: he.Binary) -> float:
        if op.x.name == op.y.name:
            return 4 * self._of(op.x)
        return self._of(op.x) + self._of(op.y)

    def _add_plain(self, op: he.AddPlain) -> float:
        return self._of(op.x) + self._encoded(op.p)

    def _encoded(self, plain: Value) -> float:
        facts = he.plain_type(plain)
        if facts.scale is None:
            raise ProgramError(f"{plain} has no scale; run assign-scales")
        if facts.period == 1:
            return noise.encoding_scalar(self._parameters, facts.scale)
        return noise.encoding(self._parameters, facts.scale, facts.period)

    def _mul(self, op: he.Mul) -> float:
        x, y = self._of(op.x), self._of(op.y)
        if op.x.name == op.y.name:
            return 4 * _bound(op.x) ** 2 * x + 2 * x * x
        return _bound(op.x) ** 2 * y + _bound(op.y) ** 2 * x + x * y

    def _mul_plain(self, op: he.MulPlain) -> float:
        encode = self._program.definitions[op.p.name]
        if not isinstance(encode, he.Encode):
            raise ProgramError(f"{op.p} is not encoded from a constant")
        largest = float(np.abs(self._program.array(encode.value)).max())
        return largest**2 * self._of(op.x) + _bound(op.x) ** 2 * self._encoded(op.p)

    def _sum_mul_plain(self, op: he.SumMulPlain) -> float:
        weights = self._program.array(op.weights)
        variances = np.array([self._of(v) for v in op.xs])
        bounds = np.array([_bound(v) for v in op.xs])
        scale = _scale(op.defined) / _scale(op.xs[0])
        rounding = noise.encoding(self._parameters, scale, op.period)
        return float((weights**2 * variances[:, None]).sum(axis=0).max()) + rounding * float(
            (bounds**2).sum()
        )

    def _key_switch(self, op: he.Unary) -> float:
        key = (_level(op.defined), _scale(op.defined))
        if key not in self._switching:
            slots = noise.key_switch_slots(self._parameters, *key)
            self._switching[key] = float(slots.max())
        return self._of(op.x) + self._switching[key]

    def _rescale(self, op: he.Rescale) -> float:
        polynomials = he.cipher_type(op.x).polynomials
        return self._of(op.x) + noise.rescale(self._parameters, _scale(op.defined), polynomials)

    def _refresh(self, op: he.Refresh) -> float:
        masked = _bound(op.x) * (1 + 2.0**op.mask_bits)
        # The mask is added, decoded, encoded again and subtracted, each in double precision.
        rounding = 4 * noise.float_rounding(self._parameters, masked)
        rounding += 2 * noise.encoding(self._parameters, _scale(op.x))
        return self._of(op.x) + rounding + self._fresh(op.defined, self._parameters.slots)


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
