"""A program: an immutable tuple of operations in SSA form, with its constants and parameters."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self, TypeVar

from hecompile.errors import ProgramError
from hecompile.ir.constants import Array, Constant
from hecompile.ir.operation import Operation, Symbol, Value
from hecompile.numeric.parameters import Parameters

_Op = TypeVar("_Op", bound=Operation)


@dataclass(frozen=True)
class Program:
    """A straight-line program over tensors (`tensor.*`) or ciphertexts (`he.*`).

    Two programs are equal when their operations, constants and parameters are; a pass that did
    nothing returns an equal program.

    Attributes:
        name: the model's name.
        operations: in execution order; every operand is defined before it is used.
        constants: arrays by symbol.
        batch: samples packed into one evaluation.
        parameters: encryption parameters, once chosen.
    """

    name: str
    operations: tuple[Operation, ...]
    constants: Mapping[str, Constant] = field(default_factory=dict)
    batch: int = 1
    parameters: Parameters | None = None

    def __iter__(self) -> Iterator[Operation]:
        """Walk the operations in execution order."""
        return iter(self.operations)

    @property
    def dialect(self) -> str:
        """The level of the program: "tensor" or "he"."""
        return self.operations[0].name.partition(".")[0] if self.operations else "tensor"

    @cached_property
    def definitions(self) -> Mapping[str, Operation]:
        """The defining operation of each value, by the value's name."""
        return {op.result.name: op for op in self.operations if op.result is not None}

    @cached_property
    def users(self) -> Mapping[str, tuple[Operation, ...]]:
        """The operations that read each value, by the value's name, each user once."""
        found: dict[str, list[Operation]] = {name: [] for name in self.definitions}
        for op in self.operations:
            for name in dict.fromkeys(v.name for v in op.operands):
                found.setdefault(name, []).append(op)
        return {name: tuple(ops) for name, ops in found.items()}

    @cached_property
    def last_uses(self) -> Mapping[str, int]:
        """Position of the last operation that reads each value, by the value's name.

        Values that nothing reads are left out.
        """
        return {v.name: i for i, op in enumerate(self.operations) for v in op.operands}

    def select(self, kind: type[_Op]) -> tuple[_Op, ...]:
        """Every operation of one class, in order."""
        return tuple(op for op in self.operations if isinstance(op, kind))

    def array(self, symbol: str) -> Array:
        """The constant that a symbol names.

        Raises:
            ProgramError: no such constant.
        """
        if symbol not in self.constants:
            raise ProgramError(f"program '{self.name}' has no constant @{symbol}")
        return self.constants[symbol].array

    def replace(self, **changes: object) -> Self:
        """Copy with fields replaced."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


class Builder:
    """Collects operations and constants, gives fresh names, and finishes as a `Program`.

    Passes that rewrite a program walk the old operations and append the new ones here.
    """

    def __init__(self, source: Program | None = None, name: str = "", batch: int = 1) -> None:
        """Start empty, with the name, batch, constants and parameters of `source` if given."""
        self._source = source
        self._name = source.name if source else name
        self._batch = source.batch if source else batch
        self._operations: list[Operation] = []
        self._constants: dict[str, Constant] = dict(source.constants) if source else {}
        self._symbols = {c.digest: s for s, c in self._constants.items()}
        self._taken = set(source.definitions) if source else set()
        self._counter = 0

    def fresh(self, hint: str = "") -> str:
        """A value name that is not in use, from a readable hint."""
        base = _readable(hint)
        if base and not base[0].isdigit() and base not in self._taken:
            self._taken.add(base)
            return base
        usable = base and not base[0].isdigit()
        while True:
            name = f"{base}.{self._counter}" if usable else f"v{self._counter}"
            self._counter += 1
            if name not in self._taken:
                self._taken.add(name)
                return name

    def constant(self, array: Array, hint: str = "c") -> Symbol:
        """Add a constant, or find the equal one, and return its symbol."""
        constant = Constant(array)
        if constant.digest in self._symbols:
            return Symbol(self._symbols[constant.digest])
        base = _readable(hint) or "c"
        name, n = base, 0
        while name in self._constants:
            name, n = f"{base}.{n}", n + 1
        self._constants[name] = constant
        self._symbols[constant.digest] = name
        return Symbol(name)

    def array(self, symbol: str) -> Array:
        """The constant that a symbol names."""
        if symbol not in self._constants:
            raise ProgramError(f"program '{self._name}' has no constant @{symbol}")
        return self._constants[symbol].array

    @property
    def count(self) -> int:
        """Number of operations so far."""
        return len(self._operations)

    def keep(self, operation: Operation) -> Operation:
        """Append an operation as it stands, result name included."""
        self._operations.append(operation)
        if operation.result is not None:
            self._taken.add(operation.result.name)
        return operation

    def emit(self, operation: Operation, hint: str = "") -> Value:
        """Append an operation under a fresh result name, its type inferred.

        Raises:
            ProgramError: the operands do not fit, or the operation defines no value.
        """
        inferred = operation.infer()
        if inferred is None:
            raise ProgramError(f"{operation.name} defines no value; append it with keep()")
        result = Value(self.fresh(hint), inferred)
        self._operations.append(operation.with_result(result))
        return result

    def annotate(self, value: Value, **facts: object) -> Value:
        """Add facts to the type of a value emitted here that nothing uses yet.

        Raises:
            ProgramError: the value is unknown, or used already under its old type.
        """
        for i in range(len(self._operations) - 1, -1, -1):
            op = self._operations[i]
            if op.result == value:
                refined = Value(value.name, dataclasses.replace(value.type, **facts))  # type: ignore[arg-type]
                self._operations[i] = op.with_result(refined)
                return refined
            if value in op.operands:
                break
        raise ProgramError(f"{value} cannot be annotated: it is unknown or used already")

    def finish(self, **changes: object) -> Program:
        """The program, with constants that nothing refers to left out."""
        used = {symbol for op in self._operations for symbol in op.symbols}
        constants = {s: c for s, c in self._constants.items() if s in used}
        parameters = self._source.parameters if self._source else None
        program = Program(self._name, tuple(self._operations), constants, self._batch, parameters)
        return program.replace(**changes) if changes else program


def _readable(hint: str) -> str:
    """The hint with what the program text cannot hold in a name replaced."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", hint)
