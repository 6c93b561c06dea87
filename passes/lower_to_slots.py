"""Packing: tensors become slot vectors, linear maps become diagonals, polynomials products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.packing.packer import Packer
from hecompile.packing.parts import Packed
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class LowerToSlots(Pass):
    """Rewrite tensor operations as operations on periodic slot vectors of `slots` slots or fewer.

    Every ciphertext repeats with a power-of-two period, so that a program packed for `slots` slots
    also runs on any larger ring. A linear map becomes one sum of plaintext products with the
    rotations of its operands along its non-zero generalised diagonals (Halevi and Shoup, CRYPTO
    2014, section 4.1; hybrid form for few outputs: Juvekar et al., USENIX Security 2018, section
    4.1), followed by log2(inputs / outputs) folds. Contiguous slices and reshapes cost nothing:
    they only change the layout, and products align their operands by one rotation.

    Requires: what `require-polynomial` admits.
    Ensures: a program of `he.*` without relinearize, rescale, drop_level, refresh.
    """

    name: ClassVar[str] = "lower-to-slots"
    after: ClassVar[tuple[str, ...]] = ("merge-linear", "require-polynomial")
    slots: int = 4096

    def run(self, program: Program, context: Context) -> Program:
        """Lower the program; one that is lowered already is returned as it is."""
        if program.dialect == "he":
            return program
        if self.slots < 1 or self.slots & (self.slots - 1):
            raise PassError(f"{self.name}: slots is a power of two, not {self.slots}")
        if program.batch > self.slots:
            raise PassError(
                f"{self.name}: a batch of {program.batch} does not fit {self.slots} slots; "
                "compile for fewer samples at a time"
            )
        return _Lowering(program, self.slots).run()


class _Lowering:
    def __init__(self, program: Program, slots: int) -> None:
        self._program = program
        self._build = Builder(name=program.name, batch=program.batch)
        self._packer = Packer(self._build, slots, program.batch)
        self._packed: dict[str, Packed] = {}

    def run(self) -> Program:
        for op in self._program:
            if isinstance(op, tensor.Output):
                self._output(op)
            elif op.result is not None and not isinstance(op, tensor.ConstantTensor):
                self._packed[op.result.name] = self._lower(op)
        return self._build.finish()

    def _of(self, value: Value) -> Packed:
        if value.name not in self._packed:
            raise PassError(f"lower-to-slots: {value} is clear where a ciphertext is needed")
        return self._packed[value.name]

    def _lower(self, op: Operation) -> Packed:
        packer = self._packer
        match op:
            case tensor.Input():
                return packer.input(op.label, op.dims)
            case move.Affine():
                maps = [self._program.array(symbol) for symbol in op.maps]
                bias = self._program.array(op.bias)
                operands = [self._of(v) for v in op.xs]
                return packer.affine(operands, maps, bias, op.location)
            case tensor.Mul():
                return packer.binary(he.Mul, self._of(op.x), self._of(op.y))
            case tensor.Add():
                return packer.binary(he.Add, self._of(op.x), self._of(op.y))
            case tensor.Sub():
                return packer.binary(he.Sub, self._of(op.x), self._of(op.y))
            case tensor.Neg():
                return packer.negate(self._of(op.x))
            case tensor.Polynomial():
                coefficients = self._program.array(op.coefficients)
                width = tensor.tensor_type(op.x).shape[-1:] or (1,)
                sections = op.sections or width
                return packer.polynomial(self._of(op.x), coefficients, sections, op.basis)
            case move.Reshape():
                return self._of(op.x)
            case move.Slice():
                start, count = contiguous_range(op)
                return packer.view(self._of(op.x), start, count)
        raise PassError(
            f"lower-to-slots: {op.name} ({op.location or op.result}) has no encrypted form; "
            "run merge-linear and require-polynomial first"
        )

    def _output(self, op: tensor.Output) -> None:
        parts = self._packer.output(self._of(op.x))
        dims = tensor.tensor_type(op.x).shape
        self._build.keep(he.Output(xs=parts, label=op.label, dims=dims, post=op.post))


def contiguous_range(op: move.Slice) -> tuple[int, int]:
    """First element and count of a slice that is one run of the flattened operand.

    Raises:
        PassError: the slice takes several runs.
    """
    shape = tensor.tensor_type(op.x).shape
    inner = 1
    for extent in shape[op.axis + 1 :]:
        inner *= extent
    outer = 1
    for extent in shape[: op.axis]:
        outer *= extent
    if outer != 1 or op.step != 1:
        raise PassError(
            f"lower-to-slots: the slice {op.result} is not contiguous; run merge-linear"
        )
    return op.start * inner, (op.stop - op.start) * inner
