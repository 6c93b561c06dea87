"""Values of a few telling samples, on as many slots as are needed to judge all.

Rotations, and the gathers of refreshes, move slots by multiples of some number, the lanes: slots
that differ modulo the lanes never meet. Where a program packs a batch, one sample to a lane, a few
lanes stand for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from hecompile.interpret.scope import Scope
from hecompile.interpret.slots import SLOT_KERNELS, SlotKernel, repeat_to, sum_of_products
from hecompile.interpret.traced import KEPT_RUNS, Memo, Traced, cipher_periods
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.gathers import Gather, gather_of
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, PlainType
from hecompile.packing.places import power_of_two

KEPT_LANES: Final = 16

_BUDGET = 1 << 24
"""Slot values to hold at once, which bounds time and memory."""

_FEWEST_RUNS = 2

_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Lanes:
    """The lanes looked at.

    Attributes:
        period: longest period of a ciphertext, slots.
        stride: number of lanes.
        chosen: ascending; at most `KEPT_LANES`, or all lanes.
    """

    period: int
    stride: int
    chosen: NDArray[np.int64]

    @property
    def width(self) -> int:
        """Slots of the chosen lanes in the longest period."""
        return self.width_of(self.period)

    def width_of(self, period: int) -> int:
        """Slots of the chosen lanes in a period; one slot stays one."""
        return 1 if period == 1 else max(period // self.stride, 1) * len(self.chosen)

    def cut(self, x: NDArray[_Number]) -> NDArray[_Number]:
        """The slots (..., period) of the chosen lanes: (..., width)."""
        period = x.shape[-1]
        if period == 1 or len(self.chosen) == self.stride == 1:
            return x
        if period < self.stride:
            return np.asarray(x[..., self.chosen % period])
        lanes = x.reshape(*x.shape[:-1], -1, self.stride)[..., self.chosen]
        return np.asarray(lanes.reshape(*x.shape[:-1], -1))

    def steps(self, op: he.Rotate) -> int:
        """Places by which a rotation moves the slots that are looked at."""
        return op.steps // self.stride * len(self.chosen)

    def places(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where those of some slots that lie in chosen lanes are after `cut`."""
        row, lane = np.divmod(slots, self.stride)
        seen = np.isin(lane, self.chosen)
        return row[seen] * len(self.chosen) + np.searchsorted(self.chosen, lane[seen])

    def gather(self, taken: Gather) -> Gather:
        """A gather that keeps to the lanes, among the slots that are looked at."""
        row, lane = np.divmod(self.cut(taken.place), self.stride)
        place = row * len(self.chosen) + np.searchsorted(self.chosen, lane)
        source = self.cut(taken.source)
        return Gather(source, np.where(source >= 0, place, 0))


@dataclass(frozen=True)
class _LaneScope(Scope):
    """Constants cut to the lanes looked at."""

    lanes: Lanes | None = None

    def constant(self, symbol: str) -> Array:
        array = self.program.array(symbol)
        return array if self.lanes is None else self.lanes.cut(array)


class SlotSamples:
    """Values of all ciphertexts of a program on a few runs and lanes.

    Attributes:
        lanes: the lanes looked at.
        values: (runs or 1, width of the value's period), by value name.
        memo: of what follows from values and constants alone.
    """

    def __init__(
        self,
        program: Program,
        lanes: Lanes,
        values: Mapping[str, Array],
        memo: Memo | None = None,
    ) -> None:
        """Compute what `values` lack: what was inserted since, or all that follows the inputs."""
        self.memo = Memo() if memo is None else memo
        self.lanes = lanes
        self.values = dict(values)
        self._program = program
        self._taken: dict[str, Gather] = {}
        self._stacks = Stacks()
        scope = _LaneScope(program, self.values, lanes=lanes)
        kernels: dict[type[Operation], SlotKernel] = {
            **SLOT_KERNELS,
            he.Rotate: self._rotate,
            he.SumMulPlain: self._sum_mul_plain,
            he.Refresh: lambda op, _: self.gathered(op, self.values),
        }
        for op in program:
            if op.result is None or op.result.name in self.values:
                continue
            if type(op) in kernels:
                array = kernels[type(op)](op, scope)
                width = self.lanes.width_of(_period(op.result))
                self.values[op.result.name] = array if array.shape[1] <= width else array[:, :width]

    @property
    def runs(self) -> int:
        """Number of runs."""
        return max((len(array) for array in self.values.values()), default=1)

    def weights(self, op: he.SumMulPlain) -> Array:
        """The weights of a sum of products, (operands, width)."""
        return self.memo(self.lanes.cut, self._program.array(op.weights), name="cut")

    def taken(self, op: he.Refresh) -> Gather:
        """What a refresh takes for each slot of its result that is looked at."""
        name = op.defined.name
        if name not in self._taken:
            self._taken[name] = self.lanes.gather(gather_of(op, self._program))
        return self._taken[name]

    def gathered(self, op: he.Refresh, of: Mapping[str, Array]) -> Array:
        """Slots (runs or 1, width) of a refresh's result, from what its operands have by name."""
        arrays = [of[x.name] for x in op.xs]
        if op.gather is None:
            return arrays[0]
        taken = self.taken(op)
        found = np.zeros((max(len(x) for x in arrays), len(taken.source)))
        for i, array in enumerate(arrays):
            here = np.flatnonzero(taken.source == i)
            found[:, here] = array[:, taken.place[here] % array.shape[1]]
        return found

    def _rotate(self, op: he.Rotate, at: Scope) -> Array:
        width = self.lanes.width_of(_period(op.defined))
        return np.roll(repeat_to(at(op.x), width), -self.lanes.steps(op), axis=-1)

    def _sum_mul_plain(self, op: he.SumMulPlain, at: Scope) -> Array:
        return self._stacks.weighted_sum(op.xs, self.values, self.weights(op))


