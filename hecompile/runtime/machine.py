"""Operations of a program on SEAL ciphertexts, in place wherever an operand dies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tenseal.sealapi as seal

from hecompile.errors import ProgramError
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.runtime.context import settle_scale
from hecompile.runtime.families import scalar_sums
from hecompile.runtime.inner_products import inner_products
from hecompile.runtime.keys import EvaluationKeys
from hecompile.runtime.rehearsal import rehearse
from hecompile.runtime.steps import Live, Step, Tools, bind_steps, is_computed
from hecompile.runtime.weights import Weights


@dataclass(frozen=True)
class Timing:
    """How often operations of one class ran, and the wall seconds they took together."""

    count: int = 0
    seconds: float = 0.0


class Machine:
    """Runs one operation at a time on a table of live ciphertexts."""

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
        self._evaluator: Any = seal.Evaluator(keys.context.seal)
        self._tools = Tools(self._evaluator, keys.context, keys, weights, model or {})
        self._products = inner_products(program, keys.context)
        self._last = self._products.plan.last_uses(program)
        self._sums = scalar_sums(program, keys.context)
        self._spent: dict[str, list[float]] = {}
        turns = [(n, op) for n, op in enumerate(program) if is_computed(op)]
        bound = bind_steps(self._tools, turns, self._last)
        self._steps = {n: step for (n, _), step in zip(turns, bound, strict=True)}

    @property
    def has_batches(self) -> bool:
        """Whether some operations are computed together with later ones."""
        return bool(self._sums) or bool(self._products.plan.sums)

    @property
    def timings(self) -> dict[str, Timing]:
        """Time per operation name, since the start or `forget_timings`."""
        return {name: Timing(int(spent[0]), spent[1]) for name, spent in self._spent.items()}

    def forget_timings(self) -> None:
        """Count from zero again."""
        self._spent.clear()

    def bind(self, operations: Sequence[Operation], last: Mapping[str, int]) -> list[Step]:
        """Bind operations to an order of one's own, each by itself, for `perform`.

        Args:
            operations: Each one that `is_computed`.
            last: The place in that order of each value's last use; what is missing lives on.
        """
        return bind_steps(self._tools, list(enumerate(operations)), last)

    def rehearse(self) -> int:
        """Run operations of every kind on random ciphertexts; return how many."""
        together = self._products.skips
        return rehearse((s for n, s in self._steps.items() if not together(n)), self._tools.context)

    def run(self, op: Operation, position: int, live: Live) -> None:
        """Run an operation at its place in the program and free the operands that die with it.

        Args:
            op: Any operation but inputs, outputs, encodings and refreshes.
            position: Its place in the program.
            live: Ciphertexts by value name; the result is added.

        Raises:
            ProgramError: SEAL refuses the operation.
        """
        if self._products.skips(position):
            self._note(op.name, 0.0)
            return
        self.perform(self._steps[position], live, position)

    def perform(self, step: Step, live: Live, position: int = -1) -> None:
        """Run a bound operation.

        Args:
            step: What `bind` gave.
            live: Ciphertexts by value name; the result is added, dead operands are removed.
            position: Its place in the program, where it may be computed together with others.

        Raises:
            ProgramError: SEAL refuses the operation.
        """
        started = time.perf_counter()
        try:
            value = self._computed_together(step.name, position, live)
            if value is None:
                value = step.kernel(live)
            if value.scale != step.scale:
                settle_scale(value, step.scale, step.name)
        except (RuntimeError, ValueError, IndexError) as error:
            op = step.op
            raise ProgramError(
                f"{op.name} that defines {op.result} ({op.location or 'no location'}) cannot run:"
                f" SEAL says '{error}'; compile the model again."
            ) from error
        for name in step.dead:
            live.pop(name, None)
        live[step.name] = value
        self._note(step.kind, time.perf_counter() - started)

    def _computed_together(self, name: str, position: int, live: Live) -> Any:
        """The value of an operation that is computed together with others; None if it is not."""
        if position < 0:
            return None
        if (batch := self._sums.due(position)) is not None:
            live.update(self._sums.run(batch, live))
        if (products := self._products.due(position)) is not None:
            return self._products.run(products, live)
        # A sum may have been computed together with an earlier one, even before a refresh.
        return live.get(name)

    def release(self, op: Operation, position: int, live: Live) -> None:
        """Forget the operands whose last use is this operation."""
        for value in op.operands:
            if self._last[value.name] <= position:
                live.pop(value.name, None)

    def add_mask(self, value: Any, mask: Any) -> Any:
        """The sum of a ciphertext and an encoded mask; the ciphertext itself is spared."""
        mask.scale = value.scale
        masked = seal.Ciphertext()
        self._evaluator.add_plain(value, mask, masked)
        return masked

    def remove_mask(self, value: Any, mask: Any) -> None:
        """Subtract an encoded mask from a ciphertext, in place."""
        mask.scale = value.scale
        self._evaluator.sub_plain_inplace(value, mask)

    def add_timing(self, name: str, timing: Timing) -> None:
        """Add time that operations of a name took."""
        self._note(name, timing.seconds, timing.count)

    def _note(self, name: str, seconds: float, count: int = 1) -> None:
        spent = self._spent.get(name)
        if spent is None:
            spent = self._spent[name] = [0, 0.0]
        spent[0] += count
        spent[1] += seconds
