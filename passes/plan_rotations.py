"""Baby-step giant-step: few rotations for sums of plaintext products with many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.packing.rotations import best_split
from hecompile.passbase import Context, Pass, register_pass

Term = tuple[Value, int, Array]
"""An operand before rotation, its rotation in slots, and its weights."""


@register_pass
@dataclass(frozen=True)
class PlanRotations(Pass):
    """Rewrite sums of plaintext products of rotated operands with fewer rotations.

    Rotation d is split into a baby step (d mod n) of the operand and a giant step (d - d mod n) of
    the partial sum, whose weights are rotated back beforehand: `sum over g of rotate(sum over b of
    rotate(w, -g) * rotate(x, b), g)` (Halevi and Shoup, CRYPTO 2014, section 5). Sums that read
    the same operands share baby steps, so that n is chosen for all of them together: the power of
    two with the fewest rotations, and among these the fewest distinct steps.

    Requires: a program of `he.*` without levels.
    Ensures: never more rotations than before; unused ones are left to `dce`.
    """

    name: ClassVar[str] = "plan-rotations"
    after: ClassVar[tuple[str, ...]] = ("lower-to-slots",)

    def run(self, program: Program, context: Context) -> Program:
        """Rewrite each family of sums that share operands."""
        sums = [_Sum.of(program, op) for op in program.select(he.SumMulPlain)]
        if not any(d for s in sums for _, d, _ in s.terms):
            return program
        steps: dict[str, int] = {}
        for family in _families(sums):
            step = _best_step(family)
            steps |= {s.operation.defined.name: step for s in family if step}
        if not steps:
            return program
        planned = {s.operation.defined.name: s for s in sums}
        build = Builder(program)
        renamed: dict[str, Value] = {}
        babies: dict[tuple[str, int], Value] = {}
        for op in program:
            name = op.result.name if op.result is not None else ""
            if name in steps:
                renamed[name] = _emit(build, planned[name], steps[name], renamed, babies)
            else:
                build.keep(op.with_operands(renamed))
        return build.finish()


@dataclass(frozen=True)
class _Sum:
    operation: he.SumMulPlain
    terms: tuple[Term, ...] = field(compare=False)

    @classmethod
    def of(cls, program: Program, op: he.SumMulPlain) -> _Sum:
        weights = program.array(op.weights)
        terms = []
        for value, row in zip(op.xs, weights, strict=True):
            source = program.definitions[value.name]
            if isinstance(source, he.Rotate):
                terms.append((source.x, source.steps, row))
            else:
                terms.append((value, 0, row))
        return cls(op, tuple(terms))

    @property
    def bases(self) -> set[str]:
        return {base.name for base, _, _ in self.terms}


def _families(sums: Iterable[_Sum]) -> list[list[_Sum]]:
    """Sums that share an operand, directly or through others."""
    families: list[tuple[set[str], list[_Sum]]] = []
    for one in sums:
        touching = [f for f in families if f[0] & one.bases]
        bases = one.bases.union(*(f[0] for f in touching))
        members = [s for f in touching for s in f[1]] + [one]
        families = [f for f in families if f not in touching] + [(bases, members)]
    return [members for _, members in families]


def _best_step(family: list[_Sum]) -> int:
    """The baby-step bound with the fewest rotations, or 0 if plain rotations are as few."""
    longest = max(s.operation.period for s in family)
    number = {name: i for i, name in enumerate(sorted(set().union(*(s.bases for s in family))))}
    sums = [np.array([(number[b.name], d) for b, d, _ in s.terms]) for s in family]
    return best_split(sums, longest).step


def _emit(
    build: Builder,
    one: _Sum,
    step: int,
    renamed: dict[str, Value],
    babies: dict[tuple[str, int], Value],
) -> Value:
    groups: dict[int, list[tuple[Value, Array]]] = {}
    period = one.operation.period
    for base, rotation, row in one.terms:
        source = renamed.get(base.name, base)
        small = rotation % step
        key = (source.name, small)
        if small and key not in babies:
            babies[key] = build.emit(he.Rotate(x=source, steps=small))
        giant = rotation - small
        operand = babies[key] if small else source
        groups.setdefault(giant, []).append((operand, np.roll(row, giant % period)))
    total: Value | None = None
    for giant, members in sorted(groups.items()):
        weights = build.constant(np.stack([row for _, row in members]), "diagonals")
        xs = tuple(value for value, _ in members)
        location = one.operation.location
        value = build.emit(he.SumMulPlain(xs=xs, weights=weights, period=period, location=location))
        if giant:
            value = build.emit(he.Rotate(x=value, steps=giant))
        total = value if total is None else build.emit(he.Add(x=total, y=value))
    if total is None or one.operation.result is None:
        return one.operation.defined
    return (
        total
        if total.type == one.operation.result.type
        else build.annotate(total, **{"layout": he.cipher_type(one.operation.result).layout})
    )
