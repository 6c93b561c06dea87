"""The verifier: rules that every program keeps at every level."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from hecompile.errors import ProgramError
from hecompile.ir import he_ops, tensor_ops
from hecompile.ir.constant_rules import check_constants
from hecompile.ir.operation import Operation, Value
from hecompile.ir.printer import print_operation
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, PlainType, TensorType, Type


@dataclass(frozen=True)
class Offence:
    """An operation that breaks a rule, the offending operand or result, and the reason."""

    operation: Operation
    reason: str
    value: Value | None = None


def report(program: Program, offences: list[Offence], remedy: str = "") -> str:
    """Write offences: each operation's line, `^^^^` under the offender, the reason, a remedy."""
    lines = [f"program '{program.name}' breaks {len(offences)} rule(s):"]
    for offence in offences:
        text = print_operation(offence.operation)
        mark = str(offence.value) if offence.value is not None else offence.operation.name
        column = _column(text, offence, mark)
        lines += [f"  {text}", f"  {' ' * column}{'^' * len(mark)} {offence.reason}"]
    if remedy:
        lines.append(f"remedy: {remedy}")
    return "\n".join(lines)


def _column(text: str, offence: Offence, mark: str) -> int:
    """Where the offender stands in its line: whole names only, operands behind the operation."""
    op = offence.operation
    start = 0 if offence.value == op.result else text.find(op.name)
    found = re.compile(re.escape(mark) + r"(?![\w.])").search(text, max(start, 0))
    return found.start() if found else 0


def verify(program: Program) -> None:
    """Check SSA form, one dialect, labels, constants, and declared types against the operands.

    Raises:
        ProgramError: with every offending operation.
    """
    offences: list[Offence] = []
    seen: dict[str, Type] = {}
    for op in program:
        offences += _check_names(program, op, seen)
        offences += _check_type(op) or _check_constants(program, op)
        if op.result is not None:
            seen[op.result.name] = op.result.type
    offences += _check_labels(program)
    if program.batch < 1:
        raise ProgramError(f"program '{program.name}': the batch is 1 or more, not {program.batch}")
    if offences:
        raise ProgramError(report(program, offences))


def _check_names(program: Program, op: Operation, seen: dict[str, Type]) -> list[Offence]:
    offences = []
    dialect = op.name.partition(".")[0]
    if dialect != program.dialect:
        offences.append(Offence(op, f"a {dialect} operation in a {program.dialect} program"))
    for value in op.operands:
        known = seen.get(value.name)
        if known is None:
            offences.append(Offence(op, "used before it is defined", value))
        elif known is not value.type and known != value.type:
            offences.append(Offence(op, f"defined as {known}", value))
    if op.result is not None and op.result.name in seen:
        offences.append(Offence(op, "defined twice", op.result))
    return offences


def _check_type(op: Operation) -> list[Offence]:
    try:
        inferred = op.infer()
    except ProgramError as error:
        return [Offence(op, str(error))]
    declared = op.result.type if op.result is not None else None
    if (inferred is None) != (declared is None):
        return [Offence(op, "defines no value" if inferred is None else "needs a result")]
    if declared is not None and inferred is not None and not _agree(declared, inferred):
        return [Offence(op, f"has the type {inferred}", op.result)]
    return []


def _check_constants(program: Program, op: Operation) -> list[Offence]:
    try:
        check_constants(op, program.constants)
    except ProgramError as error:
        return [Offence(op, str(error))]
    return []


def _check_labels(program: Program) -> list[Offence]:
    """Labels name one output each, and inputs whose pieces agree on the whole."""
    offences = []
    outputs: set[str] = set()
    inputs: dict[str, tuple[int, ...]] = {}
    for op in program:
        if isinstance(op, tensor_ops.Output | he_ops.Output):
            if op.label in outputs:
                offences.append(Offence(op, f"a second output '{op.label}'"))
            outputs.add(op.label)
        elif isinstance(op, tensor_ops.Input) and op.label in inputs:
            offences.append(Offence(op, f"a second input '{op.label}'"))
        elif isinstance(op, he_ops.Input):
            if inputs.get(op.label, op.dims) != op.dims:
                offences.append(Offence(op, f"another piece has the shape {inputs[op.label]}"))
            if op.first + op.count > math.prod(op.dims):
                offences.append(Offence(op, f"holds more elements than the shape {op.dims} has"))
            if op.stride < program.batch:
                offences.append(Offence(op, "the stride is shorter than the batch"))
        if isinstance(op, tensor_ops.Input | he_ops.Input):
            inputs[op.label] = op.dims
    return offences


def _agree(declared: Type, inferred: Type) -> bool:
    if isinstance(declared, TensorType) and isinstance(inferred, TensorType):
        return (declared.shape, declared.secret) == (inferred.shape, inferred.secret)
    if isinstance(declared, CipherType) and isinstance(inferred, CipherType):
        # A fold's result repeats sooner than its operands; the slot interpreter checks the claim.
        repeats = inferred.period % declared.period == 0
        return repeats and declared.polynomials == inferred.polynomials
    if isinstance(declared, PlainType) and isinstance(inferred, PlainType):
        return replace(declared, level=None, scale=None) == inferred
    return False
