"""The gate between the tensor level and the ciphertext level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final

from hecompile.errors import PassError
from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.linear import Reader, linear_form
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.ir.recurrent_ops import Gru, Lstm, Rnn
from hecompile.ir.tensor_ops import tensor_type
from hecompile.ir.verifier import Offence, report
from hecompile.passbase import Context, Pass, register_pass

_FREE = (
    tensor.Input,
    tensor.ConstantTensor,
    tensor.Neg,
    tensor.Polynomial,
    movement.Affine,
    movement.Reshape,
)

_RECURRENT: Final = ("is still a recurrent operator", "run unroll-recurrent")

_REMEDIES: Final[Mapping[type[Operation], tuple[str, str]]] = MappingProxyType(
    {
        tensor.Activation: (
            "is no polynomial",
            "run approximate, or train with polynomial activations such as x*x",
        ),
        **dict.fromkeys((Lstm, Gru, Rnn), _RECURRENT),
        tensor.Power: ("is still a power", "run normalise"),
        tensor.MatMul: (
            "multiplies matrices that both depend on the input",
            "make one of the two a constant weight",
        ),
        tensor.Conv: ("has weights that depend on the input", "make its weights constants"),
        tensor.BatchNorm: (
            "has statistics that depend on the input",
            "export the model in evaluation mode",
        ),
    }
)


@register_pass
@dataclass(frozen=True)
class RequirePolynomial(Pass):
    """Refuse a program that is not made of additions, products and affine maps of secrets.

    Requires: a tensor program.
    Ensures: only tensor.input and output, affine, polynomial, neg and reshape; add, sub and mul
    of two secrets of one shape; slices that are contiguous in the flattened order; constants that
    nothing reads. The program is unchanged.
    """

    name: ClassVar[str] = "require-polynomial"
    after: ClassVar[tuple[str, ...]] = ("merge-linear",)

    def run(self, program: Program, context: Context) -> Program:
        """Check every operation.

        Raises:
            PassError: with every operation that has no encrypted counterpart, and what to do.
        """
        reader = Reader(program, lambda value: None)
        offences: list[Offence] = []
        remedies: dict[str, None] = {}
        for op in program:
            found = _fault(op, reader)
            if found is not None:
                reason, remedy = found
                offences.append(Offence(op, reason))
                remedies[remedy] = None
        if offences:
            raise PassError(report(program, offences, "; ".join(remedies)))
        return program


def _fault(op: Operation, reader: Reader) -> tuple[str, str] | None:
    """Why an operation is not admitted, and the remedy."""
    clear = [v for v in op.operands if not tensor_type(v).secret]
    if clear and isinstance(op, tensor.Output):
        return "does not depend on any input", "leave this output out of the model"
    if isinstance(op, (tensor.Add, tensor.Sub, tensor.Mul)):
        if clear:
            return f"reads the constant {clear[0]}", "run merge-linear"
        if tensor_type(op.x).shape != tensor_type(op.y).shape:
            return "broadcasts one secret to the shape of another", "run normalise and merge-linear"
        return None
    if isinstance(op, movement.Slice) and not clear:
        return None if _contiguous(op, reader) else ("is not contiguous", "run merge-linear")
    if isinstance(op, (*_FREE, tensor.Output)) and not clear:
        return None
    return _REMEDIES.get(type(op), ("is a linear map that stands alone", "run merge-linear"))


def _contiguous(op: movement.Slice, reader: Reader) -> bool:
    """Whether a slice takes a run of the flattened elements."""
    form = linear_form(op, reader)
    if form is None:
        return False
    columns = form.terms[0][1].columns
    return bool((columns[1:] - columns[:-1] == 1).all())
