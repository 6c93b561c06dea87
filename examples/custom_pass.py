"""A pass of your own: define it, try it on a program, and give it to the compiler.

On the command line: hecompile opt in.hir --load custom_pass.py --passes cancel-negations,dce
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hecompile.ir import Program, Value
from hecompile.ir.parser import parse
from hecompile.ir.printer import print_program
from hecompile.ir.program import Builder
from hecompile.ir.tensor_ops import Neg
from hecompile.passbase import Context, Pass, register_pass
from hecompile.pipeline import parse_pipeline


@register_pass
@dataclass(frozen=True)
class CancelNegations(Pass):
    """Replace `-(-x)` by `x`.

    Requires: a tensor program.
    Ensures: no operation reads the negation of a negation; the inner one stays, for dce to drop.
    """

    name: ClassVar[str] = "cancel-negations"

    def run(self, program: Program, context: Context) -> Program:
        builder = Builder(program)
        renamed: dict[str, Value] = {}
        for op in program:
            inner = program.definitions[op.x.name] if isinstance(op, Neg) else None
            if isinstance(inner, Neg):
                renamed[op.defined.name] = renamed.get(inner.x.name, inner.x)
            else:
                builder.keep(op.with_operands(renamed))
        return builder.finish()


TWICE = """
program "twice" batch=1 {
  %x = tensor.input() {label = "x", dims = [1, 4]} : tensor<1x4, secret>
  %a = tensor.neg(%x) : tensor<1x4, secret>
  %b = tensor.neg(%a) : tensor<1x4, secret>
  tensor.output(%b) {label = "y", post = []}
}
"""


if __name__ == "__main__":
    # hecompile.compile(model, calibration=..., passes=[CancelNegations()]) runs it in place.
    print(print_program(parse_pipeline("cancel-negations,dce").run(parse(TWICE), Context())))
