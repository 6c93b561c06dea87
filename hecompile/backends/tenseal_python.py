"""Backend for TenSEAL: the program's text, and the same program as straight-line Python.

`program.py` is what a cryptographer audits: one statement an operation, on SEAL's own objects,
with nothing but numpy and TenSEAL. The evaluator runs `program.hir`.
"""

from __future__ import annotations

import ast
import builtins
import importlib.resources
import keyword
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hecompile.bundle.layout import PROGRAM_FILE
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.parcels import parcels
from hecompile.ir.printer import print_program
from hecompile.ir.program import Program
from hecompile.runtime.admission import check_program, facts
from hecompile.runtime.rounds import mask_sizes
from hecompile.runtime.spec import program_id

PYTHON_FILE: Final = "server/program.py"
_WIDTH: Final = 100
_INDENT: Final = "    "
_HELD: Final = "\x00"
_TAKEN: Final = frozenset({"he", "ask", "inputs", "seal", "np", "sys", "refresh", *dir(builtins)})


@dataclass(frozen=True)
class TensealBackend:
    """TenSEAL's SEAL, by the evaluator of `hecompile.runtime` or by the generated Python."""

    name: str = "tenseal"

    def emit(self, program: Program) -> Mapping[str, bytes]:
        """Write `server/program.hir` and `server/program.py`.

        Raises:
            ProgramError: The program is not finished.
        """
        return {
            PROGRAM_FILE: print_program(program).encode("utf-8"),
            PYTHON_FILE: emit_python(program).encode("utf-8"),
        }


def emit_python(program: Program) -> str:
    """Write a finished program as straight-line Python.

    Raises:
        ProgramError: The program is not finished.
    """
    parameters = check_program(program)
    inputs = [op.defined.name for op in program if isinstance(op, he.Input | he.Weight)]
    head = _HEADER.format(
        name=re.sub(r"[^\w .-]", "_", program.name) or "program", digest=program_id(program)
    )
    constants = [
        f"DEGREE = {parameters.poly_modulus_degree}",
        *_wrapped(f"PRIME_BITS = {list(parameters.coeff_modulus_bits)}", ""),
        *_wrapped(f"INPUTS = {inputs}", ""),
    ]
    body = [_INDENT + line for line in _Writer(program).lines()]
    support = _support(_SUPPORT + (_REFRESH if program.select(he.Refresh) else ()))
    parts = [head, support, "\n", "\n".join(constants), _COMPUTE, "\n".join(body), _MAIN]
    return "\n".join(parts)


_HEADER: Final = '''"""{name}: a program on encrypted data, written by hecompile.

It computes on CKKS ciphertexts with evaluation keys only and needs numpy and TenSEAL. It is the
same program as program.hir beside it, whose SHA-256 is
{digest}.

    python program.py KEYS INPUTS OUTPUTS

KEYS is the folder of the evaluation keys, INPUTS holds a file NAME.ct for each name in INPUTS
below, OUTPUTS receives a file for each ciphertext of an output. A program that refreshes needs the
key holder: import this file and call compute(machine, inputs, ask), where ask(group, ciphertexts)
returns what hecompile.runtime.rounds.KeyHolder answers.
"""
'''
_COMPUTE: Final = '''

def compute(he, inputs, ask=no_key_holder):
    """Compute the outputs: a list of ciphertexts by name."""'''
_MAIN: Final = """

if __name__ == "__main__":
    run(sys.argv[1:], DEGREE, PRIME_BITS, INPUTS, compute)
"""


_SUPPORT: Final = ("hecompile.backends.program_support",)
_REFRESH: Final = (
    "hecompile.runtime.wide",
    "hecompile.runtime.ntt",
    "hecompile.runtime.relayout",
    "hecompile.backends.program_refresh",
)


def _support(modules: Sequence[str]) -> str:
    """The modules that a generated program begins with, as one, without their docstrings."""
    plain: set[str] = set()
    names: dict[str, set[str]] = {}
    parts = []
    for module in modules:
        package, _, file = module.rpartition(".")
        text = (importlib.resources.files(package) / f"{file}.py").read_text(encoding="utf-8")
        end = 0
        for node in ast.parse(text).body[1:]:
            if isinstance(node, ast.Import):
                plain.add(ast.unparse(node))
            elif isinstance(node, ast.ImportFrom):
                found = {ast.unparse(alias) for alias in node.names}
                names.setdefault(node.module or "", set()).update(found)
            else:
                break
            end = node.end_lineno or 0
        parts.append("\n".join(text.splitlines()[end:]).strip("\n"))
    # What the modules take from one another stands in the same file.
    taken = [
        f"from {module} import {', '.join(sorted(chosen))}"
        for module, chosen in sorted(names.items())
        if module != "__future__" and not module.startswith("hecompile.")
    ]
    imports = "\n".join([*sorted(plain), *taken])
    return imports + "\n\n\n" + "\n\n\n".join(parts)


