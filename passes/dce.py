"""Dead code elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hecompile.ir import he_ops, tensor_ops
from hecompile.ir.operation import Operation
from hecompile.ir.program import Builder, Program
from hecompile.passbase import Context, Pass, register_pass

_ROOTS = (tensor_ops.Input, tensor_ops.Output, he_ops.Input, he_ops.Output)


@register_pass
@dataclass(frozen=True)
class DeadCodeElimination(Pass):
    """Remove operations that no output depends on, and constants that nothing refers to.

    Requires: a program of any level.
    Ensures: every operation but the inputs leads to an output; inputs stay, for they are the
    program's signature.
    """

    name: ClassVar[str] = "dce"

    def run(self, program: Program, context: Context) -> Program:
        """Walk backwards from the outputs and keep what they need."""
        needed: set[str] = set()
        kept: list[Operation] = []
        for op in reversed(program.operations):
            alive = op.result is not None and op.result.name in needed
            if alive or isinstance(op, _ROOTS):
                needed.update(v.name for v in op.operands)
                kept.append(op)
        builder = Builder(program)
        for op in reversed(kept):
            builder.keep(op)
        return builder.finish()
