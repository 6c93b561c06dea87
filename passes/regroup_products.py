"""Products with polynomials, regrouped so that they take no level of their own."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from hecompile import intervals
from hecompile.balancing import balance
from hecompile.factors import Factors, Square, factorize
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import tensor_type
from hecompile.ir.types import Interval
from hecompile.packing.depth import Levels
from hecompile.passbase import Context, Pass, register_pass
from hecompile.scaling import apply_scales

MOST = 7
"""Largest degree whose factors are well conditioned."""


@register_pass
@dataclass(frozen=True)
class RegroupProducts(Pass):
    """Evaluate a product `a p(x)` in the levels of the polynomial p alone where that is less.

    Over the reals p factors into `k (x + r) q_1 ... q_n` with `q = (x + s)**2 + t`. So a cubic
    gives `[a (x + r)] [(x + s)**2 + t]`: two levels and three products of ciphertexts in place of
    three levels. An update `n + z (h - n)` with `n = p(x)`, as a GRU's, becomes
    `[(x + r) - z (x + r)] [(x + s)**2 + t] + z h`.

    The leading coefficient k costs nothing: values are computed times constants such that it
    vanishes, and affine maps and polynomials give and take these (`hecompile.scaling`). Noise is
    divided by such a constant, therefore all are chosen together to bring every factor of these
    products near a magnitude of 1; with an LSTM's cubic tanh this scales the cell state by about
    sqrt(1/3).

    Requires: ranges in types; merge-linear (what is not merged yet takes no constants).
    Ensures: nothing is deeper than before. A product stays as it is where regrouping saves no
    level, where something else reads p(x), where factors grow to more than `growth` times their
    product or a scaled value beyond it, and where no constants fit, as between two outputs.

    Attributes:
        growth: see above.
    """

    name: ClassVar[str] = "regroup-products"
    after: ClassVar[tuple[str, ...]] = ("approximate", "complete-square", "merge-linear")
    growth: float = 16.0

    def run(self, program: Program, context: Context) -> Program:
        """Regroup what saves a level, less what cannot be scaled."""
        groups = _find(program, self.growth)
        while groups:
            regrouped, products = _regroup(program, groups)
            scales = balance(regrouped, program.definitions, self.growth)
            if not scales.refused:
                return apply_scales(regrouped, scales)
            groups = {name: g for name, g in groups.items() if products[name] not in scales.refused}
        return program


@dataclass(frozen=True, eq=False)
class _Group:
    """`a p(x)`, or `n + z (h - n)` with `n = p(x)`.

    Attributes:
        polynomial: p.
        factors: of p.
        other: a, or z.
        blended: whether it is the second form.
        kept: h; None for zero.
        drops: names of results that nothing needs any more.
    """

    polynomial: tensor.Polynomial
    factors: Factors
    other: Value
    blended: bool = False
    kept: Value | None = None
    drops: frozenset[str] = field(default_factory=frozenset)

    def levels(self, depth: Mapping[str, int]) -> int:
        """Depth of the result, once regrouped."""
        x = depth[self.polynomial.x.name]
        entry = max(depth[self.other.name], x if self.factors.root is not None else 0)
        entry += self.factors.root is not None
        parts = [entry, *(x + 1 for _ in self.factors.squares)]
        heapq.heapify(parts)
        while len(parts) > 1:
            heapq.heappush(parts, 1 + max(heapq.heappop(parts), heapq.heappop(parts)))
        if self.kept is None:
            return parts[0]
        return max(parts[0], 1 + max(depth[self.other.name], depth[self.kept.name]))


def _find(program: Program, growth: float) -> dict[str, _Group]:
    """What saves a level, by the name of its result."""
    depth = Levels(program).used()
    found: dict[str, _Group] = {}
    taken: set[str] = set()
    for op in program:
        for group in _candidates(op, program):
            name, own = op.defined.name, group.polynomial.defined.name
            interval = tensor_type(group.polynomial.x).interval
            if own in taken or interval is None or group.levels(depth) >= depth[name]:
                continue
            if group.factors.growth(interval) <= growth:
                found[name] = group
                taken.add(own)
                break
    return found


def _candidates(op: Operation, program: Program) -> list[_Group]:
    """Ways to see an operation as a product with a polynomial."""
    match op:
        case tensor.Mul():
            pairs = ((op.x, op.y), (op.y, op.x))
            found = [_product(x, y, program) for x, y in pairs]
        case tensor.Add():
            pairs = ((op.x, op.y), (op.y, op.x))
            found = [_blend(new, kept, program) for new, kept in pairs]
            found += [_fade(new, less, tensor.Neg, program) for new, less in pairs]
        case tensor.Sub():
            found = [_fade(op.x, op.y, None, program)]
        case _:
            found = []
    return [group for group in found if group is not None]


def _product(a: Value, shown: Value, program: Program) -> _Group | None:
    polynomial, factors = _factored(shown, program)
    alone = len(program.users[shown.name]) == 1 and a != shown and tensor_type(a).secret
    same = tensor_type(a).shape == tensor_type(shown).shape
    if polynomial is None or factors is None or not alone or not same:
        return None
    return _Group(polynomial, factors, a, drops=frozenset({shown.name}))


def _blend(new: Value, update: Value, program: Program) -> _Group | None:
    """See `new + update` as `n + z (h - n)`."""
    seen = _updated(new, update, program)
    if seen is None:
        return None
    polynomial, factors, product = seen
    for z, change in ((product.x, product.y), (product.y, product.x)):
        change_op = program.definitions[change.name]
        if not isinstance(change_op, tensor.Sub) or change_op.y != new:
            continue
        alone = len(program.users[change.name]) == 1 and len(program.users[new.name]) == 2
        values = (z, change_op.x, new)
        secret = all(tensor_type(v).secret for v in values)
        if alone and secret and len({tensor_type(v).shape for v in values}) == 1:
            drops = frozenset({new.name, update.name, change.name})
            return _Group(polynomial, factors, z, True, change_op.x, drops)
    return None


def _fade(
    new: Value, less: Value, negated: type[tensor.Neg] | None, program: Program
) -> _Group | None:
    """See `n - z n`, or `n + z (-n)`, as `n + z (0 - n)`."""
    seen = _updated(new, less, program)
    if seen is None:
        return None
    polynomial, factors, product = seen
    for z, other in ((product.x, product.y), (product.y, product.x)):
        drops = frozenset({new.name, less.name})
        source = program.definitions[other.name]
        if negated is not None and isinstance(source, negated):
            if len(program.users[other.name]) != 1:
                continue
            drops, other = drops | {other.name}, source.x
        elif negated is not None:
            continue
        alone = other == new and z != new and len(program.users[new.name]) == 2
        if alone and tensor_type(z).secret and tensor_type(z).shape == tensor_type(new).shape:
            return _Group(polynomial, factors, z, True, None, drops)
    return None


def _updated(
    new: Value, update: Value, program: Program
) -> tuple[tensor.Polynomial, Factors, tensor.Mul] | None:
    """The polynomial that gives `new`, its factors with a root, and a product read only here."""
    polynomial, factors = _factored(new, program)
    product = program.definitions[update.name]
    if polynomial is None or factors is None or factors.root is None:
        return None
    if not isinstance(product, tensor.Mul) or len(program.users[update.name]) != 1:
        return None
    return polynomial, factors, product


def _factored(value: Value, program: Program) -> tuple[tensor.Polynomial | None, Factors | None]:
    """The polynomial of one section that gives a value, with its factors."""
    op = program.definitions[value.name]
    if not isinstance(op, tensor.Polynomial) or not 2 <= op.degree <= MOST:
        return None, None
    table, interval = program.array(op.coefficients), tensor_type(op.x).interval
    if interval is None or not (table == table[:, :1]).all() or not table[-1, 0]:
        return None, None
    return op, factorize(table[:, 0], op.basis, interval)


def _regroup(program: Program, groups: Mapping[str, _Group]) -> tuple[Program, dict[str, str]]:
    """Write the groups as products of factors, times their leading coefficients.

    Returns:
        The program, and by the name of each group's result the product with its coefficient.
    """
    build = Builder(program)
    products: dict[str, str] = {}
    depth = Levels(program).used()
    dropped = {name for group in groups.values() for name in group.drops}
    for op in program:
        name = op.result.name if op.result is not None else ""
        if name in groups:
            products[name] = _Writer(build, groups[name], op).write(depth)
        elif name not in dropped:
            build.keep(op)
    return build.finish(), products


class _Writer:
    """Appends one group."""

    def __init__(self, build: Builder, group: _Group, op: Operation) -> None:
        self._build = build
        self._group = group
        self._op = op
        self._x = group.polynomial.x
        # What depends on x alone, on points of its range: products of ranges are far too wide.
        over = _range(self._x)
        self._curves = {self._x.name: np.linspace(over.lower, over.upper, 257)}

    def write(self, depth: Mapping[str, int]) -> str:
        """Append everything; the name of the product with the leading coefficient."""
        group, result = self._group, self._op.defined
        x = depth[self._x.name]
        parts = [(x + 1, i, self._square(one)) for i, one in enumerate(group.factors.squares)]
        if group.factors.leading < 0:
            level, i, last = parts.pop()
            parts.append(
                (level, i, self._curved(tensor.Neg(x=last), "less", -self._curves[last.name]))
            )
        entry = max(depth[group.other.name], x)
        parts.append((entry + 1, len(parts), self._entry()))
        heapq.heapify(parts)
        while len(parts) > 1:
            (low, i, one), (high, _, other) = heapq.heappop(parts), heapq.heappop(parts)
            heapq.heappush(parts, (1 + max(low, high), i, self._multiply(one, other, "part")))
        leading = abs(group.factors.leading)
        symbol = self._build.constant(np.array(leading), f"{result.name}.leading")
        constant = self._build.emit(tensor.ConstantTensor(value=symbol, dims=()))
        scaled = tensor.Mul(x=parts[0][2], y=constant)
        if group.kept is None:
            self._keep(scaled, result)
            return result.name
        new = self._emit(scaled, "new", _range(parts[0][2], leading))
        kept = self._multiply(group.other, group.kept, "kept")
        self._keep(tensor.Add(x=new, y=kept), result)
        return new.name

    def _entry(self) -> Value:
        """`a (x + r)`, or `(x + r) - z (x + r)`."""
        group = self._group
        if group.factors.root is None:
            return group.other
        line = self._shifted(self._x, group.factors.root, "line")
        product = self._multiply(group.other, line, "entry")
        if not group.blended:
            return product
        rest = intervals.minus(_range(line), _range(product))
        return self._emit(tensor.Sub(x=line, y=product), "open", rest)

    def _square(self, square: Square) -> Value:
        moved = self._shifted(self._x, square.shift, "moved")
        return self._shifted(self._multiply(moved, moved, "square"), square.rest, "rest")

    def _shifted(self, x: Value, shift: float, hint: str) -> Value:
        if not shift:
            return x
        name = f"{self._op.defined.name}.{hint}"
        symbol = self._build.constant(np.array([[shift], [1.0]]), name)
        op = tensor.Polynomial(x=x, coefficients=symbol, degree=1)
        return self._curved(op, hint, self._curves[x.name] + shift)

    def _multiply(self, x: Value, y: Value, hint: str) -> Value:
        product = tensor.Mul(x=x, y=y)
        if x.name in self._curves and y.name in self._curves:
            return self._curved(product, hint, self._curves[x.name] * self._curves[y.name])
        return self._emit(product, hint, intervals.times(_range(x), _range(y)))

    def _curved(self, op: Operation, hint: str, curve: Array) -> Value:
        # Between points a curve leaves their values by an eighth of its second differences.
        slack = float(np.abs(np.diff(curve, 2)).max()) / 4
        over = Interval(float(curve.min()) - slack, float(curve.max()) + slack)
        value = self._emit(op, hint, over)
        self._curves[value.name] = curve
        return value

    def _emit(self, op: Operation, hint: str, over: Interval) -> Value:
        placed = dataclasses.replace(op, location=self._op.location)
        value = self._build.emit(placed, f"{self._op.defined.name}.{hint}")
        return self._build.annotate(value, interval=over)

    def _keep(self, op: Operation, result: Value) -> None:
        self._build.keep(dataclasses.replace(op, result=result, location=self._op.location))


def _range(value: Value, factor: float = 1.0) -> Interval:
    """The range of a value times a number; that of what is not known counts as one."""
    known = tensor_type(value).interval or Interval(-1.0, 1.0)
    return intervals.times(known, intervals.point(factor))
