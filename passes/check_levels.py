"""Levels, re-derived from the operations alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, PlainType
from hecompile.ir.verifier import Offence, report
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class CheckLevels(Pass):
    """Refuse a program whose levels, number of polynomials or refresh groups do not hold.

    Every operand is at the level of its operation; a rescale takes one level, a drop what it says;
    no level is negative or above the parameters'; products are relinearized before they are
    rotated, multiplied by ciphertexts, refreshed or returned; refreshes of one group stand
    together. Levels are counted in primes, whatever virtual levels these stand for.

    Requires: `assign-scales`.
    Ensures: the program is unchanged.
    """

    name: ClassVar[str] = "check-levels"
    after: ClassVar[tuple[str, ...]] = ("assign-scales",)

    def run(self, program: Program, context: Context) -> Program:
        """Check every operation and report all that break a rule."""
        offences = [o for op in program for o in _check(program, op)] + _check_groups(program)
        if offences:
            raise PassError(report(program, offences, "run assign-scales on the unmanaged program"))
        return program


def level_of(value: Value) -> int | None:
    """The level that a value's type declares."""
    return value.type.level if isinstance(value.type, CipherType | PlainType) else None


def _expected(op: Operation) -> int | None:
    """Operand level that the result's level asks for; None where any will do."""
    if op.result is None or isinstance(op, he.Input | he.Weight | he.Encode | he.Refresh):
        return None
    own = level_of(op.result) or 0
    if isinstance(op, he.Rescale):
        return own + 1
    return own + op.levels if isinstance(op, he.DropLevel) else own


def _check(program: Program, op: Operation) -> list[Offence]:
    offences = []
    if op.result is not None:
        own = level_of(op.result)
        most = program.parameters.levels if program.parameters is not None else 0
        if own is None or not 0 <= own <= most:
            offences.append(Offence(op, f"level {own} is not in 0..{most}", op.result))
    expected = _expected(op)
    for value in op.operands:
        level = level_of(value)
        if level is None or (expected is not None and level != expected):
            offences.append(Offence(op, f"is at level {level}, not {expected}", value))
    if isinstance(op, he.Sub) and op.x.name == op.y.name:
        offences.append(Offence(op, "minus itself hides nothing, and SEAL refuses it", op.x))
    if isinstance(op, he.Mul | he.Rotate | he.Refresh | he.Output):
        triples = (
            v for v in op.operands if isinstance(v.type, CipherType) and v.type.polynomials != 2
        )
        offences += [Offence(op, "must be relinearized first", v) for v in triples]
    return offences


def _check_groups(program: Program) -> list[Offence]:
    offences, closed = [], set()
    current: int | None = None
    for op in program:
        group = op.group if isinstance(op, he.Refresh) else None
        if group != current and current is not None:
            closed.add(current)
        if group is not None and group in closed:
            offences.append(Offence(op, f"group {group} was closed before"))
        current = group
    return offences