class _Writer:
    """Writes one statement an operation, and a `del` where values die."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._sizes = mask_sizes(program)
        self._parcels = parcels(program)
        self._last = program.last_uses
        self._kept = {v.name for op in program.select(he.Output) for v in op.xs}
        self._names: dict[str, str] = {}
        self._used = set(_TAKEN)

    def lines(self) -> Iterator[str]:
        """Every line of the function's body."""
        outputs: list[str] = []
        refreshes: list[he.Refresh] = []
        operations = self._program.operations
        for position, op in enumerate(operations):
            if isinstance(op, he.Output):
                outputs.append(f"{_text(op.label)}: [{self._list(op.xs)}]")
                continue
            if isinstance(op, he.Refresh):
                refreshes.append(op)
                after = operations[position + 1] if position + 1 < len(operations) else None
                if isinstance(after, he.Refresh) and after.group == op.group:
                    continue
                yield from _wrapped(self._refresh(refreshes), _INDENT)
                yield from self._deletions(position, refreshes)
                refreshes = []
                continue
            yield from _wrapped(self._statement(op), _INDENT)
            yield from self._deletions(position, [op])
        yield from _wrapped(f"return {{{', '.join(outputs)}}}", _INDENT)

    def _statement(self, op: Operation) -> str:
        result = self._name(op.defined)
        if isinstance(op, he.Input | he.Weight):
            return f"{result} = inputs[{_text(op.defined.name)}]"
        found = facts(op.defined)
        level, scale = f"level={found.level}", f"scale={found.scale!r}"
        match op:
            case he.Encode():
                arguments = [_text(op.value), level, scale]
            case he.SumMulPlain():
                arguments = [f"[{self._list(op.xs)}]", _text(op.weights), level, scale]
            case he.Rotate():
                arguments = [self._name(op.x), f"steps={op.steps}", scale]
            case he.DropLevel():
                arguments = [self._name(op.x), level, scale]
            case _:
                arguments = [*(self._name(v) for v in op.operands), scale]
        return f"{result} = he.{op.name.partition('.')[2]}({', '.join(arguments)})"

    def _refresh(self, ops: list[he.Refresh]) -> str:
        group = ops[0].group
        values: list[Value] = []
        request = []
        for parcel in self._parcels[group]:
            values += parcel.values
            pairs = (f"({self._name(x)}, {he.cipher_type(x).period})" for x in parcel.values)
            size = self._sizes[group, parcel.values[0].name]
            request.append(f"({size}, [{', '.join(pairs)}])")
        response = []
        for op in ops:
            found = facts(op.defined)
            table = "None" if op.gather is None else _text(op.gather)
            places = [values.index(x) for x in op.xs]
            response.append(f"({found.level}, {found.scale!r}, {table}, {places})")
        results = ", ".join(self._name(op.defined) for op in ops)
        both = f"[{', '.join(request)}], [{', '.join(response)}]"
        return f"[{results}] = refresh(he, ask, {group}, {both})"

    def _deletions(self, position: int, ops: Sequence[Operation]) -> Iterator[str]:
        names = dict.fromkeys(value.name for op in ops for value in op.operands)
        dead = [self._names[n] for n in names if self._last[n] <= position and n not in self._kept]
        if dead:
            names_text = f"({', '.join(dead)})" if len(dead) > 1 else dead[0]
            yield from _wrapped(f"del {names_text}", _INDENT)

    def _list(self, values: tuple[Value, ...]) -> str:
        return ", ".join(self._name(value) for value in values)

    def _name(self, value: Value) -> str:
        """A Python name for a value, near its own, used by no other."""
        if value.name not in self._names:
            base = re.sub(r"\W", "_", value.name, flags=re.ASCII)
            if base[:1].isdigit() or keyword.iskeyword(base):
                base = f"_{base}"
            name, number = base, 1
            while name in self._used:
                number += 1
                name = f"{base}_{number}"
            self._used.add(name)
            self._names[value.name] = name
        return self._names[value.name]


def _wrapped(line: str, indent: str) -> Iterator[str]:
    """A statement, broken after commas if it is long: all commas are inside brackets."""
    room = _WIDTH - len(indent)
    if len(line) <= room:
        yield line
        return
    # Spaces elsewhere must not be taken for places to break at.
    held = re.sub(r"(?<!,) ", _HELD, line)
    for part in textwrap.wrap(
        held, room, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
    ):
        yield part.replace(_HELD, " ")


def _text(value: str) -> str:
    """A string literal without spaces, at which a line could be broken."""
    return repr(value).replace(" ", r"\x20")
