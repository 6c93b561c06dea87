"""Levels as low as the users allow, exact scales, and the drops that make operands meet."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hecompile.errors import CompileError, PassError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType, PlainType
from hecompile.levels import gather_groups, refresh_floor, scale_powers
from hecompile.numeric.parameters import Parameters
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class AssignScales(Pass):
    """Give every value its level and its exact scale, and insert `he.drop_level` where levels meet.

    Every level has one canonical scale (`Parameters.scale`), chosen so that a product of two
    canonical values rescales exactly to the canonical scale below (level-specific scaling: Kim et
    al., "Approximate homomorphic encryption with reduced approximation error", CT-RSA 2022). An
    operation runs at the lowest level that its users allow. A value that is needed lower drops its
    primes; its scale is then corrected by a product with 1 at the scale that lands on the
    canonical one, or by the plaintext it is multiplied with anyway.

    Requires: `insert-management`; parameters chosen.
    Ensures: what `check-levels` and `check-scales` check.
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


def required_levels(program: Program, parameters: Parameters) -> dict[str, int]:
    """The lowest level of each ciphertext that its users allow, walking backwards.

    Outputs may be at level 0; what is handed over for a refresh keeps room for its mask; a rescale
    needs a level more than its result; everything else needs its operands at its own level.
    """
    levels: dict[str, int] = {}
    for op in reversed(program.operations):
        own = levels.get(op.result.name, 0) if op.result is not None else 0
        needed = operand_level(op, own, parameters)
        for value in op.operands:
            if isinstance(value.type, CipherType):
                levels[value.name] = max(levels.get(value.name, 0), needed)
    return levels


def operand_level(op: Operation, level: int, parameters: Parameters) -> int:
    """The level at which an operation at `level` reads its operands."""
    if isinstance(op, he.Rescale):
        return level + 1
    if isinstance(op, he.Refresh):
        return refresh_floor(op.x, parameters, op.mask_bits)
    return level


def assign(program: Program, parameters: Parameters) -> Program:
    """Assign levels and scales; see `AssignScales`.

    Raises:
        CompileError: the program is deeper than the parameters' levels.
    """
    levels = required_levels(program, parameters)
    deepest = max(levels.values(), default=0)
    if deepest > parameters.levels:
        raise CompileError(
            f"program '{program.name}' needs {deepest} levels, the parameters have "
            f"{parameters.levels}; insert refreshes or choose a larger ring"
        )
    return _Assignment(program, parameters, levels).run()


class _Assignment:
    def __init__(self, program: Program, parameters: Parameters, levels: dict[str, int]) -> None:
        self._program = program
        self._parameters = parameters
        self._levels = levels
        self._powers = scale_powers(program)
        self._build = Builder(program)
        self._values: dict[str, Value] = {}
        self._encodes: dict[str, he.Encode] = {}
        self._dropped: dict[tuple[str, int, bool], Value] = {}

    def run(self) -> Program:
        for op in self._program:
            if isinstance(op, he.Encode):
                self._encodes[op.defined.name] = op
            elif op.result is None:
                operands = {v.name: self._bring(v, 0) for v in op.operands}
                self._build.keep(op.with_operands(operands))
            else:
                self._assign(op, op.result)
        return gather_groups(self._build.finish(parameters=self._parameters))

    def _canonical(self, level: int, power: int = 1) -> float:
        return self._parameters.scale(level) ** power

    def _assign(self, op: Operation, result: Value) -> None:
        level = self._levels.get(result.name, 0)
        scale = self._canonical(level, self._powers[result.name])
        needed = operand_level(op, level, self._parameters)
        match op:
            case he.MulPlain():
                x = self._bring(op.x, needed, free_scale=True)
                p = self._encode(op.p, level, scale / _scale(x))
                renamed = {op.x.name: x, op.p.name: p}
            case he.AddPlain():
                p = self._encode(op.p, level, scale)
                renamed = {op.x.name: self._bring(op.x, needed), op.p.name: p}
            case he.SumMulPlain():
                renamed = self._bring_alike(op, needed)
            case _:
                renamed = {v.name: self._bring(v, needed) for v in op.operands}
        facts = dataclasses.replace(he.cipher_type(result), level=level, scale=scale)
        value = Value(result.name, facts)
        self._build.keep(op.with_operands(renamed).with_result(value))
        self._values[result.name] = value

    def _encode(self, plain: Value, level: int, scale: float) -> Value:
        op = self._encodes[plain.name]
        value = Value(self._build.fresh(plain.name), PlainType(op.period, level, scale))
        self._build.keep(op.with_result(value))
        return value

    def _bring_alike(self, op: he.SumMulPlain, level: int) -> dict[str, Value]:
        """Operands at one level and one scale, whichever, for the weights make up for it."""
        free = {v.name: self._bring(v, level, free_scale=True) for v in op.xs}
        if len({_scale(v) for v in free.values()}) == 1:
            return free
        return {v.name: self._bring(v, level) for v in op.xs}

    def _bring(self, old: Value, level: int, free_scale: bool = False) -> Value:
        value = self._values[old.name]
        have = he.cipher_type(value).level or 0
        if have == level:
            return value
        key = (old.name, level, free_scale)
        if key not in self._dropped:
            self._dropped[key] = self._drop(value, self._powers[old.name], have, level, free_scale)
        return self._dropped[key]

    def _drop(self, value: Value, power: int, have: int, level: int, free_scale: bool) -> Value:
        if power == 2:
            # A product is first rescaled, then brought down, then made a product again.
            value = self._rescale(value)
            have -= 1
            value = self._mod_switch(value, have, level)
            return self._times_one(value, level, self._canonical(level, 2))
        if free_scale:
            return self._mod_switch(value, have, level)
        value = self._mod_switch(value, have, level + 1)
        above = self._parameters.primes[level + 1]
        value = self._times_one(value, level + 1, self._canonical(level) * above)
        return self._rescale(value)

    def _mod_switch(self, value: Value, have: int, level: int) -> Value:
        if have == level:
            return value
        return self._emit(he.DropLevel(x=value, levels=have - level), value, level, _scale(value))

    def _times_one(self, value: Value, level: int, scale: float) -> Value:
        one = he.Encode(value=self._build.constant(np.ones(1), "one"), period=1)
        encoded = Value(
            self._build.fresh("one"), PlainType(1, level=level, scale=scale / _scale(value))
        )
        self._build.keep(one.with_result(encoded))
        return self._emit(he.MulPlain(x=value, p=encoded), value, level, scale)

    def _rescale(self, value: Value) -> Value:
        level = (he.cipher_type(value).level or 0) - 1
        return self._emit(he.Rescale(x=value), value, level, self._canonical(level))

    def _emit(self, op: Operation, source: Value, level: int, scale: float) -> Value:
        old = he.cipher_type(source)
        return self._build.annotate(
            self._build.emit(op), **old.slot_facts, level=level, scale=scale
        )


def _assigned(op: Operation) -> bool:
    facts = op.result.type if op.result is not None else None
    return not isinstance(facts, CipherType | PlainType) or facts.level is not None


def _scale(value: Value) -> float:
    scale = he.cipher_type(value).scale
    if scale is None:
        raise PassError(f"assign-scales: {value} has no scale")
    return scale
