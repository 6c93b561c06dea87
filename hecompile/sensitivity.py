"""How strongly chosen slots of an output answer to each source of noise in a program.

The derivative of an output slot by every value is found by reverse differentiation of the slot
program on real samples (Griewank and Walther, Evaluating Derivatives, chapter 3). Squared and
weighed with the variances of the sources it gives the output's variance to first order, with all
correlations: of the powers of one value, of copies that were folded together, of results of one
rotation key. Errors that are known keep their sign.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hecompile.interpret.lanes import SlotSamples
from hecompile.interpret.slots import repeat_to
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.variances import Rounding, Source, Variances, plus, times

_BLOCK_ELEMENTS = 1 << 18


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
        for row, (value, place) in enumerate(zip(values, places, strict=True)):
            width = self._seen.lanes.width_of(he.cipher_type(value).period)
            start = self._adjoint.setdefault(value.name, np.zeros((len(places), width)))
            start[row, place] = width / self._seen.lanes.width
        self._open_blocks(len(places))
        self._runs = runs
        self._keys: dict[tuple[int, int], Array] = {}
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
        for (_, level), adjoint in self._keys.items():
            self._shared = self._shared + self._sum(
                times(adjoint**2, self._variances.repeated(level))
            )
        repeats = self._seen.lanes.width // self._own.shape[1]
        own = repeats * self._own.sum(axis=1)
        variance = own + self._shared
        # Slots of one copy share a slot of the secret key, those of others do not.
        fourth = repeats * (self._own**2).sum(axis=1) / self._variances.copies
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(fourth > 0, variance**2 / fourth, np.inf)
        return Errors(self._known, variance, np.maximum(np.nan_to_num(terms, nan=1.0), 1.0))

    def _meet(self, source: Source, adjoint: Array) -> None:
        """Add what a source contributes."""
        if source.own is not None:
            self._own = plus(self._own, times(adjoint**2, self._pick(source.own)))
        if source.known is not None:
            self._known = self._known + self._sum(times(adjoint, self._pick(source.known)))
        if source.rounding is not None:
            self._shared = self._shared + self._rounded(source.rounding, adjoint)
        if source.key is not None:
            scaled = adjoint / source.scale
            known = self._keys.get(source.key)
            self._keys[source.key] = scaled if known is None else plus(known, scaled)

    def _rounded(self, rounding: Rounding, adjoint: Array) -> Array:
        if rounding.squares is not None:
            weighed = times(adjoint**2, self._pick(rounding.squares))
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
        weights = self._seen.lanes.cut(self._program.array(op.weights))
        names = tuple(x.name for x in op.xs)
        if names in self._blocks:
            width = self._seen.lanes.width
            self._blocks[names] += repeat_to(weights, width)[:, None] * repeat_to(adjoint, width)
            return
        for x, row in zip(op.xs, weights, strict=True):
            self._give(x, times(adjoint, row[None]))

    def _open_blocks(self, rows: int) -> None:
        """Collect derivatives by the operands of narrow sums in one array for equal operands."""
        size = rows * self._seen.lanes.width
        self._blocks: dict[tuple[str, ...], Array] = {}
        self._places: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for op in self._program.select(he.SumMulPlain):
            names = tuple(x.name for x in op.xs)
            if len(names) * size > _BLOCK_ELEMENTS or names in self._blocks:
                continue
            self._blocks[names] = np.zeros((len(names), rows, self._seen.lanes.width))
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
        self._give(op.x, np.roll(wide, self._seen.lanes.steps(op), axis=1))

    def _refresh(self, op: he.Refresh, adjoint: Array) -> None:
        """Derivatives by the copies of a slot add up; the key holder takes the mean of operands'.

        An operand's slot stands for its copies in the longest period, each of which has a share
        in their mean, as small as they are many.
        """
        taken = self._seen.taken(op)
        folded = self._fold(adjoint, len(taken.source))
        for x in {x.name: x for x in op.xs}.values():
            width = self._seen.lanes.width_of(he.cipher_type(x).period)
            given = np.zeros((len(adjoint), width))
            for i in (i for i, other in enumerate(op.xs) if other.name == x.name):
                here = np.flatnonzero(taken.source == i)
                _add_at(given, taken.place[here], folded[:, here])
            self._give(x, given * (width / self._seen.lanes.width))


def _add_at(total: Array, places: NDArray[np.int64], columns: Array) -> None:
    """Add columns (rows, n) to those of a total (rows, width) at places, which may repeat."""
    size = len(total) * total.shape[1]
    index = np.arange(len(total))[:, None] * total.shape[1] + places
    total += np.bincount(index.ravel(), columns.ravel(), size).reshape(total.shape)
