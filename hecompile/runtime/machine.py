"""Operations of a program on SEAL ciphertexts, in place wherever an operand dies."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import tenseal.sealapi as seal

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.runtime.admission import facts
from hecompile.runtime.context import settle_scale
from hecompile.runtime.families import scalar_sums
from hecompile.runtime.inner_products import inner_products
from hecompile.runtime.keys import EvaluationKeys
from hecompile.runtime.weights import Weights


@dataclass(frozen=True)
class Timing:
    """How often operations of one class ran, and the wall seconds they took together."""

    count: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Step:
    """What running an operation needs to know of it, found out once.

    Attributes:
        kernel: Runs it.
        name: Of its result.
        scale: Of its result.
        operands: Names of its operands.
    """

    kernel: Callable[[_Call], Any]
    name: str
    scale: float
    operands: tuple[str, ...]

    @classmethod
    def of(cls, op: Operation) -> _Step:
        operands = tuple(value.name for value in op.operands)
        return cls(_KERNELS[type(op)], op.defined.name, facts(op.defined).scale, operands)


class Machine:
    """Runs one operation at a time on a table of live ciphertexts.

    Attributes:
        timings: Time per operation name, over all evaluations.
    """

    def __init__(
        self,
        program: Program,
        keys: EvaluationKeys,
        weights: Weights,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare to run a program that `check_program` has admitted.

        Args:
            program: The program.
            keys: Evaluation keys made for it.
            weights: Its plaintext weights.
            model: Ciphertexts of its encrypted weights by value name, the same in every run.
        """
        self.timings: dict[str, Timing] = {}
        self._evaluator: Any = seal.Evaluator(keys.context.seal)
        self._context = keys.context
        self._keys = keys
        self._weights = weights
        self._model = model or {}
        self._products = inner_products(program, keys.context)
        self._last = self._products.plan.last_uses(program)
        self._sums = scalar_sums(program, keys.context)
        self._in_program_order = True
        self._steps = {op.defined.name: _Step.of(op) for op in program if type(op) in _KERNELS}

    @property
    def has_batches(self) -> bool:
        """Whether some operations are computed together with later ones."""
        return bool(self._sums) or bool(self._products.plan.sums)

    @contextlib.contextmanager
    def ordered(self, last: Mapping[str, int]) -> Iterator[None]:
        """Run operations in an order of one's own, each by itself.

        Args:
            last: The turn of each value's last use; turns stand for positions in `run`.
        """
        before, self._last, self._in_program_order = self._last, dict(last), False
        try:
            yield
        finally:
            self._last, self._in_program_order = before, True

    def run(self, op: Operation, position: int, live: dict[str, Any]) -> None:
        """Run an operation and free the operands that die with it.

        Args:
            op: Any operation but inputs, outputs, encodings and refreshes.
            position: Its place in the program.
            live: Ciphertexts by value name; the result is added.

        Raises:
            ProgramError: SEAL refuses the operation.
        """
        if self._in_program_order and self._products.skips(position):
            self._note(op.name, 0.0)
            return
        started = time.perf_counter()
        result = op.defined
        step = self._steps[result.name]
        try:
            value = self._computed_together(step.name, position, live)
            if value is None:
                value = step.kernel(_Call(self, op, step, position, live))
            settle_scale(value, step.scale, step.name)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ProgramError(
                f"{op.name} that defines {result} ({op.location or 'no location'}) cannot run:"
                f" SEAL says '{error}'; compile the model again."
            ) from error
        self._release(step.operands, position, live)
        live[step.name] = value
        self._note(op.name, time.perf_counter() - started)

    def _computed_together(self, name: str, position: int, live: dict[str, Any]) -> Any:
        """The value of an operation that is computed together with others; None if it is not."""
        if not self._in_program_order:
            return None
        if (batch := self._sums.due(position)) is not None:
            live.update(self._sums.run(batch, live))
        if (products := self._products.due(position)) is not None:
            return self._products.run(products, live)
        # A sum may have been computed together with an earlier one, even before a refresh.
        return live.get(name)

    def release(self, op: Operation, position: int, live: dict[str, Any]) -> None:
        """Forget the operands whose last use is this operation."""
        self._release([value.name for value in op.operands], position, live)

    def _release(self, names: Iterable[str], position: int, live: dict[str, Any]) -> None:
        last = self._last
        for name in names:
            if last[name] <= position:
                live.pop(name, None)

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

    def add_timing(self, name: str, timing: Timing) -> None:
        """Add time that operations of a name took."""
        before = self.timings.get(name, Timing())
        self.timings[name] = Timing(before.count + timing.count, before.seconds + timing.seconds)

    def _note(self, name: str, seconds: float) -> None:
        self.add_timing(name, Timing(1, seconds))


class _Call:
    """One operation being run: its operands, and what it may overwrite."""

    def __init__(
        self, machine: Machine, op: Any, step: _Step, position: int, live: Mapping[str, Any]
    ) -> None:
        self.op = op
        self.seal = machine._evaluator
        self.keys = machine._keys
        self.context = machine._context
        self.weights = machine._weights
        self._live = live
        self._last = machine._last
        self.model = machine._model
        self._position = position
        self._names = step.operands

    def get(self, value: Value) -> Any:
        """The ciphertext of an operand."""
        return self._live[value.name]

    def dies(self, value: Value) -> bool:
        """Whether an operand may be overwritten: this is its last use, and it is used once."""
        if value.name in self.model:
            return False
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


def _weight(call: _Call) -> Any:
    return call.model[call.op.defined.name]


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
