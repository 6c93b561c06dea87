"""Sums of scalar products that share operands, computed together as matrix products.

Where a weight is one number for all slots, a sum of plaintext products is a linear combination of
ciphertexts with integer coefficients. SEAL takes one pass over memory for each product; here many
sums take one pass over their operands (see `scalar_matrix`). Residues come out bit by bit as SEAL
computes them, which a self-test verifies before the first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tenseal.sealapi as seal

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Value
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
from hecompile.runtime.scalar_matrix import (
    Integers,
    Product,
    Splitter,
    choose_digits,
    integer_weights,
)

Places = npt.NDArray[np.intp]

RESULT_BYTES: Final = 256 << 20
"""Most bytes of results that are computed ahead of their turn."""
_TILE_BYTES: Final = 16 << 20
_STACK: Final = 8192
_MAX_COLUMNS: Final = 4096
# Costs per residue, in nanoseconds, measured once: SEAL's product and addition; a column of an
# operand to be read and cut; a result to be reduced and written; one product of digits.
_SEAL_PRODUCT: Final = 6.0
_OPERAND: Final = 14.0
_RESULT: Final = 40.0
_PRODUCT: Final = 0.25
# Bits of the largest weights of the self-test.
_LARGE_BITS: Final = 45


@dataclass(frozen=True)
class Sum:
    """One sum of scalar products: `sum of weights[i] * operands[i]`, the weights integers."""

    result: str
    scale: float
    operands: tuple[str, ...]
    weights: Integers = field(repr=False)


@dataclass
class Batch:
    """Sums at one level whose operands are all known before the first of them is due."""

    level: int
    polynomials: int
    sums: list[Sum]

    @property
    def operands(self) -> tuple[str, ...]:
        """Every operand once, in order of first use."""
        return tuple(dict.fromkeys(name for s in self.sums for name in s.operands))

    @property
    def gains(self) -> bool:
        """Whether matrix products take less time than one product after another."""
        products = sum(np.count_nonzero(s.weights) for s in self.sums)
        cost = _OPERAND * len(self.operands) + _RESULT * len(self.sums) + _PRODUCT * products
        return _SEAL_PRODUCT * products > cost


def plan_batches(program: Program, limit: int = RESULT_BYTES) -> dict[int, Batch]:
    """Find the sums that are worth computing together.

    Args:
        program: Checked by `check_program`.
        limit: Most bytes of results in one batch.

    Returns:
        Batches by the position of their first operation.
    """
    known = {op.result.name: n for n, op in enumerate(program) if op.result is not None}
    open_: dict[tuple[int, int], tuple[int, Batch]] = {}
    found: dict[int, Batch] = {}
    for position, op in enumerate(program):
        if not isinstance(op, he.SumMulPlain) or (one := _sum(program, op)) is None:
            continue
        level, polynomials = facts(op.defined).level, he.cipher_type(op.defined).polynomials
        start, batch = open_.get((level, polynomials), (-1, None))
        late = max(known[name] for name in one.operands) >= start
        if batch is None or late or not _room(program, batch, limit):
            start, batch = position, Batch(level, polynomials, [])
            open_[level, polynomials] = start, batch
            found[start] = batch
        batch.sums.append(one)
    return {position: batch for position, batch in found.items() if batch.gains}


def _room(program: Program, batch: Batch, limit: int) -> bool:
    parameters = program.parameters
    if parameters is None:
        return False
    size = parameters.ciphertext_bytes(batch.level, batch.polynomials)
    return (len(batch.sums) + 1) * size <= limit


def _sum(program: Program, op: he.SumMulPlain) -> Sum | None:
    """The operation as a sum with integer weights; None where it is not one."""
    rows = program.array(op.weights)
    names = [x.name for x in op.xs]
    polynomials = he.cipher_type(op.defined).polynomials
    if not np.all(rows == rows[:, :1]) or len(set(names)) != len(names):
        return None
    if any(he.cipher_type(x).polynomials != polynomials for x in op.xs):
        return None
    return _scaled(op.defined, op.xs, rows[:, 0], program)


def _scaled(result: Value, xs: Sequence[Value], row: Any, program: Program) -> Sum | None:
    found = facts(result)
    scales = np.array([found.scale / facts(x).scale for x in xs])
    weights = integer_weights(np.array(row), scales)
    if weights is None or program.parameters is None:
        return None
    if int(np.abs(weights).max()) >= program.parameters.modulus(found.level) // 4:
        return None
    if not weights.any():
        # As SEAL refuses a product with zero, the smallest weight that is none stands for it.
        weights[0] = 1
    # Any order of equal operands is one family; by length first, so that %x9 comes before %x10.
    order = sorted(range(len(xs)), key=lambda n: (len(xs[n].name), xs[n].name))
    names = tuple(xs[n].name for n in order)
    return Sum(result.name, found.scale, names, weights[order])


class ScalarSums:
    """Computes the batches of one program."""

    def __init__(self, batches: Mapping[int, Batch], context: Context) -> None:
        """Compare with SEAL, if there are batches.

        Args:
            batches: What `plan_batches` found.
            context: The program's context.

        Raises:
            LayoutError: Ciphertexts cannot be read, or SEAL computes other residues.
        """
        self._context = context
        self._batches = batches
        self._access: ResidueAccess | None = None
        if self._batches:
            self._access = residue_access(context)
            _self_test(context, self._access)

    def __len__(self) -> int:
        return len(self._batches)

    def due(self, position: int) -> Batch | None:
        """The batch that begins at a position of the program."""
        return self._batches.get(position)

    def run(self, batch: Batch, live: Mapping[str, Any]) -> dict[str, Any]:
        """Compute a batch.

        Args:
            batch: What `due` gave.
            live: Ciphertexts by name, the batch's operands among them.

        Returns:
            Its results by name.

        Raises:
            ProgramError: An operand is not what the program says.
        """
        if self._access is None:
            raise ProgramError("a program without batches has none to run.")
        return _run(batch, self._context, self._access, live)


def scalar_sums(program: Program, context: Context) -> ScalarSums:
    """Plan the batches of a program; without any, and with a warning, where they cannot run."""
    try:
        return ScalarSums(plan_batches(program), context)
    except LayoutError as error:
        warn_slow(
            f"sums of scalar products are left to SEAL, which takes many times longer: {error}."
        )
        return ScalarSums({}, context)


def _run(
    batch: Batch,
    context: Context,
    access: ResidueAccess,
    live: Mapping[str, Any],
    finer: bool = False,
) -> dict[str, Any]:
    """Compute a batch's results by name; `finer` cuts residues into one digit more than needed."""
    names = batch.operands
    views = [access.view(live[name]) for name in names]
    shape = (batch.polynomials, batch.level + 1, context.parameters.poly_modulus_degree)
    for name, view in zip(names, views, strict=True):
        if view.shape != shape:
            raise ProgramError(f"{name} is no ciphertext of the shape that the program says.")
    results = np.empty((len(batch.sums), *shape), dtype=np.uint64)
    for index, prime in enumerate(context.parameters.data_primes[: batch.level + 1]):
        operands = [view[:, index] for view in views]
        _Residual(batch, names, prime, finer).run(operands, results[:, :, index])
    return {
        s.result: load_residues(context, result, batch.level, s.scale)
        for s, result in zip(batch.sums, results, strict=True)
    }


