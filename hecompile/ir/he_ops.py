"""Operations of the ciphertext level, before (no level, no scale) and after scale assignment.

That products are relinearized before they are rotated, multiplied, refreshed or returned is a rule
of managed programs; `check-levels` enforces it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from hecompile.errors import ProgramError
from hecompile.ir.operation import Operation, Symbol, Value, attribute, operand, register_operation
from hecompile.ir.types import CipherType, Layout, PlainType, Type
from hecompile.numeric.masking import check_mask_bits


def cipher_type(value: Value) -> CipherType:
    """The ciphertext type of a value.

    Raises:
        ProgramError: the value is a tensor or plaintext.
    """
    if not isinstance(value.type, CipherType):
        raise ProgramError(f"{value} is {value.type}, where a ciphertext is needed")
    return value.type


def plain_type(value: Value) -> PlainType:
    """The plaintext type of a value.

    Raises:
        ProgramError: the value is a tensor or ciphertext.
    """
    if not isinstance(value.type, PlainType):
        raise ProgramError(f"{value} is {value.type}, where an encoded plaintext is needed")
    return value.type


def structure(*operands: Value, polynomials: int | None = None) -> CipherType:
    """Period and polynomials of a result: the longest period, the most polynomials.

    Layout, bound, level and scale are facts that passes assign; they are left open.
    """
    types = [cipher_type(v) for v in operands]
    most = max(t.polynomials for t in types)
    return CipherType(max(t.period for t in types), polynomials=polynomials or most)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Input(Operation):
    """One ciphertext of an input.

    Attributes:
        label: the input's name.
        dims: shape of the whole input, one sample.
        period: slots after which the packed vector repeats.
        first: first element held, as in `Layout`; `count` and `stride` alike.
        gather: constant (period / stride,) that names the element of each place (`stride` slots),
            -1 for zero. Elements may repeat: the client packs replicas and the taps of a
            convolution for free. `first` and `count` then bound the elements named.
    """

    name: ClassVar[str] = "he.input"
    label: str = attribute()
    dims: tuple[int, ...] = attribute()
    period: int = attribute()
    first: int = attribute()
    count: int = attribute()
    stride: int = attribute(default=1)
    gather: Symbol | None = attribute(default=None)

    def infer(self) -> Type | None:
        """A ciphertext with the declared layout, zero elsewhere; gathered ones have none."""
        layout = Layout(self.first, self.count, self.stride)
        return CipherType(self.period, layout if self.gather is None else None)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Weight(Operation):
    """A ciphertext of a model constant, made by the model's owner under the public key of the data.

    Attributes:
        source: which constant of the model it is; weights of one source are equal.
        period: slots after which the vector repeats.
        value: the constant, of shape (period,); None in the evaluator's form of the program.
    """

    name: ClassVar[str] = "he.weight"
    source: str = attribute()
    period: int = attribute()
    value: Symbol | None = attribute(default=None)

    def infer(self) -> Type | None:
        """A ciphertext of the declared period."""
        return CipherType(self.period)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Encode(Operation):
    """A plaintext from a constant of shape (period,)."""

    name: ClassVar[str] = "he.encode"
    value: Symbol = attribute()
    period: int = attribute()

    def infer(self) -> Type | None:
        """A plaintext of the declared period."""
        return PlainType(self.period)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Output(Operation):
    """An output of the model: its ciphertexts, in order of the elements they hold.

    Attributes:
        label: the output's name.
        dims: shape of the whole output, one sample.
        post: steps that the client takes after decryption.
    """

    name: ClassVar[str] = "he.output"
    xs: tuple[Value, ...] = operand()
    label: str = attribute()
    dims: tuple[int, ...] = attribute()
    post: tuple[str, ...] = attribute(default=())

    def infer(self) -> Type | None:
        """Outputs define nothing."""
        for value in self.xs:
            cipher_type(value)
        return None


@dataclass(frozen=True, kw_only=True)
class Binary(Operation):
    """Slot-wise operation on two ciphertexts."""

    x: Value = operand()
    y: Value = operand()

    def infer(self) -> Type | None:
        """The longer period, the more polynomials."""
        return structure(self.x, self.y)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Add(Binary):
    """`x + y`; levels and scales must agree."""

    name: ClassVar[str] = "he.add"


@register_operation
@dataclass(frozen=True, kw_only=True)
class Sub(Binary):
    """`x - y`; levels and scales must agree."""

    name: ClassVar[str] = "he.sub"


@register_operation
@dataclass(frozen=True, kw_only=True)
class Mul(Binary):
    """`x * y`; levels must agree, scales multiply, the result has three polynomials."""

    name: ClassVar[str] = "he.mul"

    def infer(self) -> Type | None:
        """Three polynomials."""
        return structure(self.x, self.y, polynomials=3)


@dataclass(frozen=True, kw_only=True)
class PlainBinary(Operation):
    """Slot-wise operation on a ciphertext and an encoded plaintext."""

    x: Value = operand()
    p: Value = operand()

    def infer(self) -> Type | None:
        """The longer period."""
        base = structure(self.x)
        return replace(base, period=max(base.period, plain_type(self.p).period))


@register_operation
@dataclass(frozen=True, kw_only=True)
class AddPlain(PlainBinary):
    """`x + p`; levels and scales must agree."""

    name: ClassVar[str] = "he.add_plain"


@register_operation
@dataclass(frozen=True, kw_only=True)
class MulPlain(PlainBinary):
    """`x * p`; levels must agree, scales multiply."""

    name: ClassVar[str] = "he.mul_plain"


@dataclass(frozen=True, kw_only=True)
class Unary(Operation):
    """Operation on one ciphertext."""

    x: Value = operand()

    def infer(self) -> Type | None:
        """Structure of the operand."""
        return structure(self.x)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Negate(Unary):
    """`-x`."""

    name: ClassVar[str] = "he.negate"


@register_operation
@dataclass(frozen=True, kw_only=True)
class Rotate(Unary):
    """Cyclic rotation to the left: slot j of the result is slot j + `steps` of x."""

    name: ClassVar[str] = "he.rotate"
    steps: int = attribute()

    def infer(self) -> Type | None:
        """Structure of the operand, turned within its period."""
        if not 0 < self.steps < cipher_type(self.x).period:
            raise ProgramError(f"he.rotate: {self.steps} steps in a period of {self.x.type}")
        return structure(self.x)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Relinearize(Unary):
    """Bring three polynomials back to two, with the relinearization key."""

    name: ClassVar[str] = "he.relinearize"

    def infer(self) -> Type | None:
        """Two polynomials."""
        return structure(self.x, polynomials=2)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Rescale(Unary):
    """Divide by the last prime: one level and one scale factor less."""

    name: ClassVar[str] = "he.rescale"


@register_operation
@dataclass(frozen=True, kw_only=True)
class DropLevel(Unary):
    """Drop `levels` primes without dividing; the scale stays."""

    name: ClassVar[str] = "he.drop_level"
    levels: int = attribute()

    def infer(self) -> Type | None:
        """Structure of the operand; at least one level is dropped."""
        if self.levels < 1:
            raise ProgramError(f"he.drop_level drops 1 level or more, not {self.levels}")
        return structure(self.x)


@register_operation
@dataclass(frozen=True, kw_only=True)
class Refresh(Operation):
    """Masked round trip to the key holder: all levels back, and the slots in any order.

    Attributes:
        xs: ciphertexts that go up, masked; each distinct one of a group once.
        period: slots after which the result repeats; 0 for those of the one operand.
        gather: constant (2, period) that names for each slot of the result an operand, or -1 for
            zero, and a slot of that operand; None for the slots of the one operand as they are.
        mask_bits: what the key holder sees of two runs of the program, in all their refreshes
            together, differs by a statistical distance of 2**-mask_bits at most, see
            `numeric.masking`; 0 to 64, and 0 hides nothing.
        group: refreshes with one group number travel in one round.
    """

    name: ClassVar[str] = "he.refresh"
    xs: tuple[Value, ...] = operand()
    period: int = attribute(default=0)
    gather: Symbol | None = attribute(default=None)
    mask_bits: int = attribute(default=40)
    group: int = attribute(default=0)

    def infer(self) -> Type | None:
        """Two polynomials, the period that is stated.

        Raises:
            ProgramError: there is no operand, or several and nothing says what is taken of each;
                or the mask bits are out of range.
        """
        if not self.xs or (self.gather is None and (len(self.xs) > 1 or self.period)):
            raise ProgramError("he.refresh without gather takes one operand, and its period")
        if self.gather is not None and self.period < 1:
            raise ProgramError("he.refresh with gather states the period of its result")
        check_mask_bits(self.mask_bits)
        return CipherType(self.period or structure(*self.xs).period)


@register_operation
@dataclass(frozen=True, kw_only=True)
class SumMulPlain(Operation):
    """Sum of plaintext products: `sum of xs[i] * weights[i]`.

    Attributes:
        weights: constant of shape (operands, period).
        period: slots after which the weights repeat.
    """

    name: ClassVar[str] = "he.sum_mul_plain"
    xs: tuple[Value, ...] = operand()
    weights: Symbol = attribute()
    period: int = attribute()

    def infer(self) -> Type | None:
        """The longest period among operands and weights."""
        if not self.xs:
            raise ProgramError("he.sum_mul_plain needs an operand")
        base = structure(*self.xs)
        return replace(base, period=max(base.period, self.period))
