"""How strongly chosen slots of an output answer to each source of noise in a program.

The derivative of an output slot by every value is found by reverse differentiation of the slot
program on real samples (Griewank and Walther, Evaluating Derivatives, chapter 3). Squared and
weighed with the variances of the sources it gives the output's variance to first order, with all
correlations: of the powers of one value, of copies that were folded together, of results of one
rotation key. Errors that are known keep their sign.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hecompile.interpret.lanes import SlotSamples, single
from hecompile.interpret.slots import repeat_to
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.spreads import SILENT, Rounding, Source, plus, times, turned
from hecompile.variances import Variances

_BLOCK_ELEMENTS = 1 << 18

_PENDING = 32
"""Derivatives whose squares are kept waiting for more noise with the same ones."""


@dataclass(frozen=True)
class Errors:
    """Errors of chosen slots, one entry each.

    Attributes:
        known: sum of what is known, signs included.
        variance: of what is random.
        terms: number of independent terms of equal variance that the random part is like.
    """

    known: Array
    variance: Array
    terms: Array


class Sensitivity:
    """Backward sweeps for some slots of an output, each on one of the runs."""

    def __init__(self, program: Program, seen: SlotSamples, variances: Variances) -> None:
        """Prepare sweeps over a program."""
        self._program = program
        self._seen = seen
        self._variances = variances
        self._rules: Mapping[type[Operation], Callable[..., None]] = {
            he.Add: self._add,
            he.Sub: self._sub,
            he.AddPlain: self._pass,
            he.Mul: self._mul,
            he.MulPlain: self._mul_plain,
            he.SumMulPlain: self._sum_mul_plain,
            he.Negate: lambda op, a: self._give(op.x, -a),
            he.DropLevel: self._pass,
            he.Relinearize: self._pass,
            he.Rescale: self._pass,
            he.Rotate: self._rotate,
            he.Refresh: self._refresh,
        }

    def errors(
        self, values: list[Value], places: NDArray[np.int64], runs: NDArray[np.int64]
    ) -> Errors:
        """Errors of slots of an output's ciphertexts, each the mean of its copies.

        Args:
            values: the ciphertext of each slot.
            places: where each slot lies among the slots looked at, as many.
            runs: on which run each is asked for, as many.
        """
        self._adjoint: dict[str, Array] = {}
        lanes = self._seen.lanes
        for row, (value, place) in enumerate(zip(values, places, strict=True)):
            width = lanes.width_of(he.cipher_type(value).period)
            empty = single(np.zeros((len(places), width)))
            start = self._adjoint.setdefault(value.name, empty)
            start[row, place] = width / lanes.width
        self._open_blocks(len(places))
        self._runs = runs
        self._pending: dict[int, tuple[Array, float, float]] = {}
        self._keys: dict[tuple[int, int, float], Array] = {}
        self._known = np.zeros(len(places))
        self._shared = np.zeros(len(places))
        self._own: Array = np.zeros((len(places), 1))
        for op in reversed(self._program.operations):
            adjoint = self._take(op.result.name) if op.result is not None else None
            if op.result is None or adjoint is None:
                continue
            self._meet(self._variances.sources[op.result.name], adjoint)
            if type(op) in self._rules:
                self._rules[type(op)](op, adjoint)
        return self._result()

    def _result(self) -> Errors:
        self._settle()
        keys: dict[tuple[int, int], Array] = {}
        for (steps, level, scale), adjoint in self._keys.items():
            scaled, known = adjoint / scale, keys.get((steps, level))
            keys[steps, level] = scaled if known is None else plus(known, scaled)
        for (_, level), adjoint in keys.items():
            # Scales are large, so that single precision would lose the squares of what they divide.
            square = repeat_to(adjoint.astype(np.float64) ** 2, self._seen.lanes.width)
            self._shared += (square * self._variances.repeated(level)).sum(axis=1)
        own_slots = self._own.astype(np.float64)
        repeats = self._seen.lanes.width // own_slots.shape[1]
        own = repeats * own_slots.sum(axis=1)
        variance = own + self._shared
        # Slots of one copy share a slot of the secret key, those of others do not.
        fourth = repeats * (own_slots**2).sum(axis=1) / self._variances.copies
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(fourth > 0, variance**2 / fourth, np.inf)
        return Errors(self._known, variance, np.maximum(np.nan_to_num(terms, nan=1.0), 1.0))

    def _meet(self, source: Source, adjoint: Array) -> None:
        """Add what a source contributes."""
        if source is SILENT:
            return
        rounding = source.rounding
        plain = rounding is not None and self._is_plain(rounding)
        if source.even or (plain and rounding is not None):
            self._note(adjoint, source.even, rounding.variance if plain and rounding else 0.0)
        if rounding is not None and not plain:
            self._shared += self._rounded(rounding, adjoint)
        if source.own is not None:
            self._own = plus(self._own, times(adjoint**2, self._pick(source.own)))
        if source.known is not None:
            self._known += self._sum(times(adjoint, self._pick(source.known)))
        if source.key is not None:
            key = (*source.key, source.scale)
            known = self._keys.get(key)
            self._keys[key] = adjoint if known is None else plus(known, adjoint)

    def _is_plain(self, rounding: Rounding) -> bool:
        """Whether rounding errors are multiplied by nothing and independent in all slots."""
        return rounding.width == self._seen.lanes.width and not rounding.factors

    def _note(self, adjoint: Array, even: float, shared: float) -> None:
        """Noise alike in all slots: what rescales, relinearizes, encrypts passes adjoints on."""
        if len(self._pending) >= _PENDING:
            self._settle()
        _, before, rounded = self._pending.get(id(adjoint), (adjoint, 0.0, 0.0))
        self._pending[id(adjoint)] = adjoint, before + even, rounded + shared

    def _settle(self) -> None:
        for adjoint, even, shared in self._pending.values():
            square = np.square(adjoint)
            if shared:
                self._shared += shared * self._sum(square)
            if even:
                square *= even
                self._own = plus(self._own, square)
        self._pending.clear()

    def _rounded(self, rounding: Rounding, adjoint: Array) -> Array:
        if rounding.width == self._seen.lanes.width:
            weighed = times(np.square(adjoint), self._pick(rounding.squares))
            return rounding.variance * self._sum(weighed)
        total = np.zeros(len(adjoint))
        for factor in rounding.factors or (np.ones((1, 1)),):
            folded = self._fold(times(adjoint, self._pick(factor)), rounding.width)
            total += rounding.variance * (folded**2).sum(axis=1)
        return total

    def _fold(self, adjoint: Array, width: int) -> Array:
        """Sum of what lies `width` apart in the longest period."""
        whole = repeat_to(adjoint, max(width, adjoint.shape[1]))
        folded = whole.reshape(len(whole), -1, width).sum(axis=1)
        return np.asarray(folded * (self._seen.lanes.width / whole.shape[1]))

    def _sum(self, x: Array) -> Array:
        """Sum over the longest period."""
        return np.asarray(x.sum(axis=1) * (self._seen.lanes.width / x.shape[1]))

    def _pick(self, x: Array) -> Array:
        return x[self._runs] if len(x) > 1 else x

    def _value(self, value: Value) -> Array:
        return self._pick(self._seen.values[value.name])

    def _give(self, value: Value, adjoint: Array) -> None:
        known = self._adjoint.get(value.name)
        self._adjoint[value.name] = adjoint if known is None else plus(known, adjoint)

    def _pass(self, op: he.Unary | he.AddPlain, adjoint: Array) -> None:
        self._give(op.x, adjoint)

    def _add(self, op: he.Add, adjoint: Array) -> None:
        self._give(op.x, adjoint)
        self._give(op.y, adjoint)

    def _sub(self, op: he.Sub, adjoint: Array) -> None:
        self._give(op.x, adjoint)
        self._give(op.y, -adjoint)

    def _mul(self, op: he.Mul, adjoint: Array) -> None:
        if op.x.name == op.y.name:
            self._give(op.x, 2.0 * times(adjoint, self._value(op.x)))
            return
        self._give(op.x, times(adjoint, self._value(op.y)))
        self._give(op.y, times(adjoint, self._value(op.x)))

    def _mul_plain(self, op: he.MulPlain, adjoint: Array) -> None:
        self._give(op.x, times(adjoint, self._value(op.p)))

    def _sum_mul_plain(self, op: he.SumMulPlain, adjoint: Array) -> None:
        weights = self._seen.weights(op)
        names = tuple(x.name for x in op.xs)
        if names in self._blocks:
            width = self._seen.lanes.width
            wide = single(repeat_to(weights, width))
            self._blocks[names] += wide[:, None] * repeat_to(adjoint, width)
            return
        for x, row in zip(op.xs, weights, strict=True):
            self._give(x, times(adjoint, row[None]))

    def _open_blocks(self, rows: int) -> None:
        """Collect derivatives by the operands of narrow sums in one array for equal operands."""
        size = rows * self._seen.lanes.width
        self._blocks: dict[tuple[str, ...], Array] = {}
        self._places: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        sums = Counter(tuple(x.name for x in op.xs) for op in self._program.select(he.SumMulPlain))
        for names, count in sums.items():
            if count == 1 or len(names) * size > _BLOCK_ELEMENTS:
                continue
            shape = (len(names), rows, self._seen.lanes.width)
            self._blocks[names] = single(np.zeros(shape))
            for i, name in enumerate(names):
                self._places.setdefault(name, []).append((names, i))

    def _take(self, name: str) -> Array | None:
        """The derivative by a value, once all that reads it was met."""
        adjoint = self._adjoint.pop(name, None)
        for names, i in self._places.get(name, ()):
            block = self._blocks[names][i]
            adjoint = block if adjoint is None else plus(adjoint, block)
        return adjoint

    def _rotate(self, op: he.Rotate, adjoint: Array) -> None:
        width = self._seen.lanes.width_of(he.cipher_type(op.x).period)
        wide = repeat_to(adjoint, max(width, adjoint.shape[1]))
        self._give(op.x, turned(wide, self._seen.lanes.steps(op)))

    def _refresh(self, op: he.Refresh, adjoint: Array) -> None:
        """Derivatives by the copies of a slot add up; the key holder takes the mean of operands'.

        An operand's slot stands for its copies in the longest period, each of which has a share
        in their mean, as small as they are many.
        """
        if op.gather is None:
            (x,) = op.xs
            width = self._seen.lanes.width_of(he.cipher_type(x).period)
            self._give(x, self._fold(adjoint, width) * (width / self._seen.lanes.width))
            return
        taken = self._seen.taken(op)
        folded = self._fold(adjoint, len(taken.source))
        for x in {x.name: x for x in op.xs}.values():
            width = self._seen.lanes.width_of(he.cipher_type(x).period)
            given = np.zeros((len(adjoint), width))
            for i in (i for i, other in enumerate(op.xs) if other.name == x.name):
                here = np.flatnonzero(taken.source == i)
                _add_at(given, taken.place[here], folded[:, here])
            given *= width / self._seen.lanes.width
            self._give(x, single(given))


def _add_at(total: Array, places: NDArray[np.int64], columns: Array) -> None:
    """Add columns (rows, n) to those of a total (rows, width) at places, which may repeat."""
    size = len(total) * total.shape[1]
    index = np.arange(len(total))[:, None] * total.shape[1] + places
    total += np.bincount(index.ravel(), columns.ravel(), size).reshape(total.shape)
