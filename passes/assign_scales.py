"""Levels as low as the users allow, exact scales, and the drops that make operands meet."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hecompile.errors import CompileError, PassError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType, PlainType
from hecompile.levels import (
    PRODUCTS,
    ciphertexts,
    gather_groups,
    operand_level,
    reads_top,
    refresh_floors,
    required_levels,
)
from hecompile.numeric.parameters import Parameters
from hecompile.passbase import Context, Pass, register_pass

SAME_SCALE = 1e-13
"""Relative difference below which two scales are one."""

LEAST_FACTOR_BITS = 2.0
"""By how many bits the factor that corrects a scale may stay below the scale of level 0."""


@register_pass
@dataclass(frozen=True)
class AssignScales(Pass):
    """Give every value its level and its exact scale, and insert `he.drop_level` where levels meet.

    An operation runs at the lowest virtual level that its users allow. Every virtual level has one
    scale (`Parameters.virtual_scale`), chosen so that a product of two values that read the top
    of a prime's group rescales exactly to the scale below (level-specific scaling: Kim et al.,
    "Approximate homomorphic encryption with reduced approximation error", CT-RSA 2022); inside a
    group the scale grows instead. A value that is needed lower drops its primes; its scale is
    then corrected by a product with 1, or by the plaintext it is multiplied with anyway.

    Requires: `insert-management`; parameters chosen.
    Ensures: what `check-levels` and `check-scales` check. Levels in types count primes.
    """

    name: ClassVar[str] = "assign-scales"
    after: ClassVar[tuple[str, ...]] = ("insert-management", "choose-parameters")

    def run(self, program: Program, context: Context) -> Program:
        """Assign levels and scales by the program's parameters; an assigned program stays."""
        if program.dialect == "he" and all(_assigned(op) for op in program):
            return program
        if program.parameters is None:
            raise PassError(f"{self.name}: run choose-parameters first")
        return assign(program, program.parameters)


def assign(program: Program, parameters: Parameters) -> Program:
    """Assign levels and scales; see `AssignScales`.

    Raises:
        CompileError: the program is deeper than the parameters' levels.
        PassError: it is not managed for these parameters.
    """
    return _Assignment(program, parameters).run()


