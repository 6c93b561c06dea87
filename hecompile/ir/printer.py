"""Text of a program: exact, one operation a line; `parser.parse` reads it back."""

from __future__ import annotations

from collections.abc import Iterator

from hecompile.ir.constants import Constant
from hecompile.ir.operation import (
    AttributeValue,
    Operation,
    Symbol,
    Value,
    operand_fields,
)
from hecompile.ir.program import Program

INLINE_ELEMENTS = 64
"""Constants up to this many elements are written into the text; larger ones by digest."""


def print_program(program: Program, inline_elements: int = INLINE_ELEMENTS) -> str:
    """Write a program as text.

    Args:
        program: any level.
        inline_elements: constants with more elements are written as `sha256:...` and must be kept
            beside the text.
    """
    return "\n".join(_lines(program, inline_elements)) + "\n"


def print_operation(op: Operation) -> str:
    """Write one operation as its line of text."""
    left = f"{op.result} = " if op.result is not None else ""
    operands = ", ".join(_operand_texts(op))
    pairs = ", ".join(f"{k} = {format_attribute(v)}" for k, v in op.attributes.items())
    attributes = f" {{{pairs}}}" if pairs else ""
    type_text = f" : {op.result.type}" if op.result is not None else ""
    location = f" loc({quote(op.location)})" if op.location else ""
    return f"{left}{op.name}({operands}){attributes}{type_text}{location}"


def format_attribute(value: AttributeValue) -> str:
    """Write an attribute value: `@name`, `"text"`, `true`, numbers, `[lists]`."""
    if isinstance(value, Symbol):
        return f"@{value}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, tuple):
        return f"[{', '.join(format_attribute(v) for v in value)}]"
    return repr(value)


def quote(text: str) -> str:
    """Write a string in double quotes, with backslash escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _lines(program: Program, inline_elements: int) -> Iterator[str]:
    yield f"program {quote(program.name)} batch={program.batch} {{"
    if program.parameters is not None:
        p = program.parameters
        bits = ", ".join(map(str, p.coeff_modulus_bits))
        line = f"  parameters n={p.poly_modulus_degree} bits=[{bits}] scale_bits={p.scale_bits}"
        if max(p.level_units) > 1:
            line += f" units=[{', '.join(map(str, p.level_units))}]"
        yield line
    for symbol, constant in sorted(program.constants.items()):
        yield f"  const @{symbol} : {_constant(constant, inline_elements)}"
    for op in program:
        yield f"  {print_operation(op)}"
    yield "}"


def _constant(constant: Constant, inline_elements: int) -> str:
    array = constant.array
    shape = "x".join(map(str, array.shape)) if array.shape else "scalar"
    if array.size <= inline_elements:
        content = f"[{', '.join(repr(float(v)) for v in array.ravel())}]"
    else:
        content = f"sha256:{constant.digest}"
    return f"f64<{shape}> = {content}"


def _operand_texts(op: Operation) -> Iterator[str]:
    fields = [getattr(op, f) for f in operand_fields(type(op))]
    while fields and fields[-1] is None:
        fields.pop()
    for content in fields:
        if isinstance(content, tuple):
            yield from (str(v) for v in content)
        else:
            yield str(content) if isinstance(content, Value) else "_"
