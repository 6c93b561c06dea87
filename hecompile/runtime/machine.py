"""Operations of a program on SEAL ciphertexts, in place wherever an operand dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import tenseal.sealapi as seal

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.runtime.admission import facts
from hecompile.runtime.context import settle_scale
from hecompile.runtime.keys import EvaluationKeys
from hecompile.runtime.weights import Weights


@dataclass(frozen=True)
class Timing:
    """How often operations of one class ran, and the wall seconds they took together."""

    count: int = 0
    seconds: float = 0.0


class Machine:
    """Runs one operation at a time on a table of live ciphertexts.

    Attributes:
        timings: Time per operation name, over all evaluations.
    """

    def __init__(self, program: Program, keys: EvaluationKeys, weights: Weights) -> None:
        """Prepare to run a program that `check_program` has admitted."""
        self.timings: dict[str, Timing] = {}
        self._evaluator: Any = seal.Evaluator(keys.context.seal)
        self._context = keys.context
        self._keys = keys
        self._weights = weights
        self._last = program.last_uses

    def run(self, op: Operation, position: int, live: dict[str, Any]) -> None:
        """Run an operation and free the operands that die with it.

        Args:
            op: Any operation but inputs, outputs, encodings and refreshes.
            position: Its place in the program.
            live: Ciphertexts by value name; the result is added.

        Raises:
            ProgramError: SEAL refuses the operation.
        """
        started = time.perf_counter()
        kernel = _KERNELS[type(op)]
        result = op.defined
        try:
            value = kernel(_Call(self, op, position, live))
            settle_scale(value, facts(result).scale, str(result))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ProgramError(
                f"{op.name} that defines {result} ({op.location or 'no location'}) cannot run:"
                f" SEAL says '{error}'; compile the model again."
            ) from error
        self.release(op, position, live)
        live[result.name] = value
        self._note(op.name, time.perf_counter() - started)

    def release(self, op: Operation, position: int, live: dict[str, Any]) -> None:
        """Forget the operands whose last use is this operation."""
        for value in op.operands:
            if self._last[value.name] <= position:
                live.pop(value.name, None)

    def add_mask(self, value: Any, mask: Any, keep: bool) -> Any:
        """Add an encoded mask to a ciphertext; the ciphertext itself is spared if `keep`."""
        mask.scale = value.scale
        if not keep:
            self._evaluator.add_plain_inplace(value, mask)
            return value
        masked = seal.Ciphertext()
        self._evaluator.add_plain(value, mask, masked)
        return masked

    def remove_mask(self, value: Any, mask: Any) -> None:
        """Subtract an encoded mask from a ciphertext, in place."""
        mask.scale = value.scale
        self._evaluator.sub_plain_inplace(value, mask)

    def _note(self, name: str, seconds: float) -> None:
        before = self.timings.get(name, Timing())
        self.timings[name] = Timing(before.count + 1, before.seconds + seconds)


class _Call:
    """One operation being run: its operands, and what it may overwrite."""

    def __init__(self, machine: Machine, op: Any, position: int, live: Mapping[str, Any]) -> None:
        self.op = op
        self.seal = machine._evaluator
        self.keys = machine._keys
        self.context = machine._context
        self.weights = machine._weights
        self._live = live
        self._last = machine._last
        self._position = position
        self._names = [value.name for value in op.operands]

    def get(self, value: Value) -> Any:
        """The ciphertext of an operand."""
        return self._live[value.name]

    def dies(self, value: Value) -> bool:
        """Whether an operand may be overwritten: this is its last use, and it is used once."""
        once = self._names.count(value.name) == 1
        return once and self._last[value.name] <= self._position

    def own(self, value: Value) -> Any:
        """A ciphertext to overwrite: the operand itself if it dies here, else a copy."""
        found = self.get(value)
        if self.dies(value):
            return found
        copy = seal.Ciphertext()
        self.seal.mod_switch_to(found, found.parms_id(), copy)
        return copy


def _add(call: _Call) -> Any:
    x, y = call.op.x, call.op.y
    if call.dies(y) and not call.dies(x):
        x, y = y, x
    result, other = call.own(x), call.get(y)
    # SEAL compares scales bit by bit; the program was admitted with a tolerance.
    result.scale = other.scale
    call.seal.add_inplace(result, other)
    return result


def _sub(call: _Call) -> Any:
    result, other = call.own(call.op.x), call.get(call.op.y)
    result.scale = other.scale
    call.seal.sub_inplace(result, other)
    return result


def _mul(call: _Call) -> Any:
    x, y = call.op.x, call.op.y
    if x.name == y.name:
        result = seal.Ciphertext()
        call.seal.square(call.get(x), result)
        return result
    if call.dies(y) and not call.dies(x):
        x, y = y, x
    result = call.own(x)
    call.seal.multiply_inplace(result, call.get(y))
    return result


def _add_plain(call: _Call) -> Any:
    result = call.own(call.op.x)
    plain = call.weights.plain(call.weights.of(call.op.p.name)[0])
    result.scale = plain.scale
    call.seal.add_plain_inplace(result, plain)
    return result


def _mul_plain(call: _Call) -> Any:
    weight = call.weights.of(call.op.p.name)[0]
    plain = call.weights.plain(weight)
    if plain.is_zero():
        plain = call.weights.smallest(weight.level, weight.scale)
    result = call.own(call.op.x)
    call.seal.multiply_plain_inplace(result, plain)
    return result


def _negate(call: _Call) -> Any:
    result = call.own(call.op.x)
    call.seal.negate_inplace(result)
    return result


def _rotate(call: _Call) -> Any:
    steps = call.op.steps
    result = call.own(call.op.x)
    call.seal.rotate_vector_inplace(result, steps, call.keys.galois[steps])
    return result


def _relinearize(call: _Call) -> Any:
    result = call.own(call.op.x)
    call.seal.relinearize_inplace(result, call.keys.relin)
    return result


def _rescale(call: _Call) -> Any:
    result = call.own(call.op.x)
    call.seal.rescale_to_next_inplace(result)
    return result


def _drop_level(call: _Call) -> Any:
    result = call.own(call.op.x)
    level = facts(call.op.defined).level
    call.seal.mod_switch_to_inplace(result, call.context.parms_ids[level])
    return result


def _sum_mul_plain(call: _Call) -> Any:
    total = None
    weights = call.weights.of(call.op.defined.name)
    for x, weight in zip(call.op.xs, weights, strict=True):
        plain = call.weights.plain(weight)
        # SEAL refuses to multiply by zero: the result would hide nothing.
        if plain.is_zero():
            continue
        product = seal.Ciphertext()
        call.seal.multiply_plain(call.get(x), plain, product)
        if total is None:
            total = product
        else:
            call.seal.add_inplace(total, product)
    if total is None:
        total = seal.Ciphertext()
        plain = call.weights.smallest(weights[0].level, weights[0].scale)
        call.seal.multiply_plain(call.get(call.op.xs[0]), plain, total)
    return total


_KERNELS: Final[dict[type[Operation], Callable[[_Call], Any]]] = {
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