class _Assignment:
    def __init__(self, program: Program, parameters: Parameters) -> None:
        self._program = program
        self._parameters = parameters
        self._virtual = parameters.virtual
        self._floor = refresh_floors(program, parameters)
        self._levels = required_levels(program, self._virtual, self._floor)
        deepest = max(self._levels.values(), default=0)
        if deepest > self._virtual.highest:
            raise CompileError(
                f"program '{program.name}' needs {deepest} levels, the parameters have "
                f"{self._virtual.highest}; insert refreshes or choose a larger ring"
            )
        self._pending: set[str] = set()
        self._build = Builder(program)
        self._values: dict[str, Value] = {}
        self._encodes: dict[str, he.Encode] = {}
        self._weights: dict[str, he.Weight] = {}
        self._used: set[str] = set()
        self._brought: dict[tuple[str, int, float], Value] = {}
        self._summed: dict[tuple[tuple[str, ...], int], dict[str, Value]] = {}

    def run(self) -> Program:
        for op in self._program:
            if isinstance(op, he.Encode):
                self._encodes[op.defined.name] = op
            elif isinstance(op, he.Weight):
                self._weights[op.defined.name] = op
            elif op.result is None:
                last = self._place(0, False)
                operands = {v.name: self._bring_near(v, *last) for v in op.operands}
                self._build.keep(op.with_operands(operands))
            else:
                self._assign(op, op.result)
        return gather_groups(self._build.finish(parameters=self._parameters))

    def _place(self, level: int, pending: bool) -> tuple[int, float]:
        """Primes left and scale of a value at a virtual level."""
        prime, scale = self._virtual.prime(level), self._parameters.virtual_scale(level)
        if pending:
            return prime + 1, scale * self._parameters.primes[prime + 1]
        return prime, scale

    def _assign(self, op: Operation, result: Value) -> None:
        level = self._levels[result.name]
        if self._is_pending(op, level):
            self._pending.add(result.name)
        prime, scale = self._place(level, result.name in self._pending)
        needed = operand_level(self._program, op, level, self._virtual, self._floor)
        if isinstance(op, he.Rescale):
            operands = {op.x.name: self._values[op.x.name]}
        elif isinstance(op, PRODUCTS):
            operands = self._factors(op, needed)
        elif isinstance(op, he.Refresh):
            # The key holder reads a value at whatever scale it has.
            near = self._place(needed, False)
            operands = {v.name: self._bring_near(v, *near) for v in op.xs}
        else:
            target = self._place(needed, result.name in self._pending)
            operands = {v.name: self._bring(v, *target) for v in ciphertexts(op)}
        if isinstance(op, he.AddPlain):
            operands[op.p.name] = self._encode(op.p, prime, scale)
        facts = dataclasses.replace(he.cipher_type(result), level=prime, scale=scale)
        value = Value(result.name, facts)
        self._build.keep(op.with_operands(operands).with_result(value))
        self._values[result.name] = value

    def _is_pending(self, op: Operation, level: int) -> bool:
        """Whether a result keeps the prime of a product, by what the operation reads."""
        if isinstance(op, PRODUCTS):
            for value in op.operands:
                if value.name in self._pending:
                    raise PassError(_unmanaged(op, value, "is not rescaled"))
            return self._virtual.is_top(level)
        if isinstance(op, he.Rescale):
            if op.x.name not in self._pending or self._levels[op.x.name] != level:
                raise PassError(_unmanaged(op, op.x, "has nothing to rescale"))
            return False
        if isinstance(op, he.Input | he.Refresh):
            return False
        level_here = (v.name for v in ciphertexts(op) if self._levels[v.name] == level)
        here = {name for name in level_here if name not in self._weights}
        if len({name in self._pending for name in here}) == 2:
            raise PassError(_unmanaged(op, op.operands[0], "is rescaled and another is not"))
        return bool(here & self._pending)

    def _factors(self, op: Operation, needed: int) -> dict[str, Value]:
        """Operands of a product; plaintexts make up for whatever scale a ciphertext has."""
        prime, scale = self._place(needed, False)
        _, result = self._place(needed - 1, self._virtual.is_top(needed - 1))
        match op:
            case he.MulPlain():
                x = self._bring_near(op.x, prime, scale)
                return {op.x.name: x, op.p.name: self._encode(op.p, prime, result / _scale(x))}
            case he.Mul() if not reads_top(self._program, op):
                x, weight = op.x, op.y
                if weight.name not in self._weights:
                    x, weight = weight, x
                near = self._bring_near(x, prime, scale)
                fresh = self._weight(weight, prime, result / _scale(near))
                return {x.name: near, weight.name: fresh}
            case he.SumMulPlain():
                return self._terms(op, needed)
        return {v.name: self._bring(v, prime, scale) for v in ciphertexts(op)}

    def _terms(self, op: he.SumMulPlain, needed: int) -> dict[str, Value]:
        """Operands of a sum of products, found once for all sums that read the same."""
        key = tuple(v.name for v in op.xs), needed
        if key not in self._summed:
            prime, scale = self._place(needed, False)
            found = {v.name: self._bring_near(v, prime, scale) for v in op.xs}
            if len({_scale(v) for v in found.values()}) > 1:
                found = {v.name: self._bring(v, prime, scale) for v in op.xs}
            self._summed[key] = found
        return self._summed[key]

    def _bring_near(self, value: Value, prime: int, scale: float) -> Value:
        """A value with so many primes left and this scale or a smaller one."""
        known = self._values.get(value.name)
        if known is not None and _scale(known) <= scale * 2.0**LEAST_FACTOR_BITS:
            return self._bring(value, prime, None)
        return self._bring(value, prime, scale)

    def _encode(self, plain: Value, level: int, scale: float) -> Value:
        op = self._encodes[plain.name]
        value = Value(self._build.fresh(plain.name), PlainType(op.period, level, scale))
        self._build.keep(op.with_result(value))
        return value

    def _weight(self, weight: Value, level: int, scale: float) -> Value:
        """An encrypted weight, fresh at the level and scale of its use."""
        key = (weight.name, level, scale)
        if key not in self._brought:
            known = weight.name in self._used
            self._used.add(weight.name)
            facts = dataclasses.replace(he.cipher_type(weight), level=level, scale=scale)
            value = Value(self._build.fresh(weight.name) if known else weight.name, facts)
            self._build.keep(self._weights[weight.name].with_result(value))
            self._brought[key] = value
        return self._brought[key]

    def _bring(self, old: Value, prime: int, scale: float | None) -> Value:
        """A value with so many primes left and, unless None, exactly this scale."""
        if old.name in self._weights:
            return self._weight(old, prime, self._place(0, False)[1] if scale is None else scale)
        value = self._values[old.name]
        if old.name in self._pending and he.cipher_type(value).level == prime + 1:
            raise PassError(f"assign-scales: {old} is not rescaled where it is needed")
        key = (old.name, prime, scale or 0.0)
        if key not in self._brought:
            self._brought[key] = self._drop(value, prime, scale)
        return self._brought[key]

    def _drop(self, value: Value, prime: int, scale: float | None) -> Value:
        have = _scale(value)
        if scale is None or math.isclose(have, scale, rel_tol=SAME_SCALE):
            return self._mod_switch(value, prime)
        least = 2.0 ** (self._parameters.scale_bits - LEAST_FACTOR_BITS)
        if scale / have >= least:
            return self._times_one(self._mod_switch(value, prime), scale)
        primes = self._parameters.primes
        for above in range(prime + 1, (he.cipher_type(value).level or 0) + 1):
            if scale * primes[above] / have >= least:
                value = self._times_one(self._mod_switch(value, above), scale * primes[above])
                value = self._emit(he.Rescale(x=value), value, above - 1, scale)
                return self._mod_switch(value, prime)
        raise PassError(
            f"assign-scales: {value} cannot be brought to {prime} primes and a scale of {scale!r}; "
            "run insert-management with these parameters"
        )

    def _mod_switch(self, value: Value, prime: int) -> Value:
        drop = (he.cipher_type(value).level or 0) - prime
        if drop == 0:
            return value
        return self._emit(he.DropLevel(x=value, levels=drop), value, prime, _scale(value))

    def _times_one(self, value: Value, scale: float) -> Value:
        level = he.cipher_type(value).level or 0
        one = he.Encode(value=self._build.constant(np.ones(1), "one"), period=1)
        facts = PlainType(1, level=level, scale=scale / _scale(value))
        encoded = Value(self._build.fresh("one"), facts)
        self._build.keep(one.with_result(encoded))
        return self._emit(he.MulPlain(x=value, p=encoded), value, level, scale)

    def _emit(self, op: Operation, source: Value, level: int, scale: float) -> Value:
        old = he.cipher_type(source)
        return self._build.annotate(
            self._build.emit(op), **old.slot_facts, level=level, scale=scale
        )


def _unmanaged(op: Operation, value: Value, what: str) -> str:
    return f"assign-scales: {op.name} reads {value}, which {what}; run insert-management"


def _assigned(op: Operation) -> bool:
    facts = op.result.type if op.result is not None else None
    return not isinstance(facts, CipherType | PlainType) or facts.level is not None


def _scale(value: Value) -> float:
    scale = he.cipher_type(value).scale
    if scale is None:
        raise PassError(f"assign-scales: {value} has no scale")
    return scale
