"""What tracing a program on samples found: how large slots become, and runs to look at closely."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, PlainType

KEPT_RUNS: Final = 16
"""Runs kept to be looked at closely: the largest, and some spread over the others."""

_KEPT_ELEMENTS = 1 << 24


class Memo:
    """Results that follow from arrays alone, for who asks again about the same arrays.

    Programs planned from one share their values and constants, and differ in levels and scales.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._kept: dict[tuple[object, ...], tuple[tuple[Array, ...], Array]] = {}
        self._size = 0

    def __call__(self, function: Callable[..., Array], *arrays: Array, name: str = "") -> Array:
        """What a function, told apart by its name if it has one, gives for these arrays.

        Nobody may change the arrays, nor what comes back.
        """
        key = (name or function, *map(id, arrays))
        if key not in self._kept:
            result = function(*arrays)
            self._size += result.size
            if self._size > _KEPT_ELEMENTS:
                self._kept, self._size = {}, result.size
            # Arrays that are kept cannot leave their identity to others.
            self._kept[key] = (arrays, result)
        return self._kept[key][1]


class Traced(Mapping[str, Array]):
    """Largest absolute value of each slot over all runs, (period,), by value name.

    Attributes:
        program: the program that was traced.
        runs: packed slots (up to `KEPT_RUNS`, period) of chosen runs, by the name of each input's
            result; the most telling runs come first.
        lanes: lanes chosen by their number, and
        looked: values on these runs, and
        memos: what was found from those, all kept by whoever looks closely (`interpret.lanes`).
        told: what was said last about a program, and of which (`precision`).
    """

    def __init__(
        self, program: Program, largest: Mapping[str, Array], runs: Mapping[str, Array]
    ) -> None:
        """Keep what was found."""
        self.program = program
        self.runs = dict(runs)
        self.lanes: dict[int, NDArray[np.int64]] = {}
        self.looked: dict[tuple[int, int], dict[str, Array]] = {}
        self.memos: dict[tuple[int, int], Memo] = {}
        self.told: tuple[Program, Any] | None = None
        self._largest = dict(largest)

    def __getitem__(self, name: str) -> Array:
        """The largest absolute value of each slot of a value."""
        return self._largest[name]

    def __iter__(self) -> Iterator[str]:
        """The names of the values."""
        return iter(self._largest)

    def __len__(self) -> int:
        """How many values were traced."""
        return len(self._largest)


class RunSizes:
    """Ranks runs by the mean square of the values that carry noise on: factors and outputs."""

    def __init__(self, program: Program) -> None:
        """Watch the operands of the program's products and outputs."""
        factors = {v.name for op in program.select(he.Mul) for v in op.operands}
        self._watched = factors | {v.name for op in program.select(he.Output) for v in op.xs}
        self._sizes: dict[str, list[Array]] = {}

    def see(self, name: str, array: Array) -> None:
        """Note a value (runs or 1, period) of the next runs."""
        if name in self._watched and len(array.shape) == 2:
            squares = np.einsum("rs,rs->r", array, array) / array.shape[1]
            self._sizes.setdefault(name, []).append(squares)

    def telling(self, runs: int) -> list[int]:
        """Up to `KEPT_RUNS` of the runs: two of the largest for each one of the others."""
        size = np.zeros(runs)
        for parts in self._sizes.values():
            squares = np.concatenate(parts)
            largest = squares.max(initial=0.0)
            if len(squares) == runs and 0 < largest < math.inf:
                size = np.maximum(size, squares / largest)
        order = [int(run) for run in np.argsort(-size, kind="stable")]
        if runs <= KEPT_RUNS:
            return order
        most = KEPT_RUNS - KEPT_RUNS // 3
        spread = order[most :: max(1, (runs - most) // (KEPT_RUNS - most))]
        chosen = []
        for i, run in enumerate(order[:most]):
            chosen.append(run)
            if i % 2 and spread:
                chosen.append(spread.pop())
        return chosen[:KEPT_RUNS]


def cipher_periods(program: Program) -> list[int]:
    """Periods of all ciphertexts of a program, in order."""
    types = (op.result.type for op in program if op.result is not None)
    return [t.period for t in types if isinstance(t, CipherType)]


def fingerprint(program: Program, inputs: Mapping[str, ArrayLike]) -> bytes:
    """Digest of what decides a trace: the slot program without bounds, levels and scales; inputs.

    Passes that follow each other trace the same program on the same samples.
    """
    content = hashlib.blake2b(repr(program.batch).encode(), digest_size=32)
    for op in program:
        facts = op.result.type if op.result is not None else None
        period = facts.period if isinstance(facts, CipherType | PlainType) else None
        names = (op.result.name if op.result is not None else None, *(v.name for v in op.operands))
        content.update(repr((op.name, names, period, op.attributes)).encode())
    for symbol, constant in sorted(program.constants.items()):
        content.update(f"{symbol} {constant.digest} ".encode())
    for name, given in sorted(inputs.items()):
        array = np.asarray(given, dtype=np.float64)
        content.update(f"{name} {array.shape} ".encode())
        content.update(np.ascontiguousarray(array).data)
    return content.digest()
