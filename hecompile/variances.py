"""Where noise enters a program, and a first estimate of how it spreads.

The key holder averages the copies of a slot vector that repeats, so everything here is about the
mean over the copies of the longest period L that a program has. That mean, M, commutes with all
operations, since every factor repeats as well. Noise from keys and rescaling differs from copy to
copy and is divided by their number; the rounding of an encoded vector repeats with it.

A refresh commutes with M too, whichever period is longer. The key holder takes the mean of the
copies of its operand's own period p, which is the mean of the L / p copies that M still has; slot j
of the result takes one slot g(j) of that, and the result repeats, so that M leaves it alone:

    M[result](j) = p / L * sum over k < L / p of M[x](g(j mod P) + k p) + fresh noise(j)

So noise of variance v in each of S slots, independent before, has variance v p / S afterwards, and
is one number in all slots that take the same one, and in all L / P repetitions of the result. It
cannot be averaged again, and a sum of n replicas has n * n times its variance. The derivatives in
`sensitivity` are of this equation and take account of both. The estimate here sees neither: it
leaves the variance of a slot as it was, for noise that repeats with p already gains nothing from
that mean, and takes replicas as independent.

Arrays are (runs or 1, width): widths of natural periods, cut to the lanes looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from hecompile.errors import ProgramError
from hecompile.interpret.lanes import SlotSamples, Stacks, single
from hecompile.interpret.slots import repeat_to
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.parcels import partners
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, PlainType
from hecompile.numeric import noise
from hecompile.numeric.parameters import Parameters
from hecompile.spreads import (
    NOTHING,
    SILENT,
    Rounding,
    Source,
    Spread,
    plus,
    squared,
    sum_of_squares,
    times,
    turned,
)

RELINEARIZATION = 0
"""Stands for the relinearization key among the steps of rotation keys."""


_ONE = np.ones((1, 1))


class Variances:
    """Sources of noise by value name, and variances as if all that meets were independent.

    Attributes:
        sources: what each operation adds.
        of: variance of the slots of each value that an output reads.
        copies: how often the longest period fits the slots.
        handed: of each value that goes up under a mask, the root mean square of all of its noise
            over whole slots (real and imaginary parts), message units.
    """

    def __init__(self, program: Program, parameters: Parameters, seen: SlotSamples) -> None:
        """Walk the program once.

        Raises:
            ProgramError: a value lacks its level, scale or bound.
        """
        self.sources: dict[str, Source] = {}
        self.of: dict[str, Spread] = {}
        self.handed: dict[str, float] = {}
        self._slots: dict[str, Array] = {}
        self._program = program
        self._parameters = parameters
        self._seen = seen
        self.copies = self._parameters.slots / seen.lanes.period
        self._repeated: dict[int, Array] = {}
        self._switched: dict[tuple[int, float], tuple[float, Array]] = {}
        self._values, self._carried = Stacks(), Stacks()
        self._rules: Mapping[type[Operation], Callable[..., tuple[Spread, Source]]] = {
            he.Input: self._fresh,
            he.Weight: self._weight,
            he.Add: self._add,
            he.Sub: self._add,
            he.AddPlain: self._add_plain,
            he.Mul: self._mul,
            he.MulPlain: self._mul_plain,
            he.SumMulPlain: self._sum_mul_plain,
            he.Negate: lambda op: (self.of[op.x.name], SILENT),
            he.DropLevel: lambda op: (self.of[op.x.name], SILENT),
            he.Rotate: self._rotate,
            he.Relinearize: self._relinearize,
            he.Rescale: self._rescale,
            he.Refresh: self._refresh,
        }
        last = {v.name: i for i, op in enumerate(program) for v in op.operands}
        # What an output reads stays, even if others read it later.
        last |= {v.name: -1 for op in program.select(he.Output) for v in op.operands}
        self._partners = partners(program)
        self._met: dict[tuple[int, str], Array] = {}
        hidden = {x.name for op in program.select(he.Refresh) if op.mask_bits for x in op.xs}
        for i, op in enumerate(program):
            if op.result is not None and isinstance(op.result.type, CipherType):
                carried, source = self._rules[type(op)](op)
                if op.result.name in hidden:
                    source = self._hidden(op.result, source)
                self.sources[op.result.name] = source
                found = self._cut(self._with(carried, source), op.result.type.period)
                self.of[op.result.name] = found
                self._slots[op.result.name] = found.slots
                if op.result.name in hidden:
                    # Variances are of real parts, and of means over the copies.
                    real = self.copies * float(found.total().mean(axis=-1).max())
                    self.handed[op.result.name] = float(np.sqrt(2.0 * real))
            for value in op.operands if op.result is not None else ():
                if last[value.name] == i:
                    self.of.pop(value.name, None)
                    self._slots.pop(value.name, None)

    def repeated(self, level: int) -> Array:
        """Variance, at a scale of 1, of what key switches with one key repeat: (1, width)."""
        if level not in self._repeated:
            _, slots = noise.key_switch_parts(self._parameters, level, 1.0)
            folded = slots.reshape(-1, self._seen.lanes.period).sum(axis=0) / self.copies**2
            self._repeated[level] = self._seen.lanes.cut(folded)[None]
        return self._repeated[level]

    def _switch_noise(self, level: int, scale: float) -> tuple[float, Array]:
        """Variance of what a key switch draws anew, of the mean over the copies; what repeats."""
        if (level, scale) not in self._switched:
            changing, _ = noise.key_switch_parts(self._parameters, level, scale)
            repeated = single(self.repeated(level) / scale**2)
            self._switched[level, scale] = self._own(changing), repeated
        return self._switched[level, scale]

    def _with(self, carried: Spread, source: Source) -> Spread:
        if source is SILENT:
            return carried
        slots, even = carried.slots, carried.even + source.even
        more = [] if source.own is None else [source.own]
        if source.known is not None:
            more.append(source.known**2)
        if source.rounding is not None:
            more.append(source.rounding.variance * source.rounding.squares)
        if source.key is not None:
            more.append(self._switch_noise(source.key[1], source.scale)[1])
        for array in more:
            if array.size == 1:
                even += float(array[0, 0])
            else:
                slots = plus(slots, array)
        return Spread(slots, even)

    def _cut(self, variance: Spread, period: int) -> Spread:
        """Over a period that may be shorter than the operands' (the result of a fold)."""
        width, slots = self._seen.lanes.width_of(period), variance.slots
        if slots.shape[1] <= width:
            return variance
        return Spread(slots.reshape(len(slots), -1, width).mean(axis=1), variance.even)

    def _own(self, variance: float) -> float:
        return variance / self.copies

    def _value(self, value: Value) -> Array:
        return self._seen.values[value.name]

    def _square(self, value: Value) -> Array:
        return self._seen.memo(squared, self._value(value))

    def _rounding(self, scale: float, period: int, *factors: Array) -> Rounding:
        variance = noise.encoding(self._parameters, scale, period)
        squares = self._seen.memo(sum_of_squares, *factors) if factors else _ONE
        return Rounding(variance, self._seen.lanes.width_of(period), factors, squares)

    def _fresh(self, op: he.Input | he.Weight) -> tuple[Spread, Source]:
        scale = scale_of(op.defined)
        own = self._own(noise.encryption(self._parameters, scale, level_of(op.defined)))
        return Spread(NOTHING), Source(own, rounding=self._rounding(scale, op.period))

    def _weight(self, op: he.Weight) -> tuple[Spread, Source]:
        carried, fresh = self._fresh(op)
        known, rounding = self._encoded(self._value(op.defined), op.defined)
        return carried, Source(fresh.even, known=known, rounding=rounding)

    def _encoded(
        self, array: Array, value: Value, factor: Array | None = None, refused: bool = False
    ) -> tuple[Array | None, Rounding | None]:
        """Known error or rounding of one encoded vector (1, period); `refused` if not as zero."""
        scale, period = scale_of(value), array.shape[1]
        if isinstance(value.type, CipherType | PlainType):
            period = value.type.period
        if array.size == 1 or self._seen.memo(_uniform, array)[0]:
            number = float(array[0, 0])
            error = float(noise.rounding_error(number, scale))
            if refused and number + error == 0.0:
                error += 1.0 / scale
            if error == 0.0:
                return None, None
            return (np.full((1, 1), error) if factor is None else error * factor), None
        factors = () if factor is None else (factor,)
        return None, self._rounding(scale, period, *factors)

    def _add(self, op: he.Binary) -> tuple[Spread, Source]:
        x, y = self.of[op.x.name], self.of[op.y.name]
        if op.x.name == op.y.name:
            return Spread(4 * x.slots, 4 * x.even), SILENT
        slots = x.slots if y.slots is NOTHING else plus(x.slots, y.slots)
        return Spread(y.slots if x.slots is NOTHING else slots, x.even + y.even), SILENT

    def _add_plain(self, op: he.AddPlain) -> tuple[Spread, Source]:
        known, rounding = self._encoded(self._value(op.p), op.p)
        return self.of[op.x.name], Source(known=known, rounding=rounding)

    def _mul(self, op: he.Mul) -> tuple[Spread, Source]:
        """What is of second order is a source: it is uncorrelated with what is of first."""
        x, y = self.of[op.x.name].total(), self.of[op.y.name].total()
        if op.x.name == op.y.name:
            carried, own = times(x, self._square(op.x)), times(x, x)
            carried *= 4
            own *= 2 * self.copies
            return Spread(carried), Source(own=own)
        carried, own = times(y, self._square(op.x)), times(x, y)
        own *= self.copies
        return Spread(plus(carried, times(x, self._square(op.y)))), Source(own=own)

    def _mul_plain(self, op: he.MulPlain) -> tuple[Spread, Source]:
        x, squares = self.of[op.x.name], self._square(op.p)
        known, rounding = self._encoded(self._value(op.p), op.p, self._value(op.x), refused=True)
        source = Source(known=known, rounding=rounding)
        if squares.size == 1:
            square = float(squares[0, 0])
            return Spread(square * x.slots, square * x.even), source
        return Spread(times(x.total(), squares)), source

    def _sum_mul_plain(self, op: he.SumMulPlain) -> tuple[Spread, Source]:
        memo, weights = self._seen.memo, self._program.array(op.weights)
        scale = scale_of(op.defined) / scale_of(op.xs[0])
        uniform = memo(_uniform, weights)
        errors = np.where(uniform, noise.rounding_error(weights[:, 0], scale), 0.0)
        if uniform.all() and not np.round(weights[:, 0] * scale).any():
            # SEAL refuses a product with zero: the first operand then counts 1 / scale times.
            errors[0] += 1.0 / scale
        known = None
        if errors.any():
            known = self._values.weighted_sum(op.xs, self._seen.values, errors[:, None])
        rounded = [self._value(x) for x, alike in zip(op.xs, uniform, strict=True) if not alike]
        rounding = self._rounding(scale, op.period, *rounded) if rounded else None
        squares = memo(squared, self._seen.weights(op))
        even = np.array([self.of[x.name].even for x in op.xs]) @ squares
        carried = self._carried.weighted_sum(op.xs, self._slots, squares)
        return Spread(plus(carried, even[None])), Source(known=known, rounding=rounding)

    def _rotate(self, op: he.Rotate) -> tuple[Spread, Source]:
        x = self.of[op.x.name]
        slots = repeat_to(x.slots, self._seen.lanes.width_of(he.cipher_type(op.x).period))
        if x.slots.size > 1:
            slots = turned(slots, -self._seen.lanes.steps(op))
        return Spread(slots, x.even), self._switch(op.defined, op.steps)

    def _relinearize(self, op: he.Relinearize) -> tuple[Spread, Source]:
        return self.of[op.x.name], self._switch(op.defined, RELINEARIZATION)

    def _switch(self, result: Value, steps: int) -> Source:
        level, scale = level_of(result), scale_of(result)
        changing, _ = self._switch_noise(level, scale)
        return Source(changing, key=(steps, level), scale=scale)

    def _rescale(self, op: he.Rescale) -> tuple[Spread, Source]:
        polynomials = he.cipher_type(op.x).polynomials
        own = noise.rescale(self._parameters, scale_of(op.defined), polynomials)
        return self.of[op.x.name], Source(self._own(own))

    def _hidden(self, value: Value, source: Source) -> Source:
        """What is handed over is added to an encryption of zero, as noisy as a rescale.

        It is laid on the value itself, so that all who read it are taken to see it.
        """
        added = self._own(noise.rescale(self._parameters, scale_of(value), 2))
        return replace(source, even=source.even + added)

    def _refresh(self, op: he.Refresh) -> tuple[Spread, Source]:
        """What the key holder makes of the value and what the evaluator makes of its mask alone.

        Masks are integers and what is gathered of them is exact, but the two results are rounded
        to integers one by one.
        """
        scale, period = scale_of(op.defined), he.cipher_type(op.defined).period
        own = noise.symmetric_encryption(self._parameters, scale)
        width = self._seen.lanes.width_of(period)
        rounding = Rounding(2 * noise.encoding(self._parameters, scale, period), width, (), _ONE)
        self._meet_partners(op)
        found = {x.name: self.of[x.name].total() for x in op.xs}
        for x in op.xs:
            if (op.group, x.name) in self._met:
                found[x.name] = plus(found[x.name], self._met[op.group, x.name])
        carried = self._seen.gathered(op, found)
        return Spread(carried), Source(self._own(own), rounding=rounding)

    def _meet_partners(self, op: he.Refresh) -> None:
        """Noise that values take up from those they travel with, once for each round.

        The imaginary part of the one's noise is as large as its real part, and is added to the
        other. It is laid on the value itself, as what hides it is.
        """
        names = [key for key in self._partners if key[0] == op.group and key not in self._met]
        for key in names:
            other = self._partners[key]
            value = self._partners[op.group, other.name]
            factor = (scale_of(other) / scale_of(value)) ** 2
            width = self._seen.lanes.width_of(he.cipher_type(value).period)
            spread = Spread(self.of[other.name].total() * factor)
            cut = self._cut(spread, he.cipher_type(value).period).slots
            # What hides the pair is one ciphertext, and was counted with the value already.
            hiding = self._own(noise.rescale(self._parameters, scale_of(value), 2))
            self._met[key] = repeat_to(np.maximum(cut - hiding * (op.mask_bits > 0), 0.0), width)
        for key in names:
            source, extra = self.sources[key[1]], self._met[key]
            own = extra if source.own is None else plus(source.own, extra)
            self.sources[key[1]] = replace(source, own=own)


def _uniform(rows: Array) -> Array:
    """Whether each row (n, period) holds one number only: 1 or 0, (n,)."""
    return np.asarray(np.all(rows == rows[:, :1], axis=1), dtype=np.float64)


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