def single(x: Array) -> Array:
    """In single precision, of which types say nothing here."""
    return cast(Array, x.astype(np.float32, copy=False))


class Stacks:
    """Operands of sums of products, stacked once for all sums of the same operands."""

    def __init__(self) -> None:
        """Start empty."""
        self._latest: dict[tuple[str, ...], Array | None] = {}

    def weighted_sum(
        self, xs: tuple[Value, ...], values: Mapping[str, Array], weights: Array
    ) -> Array:
        """Sum of the values of xs[i] (S or 1, p) times weights[i] (q,), over the longest period.

        All calls of one object must give equal values for equal names.
        """
        names = tuple(x.name for x in xs)
        if names not in self._latest:
            operands = [values[name] for name in names]
            alike = len({x.shape for x in operands}) == 1
            self._latest = {names: np.stack(operands) if alike else None}
        stacked = self._latest[names]
        if stacked is not None:
            weights = weights.astype(stacked.dtype, copy=False)
        if stacked is not None and weights.shape[1] == 1:
            return np.asarray(np.tensordot(weights[:, 0], stacked, 1))
        if stacked is not None and weights.shape[1] == stacked.shape[2]:
            return np.asarray(np.einsum("np,nsp->sp", weights, stacked))
        return sum_of_products([values[name] for name in names], weights)


def look_closely(program: Program, traced: Traced) -> SlotSamples:
    """Values of a program's ciphertexts on the runs that a trace has kept.

    Args:
        program: the traced one, or one planned from it: values of equal names mean the same.
        traced: from `interpret.slots.trace_slots`.
    """
    lanes = _lanes(program, traced)
    key = (lanes.stride, lanes.period)
    if key not in traced.looked:
        size = sum(lanes.width_of(p) for p in cipher_periods(traced.program))
        runs = min(max(_BUDGET // max(size, 1), _FEWEST_RUNS), KEPT_RUNS)
        inputs = {name: lanes.cut(x[:runs]) for name, x in traced.runs.items()}
        values = SlotSamples(traced.program, lanes, inputs).values
        # As factors of noise they need few digits; constants are also asked how they are rounded.
        traced.looked[key] = {
            name: single(x) if x.size > x.shape[1] else x for name, x in values.items()
        }
        traced.memos[key] = Memo()
    return SlotSamples(program, lanes, traced.looked[key], traced.memos[key])


def look_at_bounds(program: Program) -> SlotSamples:
    """Values that are as large as each ciphertext's declared bound in every slot."""
    period = max(cipher_periods(program), default=1)
    lanes = Lanes(period, 1, np.zeros(1, dtype=np.int64))
    bounds = {
        op.result.name: np.array([[op.result.type.bound or 0.0]])
        for op in program
        if op.result is not None and isinstance(op.result.type, CipherType)
    }
    return SlotSamples(program, lanes, bounds)


def _lanes(program: Program, traced: Traced) -> Lanes:
    periods = cipher_periods(program)
    moves = {move for each in (program, traced.program) for move in _moves(each)}
    # Only the samples of a batch are alike: places have weights of their own.
    samples = power_of_two(program.batch)
    stride = math.gcd(samples, *periods, *cipher_periods(traced.program), *moves)
    if stride not in traced.lanes:
        traced.lanes[stride] = _telling_lanes(traced, stride)
    return Lanes(max(periods, default=1), stride, traced.lanes[stride])


def _moves(program: Program) -> Iterator[int]:
    """By how many slots a program moves anything."""
    for op in program:
        if isinstance(op, he.Rotate):
            yield op.steps
        elif isinstance(op, he.Refresh) and op.gather is not None:
            taken = gather_of(op, program)
            moved = taken.place - np.arange(len(taken.place))
            yield int(np.gcd.reduce(moved[taken.source >= 0], initial=0))


def _telling_lanes(traced: Traced, stride: int) -> NDArray[np.int64]:
    """The first lanes, for key switches favour no slots but these; the largest; some others."""
    if stride <= KEPT_LANES:
        return np.arange(stride)
    shares = [np.zeros(stride)]
    for op in traced.program.select(he.Mul):
        for value in op.operands:
            largest = repeat_to(traced[value.name], stride).reshape(-1, stride)
            squares = (largest**2).mean(axis=0)
            if 0 < squares.max() < math.inf:
                shares.append(squares / squares.max())
    # A batch that is not full repeats its last sample, which counts once.
    distinct, first = np.unique(np.round(shares, 12), axis=1, return_index=True)
    # Several lanes may be the largest, each as another factor: the largest in most come first.
    order = np.lexsort((-distinct.mean(axis=0), -distinct.max(axis=0)))
    largest_first = first[order][: KEPT_LANES // 2]
    spread = np.arange(0, stride, 2 * stride // KEPT_LANES)
    chosen = np.concatenate([[0, 1], largest_first, spread])
    _, first = np.unique(chosen, return_index=True)
    return np.sort(chosen[np.sort(first)][:KEPT_LANES]).astype(np.int64)


def _period(value: Value) -> int:
    if not isinstance(value.type, CipherType | PlainType):
        return 1
    return value.type.period
