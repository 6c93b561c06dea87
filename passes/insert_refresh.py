"""Refreshes where the levels run out, placed where the fewest ciphertexts are alive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.levels import PRODUCTS, depth_after, is_cipher, refresh_floor
from hecompile.numeric.virtual import VirtualLevels, single
from hecompile.passbase import Context, Pass, register_pass

ROUND_COST = 3.0
"""Price of a round trip, in ciphertexts refreshed."""


@register_pass
@dataclass(frozen=True)
class InsertRefresh(Pass):
    """Cut the program into segments of at most `levels` levels with `he.refresh` between them.

    Cuts are chosen by dynamic programming over the places where few ciphertexts are alive, for
    the least sum of refreshed ciphertexts and rounds. At a cut every live ciphertext that has used
    a level is refreshed; one that is a rotation is rotated again from its refreshed operand.

    Options: `mask_bits`, see `he.refresh`; `levels`, levels between fresh and output, and `floor`,
    levels that must be left when a ciphertext is handed over (room for the mask), both from the
    program's parameters if not given. Levels are virtual ones, see `numeric.virtual`.

    Requires: a program of `he.*` without relinearize, rescale or drop_level; parameters, or
    `levels`.
    Ensures: no chain of products between refreshes is deeper than `levels`, or `levels - floor`
    before a refresh. A program that is shallow enough stays as it is.
    """

    name: ClassVar[str] = "insert-refresh"
    after: ClassVar[tuple[str, ...]] = ("plan-rotations", "choose-parameters")
    mask_bits: int = 30
    levels: int | None = None
    floor: int | None = None

    def run(self, program: Program, context: Context) -> Program:
        """Insert refreshes if the program is deeper than `levels`."""
        if program.dialect != "he":
            raise PassError(f"{self.name}: run lower-to-slots first")
        parameters = program.parameters
        if self.levels is None and parameters is None:
            raise PassError(f"{self.name}: run choose-parameters first, or give levels")
        if self.levels is None and parameters is not None:
            virtual = parameters.virtual
        else:
            virtual = single(self.levels or 0)
        if _fits(program, virtual):
            return program
        cuts = _Planner(program, virtual, self._floors(program)).plan()
        return _insert(program, cuts, self.mask_bits)

    def _floors(self, program: Program) -> dict[str, int]:
        parameters = program.parameters
        values = {name: op.defined for name, op in program.definitions.items()}
        ciphers = {name: value for name, value in values.items() if is_cipher(value)}
        if self.floor is not None or parameters is None:
            return dict.fromkeys(ciphers, self.floor if self.floor is not None else 1)
        return {
            name: refresh_floor(value, parameters, self.mask_bits)
            for name, value in ciphers.items()
        }


class _Planner:
    """Places for cuts: a cut at i lies before operation i."""

    def __init__(self, program: Program, virtual: VirtualLevels, floors: Mapping[str, int]) -> None:
        self._program = program
        self._ops = program.operations
        self._virtual = virtual
        self._levels = virtual.highest
        self._floors = floors
        root = _rotation_roots(program)
        self._live = _live_roots(program, root)
        # A rotation is as deep as what it rotates, so that long sums read few distinct depths.
        self._reads = [
            tuple({root[v.name] for v in op.operands if is_cipher(v)}) for op in self._ops
        ]

    def plan(self) -> list[int]:
        """The cheapest feasible cuts.

        Raises:
            PassError: some operation alone needs more levels than there are.
        """
        fewest = min(len(names) for names in self._live[1:-1] if names)
        for slack in (1, 4, 16, len(self._ops)):
            candidates = self._candidates(fewest + slack)
            cuts = self._search(candidates)
            if cuts is not None:
                return cuts
        raise PassError(
            f"insert-refresh: {self._levels} levels, {min(self._floors.values())} or more of them "
            "kept for the mask, leave no room for a step; choose a larger ring or fewer mask bits"
        )

    def _candidates(self, most: int) -> list[int]:
        """The first of each run of places where the same few ciphertexts are alive."""
        live = self._live
        inner = (i for i in range(1, len(self._ops)) if live[i] != live[i - 1])
        return [0, *(i for i in inner if len(live[i]) <= most), len(self._ops)]

    def _search(self, candidates: list[int]) -> list[int] | None:
        best = {0: (0.0, 0)}
        for start in candidates[:-1]:
            if start not in best:
                continue
            for cut, cost in self._reach(start, candidates):
                total = best[start][0] + cost
                if total < best.get(cut, (math.inf, 0))[0]:
                    best[cut] = (total, start)
        end = len(self._ops)
        if end not in best:
            return None
        cuts, at = [], best[end][1]
        while at != 0:
            cuts.append(at)
            at = best[at][1]
        return cuts[::-1]

    def _reach(self, start: int, candidates: list[int]) -> list[tuple[int, float]]:
        """Cuts that one segment from `start` can reach, with their costs."""
        found = []
        wanted = set(candidates)
        depth: dict[str, int] = {}
        for i in range(start, len(self._ops)):
            op = self._ops[i]
            if op.result is not None and self._reads[i]:
                before = max(depth.get(name, 0) for name in self._reads[i])
                depth[op.result.name] = depth_after(self._program, op, before, self._virtual)
                if depth[op.result.name] > self._levels:
                    break
            if i + 1 == len(self._ops):
                found.append((i + 1, 0.0))
            elif i + 1 in wanted:
                used = [name for name in self._live[i + 1] if depth.get(name, 0) > 0]
                if all(depth[name] + self._floors[name] <= self._levels for name in used):
                    found.append((i + 1, ROUND_COST + len(used)))
        return found


def _fits(program: Program, virtual: VirtualLevels) -> bool:
    """Whether the levels suffice without a refresh, or with those that are there."""
    depth: dict[str, int] = {}
    for op in program:
        if op.result is not None and is_cipher(op.result):
            before = max((depth.get(v.name, 0) for v in op.operands), default=0)
            used = depth_after(program, op, before, virtual)
            depth[op.result.name] = 0 if isinstance(op, he.Refresh) else used
    return max(depth.values(), default=0) <= virtual.highest


def _rotation_roots(program: Program) -> dict[str, str]:
    """The value that each value is a rotation of (itself if it is none)."""
    root: dict[str, str] = {}
    for op in program:
        if op.result is not None:
            turned = isinstance(op, he.Rotate) and not isinstance(
                program.definitions[op.x.name], PRODUCTS
            )
            root[op.result.name] = root[op.operands[0].name] if turned else op.result.name
    return root


def _live_roots(program: Program, root: dict[str, str]) -> list[set[str]]:
    """Before each operation, the ciphertexts alive, rotations counted as what they rotate."""
    live: list[set[str]] = [set()]
    alive: set[str] = set()
    for op in reversed(program.operations):
        if op.result is not None:
            alive.discard(op.result.name)
        alive |= {v.name for v in op.operands if is_cipher(v)}
        live.append({root[name] for name in alive})
    return live[::-1]


def _insert(program: Program, cuts: list[int], mask_bits: int) -> Program:
    build = Builder(program)
    root = _rotation_roots(program)
    live = _live_roots(program, root)
    renamed: dict[str, Value] = {}
    depth: dict[str, int] = {}
    values = {name: op.defined for name, op in program.definitions.items()}
    for i, op in enumerate(program):
        if i in cuts:
            used = sorted(name for name in live[i] if depth.get(name, 0) > 0)
            for name in used:
                old = renamed.get(name, values[name])
                refresh = he.Refresh(xs=(old,), mask_bits=mask_bits, group=cuts.index(i))
                facts = he.cipher_type(values[name])
                fresh = build.emit(refresh, "fresh")
                fresh = build.annotate(fresh, **facts.slot_facts)
                renamed[name] = fresh
            _rotate_again(program, build, i, set(used), root, renamed)
            depth = {}
        build.keep(op.with_operands(renamed))
        if op.result is not None and is_cipher(op.result):
            before = max((depth.get(v.name, 0) for v in op.operands), default=0)
            depth[op.result.name] = before + isinstance(op, PRODUCTS)
    return build.finish()


def _rotate_again(
    program: Program,
    build: Builder,
    cut: int,
    refreshed: set[str],
    root: dict[str, str],
    renamed: dict[str, Value],
) -> None:
    """Emit anew the rotations of refreshed values that are read after the cut."""
    needed = {v.name for op in program.operations[cut:] for v in op.operands}
    chain = [op for op in program.operations[:cut] if isinstance(op, he.Rotate)]
    wanted: set[str] = set()
    for op in reversed(chain):
        name = op.defined.name
        if root[name] in refreshed and root[name] != name and (name in needed or name in wanted):
            wanted |= {name, op.x.name}
    for op in chain:
        if op.defined.name in wanted:
            turned = op.with_operands(renamed)
            value = build.emit(turned)
            facts = he.cipher_type(op.defined)
            renamed[op.defined.name] = build.annotate(value, **facts.slot_facts)
