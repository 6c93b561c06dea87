"""Sums of products of ciphertexts, each sum computed in one go.

SEAL reduces every product and passes over memory once for each product and each addition. Here
products of residues are summed as they are in words of 64 bits, and reduced when a sum is complete
(delayed reduction: Dumas, Gautier and Pernet, "Finite field linear algebra subroutines", ISSAC
2002). Where two residues do not fit a word together, one is cut into digits. Residues come out bit
by bit as SEAL computes them, which a self-test verifies before the first use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.runtime.admission import facts
from hecompile.runtime.context import Context
from hecompile.runtime.rawmemory import Residues
from hecompile.runtime.residues import (
    LayoutError,
    ResidueAccess,
    load_residues,
    residue_access,
    warn_slow,
)

FEWEST_TERMS: Final = 3
"""Sums of fewer products are left to SEAL: a result costs about as much as a product to write."""

MOST_TERMS: Final = 1 << 14
"""Products of one sum; halves of words then stay below 2**46 (see `_Total`)."""

LARGEST_PRIME_BITS: Final = 60
"""SEAL takes no larger ones."""

_WORD_BITS: Final = 64
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class _Cut:
    """How residues are cut, so that products of digits have 62 bits at most.

    Attributes:
        bits: Most bits of the prime.
        left: Digits of the left factors.
        right: Digits of the right factors.
        cost: Time of a product by SEAL's, measured once.
    """

    bits: int
    left: int
    right: int
    cost: float


_CUTS: Final = (
    _Cut(31, 1, 1, 0.3),
    _Cut(41, 1, 2, 0.8),
    _Cut(56, 2, 2, 1.4),
    _Cut(LARGEST_PRIME_BITS, 2, 2, 2.2),
)


@dataclass(frozen=True)
class InnerProduct:
    """One sum of products: `sum of left[i] * right[i]`.

    Attributes:
        result: Name of the value.
        level: Its level.
        scale: Its scale.
        terms: Names of the factors, pair by pair.
    """

    result: str
    level: int
    scale: float
    terms: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class InnerPlan:
    """The sums of a program that are computed in one go.

    Attributes:
        sums: By the position of their last operation.
        skipped: Positions of the operations that they make superfluous.
    """

    sums: Mapping[int, InnerProduct]
    skipped: frozenset[int]

    def last_uses(self, program: Program) -> dict[str, int]:
        """Position after which nothing reads a value; factors live until their sum is due."""
        last = dict(program.last_uses)
        for position, one in self.sums.items():
            for name in (name for pair in one.terms for name in pair):
                last[name] = max(last[name], position)
        return last


def plan_inner_products(program: Program, fewest: int = FEWEST_TERMS) -> InnerPlan:
    """Find sums of products that nothing else reads, between one refresh and the next.

    Args:
        program: Checked by `check_program`.
        fewest: Products that a sum must have.
    """
    if program.parameters is None:
        return InnerPlan({}, frozenset())
    uses = Counter(v.name for op in program for v in op.operands)
    growing: dict[str, _Growing] = {}
    found: list[_Growing] = []
    for position, op in enumerate(program):
        if isinstance(op, he.Mul) and _gains(op, program.parameters.data_primes):
            growing[op.defined.name] = _Growing(op, [(op.x.name, op.y.name)], [position])
        elif isinstance(op, he.Add) and _joins(op, growing, uses):
            x, y = growing.pop(op.x.name), growing.pop(op.y.name)
            # Nobody else reads the operand's list, so it may become the result's.
            x.terms.extend(y.terms)
            x.places.extend([*y.places, position])
            growing[op.defined.name] = _Growing(op, x.terms, x.places)
        elif isinstance(op, he.Refresh):
            found += growing.values()
            growing = {}
    kept = [one for one in (*found, *growing.values()) if len(one.terms) >= fewest]
    return InnerPlan(
        {one.places[-1]: one.finished() for one in kept},
        frozenset(place for one in kept for place in one.places[:-1]),
    )


@dataclass(frozen=True)
class _Growing:
    """A sum so far: the operation that gives it, its products, all positions that it takes."""

    operation: he.Mul | he.Add
    terms: list[tuple[str, str]]
    places: list[int]

    def finished(self) -> InnerProduct:
        value = self.operation.defined
        known = facts(value)
        return InnerProduct(value.name, known.level, known.scale, tuple(self.terms))


def _gains(op: he.Mul, primes: Sequence[int]) -> bool:
    """Whether a product takes less time here than in SEAL."""
    used = primes[: facts(op.defined).level + 1]
    cheap = sum(_cut_for(prime).cost for prime in used) < len(used)
    return cheap and all(he.cipher_type(v).polynomials == 2 for v in op.operands)


def _cut_for(prime: int) -> _Cut:
    return next(cut for cut in _CUTS if prime.bit_length() <= cut.bits)


def _joins(op: he.Add, growing: Mapping[str, _Growing], uses: Mapping[str, int]) -> bool:
    if any(v.name not in growing or uses[v.name] > 1 for v in op.operands):
        return False
    return sum(len(growing[v.name].terms) for v in op.operands) <= MOST_TERMS


class InnerProducts:
    """Computes the sums of one program."""

    def __init__(self, plan: InnerPlan, context: Context) -> None:
        """Compare with SEAL, if there are sums.

        Args:
            plan: What `plan_inner_products` found.
            context: The program's context.

        Raises:
            LayoutError: Ciphertexts cannot be read, or SEAL computes other residues.
        """
        self.plan = plan
        self._context = context
        self._access: ResidueAccess | None = None
        if plan.sums:
            self._access = residue_access(context)
            _self_test(context, self._access)

    def skips(self, position: int) -> bool:
        """Whether the operation at a position is part of a sum that is due later."""
        return position in self.plan.skipped

    def due(self, position: int) -> InnerProduct | None:
        """The sum that is complete at a position of the program."""
        return self.plan.sums.get(position)

    def run(self, one: InnerProduct, live: Mapping[str, Any]) -> Any:
        """Compute a sum.

        Args:
            one: What `due` gave.
            live: Ciphertexts by name, the factors among them.

        Raises:
            ProgramError: A factor is not what the program says.
        """
        if self._access is None:
            raise ProgramError("a program without sums of products has none to run.")
        return _run(one, self._context, self._access, live)


def inner_products(program: Program, context: Context) -> InnerProducts:
    """Plan the sums of a program; without any, and with a warning, where they cannot run."""
    try:
        return InnerProducts(plan_inner_products(program), context)
    except LayoutError as error:
        warn_slow(f"sums of products are left to SEAL, which takes several times longer: {error}.")
        return InnerProducts(InnerPlan({}, frozenset()), context)


def _run(
    one: InnerProduct, context: Context, access: ResidueAccess, live: Mapping[str, Any]
) -> Any:
    shape = (2, one.level + 1, context.parameters.poly_modulus_degree)
    pairs = [(access.view(live[x]), access.view(live[y])) for x, y in one.terms]
    for name, view in zip(one.terms, pairs, strict=True):
        if any(factor.shape != shape for factor in view):
            raise ProgramError(f"{name[0]} or {name[1]} has not the shape that the program says.")
    result = np.empty((3, *shape[1:]), dtype=np.uint64)
    for index, prime in enumerate(context.parameters.data_primes[: one.level + 1]):
        residues = [(x[:, index], y[:, index]) for x, y in pairs]
        result[:, index] = inner_product(residues, prime)
    if not result[1:].any():
        raise ProgramError(f"%{one.result} would be transparent: it hides nothing.")
    return load_residues(context, result, one.level, one.scale)


def inner_product(pairs: Sequence[tuple[Residues, Residues]], prime: int) -> Residues:
    """Sum of products of ciphertexts modulo one prime.

    Args:
        pairs: Factors of two polynomials each, shape (2, N), residues below the prime.
        prime: Of at most `LARGEST_PRIME_BITS` bits.

    Returns:
        Three polynomials, shape (3, N).
    """
    bits = prime.bit_length()
    cut = _cut_for(prime)
    widths = -(-bits // cut.left), -(-bits // cut.right)
    capacity = 1 << (_WORD_BITS - sum(widths))
    degree = pairs[0][0].shape[1]
    totals = [_Total(degree, capacity, prime) for _ in range(cut.left + cut.right - 1)]
    for x, y in pairs:
        for i, low in enumerate(_digits(x, widths[0], cut.left)):
            for j, other in enumerate(_digits(y, widths[1], cut.right)):
                totals[i + j].add(low, other)
    # Where both are cut, into digits of one width, products of place i + j have that weight.
    *rest, value = [total.reduced() for total in totals]
    for digit in reversed(rest):
        value = _reduce(_shifted(value, widths[1], prime) + digit, prime)
    return value


def _digits(residues: Residues, width: int, count: int) -> list[Residues]:
    """Digits of residues, lowest first."""
    if count == 1:
        return [residues]
    mask = np.uint64((1 << width) - 1)
    return [(residues >> np.uint64(place * width)) & mask for place in range(count)]


class _Total:
    """A sum of products that is reduced at the end."""

    def __init__(self, degree: int, capacity: int, prime: int) -> None:
        """Begin with nothing.

        Args:
            degree: Residues of a polynomial.
            capacity: Products whose sum fits a word.
            prime: The modulus.
        """
        self._prime = prime
        # The middle polynomial takes two products of a term.
        self._most = max(1, capacity // 2)
        self._terms = 0
        self._sum = np.empty((3, degree), dtype=np.uint64)
        self._product = np.empty((2, degree), dtype=np.uint64)
        self._halves: Residues | None = None

    def add(self, x: Residues, y: Residues) -> None:
        """Add the product of (x0, x1) and (y0, y1)."""
        if self._terms == self._most:
            self._put_aside()
        if self._terms:
            np.multiply(x, y[0], out=self._product)
            self._sum[:2] += self._product
        else:
            np.multiply(x, y[0], out=self._sum[:2])
            self._sum[2] = 0
        np.multiply(x, y[1], out=self._product)
        self._sum[1:] += self._product
        self._terms += 1

    def reduced(self) -> Residues:
        """The sum below the prime, shape (3, N)."""
        if self._halves is None:
            return _reduce(self._sum, self._prime)
        self._put_aside()
        high = _shifted(_reduce(self._halves[0], self._prime), 32, self._prime)
        return _reduce(high + self._halves[1], self._prime)

    def _put_aside(self) -> None:
        """Make room by keeping the halves of words."""
        if self._halves is None:
            self._halves = np.zeros((2, *self._sum.shape), dtype=np.uint64)
        self._halves[0] += self._sum >> _HALF
        self._halves[1] += self._sum & _LOW
        self._terms = 0


def _shifted(values: Residues, by: int, prime: int) -> Residues:
    """Residues times `2**by`, below the prime."""
    room = _WORD_BITS - 1 - prime.bit_length()
    while by > 0:
        step = min(by, room)
        values = _reduce(values << np.uint64(step), prime)
        by -= step
    return values


def _reduce(values: Residues, prime: int) -> Residues:
    """Words modulo a prime above 2**13, with the quotient from doubles, which is off by one."""
    quotient = (values.astype(np.float64) * (1.0 / prime)).astype(np.uint64)
    rest: Residues = values - quotient * np.uint64(prime)
    # A difference below zero wraps round to more than any sum.
    rest = np.minimum(rest, rest + np.uint64(prime))
    rest = np.minimum(rest, rest - np.uint64(prime))
    return rest


def _self_test(context: Context, access: ResidueAccess) -> None:
    """Compare with SEAL's multiply and add on random residues, every prime that is used.

    Raises:
        LayoutError: They differ.
    """
    primes = context.parameters.data_primes
    level = len(context.parameters.data_primes) - 1
    degree = context.parameters.poly_modulus_degree
    random = np.random.default_rng(2)
    values: dict[str, Any] = {}
    for name in "abcdef":
        residues = np.empty((2, level + 1, degree), dtype=np.uint64)
        for index, prime in enumerate(primes[: level + 1]):
            residues[:, index] = random.integers(0, prime, size=(2, degree), dtype=np.uint64)
        values[name] = load_residues(context, residues, level, 1.0)
    terms = (("a", "b"), ("c", "d"), ("e", "f"), ("a", "a"), ("b", "f"))
    found = _run(InnerProduct("sum", level, 1.0, terms), context, access, values)
    evaluator = seal.Evaluator(context.seal)
    wanted: Any = None
    for x, y in terms:
        product = seal.Ciphertext()
        evaluator.multiply(values[x], values[y], product)
        if wanted is None:
            wanted = product
        else:
            evaluator.add_inplace(wanted, product)
    if not np.array_equal(access.view(found), access.view(wanted)):
        raise LayoutError("SEAL computes other residues than sums of products")
