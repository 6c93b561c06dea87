"""Operations: frozen dataclasses whose fields are operands and attributes, known by their types."""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, Self, TypeVar, cast

from hecompile.errors import ProgramError
from hecompile.ir.types import Type


class Symbol(str):
    """The name of a constant of the program, written `@name`."""

    __slots__ = ()


@dataclass(frozen=True)
class Value:
    """An SSA value: a name, unique in its program, and a type."""

    name: str
    type: Type

    def __str__(self) -> str:
        """Write the value as `%name`."""
        return f"%{self.name}"


AttributeValue = int | float | bool | str | Symbol | tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One line of a program.

    Subclasses declare operand fields with `operand()` and attribute fields with `attribute()`.

    Attributes:
        result: the value defined; None for outputs.
        location: name of the source node, for messages.
    """

    name: ClassVar[str]
    result: Value | None = None
    location: str = dataclasses.field(default="", compare=False)

    @cached_property
    def operands(self) -> tuple[Value, ...]:
        """Every operand present, in order."""
        found: list[Value] = []
        for field in operand_fields(type(self)):
            content = getattr(self, field)
            if isinstance(content, tuple):
                found.extend(content)
            elif content is not None:
                found.append(content)
        return tuple(found)

    @property
    def attributes(self) -> dict[str, AttributeValue]:
        """Attributes by name, in the order of declaration; None is left out."""
        pairs = ((f, getattr(self, f)) for f in attribute_fields(type(self)))
        return {name: value for name, value in pairs if value is not None}

    @property
    def symbols(self) -> Iterator[Symbol]:
        """Names of the constants that the attributes refer to."""
        for value in self.attributes.values():
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Symbol):
                    yield item

    @property
    def defined(self) -> Value:
        """The result, for operations that have one.

        Raises:
            ProgramError: the operation defines nothing.
        """
        if self.result is None:
            raise ProgramError(f"{self.name} defines no value")
        return self.result

    def with_operands(self, renamed: Mapping[str, Value]) -> Self:
        """Copy the operation with operands replaced by name; the same object if none is."""
        changes: dict[str, Any] = {}
        for field in operand_fields(type(self)):
            content = getattr(self, field)
            if isinstance(content, tuple):
                new: Any = tuple(renamed.get(v.name, v) for v in content)
                changed = any(map(operator.is_not, new, content))
            else:
                new = renamed.get(content.name, content) if content is not None else None
                changed = new is not content
            if changed:
                changes[field] = new
        return dataclasses.replace(self, **changes) if changes else self

    def with_result(self, result: Value) -> Self:
        """Copy the operation with another result."""
        return dataclasses.replace(self, result=result)

    def infer(self) -> Type | None:
        """Derive the structural facts of the result's type from the operands; None for outputs.

        Raises:
            ProgramError: the operands do not fit the operation.
        """
        raise NotImplementedError


def operand(**options: Any) -> Any:
    """Declare an operand field: a `Value`, `Value | None`, or `tuple[Value, ...]`."""
    return dataclasses.field(metadata={"kind": "operand"}, **options)


def attribute(**options: Any) -> Any:
    """Declare an attribute field: numbers, strings, symbols, or tuples of them."""
    return dataclasses.field(metadata={"kind": "attribute"}, **options)


@cache
def _fields(operation: Hashable, kind: str) -> tuple[str, ...]:
    fields = dataclasses.fields(cast(type[Operation], operation))
    return tuple(f.name for f in fields if f.metadata.get("kind") == kind)


def operand_fields(operation: type[Operation]) -> tuple[str, ...]:
    """Names of the operand fields, in order."""
    return _fields(cast(Hashable, operation), "operand")


def attribute_fields(operation: type[Operation]) -> tuple[str, ...]:
    """Names of the attribute fields, in order."""
    return _fields(cast(Hashable, operation), "attribute")


OPERATIONS: dict[str, type[Operation]] = {}
_Op = TypeVar("_Op", bound=type[Operation])


def register_operation(operation: _Op) -> _Op:
    """Make an operation class known to the parser by its `name` (`dialect.mnemonic`)."""
    name = cast(type[Operation], operation).name
    if not re.fullmatch(r"(tensor|he)\.[a-z_]+", name):
        raise ProgramError(f"'{name}' is no operation name; write dialect.mnemonic")
    if name in OPERATIONS:
        raise ProgramError(f"the operation '{name}' is registered twice")
    OPERATIONS[name] = operation
    return operation
