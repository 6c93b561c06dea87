"""Programs of one round of refreshes that put slots in another order, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.gathers import Indices
from hecompile.ir.operation import Value
from hecompile.ir.program import Program
from hecompile.ir.types import Layout
from hecompile.numeric.parameters import Parameters
from tests.encrypted.runtime_programs import Writer

DEEP = Parameters(8192, (50, 40, 30, 30, 60), 30)
SHALLOW = Parameters(4096, (26, 20, 20, 20, 20), 20)


def round_program(
    periods: Sequence[int],
    gathers: Sequence[Indices],
    parameters: Parameters = DEEP,
    mask_bits: int = 40,
    batch: int = 1,
    bound: float = 1.0,
    scales: Sequence[float] = (),
) -> Program:
    """Inputs x0, x1, ... of these periods go up at level 1, results y0, y1, ... come at the top.

    Each gather, shape (2, period), is about all inputs; results are outputs with all their slots.
    Inputs' scales are the level's times `scales`, where given.
    """
    write = Writer(parameters, "round", batch)
    every = [*scales, *[1.0] * len(periods)]
    xs = tuple(
        bounded_input(write, n, period, bound, batch, every[n]) for n, period in enumerate(periods)
    )
    fresh = []
    for table in gathers:
        symbol = write.builder.constant(table.astype(np.float64), "gather")
        period = table.shape[1]
        op = he.Refresh(xs=xs, period=period, gather=symbol, mask_bits=mask_bits, group=3)
        top = parameters.levels
        layout = Layout(0, period // batch, batch)
        fresh.append(write.emit(op, top, parameters.scale(top), layout=layout))
    for number, y in enumerate(fresh):
        write.output([y], f"y{number}", gathers[number].shape[1] // batch)
    return write.finish()


def twice_program(mask_bits: int = 40) -> Program:
    """y0 and y1 are the one input, refreshed in one round each."""
    write = Writer(DEEP, "twice")
    x = bounded_input(write, 0, 4, 1.0, 1)
    top, layout = DEEP.levels, Layout(0, 4)
    for group in range(2):
        op = he.Refresh(xs=(x,), mask_bits=mask_bits, group=group)
        y = write.emit(op, top, DEEP.scale(top), layout=layout)
        write.output([y], f"y{group}", 4)
    return write.finish()


def bounded_input(
    write: Writer, number: int, period: int, bound: float, stride: int, scale: float = 1.0
) -> Value:
    """Input x0, x1, ... with all its slots at level 1."""
    count = period // stride
    op = he.Input(
        label=f"x{number}", dims=(1, count), period=period, first=0, count=count, stride=stride
    )
    return write.emit(op, 1, scale * write.parameters.scale(1), bound=bound)


def random_gather(
    rng: np.random.Generator, periods: Sequence[int], period: int, lanes: int = 1
) -> Indices:
    """Slots from anywhere, some zero, moved by whole lanes."""
    places = period // lanes
    source = rng.integers(-1, len(periods), places)
    sizes = np.array([*periods, 0])[source] // lanes
    place = np.where(source < 0, 0, rng.integers(0, 1 << 30, places) % np.maximum(sizes, 1))
    wide = np.repeat(place * lanes, lanes) + np.tile(np.arange(lanes), places)
    sources = np.repeat(source, lanes)
    return np.stack([sources, np.where(sources < 0, 0, wide)])


def gathered(table: Indices, xs: Sequence[Array]) -> Array:
    """What the result's slots should be, of inputs' slots."""
    return np.array([0.0 if s < 0 else xs[s][p] for s, p in table.T])
