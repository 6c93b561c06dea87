"""Where noise enters a program, and a first estimate of how it spreads.

The key holder averages the copies of a slot vector that repeats, so everything here is about the
mean over the copies of the longest period that a program has. That mean commutes with all
operations, since every factor repeats as well. Noise from keys and rescaling differs from copy to
copy and is divided by their number; the rounding of an encoded vector repeats with it.

Arrays are (runs or 1, width): widths of natural periods, cut to the lanes looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hecompile.errors import ProgramError
from hecompile.interpret.lanes import SlotSamples, Stacks
from hecompile.interpret.slots import repeat_to
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, PlainType
from hecompile.numeric import noise
from hecompile.numeric.parameters import Parameters

RELINEARIZATION = 0
"""Stands for the relinearization key among the steps of rotation keys."""


@dataclass(frozen=True)
class Rounding:
    """Rounding errors of encoded vectors: independent slots, the same in every repetition.

    Attributes:
        variance: of one slot's rounding.
        width: slots after which it repeats.
        factors: what it is multiplied by, one array for each vector; none means 1.
        squares: sum of the factors' squares where nothing needs to be folded, else None.
    """

    variance: float
    width: int
    factors: tuple[Array, ...] = ()
    squares: Array | None = None


@dataclass(frozen=True)
class Source:
    """What an operation adds to its result.

    Attributes:
        own: variance of what differs from copy to copy, of the mean over the copies.
        known: error that is known, from numbers encoded for all slots.
        rounding: of encoded vectors.
        key: steps and level of the key switch, if it is one.
        scale: of the result of the key switch.
    """

    own: Array | None = None
    known: Array | None = None
    rounding: Rounding | None = None
    key: tuple[int, int] | None = None
    scale: float = 1.0


class Variances:
    """Sources of noise by value name, and variances as if all that meets were independent.

    Attributes:
        sources: what each operation adds.
        of: variance of each value's slots.
        copies: how often the longest period fits the slots.
    """

    def __init__(self, program: Program, parameters: Parameters, seen: SlotSamples) -> None:
        """Walk the program once.

        Raises:
            ProgramError: a value lacks its level, scale or bound.
        """
        self.sources: dict[str, Source] = {}
        self.of: dict[str, Array] = {}
        self._program = program
        self._parameters = parameters
        self._seen = seen
        self.copies = self._parameters.slots / seen.lanes.period
        self._repeated: dict[int, Array] = {}
        self._values, self._carried = Stacks(), Stacks()
        self._rules: Mapping[type[Operation], Callable[..., tuple[Array, Source]]] = {
            he.Input: self._fresh,
            he.Weight: self._weight,
            he.Add: self._add,
            he.Sub: self._add,
            he.AddPlain: self._add_plain,
            he.Mul: self._mul,
            he.MulPlain: self._mul_plain,
            he.SumMulPlain: self._sum_mul_plain,
            he.Negate: lambda op: (self.of[op.x.name], Source()),
            he.DropLevel: lambda op: (self.of[op.x.name], Source()),
            he.Rotate: self._rotate,
            he.Relinearize: self._relinearize,
            he.Rescale: self._rescale,
            he.Refresh: self._refresh,
        }
        for op in program:
            if op.result is not None and isinstance(op.result.type, CipherType):
                carried, source = self._rules[type(op)](op)
                self.sources[op.result.name] = source
                total = self._with(carried, source)
                self.of[op.result.name] = self._cut(total, op.result.type.period)

    def repeated(self, level: int) -> Array:
        """Variance, at a scale of 1, of what key switches with one key repeat: (1, width)."""
        if level not in self._repeated:
            _, slots = noise.key_switch_parts(self._parameters, level, 1.0)
            folded = slots.reshape(-1, self._seen.lanes.period).sum(axis=0) / self.copies**2
            self._repeated[level] = self._seen.lanes.cut(folded)[None]
        return self._repeated[level]

    def _with(self, carried: Array, source: Source) -> Array:
        total = carried if source.own is None else plus(carried, source.own)
        if source.known is not None:
            total = plus(total, source.known**2)
        if source.rounding is not None:
            total = plus(total, source.rounding.variance * _squares(source.rounding))
        if source.key is not None:
            total = plus(total, self.repeated(source.key[1]) / source.scale**2)
        return total

    def _cut(self, variance: Array, period: int) -> Array:
        """Over a period that may be shorter than the operands' (the result of a fold)."""
        width = self._seen.lanes.width_of(period)
        if variance.shape[1] <= width:
            return variance
        return np.asarray(variance.reshape(len(variance), -1, width).mean(axis=1))

    def _own(self, variance: float) -> Array:
        return np.full((1, 1), variance / self.copies)

    def _value(self, value: Value) -> Array:
        return self._seen.values[value.name]

    def _rounding(self, scale: float, period: int, *factors: Array) -> Rounding:
        variance = noise.encoding(self._parameters, scale, period)
        width = self._seen.lanes.width_of(period)
        whole = width == self._seen.lanes.width
        return Rounding(variance, width, factors, _sum_of_squares(factors) if whole else None)

    def _fresh(self, op: he.Input | he.Weight) -> tuple[Array, Source]:
        scale = scale_of(op.defined)
        own = self._own(noise.encryption(self._parameters, scale, level_of(op.defined)))
        return np.zeros((1, 1)), Source(own, rounding=self._rounding(scale, op.period))

    def _weight(self, op: he.Weight) -> tuple[Array, Source]:
        carried, fresh = self._fresh(op)
        known, rounding = self._encoded(self._value(op.defined), op.defined)
        return carried, Source(fresh.own, known, rounding)

    def _encoded(
        self, array: Array, value: Value, factor: Array | None = None, refused: bool = False
    ) -> tuple[Array | None, Rounding | None]:
        """Known error or rounding of one encoded vector (1, period); `refused` if not as zero."""
        scale, period = scale_of(value), array.shape[1]
        if isinstance(value.type, CipherType | PlainType):
            period = value.type.period
        if np.all(array == array[:, :1]):
            error = noise.rounding_error(array[:1, :1], scale)
            if refused and float((array[:1, :1] + error)[0, 0]) == 0.0:
                error = error + 1.0 / scale
            return (error if factor is None else error * factor), None
        factors = () if factor is None else (factor,)
        return None, self._rounding(scale, period, *factors)

    def _add(self, op: he.Binary) -> tuple[Array, Source]:
        if op.x.name == op.y.name:
            return 4 * self.of[op.x.name], Source()
        return plus(self.of[op.x.name], self.of[op.y.name]), Source()

    def _add_plain(self, op: he.AddPlain) -> tuple[Array, Source]:
        known, rounding = self._encoded(self._value(op.p), op.p)
        return self.of[op.x.name], Source(known=known, rounding=rounding)

    def _mul(self, op: he.Mul) -> tuple[Array, Source]:
        """What is of second order is a source: it is uncorrelated with what is of first."""
        x, y = self.of[op.x.name], self.of[op.y.name]
        if op.x.name == op.y.name:
            return 4 * times(x, self._value(op.x) ** 2), Source(2 * self.copies * x * x)
        both = plus(times(y, self._value(op.x) ** 2), times(x, self._value(op.y) ** 2))
        return both, Source(self.copies * times(x, y))

    def _mul_plain(self, op: he.MulPlain) -> tuple[Array, Source]:
        carried = times(self.of[op.x.name], self._value(op.p) ** 2)
        x = self._value(op.x)
        known, rounding = self._encoded(self._value(op.p), op.p, x, refused=True)
        return carried, Source(known=known, rounding=rounding)

    def _sum_mul_plain(self, op: he.SumMulPlain) -> tuple[Array, Source]:
        weights = self._program.array(op.weights)
        scale = scale_of(op.defined) / scale_of(op.xs[0])
        uniform = np.all(weights == weights[:, :1], axis=1)
        errors = np.where(uniform, noise.rounding_error(weights[:, 0], scale), 0.0)
        if uniform.all() and not np.round(weights[:, 0] * scale).any():
            # SEAL refuses a product with zero: the first operand then counts 1 / scale times.
            errors[0] += 1.0 / scale
        known = None
        if errors.any():
            known = self._values.weighted_sum(op.xs, self._seen.values, errors[:, None])
        rounded = [self._value(x) for x, alike in zip(op.xs, uniform, strict=True) if not alike]
        rounding = self._rounding(scale, op.period, *rounded) if rounded else None
        squares = self._seen.lanes.cut(weights) ** 2
        carried = self._carried.weighted_sum(op.xs, self.of, squares)
        return carried, Source(known=known, rounding=rounding)

    def _rotate(self, op: he.Rotate) -> tuple[Array, Source]:
        width = self._seen.lanes.width_of(he.cipher_type(op.x).period)
        x = repeat_to(self.of[op.x.name], width)
        return np.roll(x, -self._seen.lanes.steps(op), axis=1), self._switch(op.defined, op.steps)

    def _relinearize(self, op: he.Relinearize) -> tuple[Array, Source]:
        return self.of[op.x.name], self._switch(op.defined, RELINEARIZATION)

    def _switch(self, result: Value, steps: int) -> Source:
        level, scale = level_of(result), scale_of(result)
        changing, _ = noise.key_switch_parts(self._parameters, level, scale)
        return Source(self._own(changing), key=(steps, level), scale=scale)

    def _rescale(self, op: he.Rescale) -> tuple[Array, Source]:
        polynomials = he.cipher_type(op.x).polynomials
        own = noise.rescale(self._parameters, scale_of(op.defined), polynomials)
        return self.of[op.x.name], Source(self._own(own))

    def _refresh(self, op: he.Refresh) -> tuple[Array, Source]:
        """What the key holder makes of the value and what the evaluator makes of its mask alone.

        Masks are integers and what is gathered of them is exact, but the two results are rounded
        to integers one by one.
        """
        scale, period = scale_of(op.defined), he.cipher_type(op.defined).period
        own = noise.symmetric_encryption(self._parameters, scale)
        width = self._seen.lanes.width_of(period)
        rounding = Rounding(
            2 * noise.encoding(self._parameters, scale, period),
            width,
            (),
            np.ones((1, 1)) if width == self._seen.lanes.width else None,
        )
        return self._seen.gathered(op, self.of), Source(self._own(own), rounding=rounding)


