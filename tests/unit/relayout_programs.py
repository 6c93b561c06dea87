"""Random ciphertext programs with refreshes that put slots in another order."""

from __future__ import annotations

import numpy as np

from hecompile.ir import he_ops as he
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import Layout
from hecompile.numeric.parameters import Parameters
from hecompile.passbase import Context
from hecompile.pipeline import parse_pipeline

SAMPLES = 40
MASK_BITS = 10

PARAMETERS = Parameters(8192, (44, *[28] * 4, 54), 28)


class RelayoutProgram:
    """Segments of random maps and products, with refreshes of random gathers between them."""

    def __init__(self, seed: int, period: int, batch: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.batch = batch
        self.build = Builder(name=f"relayout{seed}", batch=batch)
        self.count = period // batch
        self.x = self.build.emit(
            he.Input(
                label="x",
                dims=(1, self.count),
                period=period,
                first=0,
                count=self.count,
                stride=batch,
            ),
            "x",
        )

    def rotate(self, x: Value, places: int) -> Value:
        return self.build.emit(he.Rotate(x=x, steps=places * self.batch)) if places else x

    def map(self, x: Value) -> Value:
        """A linear map of a few diagonals."""
        period = he.cipher_type(x).period
        places = period // self.batch
        steps = self.rng.choice(places, size=min(places, 5), replace=False)
        terms = tuple(self.rotate(x, int(s)) for s in steps)
        shape = (len(terms), 1 if self.batch > 1 else period)
        weights = self.rng.normal(size=shape) / np.sqrt(len(terms))
        symbol = self.build.constant(weights)
        return self.build.emit(he.SumMulPlain(xs=terms, weights=symbol, period=shape[1]))

    def fold(self, x: Value) -> Value:
        """The mean of all that lies a quarter of the period apart: copies meet again."""
        places = he.cipher_type(x).period // self.batch
        if places < 4:
            return x
        for step in (places // 2, places // 4):
            x = self.build.emit(he.Add(x=x, y=self.rotate(x, step)))
        quarter = self.build.constant(np.full((1, 1), 0.25))
        return self.build.emit(he.SumMulPlain(xs=(x,), weights=quarter, period=1))

    def segment(self, x: Value) -> list[Value]:
        """Two or three values that are made of one, at most two levels lower."""
        y = self.map(x)
        made = [y, self.build.emit(he.Mul(x=y, y=y)), self.fold(y)]
        return made[: self.rng.integers(2, 4)]

    def refresh(self, xs: list[Value], period: int, group: int) -> Value:
        """Random slots of the values in random order, some of them zero."""
        places = period // self.batch
        source = self.rng.integers(0, len(xs), places)
        held = np.array([he.cipher_type(x).period // self.batch for x in xs])[source]
        place = self.rng.integers(0, 1 << 30, places) % held
        if self.rng.random() < 0.5:
            # Copies of the first few places side by side.
            source, place = np.sort(source), np.arange(places) // 4 % held
        source = np.where(self.rng.random(places) < 0.1, -1, source)
        lanes = np.arange(self.batch)
        slots = np.where(source >= 0, place, 0)[:, None] * self.batch + lanes
        table = np.stack([np.repeat(source, self.batch), slots.ravel()])
        gather = self.build.constant(table.astype(float))
        op = he.Refresh(
            xs=tuple(xs), period=period, gather=gather, mask_bits=MASK_BITS, group=group
        )
        return self.build.emit(op)

    def finish(self, samples: dict[str, np.ndarray], rounds: int) -> Program:
        """Segments with refreshes between them, planned."""
        value = self.x
        for group in range(rounds):
            values = self.segment(value)
            longest = max(he.cipher_type(v).period for v in values)
            period = int(longest * 2.0 ** self.rng.integers(-2, 3))
            period = min(max(period, 4 * self.batch), PARAMETERS.slots)
            value = self.refresh(values, period, group)
            value = self.fold(value) if self.rng.random() < 0.5 else value
        value = self.segment(value)[1]
        count = he.cipher_type(value).period // self.batch
        value = self.build.annotate(value, layout=Layout(0, count, self.batch))
        self.build.keep(he.Output(xs=(value,), label="y", dims=(1, count)))
        plain = self.build.finish(parameters=PARAMETERS)
        plan = parse_pipeline("cse,calibrate-slots,insert-management,assign-scales,cse,dce")
        return plan.run(plain, Context(samples))


def relayout_program(
    seed: int, period: int = 64, batch: int = 1, rounds: int = 2
) -> tuple[Program, dict[str, np.ndarray]]:
    """A managed program and the samples it was calibrated on."""
    grown = RelayoutProgram(seed, period, batch)
    draw = np.random.default_rng(seed + 1000)
    sizes = draw.uniform(0.3, 1.0, size=(SAMPLES, 1, 1))
    samples = {"x": sizes * draw.normal(size=(SAMPLES, 1, grown.count))}
    return grown.finish(samples, rounds), samples
