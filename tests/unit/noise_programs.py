"""Random ciphertext programs with what makes noise hard to predict: powers, folds, shared keys."""

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

PARAMETER_SETS = {
    "large special prime": Parameters(8192, (42, *[26] * 4, 52), 26),
    "equal special prime": Parameters(8192, (42, *[26] * 4, 42), 26),
    "larger ring": Parameters(16384, (52, *[34] * 4, 58), 34),
}


class RandomProgram:
    """Grows a program by whole steps; values stay near 1."""

    def __init__(self, seed: int, period: int, batch: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.period, self.batch = period, batch
        self.build = Builder(name=f"random{seed}", batch=batch)
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

    def plain(self) -> Value:
        uniform = self.batch > 1 or self.rng.random() < 0.3
        values = self.rng.normal(size=1 if uniform else self.period)
        return self.build.emit(he.Encode(value=self.build.constant(values), period=len(values)))

    def map(self, x: Value) -> Value:
        """A linear map of a few diagonals."""
        places = self.period // self.batch
        steps = self.rng.choice(places, size=min(places, 6), replace=False)
        terms = [
            self.build.emit(he.Rotate(x=x, steps=int(s) * self.batch)) if s else x for s in steps
        ]
        uniform = self.batch > 1 or self.rng.random() < 0.3
        shape = (len(terms), 1 if uniform else self.period)
        weights = self.build.constant(self.rng.normal(size=shape) / np.sqrt(2 * len(terms)))
        return self.build.emit(he.SumMulPlain(xs=tuple(terms), weights=weights, period=shape[1]))

    def fold(self, x: Value) -> Value:
        """Sums of halves; the weights before make them of size 1 again."""
        for half in (self.period // 2, self.period // 4):
            turned = self.build.emit(he.Rotate(x=x, steps=half))
            x = self.build.emit(he.Add(x=x, y=turned))
        return x

    def square(self, x: Value) -> Value:
        return self.build.emit(he.Mul(x=x, y=x))

    def cube(self, x: Value) -> Value:
        return self.build.emit(he.Mul(x=self.square(x), y=x))

    def cancel(self, x: Value) -> Value:
        """x * x - x * turned x."""
        turned = self.build.emit(he.Rotate(x=x, steps=self.period // 2))
        return self.build.emit(he.Sub(x=self.square(x), y=self.build.emit(he.Mul(x=x, y=turned))))

    def finish(self, parameters: Parameters, samples: dict[str, np.ndarray]) -> Program:
        """Some steps of at most four levels in all, planned with these parameters."""
        value, left = self.x, 4
        steps = [(self.square, 1), (self.cube, 2), (self.cancel, 1)]
        while left >= 2:
            value = self.map(value)
            step, depth = steps[self.rng.integers(3)]
            left -= 1
            if depth <= left:
                value, left = step(value), left - depth
            if self.rng.random() < 0.5:
                value = self.build.emit(he.AddPlain(x=value, p=self.plain()))
            if self.rng.random() < 0.4 and self.count >= 4:
                value = self.fold(value)
        value = self.build.annotate(value, layout=Layout(0, self.count, self.batch))
        self.build.keep(he.Output(xs=(value,), label="y", dims=(1, self.count)))
        plain = self.build.finish(parameters=parameters)
        plan = parse_pipeline("cse,calibrate-slots,insert-management,assign-scales,cse,dce")
        return plan.run(plain, Context(samples))


def random_program(
    seed: int, parameters: Parameters, period: int = 256, batch: int = 1
) -> tuple[Program, dict[str, np.ndarray]]:
    """A managed program and the samples it was calibrated on."""
    grown = RandomProgram(seed, period, batch)
    draw = np.random.default_rng(seed + 1000)
    sizes = draw.uniform(0.3, 1.0, size=(SAMPLES, 1, 1))
    samples = {"x": sizes * draw.normal(size=(SAMPLES, 1, grown.count))}
    return grown.finish(parameters, samples), samples