def _sum_of_squares(factors: tuple[Array, ...]) -> Array:
    if not factors:
        return np.ones((1, 1))
    if len({x.shape for x in factors}) == 1:
        stacked = np.stack(factors)
        return np.asarray(np.einsum("nrs,nrs->rs", stacked, stacked))
    total = np.zeros((1, 1))
    for x in factors:
        total = plus(total, x**2)
    return total


def _squares(rounding: Rounding) -> Array:
    return _sum_of_squares(rounding.factors) if rounding.squares is None else rounding.squares


def times(x: Array, y: Array) -> Array:
    """Product of slot vectors (n or 1, p) and (n or 1, q), one a multiple of the other."""
    return _aligned(np.multiply, x, y)


def plus(x: Array, y: Array) -> Array:
    """Sum of slot vectors (n or 1, p) and (n or 1, q), one a multiple of the other."""
    return _aligned(np.add, x, y)


def _aligned(function: Callable[[Array, Array], Array], x: Array, y: Array) -> Array:
    short, long = sorted((x.shape[1], y.shape[1]))
    if short in (1, long):
        return function(x, y)
    cut = function(x.reshape(len(x), -1, short), y.reshape(len(y), -1, short))
    return cut.reshape(len(cut), long)


def bound_of(value: Value) -> float:
    """Largest absolute slot value expected.

    Raises:
        ProgramError: calibration has not set it.
    """
    bound = he.cipher_type(value).bound
    if bound is None:
        raise ProgramError(f"{value} has no bound; run calibrate-slots")
    return bound


def level_of(value: Value) -> int:
    """Rescale primes left.

    Raises:
        ProgramError: not assigned yet.
    """
    level = he.cipher_type(value).level
    if level is None:
        raise ProgramError(f"{value} has no level; run assign-scales")
    return level


def scale_of(value: Value) -> float:
    """Exact scale of a ciphertext or plaintext.

    Raises:
        ProgramError: not assigned yet.
    """
    scale = value.type.scale if isinstance(value.type, CipherType | PlainType) else None
    if scale is None:
        raise ProgramError(f"{value} has no scale; run assign-scales")
    return scale