@dataclass(frozen=True)
class _Group:
    """Sums with equal weights: one matrix for several sets of operands, as in a convolution.

    Attributes:
        product: The matrix, shape (M, K).
        operands: Places of the operands, shape (K, sets).
        results: Places of the sums, shape (M, sets).
    """

    product: Product
    operands: Places
    results: Places


class _Residual:
    """One batch modulo one prime."""

    def __init__(
        self, batch: Batch, names: tuple[str, ...], prime: int, finer: bool = False
    ) -> None:
        places = {name: place for place, name in enumerate(names)}
        families: dict[tuple[str, ...], list[int]] = {}
        for row, s in enumerate(batch.sums):
            families.setdefault(s.operands, []).append(row)
        matrices: dict[bytes, Integers] = {}
        sets: dict[bytes, list[tuple[list[int], list[int]]]] = {}
        for operands, rows in families.items():
            matrix = np.stack([batch.sums[row].weights for row in rows])
            key = matrix.tobytes() + bytes(str(matrix.shape), "ascii")
            matrices[key] = matrix
            sets.setdefault(key, []).append(([places[name] for name in operands], rows))
        digits = choose_digits(list(matrices.values()), len(names), prime)
        if digits is None:
            raise ProgramError(f"weights are too large for the prime {prime}; compile again.")
        if finer:
            count = digits.residue_count + 1
            width = -(-(prime.bit_length() + 1) // count)
            digits = replace(digits, residue_width=width, residue_count=count)
        self._digits = digits
        self._groups = [
            _Group(
                Product(matrix, prime, digits),
                np.array([operands for operands, _ in sets[key]], dtype=np.intp).T,
                np.array([rows for _, rows in sets[key]], dtype=np.intp).T,
            )
            for key, matrix in matrices.items()
        ]

    def run(self, operands: Sequence[Residues], results: Residues) -> None:
        """Fill the results, shape (sums, polynomials, N), from operands (polynomials, N) each."""
        polynomials, degree = operands[0].shape
        columns = _columns(len(operands) * self._digits.residue_count, degree)
        split = Splitter(self._digits, columns)
        cut = np.empty((self._digits.residue_count, len(operands), columns))
        for polynomial in range(polynomials):
            for start in range(0, degree, columns):
                window = slice(start, start + columns)
                split([x[polynomial, window] for x in operands], cut)
                for group in self._groups:
                    _multiply(group, cut, results[:, polynomial, window])


def _multiply(group: _Group, cut: Array, results: Residues) -> None:
    """Multiply the sets of operands of a group, as many at once as keep the tile in the cache."""
    columns = cut.shape[2]
    count, sets = group.operands.shape
    step = max(1, _STACK // columns)
    for first in range(0, sets, step):
        chosen = group.operands[:, first : first + step]
        low = int(chosen[0, 0])
        if chosen.shape[1] == 1 and np.array_equal(chosen[:, 0], np.arange(low, low + count)):
            digits = [digit[low : low + count] for digit in cut]
        else:
            digits = [digit[chosen].reshape(count, -1) for digit in cut]
        rows = group.results[:, first : first + step]
        results[rows] = group.product(digits).reshape(*rows.shape, columns)


def _columns(rows: int, degree: int) -> int:
    """Columns of a tile: a power of two, so that it divides the degree."""
    wanted = max(64, _TILE_BYTES // (8 * rows))
    return min(degree, _MAX_COLUMNS, 1 << (wanted.bit_length() - 1))


def _self_test(context: Context, access: ResidueAccess) -> None:
    """Compare with SEAL's multiply_plain and add on random residues, every prime.

    Large weights take several digits; residues are cut as needed and once more, finer.

    Raises:
        LayoutError: They differ.
    """
    top = context.parameters.levels
    _compare(context, access, top, 2, 10, (False,))
    level = next((n for n in range(top) if _weight_bits(context, n) == _LARGE_BITS), top)
    _compare(context, access, level, 3, _weight_bits(context, level), (False, True))


def _weight_bits(context: Context, level: int) -> int:
    """Bits of large weights, as far as the modulus of a level admits them."""
    return min(_LARGE_BITS, context.parameters.modulus(level).bit_length() - 3)


def _compare(
    context: Context,
    access: ResidueAccess,
    level: int,
    polynomials: int,
    bits: int,
    cuts: Sequence[bool],
) -> None:
    """Compare with SEAL at one level, with weights of at most `bits` bits, finer cut or not."""
    primes = np.array(context.parameters.data_primes[: level + 1], dtype=np.uint64)
    shape = (polynomials, level + 1, context.parameters.poly_modulus_degree)
    random = np.random.default_rng(bits)
    values = {
        name: load_residues(
            context, random.integers(0, primes[:, None], size=shape, dtype=np.uint64), level, 1.0
        )
        for name in ("a", "b", "c")
    }
    scale = 2.0**bits
    rows = [(0.3, -0.9, 0.5), (-1.0 / scale, 0.77, 1.0 / scale)]
    sums = []
    for row, weights in enumerate(rows):
        integers = integer_weights(np.array(weights), scale)
        if integers is None:
            raise LayoutError("the weights of the self-test are too large")
        sums.append(Sum(str(row), scale, ("a", "b", "c"), integers))
    try:
        batch = Batch(level, polynomials, sums)
        found = [_run(batch, context, access, values, finer) for finer in cuts]
        wanted = [_by_seal(context, list(values.values()), w, level, scale) for w in rows]
    except ProgramError as error:
        raise LayoutError(f"the self-test cannot run: {error}") from error
    for row, value in enumerate(wanted):
        if any(not np.array_equal(access.view(f[str(row)]), access.view(value)) for f in found):
            raise LayoutError("SEAL computes other residues than matrix products")


def _by_seal(
    context: Context, values: list[Any], weights: Sequence[float], level: int, scale: float
) -> Any:
    evaluator, total = seal.Evaluator(context.seal), None
    for value, weight in zip(values, weights, strict=True):
        plain = context.encode(weight, level, scale)
        product = seal.Ciphertext()
        evaluator.multiply_plain(value, plain, product)
        if total is None:
            total = product
        else:
            evaluator.add_inplace(total, product)
    return total
