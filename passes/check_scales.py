"""Scales, re-derived from the primes and the operations alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, PlainType
from hecompile.ir.verifier import Offence, report
from hecompile.numeric.parameters import Parameters
from hecompile.passbase import Context, Pass, register_pass

TOLERANCE = 1e-12
"""Relative difference that floating point may leave between two scales that are equal."""


@register_pass
@dataclass(frozen=True)
class CheckScales(Pass):
    """Refuse a program with a scale that its operations and primes do not produce.

    Sums need equal scales, products multiply them, a rescale divides by the prime of its operand's
    level, everything else keeps them.

    Requires: `assign-scales`; parameters.
    Ensures: the program is unchanged.
    """

    name: ClassVar[str] = "check-scales"
    after: ClassVar[tuple[str, ...]] = ("assign-scales",)

    def run(self, program: Program, context: Context) -> Program:
        """Check every operation and report all that break a rule."""
        if program.parameters is None:
            raise PassError(f"{self.name}: run choose-parameters first")
        offences = [o for op in program for o in _check(op, program.parameters)]
        if offences:
            raise PassError(report(program, offences, "run assign-scales on the unmanaged program"))
        return program


def _scale(value: Value) -> float:
    scale = value.type.scale if isinstance(value.type, CipherType | PlainType) else None
    return scale if scale is not None else math.nan


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE)


def _check(op: Operation, parameters: Parameters) -> list[Offence]:
    if op.result is not None and not _scale(op.result) >= 1:
        return [Offence(op, f"a scale of {_scale(op.result)} holds no number", op.result)]
    if op.result is None or isinstance(op, he.Input | he.Weight | he.Encode | he.Refresh):
        return []
    scales = [_scale(v) for v in op.operands]
    first, own = scales[0], _scale(op.result)
    if isinstance(op, he.Mul | he.MulPlain):
        expected = first * scales[1]
    elif isinstance(op, he.Rescale):
        level = he.cipher_type(op.x).level or 0
        expected = first / parameters.primes[level]
    else:
        expected = first
    if isinstance(op, he.SumMulPlain):
        odd = [v for v in op.operands if not _close(_scale(v), first)]
        # The weights are encoded at the quotient of result and operand scale.
        lossy = own / first < 2
        offences = [Offence(op, f"has another scale than {op.operands[0]}", v) for v in odd]
        return offences + ([Offence(op, "leaves the weights no scale", op.result)] if lossy else [])
    if isinstance(op, he.Add | he.Sub | he.AddPlain) and not _close(first, scales[1]):
        return [Offence(op, f"scales {first!r} and {scales[1]!r} differ", op.operands[1])]
    if not _close(own, expected):
        return [Offence(op, f"scale {own!r}, where {expected!r} results", op.result)]
    return []
