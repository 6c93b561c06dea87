"""Operations bound to SEAL's calls once, so that running one costs little beside the call itself.

Where an operand dies with the operation, the result takes its place; otherwise SEAL writes to a
ciphertext of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import tenseal.sealapi as seal

from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.runtime.admission import facts
from hecompile.runtime.context import Context
from hecompile.runtime.keys import EvaluationKeys
from hecompile.runtime.weights import Weight, Weights

Live = dict[str, Any]
"""Ciphertexts by value name."""

Kernel = Callable[[Live], Any]
"""Computes an operation from live ciphertexts and returns its result."""


@dataclass(frozen=True)
class Tools:
    """What operations are computed with.

    Attributes:
        evaluator: SEAL's.
        context: The program's context.
        keys: Evaluation keys.
        weights: Plaintext weights.
        model: Ciphertexts of encrypted weights by value name, which no run may change.
        product: Takes one product after another on the way into a sum, so that its memory stays
            in the processor's cache.
    """

    evaluator: Any
    context: Context
    keys: EvaluationKeys
    weights: Weights
    model: Mapping[str, Any]
    product: Any = field(default_factory=seal.Ciphertext)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation at its turn.

    Attributes:
        op: The operation.
        kind: Its name.
        name: Name of its result.
        scale: Scale of its result.
        kernel: Computes it.
        dead: Operands that nothing reads afterwards.
    """

    op: Operation
    kind: str
    name: str
    scale: float
    kernel: Kernel
    dead: tuple[str, ...]


def is_computed(op: Operation) -> bool:
    """Whether an operation is a call of SEAL's: not an input, output, encoding or refresh."""
    return type(op) in _BINDERS


def bind_steps(
    tools: Tools, operations: Sequence[tuple[int, Operation]], last: Mapping[str, int]
) -> list[Step]:
    """Bind operations to their turns.

    Args:
        tools: What they are computed with.
        operations: Turns and operations, each one that `is_computed`.
        last: Turn of each value's last use; what is missing is used for ever.
    """
    return [_bind(tools, op, turn, last) for turn, op in operations]


def _bind(tools: Tools, op: Operation, turn: int, last: Mapping[str, int]) -> Step:
    names = [value.name for value in op.operands]
    dead = tuple(dict.fromkeys(n for n in names if last.get(n, turn + 1) <= turn))
    # A product of a value with itself is one call on one ciphertext.
    once = frozenset(n for n in dead if names.count(n) == 1 or isinstance(op, he.Mul))
    result = op.defined
    kernel = _BINDERS[type(op)](_Binding(tools, op, once - tools.model.keys()))
    return Step(op, op.name, result.name, facts(result).scale, kernel, dead)


@dataclass(frozen=True)
class _Binding:
    """An operation, and which of its operands may be overwritten.

    Attributes:
        tools: What it is computed with.
        op: The operation.
        free: Operands that die with it, are read once by it, and belong to no model.
    """

    tools: Tools
    op: Any
    free: frozenset[str]

    @property
    def seal(self) -> Any:
        return self.tools.evaluator

    def unary(
        self, x: Value, in_place: Callable[..., None], fresh: Callable[..., None], *more: Any
    ) -> Kernel:
        """A call with one ciphertext and other arguments that never change."""
        name = x.name
        if name in self.free:

            def overwrite(live: Live) -> Any:
                value = live[name]
                in_place(value, *more)
                return value

            return overwrite

        def compute(live: Live) -> Any:
            result = seal.Ciphertext()
            fresh(live[name], *more, result)
            return result

        return compute

    def owned(self, x: Value) -> Kernel:
        """A ciphertext to overwrite: the operand itself if it is free, else a copy."""
        name = x.name
        if name in self.free:
            return lambda live: live[name]
        copy = self.seal.mod_switch_to

        def copied(live: Live) -> Any:
            found, result = live[name], seal.Ciphertext()
            copy(found, found.parms_id(), result)
            return result

        return copied


def _weight(bound: _Binding) -> Kernel:
    value = bound.tools.model[bound.op.defined.name]
    return lambda live: value


def _sum(bound: _Binding, x: Value, y: Value, in_place: Any, fresh: Any) -> Kernel:
    first, second = x.name, y.name
    # SEAL compares scales bit by bit; the program was admitted with a tolerance.
    if first in bound.free or facts(x).scale != facts(y).scale:
        owned = bound.owned(x)

        def overwrite(live: Live) -> Any:
            result, other = owned(live), live[second]
            result.scale = other.scale
            in_place(result, other)
            return result

        return overwrite

    def compute(live: Live) -> Any:
        result = seal.Ciphertext()
        fresh(live[first], live[second], result)
        return result

    return compute


def _add(bound: _Binding) -> Kernel:
    x, y = bound.op.x, bound.op.y
    if y.name in bound.free and x.name not in bound.free:
        x, y = y, x
    return _sum(bound, x, y, bound.seal.add_inplace, bound.seal.add)


