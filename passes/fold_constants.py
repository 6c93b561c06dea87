"""Constant folding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hecompile.errors import PassError
from hecompile.interpret.tensor import trace_tensor
from hecompile.ir.operation import Operation
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import ConstantTensor
from hecompile.ir.types import TensorType
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class FoldConstants(Pass):
    """Compute what does not depend on any input and write it down as a constant.

    Requires: a tensor program.
    Ensures: every clear value is a tensor.constant. Constants that are no longer read are left to
    dce.
    """

    name: ClassVar[str] = "fold-constants"

    def run(self, program: Program, context: Context) -> Program:
        """Interpret the clear part of the program.

        Raises:
            PassError: an operation on constants gives NaN.
        """
        clear = tuple(op for op in program if _is_clear(op))
        folded = {op.defined.name for op in clear if not isinstance(op, ConstantTensor)}
        if not folded:
            return program
        builder = Builder(program)
        constants: dict[str, Operation] = {}
        with np.errstate(all="ignore"):
            for op, array in trace_tensor(program.replace(operations=clear), {}):
                if op.defined.name in folded:
                    if np.isnan(array).any():
                        raise PassError(
                            f"fold-constants: {op.name} at '{op.location or op.defined.name}' gives"
                            " NaN from constants alone; mend the model's constants"
                        )
                    symbol = builder.constant(array[0], op.defined.name)
                    new = ConstantTensor(value=symbol, dims=array.shape[1:], location=op.location)
                    constants[op.defined.name] = new.with_result(op.defined)
        for op in program:
            known = constants.get(op.result.name) if op.result is not None else None
            builder.keep(known or op)
        return builder.finish()


def _is_clear(op: Operation) -> bool:
    return (
        op.result is not None
        and isinstance(op.result.type, TensorType)
        and not op.result.type.secret
    )
