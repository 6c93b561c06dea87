"""Reader of the program text that `printer.print_program` writes."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any

import numpy as np

from hecompile.errors import HecompileError, ProgramError
from hecompile.ir import (  # noqa: F401  (they register operations)
    he_ops,
    movement_ops,
    recurrent_ops,
    tensor_ops,
)
from hecompile.ir.constants import Array, Constant
from hecompile.ir.lexer import Lexer, Token
from hecompile.ir.operation import (
    OPERATIONS,
    AttributeValue,
    Operation,
    Symbol,
    Value,
    attribute_fields,
    operand_fields,
)
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, Interval, Layout, PlainType, TensorType, Type
from hecompile.ir.verifier import verify
from hecompile.numeric.parameters import Parameters


def parse(
    text: str, arrays: Mapping[str, Array] | None = None, source: str = "<program>"
) -> Program:
    """Read a program from text and check it with the verifier.

    Args:
        text: what `print_program` wrote, comments (`// ...`) allowed.
        arrays: the constants written by digest, by symbol.
        source: name of the text in messages.

    Raises:
        ProgramError: syntax, an unknown operation or attribute, a constant that is missing or does
            not match its digest, or a rule that the verifier enforces; with line and column.
    """
    return _Parser(text, arrays or {}, source).program()


class _Parser:
    def __init__(self, text: str, arrays: Mapping[str, Array], source: str) -> None:
        self._lex = Lexer(text, source)
        self._arrays = arrays
        self._values: dict[str, Value] = {}

    def program(self) -> Program:
        lex = self._lex
        lex.expect("program")
        name = lex.string("the program's name")
        lex.expect("batch")
        lex.expect("=")
        batch = lex.integer("the batch")
        lex.expect("{")
        parameters = self._parameters() if lex.accept("parameters") else None
        constants: dict[str, Constant] = {}
        while lex.accept("const"):
            symbol, constant = self._constant()
            constants[symbol] = constant
        operations: list[Operation] = []
        while not lex.accept("}"):
            operations.append(self._operation())
        if lex.current.kind != "end":
            raise lex.error(f"'{lex.current.text}' after the end of the program")
        program = Program(name, tuple(operations), constants, batch, parameters)
        verify(program)
        return program

    def _parameters(self) -> Parameters:
        lex = self._lex
        start = lex.current
        lex.expect("n")
        lex.expect("=")
        degree = lex.integer("the ring degree")
        lex.expect("bits")
        lex.expect("=")
        bits = self._integers("the prime sizes", start)
        lex.expect("scale_bits")
        lex.expect("=")
        scale_bits = lex.integer("the scale's bits")
        units: tuple[int, ...] = ()
        if lex.accept("units"):
            lex.expect("=")
            units = self._integers("the levels of the primes", start)
        try:
            return Parameters(degree, bits, scale_bits, level_units=units)
        except HecompileError as error:
            raise lex.error(str(error), start) from error

    def _integers(self, what: str, start: Token) -> tuple[int, ...]:
        found = self._attribute()
        if not isinstance(found, tuple) or not all(type(one) is int for one in found):
            raise self._lex.error(f"{what} are a list of integers", start)
        return tuple(int(one) for one in found if isinstance(one, int))

    def _constant(self) -> tuple[str, Constant]:
        lex = self._lex
        start = lex.current
        symbol = lex.take("symbol", "a constant's @name")[1:]
        lex.expect(":")
        lex.expect("f64")
        lex.expect("<")
        shape = self._shape()
        lex.expect(">")
        lex.expect("=")
        if lex.current.kind == "digest":
            digest = lex.advance().text.removeprefix("sha256:")
            if symbol not in self._arrays:
                missing = f"the constant @{symbol} is not beside the text"
                raise lex.error(f"{missing}; give the .npz file that has it (--constants)", start)
            constant = Constant(self._arrays[symbol])
            if constant.digest != digest or constant.array.shape != shape:
                raise lex.error(f"the constant @{symbol} beside the text is another one", start)
            return symbol, constant
        content = self._attribute()
        numbers = content if isinstance(content, tuple) else ()
        if not isinstance(content, tuple) or len(numbers) != math.prod(shape):
            raise lex.error(f"the constant @{symbol} does not fill its shape", start)
        if any(type(n) not in (int, float) for n in numbers):
            raise lex.error(f"the constant @{symbol} holds something that is no number", start)
        return symbol, Constant(np.array([float(n) for n in numbers]).reshape(shape))

    def _shape(self) -> tuple[int, ...]:
        lex = self._lex
        if lex.accept("scalar"):
            return ()
        if lex.current.kind == "shape":
            return tuple(int(e) for e in lex.advance().text.split("x"))
        return (lex.integer("a shape"),)

    def _operation(self) -> Operation:
        lex = self._lex
        start = lex.current
        name = None
        if lex.current.kind == "value":
            name = lex.advance().text[1:]
            if name in self._values:
                raise lex.error(f"%{name} is defined twice", start)
            lex.expect("=")
        token = lex.current
        kind = OPERATIONS.get(lex.take("word", "an operation"))
        if kind is None:
            raise lex.error(f"'{token.text}' is no operation", token)
        fields: dict[str, Any] = self._operands(kind)
        fields |= self._attributes(kind) if lex.accept("{") else {}
        if name is not None:
            lex.expect(":")
            fields["result"] = Value(name, self._type())
        if lex.accept("loc"):
            lex.expect("(")
            fields["location"] = lex.string("a location")
            lex.expect(")")
        try:
            op = kind(**fields)
        except TypeError as error:
            missing = _required(kind) - fields.keys()
            raise lex.error(f"{kind.name} lacks {', '.join(sorted(missing))}", start) from error
        if op.result is not None:
            self._values[op.result.name] = op.result
        return op

    def _operands(self, kind: type[Operation]) -> dict[str, Any]:
        lex = self._lex
        start = lex.current
        lex.expect("(")
        found: list[Value | None] = []
        while not lex.accept(")"):
            if found:
                lex.expect(",")
            if lex.accept("_"):
                found.append(None)
                continue
            token = lex.current
            name = lex.take("value", "an operand")[1:]
            if name not in self._values:
                raise lex.error(f"%{name} is used before it is defined", token)
            found.append(self._values[name])
        names = operand_fields(kind)
        if names and _hints(kind)[names[0]] == tuple[Value, ...]:
            # Only operations whose single operand field is a tuple have one.
            if None in found:
                raise lex.error(f"{kind.name} leaves no operand out", start)
            return {names[0]: tuple(found)}
        if len(found) > len(names):
            raise lex.error(f"{kind.name} takes {len(names)} operands, not {len(found)}", start)
        named = dict(zip(names, found, strict=False))
        for name, value in named.items():
            if value is None and _hints(kind)[name] is Value:
                raise lex.error(f"{kind.name} needs its operand '{name}'", start)
        return named

    def _attributes(self, kind: type[Operation]) -> dict[str, AttributeValue]:
        lex = self._lex
        known = attribute_fields(kind)
        found: dict[str, AttributeValue] = {}
        while not lex.accept("}"):
            if found:
                lex.expect(",")
            token = lex.current
            name = lex.take("word", "an attribute")
            if name not in known or name in found:
                raise lex.error(f"{kind.name} takes no attribute '{name}' here", token)
            lex.expect("=")
            value = self._attribute()
            if not _fits(value, _hints(kind)[name]):
                raise lex.error(f"{kind.name}: attribute '{name}' is of another kind", token)
            found[name] = _as_declared(value, _hints(kind)[name])
        return found

    def _attribute(self) -> AttributeValue:
        lex = self._lex
        token = lex.current
        if lex.accept("["):
            items: list[AttributeValue] = []
            while not lex.accept("]"):
                if items:
                    lex.expect(",")
                if lex.current.text == "[":
                    raise lex.error("a list holds no lists")
                items.append(self._attribute())
            return tuple(items)
        if token.kind == "string":
            return lex.string("text")
        if token.kind == "symbol":
            return Symbol(lex.advance().text[1:])
        if token.text in ("true", "false"):
            return lex.advance().text == "true"
        text = lex.take("number", "a value")
        return int(text) if text.lstrip("+-").isdigit() else float(text)

    def _type(self) -> Type:
        lex = self._lex
        token = lex.current
        kind = lex.take("word", "a type")
        lex.expect("<")
        try:
            if kind == "tensor":
                return self._tensor_type()
            if kind == "ct":
                return self._cipher_type()
            if kind == "pt":
                period = lex.integer("a period")
                return PlainType(period, **self._facts({"level", "scale"}))
        except ProgramError as error:
            if str(error).startswith(lex.source):
                raise
            raise lex.error(str(error), token) from error
        raise lex.error(f"'{kind}' is no type", token)

    def _tensor_type(self) -> TensorType:
        lex = self._lex
        shape = self._shape()
        lex.expect(",")
        secret = lex.accept("secret")
        if not secret:
            lex.expect("clear")
        interval = None
        if lex.accept(","):
            lex.expect("[")
            lower = lex.real("a bound")
            lex.expect(",")
            interval = Interval(lower, lex.real("a bound"))
            lex.expect("]")
        lex.expect(">")
        return TensorType(shape, secret, interval)

    def _cipher_type(self) -> CipherType:
        lex = self._lex
        period = lex.integer("a period")
        layout = None
        if lex.current.text == "," and self._layout_follows():
            lex.expect(",")
            layout = self._layout()
        return CipherType(period, layout, **self._facts({"bound", "level", "scale", "polynomials"}))

    def _layout_follows(self) -> bool:
        return self._lex.peek().kind == "number"

    def _layout(self) -> Layout:
        lex = self._lex
        first = lex.integer("an element")
        count = lex.integer("a count")
        numbers = {}
        for fact in ("stride", "offset"):
            lex.expect(fact)
            lex.expect("=")
            numbers[fact] = lex.integer(f"the {fact}")
        lex.expect("rest")
        lex.expect("=")
        return Layout(first, count, rest=lex.take("word", "zero or garbage"), **numbers)

    def _facts(self, known: set[str]) -> dict[str, Any]:
        lex = self._lex
        found: dict[str, Any] = {}
        while lex.accept(","):
            token = lex.current
            name = lex.take("word", "a fact")
            if name not in known or name in found:
                raise lex.error(f"'{name}' is no fact of this type", token)
            lex.expect("=")
            whole = name in ("level", "polynomials")
            found[name] = lex.integer(f"the {name}") if whole else lex.real(f"the {name}")
        lex.expect(">")
        return found


def _hints(kind: type[Operation]) -> dict[str, Any]:
    return _cached_hints(typing.cast(Hashable, kind))


@cache
def _cached_hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _as_declared(value: AttributeValue, hint: Any) -> AttributeValue:
    """An integer where a float is declared becomes a float, so that printing is exact."""
    if isinstance(value, tuple):
        return tuple(_as_declared(v, typing.get_args(hint)[0]) for v in value)
    return float(value) if hint is float else value


def _required(kind: type[Operation]) -> set[str]:
    return {
        f.name for f in dataclasses.fields(kind) if f.metadata and f.default is dataclasses.MISSING
    }


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        return isinstance(value, tuple) and all(_fits(v, element) for v in value)
    if typing.get_origin(hint) is types.UnionType:
        return any(_fits(value, one) for one in typing.get_args(hint))
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint
