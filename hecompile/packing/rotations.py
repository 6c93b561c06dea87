"""Baby steps and giant steps: how to split rotations so that there are few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hecompile.packing.places import Indices, distinct


@dataclass(frozen=True)
class Split:
    """A split of rotations d into baby steps d mod `step` and giant steps d - d mod `step`.

    Attributes:
        step: a power of two; 0 where plain rotations are as few.
        rotations: key switches that remain.
        distinct: distinct steps among them, a Galois key each.
    """

    step: int
    rotations: int
    distinct: int


def best_split(sums: Sequence[Indices], longest: int) -> Split:
    """The split with the fewest rotations, and among these the fewest distinct steps.

    Args:
        sums: for each sum of products its (operand, rotation) pairs, (pairs, 2); baby steps are
            shared by all sums, giant steps belong to one.
        longest: largest period; every rotation is smaller.
    """
    operand, rotation = np.concatenate(sums).T
    owner = np.repeat(np.arange(len(sums)), [len(s) for s in sums])
    turned = operand[rotation > 0] * longest + rotation[rotation > 0]
    best = Split(0, len(distinct(turned)), len(distinct(rotation[rotation > 0])))
    if best.rotations < 2:
        return best
    for k in range(1, longest.bit_length()):
        step = 1 << k
        small = rotation % step
        large = rotation - small
        babies = distinct((operand * longest + small)[small > 0])
        giants = distinct((owner * longest + large)[large > 0])
        steps = distinct(np.concatenate([babies, giants]) % longest)
        found = Split(step, len(babies) + len(giants), len(steps))
        if (found.rotations, found.distinct) < (best.rotations, best.distinct):
            best = found
    return best
