"""A pass that another distribution adds to hecompile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hecompile.ir import Program, Value
from hecompile.ir.program import Builder
from hecompile.ir.tensor_ops import Neg
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class DropDoubleNegation(Pass):
    """Replace `-(-x)` by `x`.

    Requires: a tensor program.
    Ensures: no operation reads the negation of a negation; the inner one stays, for dce to drop.
    """

    name: ClassVar[str] = "drop-double-negation"

    def run(self, program: Program, context: Context) -> Program:
        """Rename the result of each outer negation to the inner one's operand."""
        builder = Builder(program)
        renamed: dict[str, Value] = {}
        for op in program:
            inner = program.definitions[op.x.name] if isinstance(op, Neg) else None
            if isinstance(inner, Neg):
                renamed[op.defined.name] = renamed.get(inner.x.name, inner.x)
            else:
                builder.keep(op.with_operands(renamed))
        return builder.finish()
