"""Fewer Galois keys, at the price of rotations in two or more hops."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import CompileError, PassError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.passbase import Context, Pass, register_pass

_MOST_BITS = 4
"""Logarithm of the largest radix; larger ones take too many hops to be of use."""

Hops = tuple[int, ...]
"""Steps whose rotations follow one another."""


@register_pass
@dataclass(frozen=True)
class LimitRotationKeys(Pass):
    """Replace rotations by rotations in hops until at most `keys` distinct steps remain.

    Each distinct step takes a Galois key, which is the evaluator's largest memory. The step that is
    used least is given up first, if two remaining steps add up to it. Where that does not suffice,
    steps are written in powers of two, or of 4, 8 or 16 where fewer keys are allowed, at as many
    hops as the digits of a step add up to (Halevi and Shoup, CRYPTO 2018, section 4, weigh keys
    against key switches alike).
    With `keys` = 0 steps are given up as long as two hops suffice.

    Requires: a program of `he.*` without levels.
    Ensures: at most `keys` distinct steps; the first hops of one value are shared.
    """

    name: ClassVar[str] = "limit-rotation-keys"
    after: ClassVar[tuple[str, ...]] = ("lower-to-slots", "plan-rotations")
    stage: ClassVar[str] = "slots"
    keys: int = 0

    def run(self, program: Program, context: Context) -> Program:
        """Rewrite rotations; a program with few enough steps stays.

        Raises:
            CompileError: even powers of two are more than `keys`.
        """
        if self.keys < 0:
            raise PassError(f"{self.name}: keys is 0 or more, not {self.keys}")
        used = Counter(op.steps for op in program.select(he.Rotate))
        if not used or (self.keys > 0 and len(used) <= self.keys):
            return program
        hops = _give_up(used, self.keys)
        if 0 < self.keys < _distinct(hops):
            radices = ({s: _digits(s, bits) for s in used} for bits in range(1, _MOST_BITS + 1))
            hops = next((h for h in radices if _distinct(h) <= self.keys), {})
            if not hops:
                least = _distinct({s: _digits(s, _MOST_BITS) for s in used})
                raise CompileError(
                    f"{self.name}: program '{program.name}' cannot rotate with {self.keys} Galois "
                    f"keys; it needs {least} at least"
                )
        return _rewrite(program, hops)


def _distinct(hops: dict[int, Hops]) -> int:
    return len({step for each in hops.values() for step in each})


def _digits(step: int, bits: int) -> Hops:
    """The step as a sum of powers of 2**bits."""
    places = range(0, step.bit_length(), bits)
    mask = (1 << bits) - 1
    return tuple(1 << place for place in places for _ in range(step >> place & mask))


def _give_up(used: Counter[int], keys: int) -> dict[int, Hops]:
    """Give up steps, the least used first, that are the sum of two that are kept."""
    kept = set(used)
    needed: set[int] = set()
    hops: dict[int, Hops] = {step: (step,) for step in used}
    for step, _ in sorted(used.items(), key=lambda entry: (entry[1], -entry[0])):
        if step in needed or 0 < keys >= len(kept):
            continue
        pairs = [(a, step - a) for a in sorted(kept) if a < step - a + 1 and step - a in kept]
        if pairs:
            pair = max(pairs, key=lambda two: sum(used[part] for part in two))
            hops[step] = pair
            needed |= set(pair)
            kept.remove(step)
    return hops


def _rewrite(program: Program, hops: dict[int, Hops]) -> Program:
    build = Builder(program)
    turned: dict[tuple[str, int], Value] = {}
    for op in program:
        if not isinstance(op, he.Rotate):
            build.keep(op)
            continue
        *first, last = hops[op.steps]
        value = op.x
        for step in first:
            key = (value.name, step)
            if key not in turned:
                turned[key] = build.emit(he.Rotate(x=value, steps=step))
            value = turned[key]
        build.keep(he.Rotate(x=value, steps=last, result=op.result, location=op.location))
    return build.finish()
