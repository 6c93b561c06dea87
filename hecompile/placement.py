"""Where to relinearize and where to rescale, at the least cost.

Each value of an unmanaged program gets a form: with three polynomials or two, and, where its
virtual level is the top of a prime's group, pending (one prime more) or rescaled. An operation
costs more in the earlier forms; a change of form costs a relinearization or a rescale, once for
each value. Products fix the form they start with, their users the latest form that they accept,
and no value goes back. All costs together are the capacity of a cut, so that a minimum cut gives
the best forms at once (labels in linear order: Ishikawa, IEEE TPAMI 25, 2003, section 3). Sums of
scalar products that the evaluator computes as one matrix are priced so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.levels import PRODUCTS, Floor, ciphertexts, is_cipher, operand_level
from hecompile.mincut import SINK, SOURCE, MinimumCut, Node
from hecompile.numeric.cost import active_cost_model
from hecompile.numeric.virtual import VirtualLevels
from hecompile.workload import is_scalar

EARLY, FEW, LATE = "early", "few", "late"
POLICIES = (EARLY, FEW, LATE)
"""When to rescale: wherever it saves time; only where it saves much; as late as possible.

A rescale and a key switch after it round at the small scale, so that fewer and later ones mean
less noise: what is rounded before a sum of rotations is added up by it.
"""

_RESCALE_PRICE: Mapping[str, float] = {EARLY: 1.5, FEW: 12.0, LATE: 1.0}
"""What saves less than this many times the cost of a rescale is not worth one."""

NEEDS_TWO = (he.Mul, he.Rotate, he.Output, he.Refresh)
"""Operations that read two polynomials only."""

NEEDS_RESCALED = (*PRODUCTS, he.Output, he.Refresh)
"""Operations that read no pending product."""

PRIMITIVES: Mapping[type[Operation], str] = {
    he.Add: "add",
    he.Sub: "sub",
    he.AddPlain: "add_plain",
    he.Mul: "multiply",
    he.MulPlain: "multiply_plain",
    he.SumMulPlain: "multiply_plain",
    he.Negate: "negate",
    he.Rotate: "rotate",
}
"""Primitive of each operation that costs something, apart from changes of form."""


@dataclass(frozen=True)
class Forms:
    """Forms in which operations leave their results, by name.

    Attributes:
        triples: results that keep three polynomials where an operand has them.
        pending: results that keep the prime of a product.
    """

    triples: frozenset[str]
    pending: frozenset[str]


def place(
    program: Program,
    levels: Mapping[str, int],
    virtual: VirtualLevels,
    floor: Floor,
    ring: int,
    policies: Sequence[str] = (EARLY,),
) -> Forms:
    """Choose the cheapest forms for an unmanaged program.

    Args:
        program: without relinearize, rescale and drop_level.
        levels: virtual level of each ciphertext.
        virtual: the primes that stand for the levels.
        floor: virtual level at which refreshes read.
        ring: polynomial modulus degree.
        policies: of `POLICIES`, for the rescales that leave one prime, two, ...; the last one
            holds for all that follow.
    """
    return _Placement(program, levels, virtual, floor, ring, policies).solve()


class _Placement:
    """The cut. Source side of ("three", x): three polynomials; of ("pending", x): pending."""

    def __init__(
        self,
        program: Program,
        levels: Mapping[str, int],
        virtual: VirtualLevels,
        floor: Floor,
        ring: int,
        policies: Sequence[str],
    ) -> None:
        self._program = program
        self._levels = levels
        self._virtual = virtual
        self._floor = floor
        self._ring = ring
        self._policies = policies
        self._cost = active_cost_model()
        self._cut = MinimumCut()
        self._free: set[str] = set()
        self._readers: dict[tuple[tuple[str, ...], int, bool], Node] = {}
        self._columns: set[Node] = set()
        self._matrices = self._worth_matrices()

    def solve(self) -> Forms:
        for op in self._program:
            operands = [v.name for v in ciphertexts(op) if v.name in self._free]
            if op.result is not None and is_cipher(op.result):
                started = isinstance(op, PRODUCTS)
                fresh = isinstance(op, he.Refresh)
                joins = any(self._levels[name] == self._level(op) for name in operands)
                if started or (joins and not fresh):
                    self._free.add(op.result.name)
                    self._own_cost(op)
            self._uses(op, operands)
            if op.result is not None and op.result.name in self._free:
                self._changes(op.result.name)
        kept = self._cut.with_source()
        return Forms(
            frozenset(name for name in self._free if ("three", name) in kept),
            frozenset(name for name in self._free if ("pending", name) in kept),
        )

    def _level(self, op: Operation) -> int:
        return self._levels[op.defined.name]

    def _policy(self, level: int) -> str:
        return self._policies[min(self._virtual.prime(level), len(self._policies) - 1)]

    def _crosses(self, name: str) -> bool:
        return self._virtual.is_top(self._levels[name])

    def _nanoseconds(self, primitive: str, level: int, pending: bool, polynomials: int = 2) -> int:
        primes = self._virtual.prime(level + 1 if pending else level) + 1
        return round(1e9 * self._cost.seconds(primitive, self._ring, primes, polynomials))

    def _of_matrix(self, what: str, level: int, polynomials: int = 2) -> int:
        return self._nanoseconds(f"scalar_matrix_{what}", level, True, polynomials)

    def _is_in_matrix(self, op: he.SumMulPlain) -> bool:
        return self._level(op) in self._matrices and is_scalar(self._program, op)

    def _worth_matrices(self) -> frozenset[int]:
        """The levels at which sums of scalar products are quicker as matrices."""
        sums: dict[int, list[he.SumMulPlain]] = {}
        for op in self._program.select(he.SumMulPlain):
            if is_scalar(self._program, op):
                sums.setdefault(self._level(op), []).append(op)
        found = set()
        for level, ops in sums.items():
            products = sum(len(op.xs) for op in ops)
            operands = len({x.name for op in ops for x in op.xs})
            matrix = products * self._nanoseconds("scalar_matrix", level, pending=True)
            matrix += operands * self._of_matrix("operand", level)
            matrix += len(ops) * self._of_matrix("result", level)
            if matrix < products * self._nanoseconds("multiply_plain", level, pending=True):
                found.add(level)
        return frozenset(found)

    def _own_cost(self, op: Operation) -> None:
        """What an operation costs in each form, and the forms it cannot have."""
        name, level = op.defined.name, self._level(op)
        three, pending = ("three", name), ("pending", name)
        primitive = PRIMITIVES[type(op)]
        times = len(op.xs) if isinstance(op, he.SumMulPlain) else 1
        if isinstance(op, he.SumMulPlain) and self._is_in_matrix(op):
            primitive, started = "scalar_matrix", self._of_matrix("result", level)
            tripled = self._of_matrix("result", level, 3)
        else:
            started = tripled = 0
        early = started + times * self._nanoseconds(primitive, level, pending=True)
        triple = tripled + times * self._nanoseconds(primitive, level, True, polynomials=3)
        self._cut.arc(three, SINK, triple)
        if self._crosses(name):
            self._cut.arc(three, pending)
            self._cut.arc(pending, three, early)
            late = times * self._nanoseconds(primitive, level, pending=False)
            self._cut.arc(SOURCE, pending, early + 1 if self._policy(level) == LATE else late)
            if isinstance(op, PRODUCTS):
                self._cut.arc(SOURCE, pending)
        else:
            self._cut.arc(SOURCE, three, early)
        if isinstance(op, he.Mul):
            self._cut.arc(SOURCE, three)
        if isinstance(op, he.Rotate):
            self._cut.arc(three, SINK)
        if not isinstance(op, PRODUCTS) and self._crosses(name) and self._is_stuck(op):
            self._cut.arc(pending, SINK)

    def _is_stuck(self, op: Operation) -> bool:
        """Whether an operand never was a product and so has no prime to spare.

        Where it comes from above, it has.
        """
        fixed = [v.name for v in ciphertexts(op) if v.name not in self._free]
        joined = [v for v in fixed if not isinstance(self._program.definitions[v], he.Weight)]
        return any(self._levels[other] == self._level(op) for other in joined)

    def _uses(self, op: Operation, operands: list[str]) -> None:
        """What an operation asks of its operands' forms.

        Sums that read the same operands ask the same of them, which is said once for all.
        """
        result = op.result.name if op.result is not None else ""
        three: Node = ("three", result)
        if isinstance(op, he.SumMulPlain):
            matrix = self._is_in_matrix(op)
            key = tuple(operands), self._level(op), matrix
            known = key in self._readers
            every = self._readers.setdefault(key, ("every", len(self._readers)))
            some: Node = ("some", every)
            self._cut.arc(every, three)
            if matrix:
                self._cut.arc(three, some)
            if known:
                return
            if matrix:
                self._convert(some, operands, self._level(op))
            three = every
        for name in operands:
            self._use(op, name, three)

    def _convert(self, some: Node, operands: list[str], level: int) -> None:
        """Operands of a matrix are converted once for all sums; three polynomials take longer."""
        more = self._of_matrix("operand", level, 3) - self._of_matrix("operand", level)
        for name in operands:
            column = ("column", name, level)
            self._cut.arc(some, column)
            if column not in self._columns:
                self._columns.add(column)
                self._cut.arc(column, SINK, more)

    def _use(self, op: Operation, name: str, three: Node) -> None:
        """What an operation asks of an operand's form; `three` says that it keeps three."""
        result = op.result.name if op.result is not None else ""
        own = self._levels[result] if result else 0
        needed = operand_level(self._program, op, own, self._virtual, self._floor)
        elsewhere = needed != self._levels[name]
        if elsewhere or isinstance(op, NEEDS_TWO):
            self._cut.arc(("two of", name), SINK)
        else:
            self._cut.arc(("two of", name), three)
        if not self._crosses(name):
            return
        if elsewhere or isinstance(op, NEEDS_RESCALED):
            self._cut.arc(("rescaled of", name), SINK)
        elif result in self._free:
            self._cut.arc(("rescaled of", name), ("pending", result))
            self._cut.arc(("pending", result), ("pending", name))

    def _changes(self, name: str) -> None:
        """What it costs to relinearize and to rescale a value, each once for all users."""
        level = self._levels[name]
        relinearize = self._nanoseconds("relinearize", level, pending=True)
        two: Node = ("two of", name)
        self._cut.arc(("three", name), two, relinearize)
        if self._crosses(name):
            price = _RESCALE_PRICE[self._policy(level)]
            rescale = round(price * self._nanoseconds("rescale", level, pending=True))
            self._cut.arc(("pending", name), ("rescaled of", name), rescale)
            # Dividing three polynomials rounds against the square of the secret: far more noise.
            self._cut.arc(two, ("rescaled of", name))
