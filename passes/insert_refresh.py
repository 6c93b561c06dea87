"""Refreshes where the levels run out, placed where they cost least."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from hecompile.cuts import VIEWS, CutPrices, Cuts, plan_cuts
from hecompile.errors import PassError, ProgramError
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.numeric.masking import check_mask_bits
from hecompile.packing.depth import Levels
from hecompile.packing.splitting import split_polynomials
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class InsertRefresh(Pass):
    """Cut the program into segments of at most `levels` levels with `tensor.refresh` between them.

    Cuts are chosen by dynamic programming, for the least sum of rounds and of tensors that cross.
    At a cut every live tensor that has used a level is refreshed; views of it are taken anew.
    Operations may be put in the order of their depth, so that independent chains (the directions
    of a recurrent layer) share rounds. Polynomials that alone take more levels are split.

    Options: `levels`, levels that what is handed over may have used; `last`, levels that outputs
    may use after the last refresh (`levels` if not given); `mask_bits`, see `he.refresh`; `round`,
    price of a round trip in tensors refreshed; `max_rounds`, a limit (None for any number).

    Requires: what `require-polynomial` admits.
    Ensures: no chain of operations from input or refresh to refresh takes more than `levels`
    levels, none to an output more than `last`. A program that is shallow enough stays as it is.
    """

    name: ClassVar[str] = "insert-refresh"
    after: ClassVar[tuple[str, ...]] = ("merge-linear", "require-polynomial")
    levels: int = 3
    last: int | None = None
    mask_bits: int = 40
    round: float = 3.0
    max_rounds: int | None = None

    def run(self, program: Program, context: Context) -> Program:
        """Insert refreshes if the program is deeper than allowed.

        Raises:
            PassError: one operation alone takes more levels, too many rounds are needed, or the
                refreshes that it has do not suffice.
        """
        if program.dialect != "tensor":
            raise PassError(f"{self.name}: run it before lower-to-slots")
        try:
            check_mask_bits(self.mask_bits)
        except ProgramError as error:
            raise PassError(f"{self.name}: {error}") from error
        last = self.levels if self.last is None else self.last
        if self._keeps(program, last):
            return program
        if program.select(move.Refresh):
            raise PassError(
                f"{self.name}: the program has refreshes, with more than {self.levels} levels"
                " between them; run it once"
            )
        program = split_polynomials(program, self.levels)
        cuts = plan_cuts(program, self.levels, last, CutPrices(self.round))
        if cuts is None:
            deepest = max(program, key=Levels(program).of)
            raise PassError(
                f"{self.name}: {deepest.name} ({deepest.location or deepest.result}) alone takes"
                f" {Levels(program).of(deepest)} levels, and a segment has {self.levels}; choose a"
                " larger ring, a smaller degree, or fewer mask bits"
            )
        if self.max_rounds is not None and len(cuts.places) > self.max_rounds:
            raise PassError(
                f"{self.name}: segments of {self.levels} levels need {len(cuts.places)} rounds,"
                f" and at most {self.max_rounds} are allowed; choose a larger ring"
            )
        return _Insertion(program, cuts, self.mask_bits).run()

    def _keeps(self, program: Program, last: int) -> bool:
        """Whether what is handed over and what leaves has used no more levels than it may."""
        used = Levels(program).used()
        return all(
            used[value.name] <= (last if isinstance(op, tensor.Output) else self.levels)
            for op in program
            if isinstance(op, tensor.Output | move.Refresh)
            for value in op.operands
        )


class _Insertion:
    def __init__(self, program: Program, cuts: Cuts, mask_bits: int) -> None:
        self._cuts = cuts
        self._mask_bits = mask_bits
        self._program = program
        self._build = Builder(program)
        self._fresh: dict[str, Value] = {}
        self._views: dict[tuple[str, str], Value] = {}
        self._kept: set[str] = set()

    def run(self) -> Program:
        groups = {place: n for n, place in enumerate(self._cuts.places)}
        for i, op in enumerate(self._cuts.operations):
            if i in groups:
                self._cut(groups[i])
            self._build.keep(op.with_operands({v.name: self._value(v) for v in op.operands}))
        return self._build.finish()

    def _cut(self, group: int) -> None:
        for name in self._cuts.refreshed[group]:
            value = self._value(self._program.definitions[name].defined)
            op = move.Refresh(x=value, mask_bits=self._mask_bits, group=group)
            fresh = Value(self._build.fresh(name), value.type)
            self._build.keep(op.with_result(fresh))
            self._fresh[name] = fresh

    def _value(self, value: Value) -> Value:
        """What stands for a value now: views are taken of what stands for their operand."""
        op = self._program.definitions[value.name]
        if not isinstance(op, VIEWS):
            return self._fresh.get(value.name, value)
        source = self._value(op.x)
        key = value.name, source.name
        if key not in self._views:
            taken = op.with_operands({op.x.name: source})
            if value.name in self._kept:
                renamed = Value(self._build.fresh(value.name), value.type)
                taken = dataclasses.replace(taken, result=renamed)
            self._kept.add(value.name)
            self._views[key] = self._build.keep(taken).defined
        return self._views[key]
