"""Relinearize and rescale where it is cheapest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.levels import (
    Floor,
    ciphertexts,
    is_cipher,
    is_managed,
    operand_level,
    program_depth,
    refresh_floors,
    required_levels,
)
from hecompile.numeric.virtual import VirtualLevels, single
from hecompile.passbase import Context, Pass, register_pass
from hecompile.placement import EARLY, NEEDS_RESCALED, NEEDS_TWO, POLICIES, Forms, place

DEFAULT_RING = 8192
"""Ring degree for which costs are weighed where no parameters are chosen yet."""


@register_pass
@dataclass(frozen=True)
class InsertManagement(Pass):
    """Insert `he.relinearize` and `he.rescale` where they cost least.

    Sums, rotations and products with plaintexts work on three polynomials or on products that are
    not rescaled yet, at their price; a change of form is paid once (lazy relinearization and
    rescaling: Blatt et al., PNAS 2020; Dathathri et al., "EVA", PLDI 2020, section 5). The forms
    of all values are chosen together by a minimum cut, see `hecompile.placement`. A rescale stands
    only where the virtual levels cross from one prime to the next, and after relinearization.

    Options: `rescale`, "early" wherever it saves time, "few" only where it saves much, "late" as
    late as possible. Later means less noise. Several, joined by "+", hold for the rescales that
    leave one prime, two, and so on, the last one for all that follow.

    Requires: a program of `he.*` without relinearize, rescale or drop_level. Without parameters,
    every level is taken to have a prime of its own.
    Ensures: operands of products, outputs and refreshes are rescaled; rotations, products of
    ciphertexts, outputs and refreshes read two polynomials; both operands of a sum are rescaled or
    neither.
    """

    name: ClassVar[str] = "insert-management"
    after: ClassVar[tuple[str, ...]] = ("plan-rotations", "insert-refresh")
    rescale: str = EARLY

    def run(self, program: Program, context: Context) -> Program:
        """Insert what is missing; a managed program is returned as it is."""
        if is_managed(program):
            return program
        if program.dialect != "he":
            raise PassError(f"{self.name}: run lower-to-slots first")
        policies = self.rescale.split("+")
        if not set(policies) <= set(POLICIES):
            raise PassError(f"{self.name}: rescale is {', '.join(POLICIES)}, not '{self.rescale}'")
        parameters = program.parameters
        if parameters is None:
            virtual, ring = single(program_depth(program)), DEFAULT_RING
            floor = _shallow_floor(virtual)
        else:
            virtual, ring = parameters.virtual, parameters.poly_modulus_degree
            floor = refresh_floors(program, parameters)
        levels = required_levels(program, virtual, floor)
        forms = place(program, levels, virtual, floor, ring, policies)
        return _Management(program, levels, virtual, floor, forms).run()


def _shallow_floor(virtual: VirtualLevels) -> Floor:
    """Masks leave a level where nothing is known of the primes."""
    return lambda op: min(1, virtual.highest)


class _Management:
    def __init__(
        self,
        program: Program,
        levels: Mapping[str, int],
        virtual: VirtualLevels,
        floor: Floor,
        forms: Forms,
    ) -> None:
        self._program = program
        self._levels = levels
        self._virtual = virtual
        self._floor = floor
        self._forms = forms
        self._build = Builder(program)
        self._values: dict[str, Value] = {}
        self._linear: dict[str, Value] = {}
        self._rescaled: dict[str, Value] = {}
        self._summed: dict[tuple[tuple[str, ...], int, bool], dict[str, Value]] = {}

    def run(self) -> Program:
        for op in self._program:
            self._append(op.with_operands(self._forms_of(op)))
        return self._build.finish()

    def _append(self, op: Operation) -> None:
        if op.result is None or not is_cipher(op.result):
            self._build.keep(op)
            return
        inferred = op.infer()
        if inferred is None:
            raise PassError(f"insert-management: {op.name} gives no ciphertext")
        polynomials = he.cipher_type(Value(op.result.name, inferred)).polynomials
        facts = dataclasses.replace(he.cipher_type(op.result), polynomials=polynomials)
        value = Value(op.result.name, facts)
        self._build.keep(op.with_result(value))
        self._values[value.name] = value

    def _forms_of(self, op: Operation) -> dict[str, Value]:
        """The operands in the forms in which an operation reads them.

        Sums of the same operands that keep as many polynomials read the same.
        """
        names = tuple(v.name for v in ciphertexts(op))
        if not names:
            return {}
        result = op.result.name if op.result is not None else ""
        own = self._levels[result] if result else 0
        needed = operand_level(self._program, op, own, self._virtual, self._floor)
        if not isinstance(op, he.SumMulPlain):
            return {name: self._form(op, name, needed) for name in names}
        key = names, needed, result in self._forms.triples
        if key not in self._summed:
            self._summed[key] = {name: self._form(op, name, needed) for name in names}
        return self._summed[key]

    def _form(self, op: Operation, name: str, needed: int) -> Value:
        """An operand in the form in which an operation reads it."""
        result = op.result.name if op.result is not None else ""
        elsewhere = needed != self._levels[name]
        rescaled = elsewhere or isinstance(op, NEEDS_RESCALED) or result not in self._forms.pending
        if rescaled and name in self._forms.pending:
            return self._rescale(name)
        if elsewhere or isinstance(op, NEEDS_TWO) or result not in self._forms.triples:
            return self._relinearize(name)
        return self._values[name]

    def _relinearize(self, name: str) -> Value:
        value = self._values[name]
        if he.cipher_type(value).polynomials == 2:
            return value
        if name not in self._linear:
            self._linear[name] = self._insert(he.Relinearize(x=value), value)
        return self._linear[name]

    def _rescale(self, name: str) -> Value:
        if name not in self._rescaled:
            value = self._relinearize(name)
            self._rescaled[name] = self._insert(he.Rescale(x=value), value)
        return self._rescaled[name]

    def _insert(self, op: Operation, source: Value) -> Value:
        value = self._build.emit(op)
        return self._build.annotate(value, **he.cipher_type(source).slot_facts)
