"""Runs operations once on random ciphertexts, so that the first evaluation is as quick as others.

SEAL builds a permutation for each rotation and level at its first use, and its memory pool grows
with every ciphertext that it has not held before.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from typing import Any, Final

import numpy as np

from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.types import CipherType
from hecompile.runtime.admission import facts
from hecompile.runtime.context import Context
from hecompile.runtime.rawmemory import Residues
from hecompile.runtime.residues import load_residues
from hecompile.runtime.steps import Step

MOST_SECONDS: Final = 0.5
"""Operations that are left then are at their first use in the first evaluation."""

_MOST_OPERANDS: Final = 32


def rehearse(steps: Iterable[Step], context: Context) -> int:
    """Run one operation of each kind, level and rotation; results are thrown away at the end.

    Args:
        steps: Bound operations.
        context: Their context.

    Returns:
        How many ran.
    """
    ends = time.monotonic() + MOST_SECONDS
    residues: dict[tuple[int, int, int], Residues] = {}
    seen: set[Hashable] = set()
    # Held to the end, so that the pool grows to about what an evaluation needs.
    results: list[Any] = []
    for step in steps:
        operands = {x.name: x for x in step.op.operands if isinstance(x.type, CipherType)}
        kind = _kind(step.op, operands.values())
        if kind in seen or not 0 < len(operands) <= _MOST_OPERANDS:
            continue
        if time.monotonic() > ends:
            break
        seen.add(kind)
        live = {
            name: _random(context, x, number, residues)
            for number, (name, x) in enumerate(operands.items())
        }
        results.append(step.kernel(live))
    return len(results)


def _kind(op: Operation, operands: Iterable[Value]) -> Hashable:
    shapes = {(facts(x).level, he.cipher_type(x).polynomials) for x in operands}
    return (op.name, op.steps if isinstance(op, he.Rotate) else 0, frozenset(shapes))


def _random(
    context: Context, value: Value, number: int, residues: dict[tuple[int, int, int], Residues]
) -> Any:
    """A ciphertext of a value's shape; the difference of two operands hides something."""
    known = facts(value)
    polynomials = he.cipher_type(value).polynomials
    key = (known.level, polynomials, number % 2)
    if key not in residues:
        parameters = context.parameters
        primes = np.array(parameters.data_primes[: known.level + 1], dtype=np.uint64)
        shape = (polynomials, len(primes), parameters.poly_modulus_degree)
        random = np.random.default_rng(key)
        residues[key] = random.integers(0, primes[:, None], size=shape, dtype=np.uint64)
    return load_residues(context, residues[key], known.level, known.scale)
