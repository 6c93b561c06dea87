"""Which constant factors values are computed times, so that products with constants vanish."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import tensor_type
from hecompile.scaling import Scales, constant_factor, is_shift

Key = tuple[str, int]
Equation = tuple[dict[int, int], float, str]
"""How often each class counts, the sum of their logarithms, and the product that asks for it."""

_FIXED = 0
_FREE_RESULT = (tensor.Polynomial, movement.Affine)
_SMALLEST = 1.0 / 16.0


def balance(program: Program, original: Iterable[str], growth: float) -> Scales:
    """Choose factors of values such that products with constants become nothing.

    Of all choices, the one is taken that has values (all counted alike) nearest to a magnitude of
    1, by least squares of logarithms: then every factor of a product adds noise alike, and none is
    far larger than the result.

    Args:
        program: with products with positive numbers, to be folded; ranges in types.
        original: values that may not shrink to less than 1 / `growth`.
        growth: largest value allowed, for values that are not larger already.
    """
    system = _System(program)
    return system.solve(frozenset(original), growth)


class _System:
    """Equations between the logarithms of factors."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.cuts = _sections(program)
        self._parent: list[int] = [_FIXED]
        self._index: dict[Key, int] = {}
        self._equations: list[tuple[dict[Key, int], float, str]] = []
        for op in program:
            if op.result is not None:
                for i in range(len(self.cuts[op.result.name]) - 1):
                    self._index[op.result.name, i] = len(self._parent)
                    self._parent.append(len(self._parent))
            self._state(op)

    def _state(self, op: Operation) -> None:
        """What an operation demands."""
        match op:
            case tensor.ConstantTensor():
                pass
            case tensor.Mul() if (factor := constant_factor(op, self._program)) is not None:
                terms = {self._key(op.x): 1, self._key(op.defined): -1}
                self._equations.append((terms, math.log(factor), op.defined.name))
            case tensor.Mul():
                terms = {self._key(op.defined): -1}
                for value in (op.x, op.y):
                    key = self._key(value)
                    terms[key] = terms.get(key, 0) + 1
                self._equations.append((terms, 0.0, ""))
            case tensor.Add() | tensor.Sub() | tensor.Neg() | movement.Reshape():
                for value in op.operands:
                    self._join(self._whole(value), self._whole(op.defined))
            case movement.Slice() if (run := _run(op)) is not None:
                for i, place in enumerate(self.cuts[op.x.name][:-1]):
                    if run[0] <= place < run[1]:
                        self._join(self._at((op.x.name, i)), self._whole(op.defined))
            case tensor.Polynomial() if is_shift(op, self._program):
                self._join(self._whole(op.x), self._whole(op.defined))
            case tensor.Polynomial():
                self._join(self._whole(op.x), _FIXED if op.basis == "chebyshev" else None)
            case movement.Affine():
                for value in op.xs:
                    self._whole(value)
            case _:
                values = [*op.operands, *([op.result] if op.result is not None else [])]
                for value in values:
                    self._join(self._whole(value), _FIXED)

    def _at(self, key: Key) -> int:
        node = self._index[key]
        while self._parent[node] != node:
            self._parent[node] = self._parent[self._parent[node]]
            node = self._parent[node]
        return node

    def _join(self, one: int, other: int | None) -> None:
        if other is not None:
            root, low = self._root(one), self._root(other)
            # The fixed class stays its own root.
            self._parent[max(root, low)] = min(root, low)

    def _root(self, node: int) -> int:
        while self._parent[node] != node:
            node = self._parent[node]
        return node

    def _whole(self, value: Value) -> int:
        """The one class of all sections of a value."""
        first = self._at((value.name, 0))
        for i in range(1, len(self.cuts[value.name]) - 1):
            self._join(first, self._at((value.name, i)))
        return self._root(first)

    def _key(self, value: Value) -> Key:
        self._whole(value)
        return value.name, 0

    def solve(self, original: frozenset[str], growth: float) -> Scales:
        """Least squares for each set of equations that hang together."""
        logs = {node: 0.0 for node in range(len(self._parent))}
        refused: set[str] = set()
        members = self._members()
        for equations in self._components():
            labels = {label for _, factor, label in equations if factor}
            if not labels:
                continue
            found = self._component(equations, members)
            if found is None or not self._tame(found, members, original, growth):
                refused |= labels
            else:
                logs |= found
        by_name = {
            name: np.array([logs[self._at((name, i))] for i in range(len(cuts) - 1)])
            for name, cuts in self.cuts.items()
        }
        return Scales(self.cuts, by_name, frozenset(refused))

    def _members(self) -> dict[int, list[tuple[str, float]]]:
        """By class, the values in it with their magnitudes."""
        found: dict[int, list[tuple[str, float]]] = {}
        for op in self._program:
            if op.result is None or isinstance(op, tensor.ConstantTensor):
                continue
            interval = tensor_type(op.result).interval
            magnitude = interval.magnitude if interval is not None else 1.0
            # What sections hold is known by the slices that take them out.
            if len(self.cuts[op.result.name]) == 2:
                found.setdefault(self._at((op.result.name, 0)), []).append(
                    (op.result.name, magnitude)
                )
        return found

    def _components(self) -> list[list[Equation]]:
        """Equations in terms of classes, sorted into sets that share unknowns."""
        rows = []
        for terms, factor, label in self._equations:
            row: dict[int, int] = {}
            for key, count in terms.items():
                node = self._at(key)
                row[node] = row.get(node, 0) + count
            rows.append(({n: c for n, c in row.items() if c and n != _FIXED}, factor, label))
        home: dict[int, int] = {}

        def top(node: int) -> int:
            while home.setdefault(node, node) != node:
                node = home[node]
            return node

        for row, _, _ in rows:
            first, *others = row or (_FIXED,)
            for other in others:
                home[top(other)] = top(first)
        groups: dict[int, list[Equation]] = {}
        for entry in rows:
            groups.setdefault(top(next(iter(entry[0]), _FIXED)), []).append(entry)
        return list(groups.values())

    def _component(
        self,
        equations: list[Equation],
        members: Mapping[int, list[tuple[str, float]]],
    ) -> dict[int, float] | None:
        """The factors of one set, None where the equations contradict each other."""
        nodes = sorted({node for row, _, _ in equations for node in row})
        place = {node: i for i, node in enumerate(nodes)}
        matrix, right = np.zeros((len(equations), len(nodes))), np.zeros(len(equations))
        for i, (row, factor, _) in enumerate(equations):
            for node, count in row.items():
                matrix[i, place[node]] = count
            right[i] = factor
        weights, targets = np.full(len(nodes), 1e-3), np.zeros(len(nodes))
        for node, i in place.items():
            sizes = [min(max(size, _SMALLEST), 1 / _SMALLEST) for _, size in members.get(node, ())]
            if sizes:
                weights[i] = len(sizes)
                targets[i] = -sum(map(math.log, sizes)) / len(sizes)
        system = np.block(
            [[np.diag(weights), matrix.T], [matrix, np.zeros((len(matrix), len(matrix)))]]
        )
        solution = np.linalg.lstsq(system, np.concatenate([weights * targets, right]), rcond=None)
        logs = solution[0][: len(nodes)]
        if np.abs(matrix @ logs - right).max() > 1e-9:
            return None
        # Rounding of a logarithm of nothing.
        logs = np.where(np.abs(logs) < 1e-12, 0.0, logs)
        return {node: float(logs[i]) for node, i in place.items()}

    def _tame(
        self,
        found: Mapping[int, float],
        members: Mapping[int, list[tuple[str, float]]],
        original: frozenset[str],
        growth: float,
    ) -> bool:
        """Whether no value becomes too large, and none of the original ones too small."""
        limit = math.log(growth)
        for node, log in found.items():
            for name, magnitude in members.get(node, ()):
                size = log + math.log(max(magnitude, 1e-300))
                if size > max(limit, size - log) or (name in original and log < -limit):
                    return False
        return True


def _sections(program: Program) -> dict[str, tuple[int, ...]]:
    """Where slices cut the results of what can scale parts of its result apart."""
    cuts: dict[str, set[int]] = {}
    for op in program:
        if op.result is None:
            continue
        shape = tensor_type(op.result).shape
        cuts[op.result.name] = {0, tensor_type(op.result).size}
        readers = program.users[op.result.name]
        runs = [_run(user) if isinstance(user, movement.Slice) else None for user in readers]
        if math.prod(shape[:-1]) == 1 and isinstance(op, _FREE_RESULT) and None not in runs:
            cuts[op.result.name].update(place for run in runs if run is not None for place in run)
    return {name: tuple(sorted(places)) for name, places in cuts.items()}


def _run(op: movement.Slice) -> tuple[int, int] | None:
    """Begin and end of the flattened elements that a slice takes, where they lie side by side."""
    shape = tensor_type(op.x).shape
    if math.prod(shape[: op.axis]) != 1 or op.step != 1:
        return None
    inner = math.prod(shape[op.axis + 1 :])
    return op.start * inner, op.stop * inner