def _sub(bound: _Binding) -> Kernel:
    return _sum(bound, bound.op.x, bound.op.y, bound.seal.sub_inplace, bound.seal.sub)


def _mul(bound: _Binding) -> Kernel:
    x, y = bound.op.x, bound.op.y
    if x.name == y.name:
        return bound.unary(x, bound.seal.square_inplace, bound.seal.square)
    if y.name in bound.free and x.name not in bound.free:
        x, y = y, x
    first, second = x.name, y.name
    if first in bound.free:
        multiply = bound.seal.multiply_inplace

        def overwrite(live: Live) -> Any:
            result = live[first]
            multiply(result, live[second])
            return result

        return overwrite
    fresh = bound.seal.multiply

    def compute(live: Live) -> Any:
        result = seal.Ciphertext()
        fresh(live[first], live[second], result)
        return result

    return compute


def _plaintext(tools: Tools, weight: Weight) -> Callable[[], Any]:
    """Gives a weight's plaintext: the stored one, or one encoded for each use."""
    if weight.plain is not None:
        plain = weight.plain
        return lambda: plain
    return lambda: tools.weights.plain(weight)


def _add_plain(bound: _Binding) -> Kernel:
    plaintext = _plaintext(bound.tools, bound.tools.weights.of(bound.op.p.name)[0])
    owned, add = bound.owned(bound.op.x), bound.seal.add_plain_inplace

    def compute(live: Live) -> Any:
        plain, result = plaintext(), owned(live)
        result.scale = plain.scale
        add(result, plain)
        return result

    return compute


def _mul_plain(bound: _Binding) -> Kernel:
    tools, name = bound.tools, bound.op.x.name
    weight = tools.weights.of(bound.op.p.name)[0]
    plaintext = _plaintext(tools, weight)
    free = name in bound.free
    in_place, fresh = bound.seal.multiply_plain_inplace, bound.seal.multiply_plain

    def compute(live: Live) -> Any:
        plain = plaintext()
        if plain.is_zero():
            plain = tools.weights.smallest(weight.level, weight.scale)
        if free:
            in_place(live[name], plain)
            return live[name]
        result = seal.Ciphertext()
        fresh(live[name], plain, result)
        return result

    return compute


def _negate(bound: _Binding) -> Kernel:
    return bound.unary(bound.op.x, bound.seal.negate_inplace, bound.seal.negate)


def _rotate(bound: _Binding) -> Kernel:
    steps, evaluator = bound.op.steps, bound.seal
    key = bound.tools.keys.galois[steps]
    return bound.unary(
        bound.op.x, evaluator.rotate_vector_inplace, evaluator.rotate_vector, steps, key
    )


def _relinearize(bound: _Binding) -> Kernel:
    evaluator, key = bound.seal, bound.tools.keys.relin
    return bound.unary(bound.op.x, evaluator.relinearize_inplace, evaluator.relinearize, key)


def _rescale(bound: _Binding) -> Kernel:
    evaluator = bound.seal
    return bound.unary(bound.op.x, evaluator.rescale_to_next_inplace, evaluator.rescale_to_next)


def _drop_level(bound: _Binding) -> Kernel:
    target = bound.tools.context.parms_ids[facts(bound.op.defined).level]
    evaluator = bound.seal
    return bound.unary(bound.op.x, evaluator.mod_switch_to_inplace, evaluator.mod_switch_to, target)


def _sum_mul_plain(bound: _Binding) -> Kernel:
    tools, op = bound.tools, bound.op
    weights = tools.weights.of(op.defined.name)
    terms = [(x.name, _plaintext(tools, w)) for x, w in zip(op.xs, weights, strict=True)]
    first, smallest = op.xs[0].name, weights[0]
    multiply, add, product = bound.seal.multiply_plain, bound.seal.add_inplace, tools.product

    def compute(live: Live) -> Any:
        total = None
        for name, plaintext in terms:
            plain = plaintext()
            # SEAL refuses to multiply by zero: the result would hide nothing.
            if plain.is_zero():
                continue
            if total is None:
                total = seal.Ciphertext()
                multiply(live[name], plain, total)
            else:
                multiply(live[name], plain, product)
                add(total, product)
        if total is None:
            total = seal.Ciphertext()
            plain = tools.weights.smallest(smallest.level, smallest.scale)
            multiply(live[first], plain, total)
        return total

    return compute


_BINDERS: Final[dict[type[Operation], Callable[[_Binding], Kernel]]] = {
    he.Weight: _weight,
    he.Add: _add,
    he.Sub: _sub,
    he.Mul: _mul,
    he.AddPlain: _add_plain,
    he.MulPlain: _mul_plain,
    he.Negate: _negate,
    he.Rotate: _rotate,
    he.Relinearize: _relinearize,
    he.Rescale: _rescale,
    he.DropLevel: _drop_level,
    he.SumMulPlain: _sum_mul_plain,
}
