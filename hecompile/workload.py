"""What the operations of a program come down to: calls of SEAL's primitives, with their levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from hecompile.ir import he_ops as he
from hecompile.ir.constants import Constant
from hecompile.ir.operation import Operation, Value
from hecompile.ir.parcels import Parcel, parcels
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, PlainType
from hecompile.numeric.cost import CostModel

NAMES: dict[type[Operation], str] = {
    he.Add: "add",
    he.Sub: "sub",
    he.AddPlain: "add_plain",
    he.Mul: "multiply",
    he.MulPlain: "multiply_plain",
    he.Negate: "negate",
    he.Rotate: "rotate",
    he.Relinearize: "relinearize",
    he.Rescale: "rescale",
}
"""Operations that are one primitive."""


MATRIX_BYTES = 256 << 20
"""Most bytes of results of one matrix of scalar products."""

_USUAL_DEGREE = 8192


class Call(NamedTuple):
    """A primitive on an operand with some primes left and two or three polynomials."""

    name: str
    primes: int
    polynomials: int = 2


Work = Counter[Call]


def seconds(work: Mapping[Call, int], degree: int, cost: CostModel) -> float:
    """CPU seconds of some work on a ring of the given degree."""
    return sum(
        count * cost.seconds(call.name, degree, call.primes, call.polynomials)
        for call, count in work.items()
    )


def level_of(value: Value) -> int:
    """Level of a ciphertext or plaintext; 0 where none is assigned."""
    facts = value.type
    return (facts.level or 0) if isinstance(facts, CipherType | PlainType) else 0


def level_read(op: Operation) -> int:
    """The level at which an operation runs: its operand's, or its result's if it reads nothing."""
    if op.operands:
        return level_of(op.operands[0])
    return level_of(op.defined) if op.result is not None else 0


@dataclass(frozen=True)
class Rows:
    """What the rows of a weight constant are.

    Attributes:
        vectors: digest of each row with several values, in order.
        uniform: rows with one value in all slots, zero left out.
        zero: rows of zeros.
    """

    vectors: tuple[bytes, ...]
    uniform: int
    zero: int


_ROWS: WeakKeyDictionary[Constant, Rows] = WeakKeyDictionary()


def rows_of(constant: Constant) -> Rows:
    """Look through the rows of a constant, once for each constant."""
    found = _ROWS.get(constant)
    if found is None:
        array = np.atleast_2d(constant.array)
        flat = array.max(axis=1) == array.min(axis=1)
        zero = int(np.count_nonzero(flat & (array[:, 0] == 0)))
        digests = (blake2b(row.tobytes(), digest_size=16).digest() for row in array[~flat])
        found = Rows(tuple(digests), int(flat.sum()) - zero, zero)
        _ROWS[constant] = found
    return found


def evaluator_work(program: Program, cost: CostModel) -> Iterator[tuple[Operation, Work]]:
    """Each operation of a program with levels, and what the evaluator does for it.

    Sums of scalar products that can be computed together are one matrix (`runtime.families`
    does it): all of it counts for the first of them, where the cost model says that it is cheaper.
    """
    sent = requests(program)
    together: dict[str, Work] = {}
    for batch in _batches(program):
        work = _matrix(program, batch, cost)
        together |= {op.defined.name: Counter() for op in batch}
        together[batch[0].defined.name] = work
    for op in program:
        known = op.result is not None and op.result.name in together
        if isinstance(op, he.Refresh):
            yield op, _masking(program, op, sent[op.defined.name])
        else:
            yield op, together[op.defined.name] if known else _work(program, op)


def requests(program: Program) -> dict[str, tuple[Parcel, ...]]:
    """What goes up to the key holder with each refresh, by the name of its result.

    A ciphertext that several refreshes of a round read travels once, with the first of them.
    """
    waiting = {
        (group, parcel.values[0].name): parcel
        for group, found in parcels(program).items()
        for parcel in found
    }
    sent = {}
    for op in program.select(he.Refresh):
        keys = [(op.group, x.name) for x in op.xs]
        sent[op.defined.name] = tuple(waiting.pop(key) for key in keys if key in waiting)
    return sent


def _batches(program: Program) -> list[list[he.SumMulPlain]]:
    """Scalar sums at one level whose operands are all there before the first of them is due."""
    known = {op.result.name: n for n, op in enumerate(program) if op.result is not None}
    open_: dict[tuple[int, int], tuple[int, list[he.SumMulPlain]]] = {}
    found = []
    for position, op in enumerate(program):
        if not isinstance(op, he.SumMulPlain) or not is_scalar(program, op):
            continue
        place = level_read(op), _polynomials(op.xs)
        start, batch = open_.get(place, (-1, []))
        late = max(known[x.name] for x in op.xs) >= start
        if not batch or late or not _has_room(program, batch):
            start, batch = position, []
            open_[place] = start, batch
            found.append(batch)
        batch.append(op)
    return found


def is_scalar(program: Program, op: he.SumMulPlain) -> bool:
    """Whether each weight of a sum is one number for all slots."""
    return op.period == 1 or not rows_of(program.constants[op.weights]).vectors


def _has_room(program: Program, batch: list[he.SumMulPlain]) -> bool:
    if program.parameters is None:
        return False
    size = program.parameters.ciphertext_bytes(level_read(batch[0]), _polynomials(batch[0].xs))
    return (len(batch) + 1) * size <= MATRIX_BYTES


def _matrix(program: Program, batch: list[he.SumMulPlain], cost: CostModel) -> Work:
    """Several scalar sums, as one matrix or one by one."""
    primes = level_read(batch[0]) + 1
    polynomials = _polynomials(batch[0].xs)
    one_by_one = sum((_sum_of_products(program, op) for op in batch), Counter[Call]())
    matrix: Work = Counter(
        {
            Call("scalar_matrix", primes, polynomials): sum(len(op.xs) for op in batch),
            Call("scalar_matrix_operand", primes, polynomials): len(
                {x.name for op in batch for x in op.xs}
            ),
            Call("scalar_matrix_result", primes, polynomials): len(batch),
        }
    )
    degree = program.parameters.poly_modulus_degree if program.parameters else _USUAL_DEGREE
    return min(matrix, one_by_one, key=lambda work: seconds(work, degree, cost))


def _work(program: Program, op: Operation) -> Work:
    """The evaluator's part of any operation but a scalar sum."""
    primes = level_read(op) + 1
    match op:
        case he.Input():
            return Counter([Call("load", primes)])
        case he.Output():
            return Counter(Call("save", level_of(x) + 1, _polynomials((x,))) for x in op.xs)
        case he.SumMulPlain():
            return _sum_of_products(program, op)
        case he.DropLevel():
            polynomials = _polynomials((op.x,))
            return Counter(Call("drop_level", primes - i, polynomials) for i in range(op.levels))
    name = NAMES.get(type(op))
    if name is None:
        return Counter()
    if isinstance(op, he.Mul) and op.x.name == op.y.name:
        name = "square"
    ciphers = tuple(v for v in op.operands if isinstance(v.type, CipherType))
    found = Counter([Call(name, primes, _polynomials(ciphers))])
    if isinstance(op, he.AddPlain | he.MulPlain) and _is_uniform(program, op.p):
        found[Call("encode_scalar", primes)] += 1
    return found


_MASK_ENCODINGS = 3
"""A mask of random integers, and the envelope, take about as long as so many encodings."""

_TAKEN_ENCODINGS = 4
"""The slots of what goes up take either side an encoding, and in full so many more."""

_RELAYOUT_ENCODINGS = 3
"""Results put together of as many slots as there are take either side so many encodings more.

Both are in proportion to the period; see `hecompile.runtime.relayout`. All three were measured
beside encodings on a ring of 8192, periods of 16 to 4096.
"""

_WIRE = "multiply_plain"
"""To pack or unpack a ciphertext takes about as long as a product with a plaintext."""


def _masking(program: Program, op: he.Refresh, sent: tuple[Parcel, ...]) -> Work:
    """A mask on each ciphertext that goes up, and off the one that comes down."""
    work: Work = Counter()
    for parcel in sent:
        primes = level_of(parcel.values[0]) + 1
        names = ["add_plain", _WIRE]
        if parcel.mask_bits:
            names += ["encrypt", "add"]
        if len(parcel.values) > 1:
            names += ["multiply_plain", "add"]
        work += Counter(Call(name, primes) for name in names)
        work[Call("encode", primes)] += _MASK_ENCODINGS + _taken(program, parcel)
    high = level_of(op.defined) + 1
    work += Counter(Call(name, high) for name in (_WIRE, "encode", "add_plain"))
    work[Call("encode", high)] += _relayout(program, op)
    return work


def _taken(program: Program, parcel: Parcel) -> int:
    """Encodings that finding the slots of a ciphertext's values is worth."""
    period = max(he.cipher_type(value).period for value in parcel.values)
    return 1 + round(_TAKEN_ENCODINGS * period / _slots(program))


def _relayout(program: Program, op: he.Refresh) -> int:
    """Encodings that putting a refresh's result together is worth, beyond the encoding itself."""
    return round(_RELAYOUT_ENCODINGS * he.cipher_type(op.defined).period / _slots(program))


def _slots(program: Program) -> int:
    return program.parameters.slots if program.parameters is not None else _USUAL_DEGREE // 2


def _sum_of_products(program: Program, op: he.SumMulPlain) -> Work:
    primes, polynomials = level_read(op) + 1, _polynomials(op.xs)
    rows = rows_of(program.constants[op.weights])
    # A sum of zeros is one product by the smallest number: SEAL refuses to hide nothing.
    products = max(1, len(rows.vectors) + rows.uniform)
    return +Counter(
        {
            Call("multiply_plain", primes, polynomials): products,
            Call("add", primes, polynomials): products - 1,
            Call("encode_scalar", primes): rows.uniform + rows.zero,
        }
    )


def _polynomials(values: tuple[Value, ...]) -> int:
    return max(v.type.polynomials for v in values if isinstance(v.type, CipherType))


def _is_uniform(program: Program, plain: Value) -> bool:
    encoded = program.definitions[plain.name]
    return isinstance(encoded, he.Encode) and not _vectors(program, encoded)


def _vectors(program: Program, op: he.Encode | he.SumMulPlain) -> tuple[bytes, ...]:
    symbol = op.value if isinstance(op, he.Encode) else op.weights
    return rows_of(program.constants[symbol]).vectors


def stored_weights(program: Program) -> Counter[int]:
    """Distinct vectors of weights that the evaluator encodes when it loads, by level."""
    found = {
        (level_of(op.defined), digest)
        for op in program
        if isinstance(op, he.Encode | he.SumMulPlain)
        for digest in _vectors(program, op)
    }
    return Counter(level for level, _ in found)


def client_work(program: Program) -> Iterator[tuple[Operation, Work]]:
    """Inputs, refreshes and outputs, and what client and key holder do for each.

    The key holder opens each ciphertext of a round once and encrypts each result of it anew.
    """
    sent = requests(program)
    for op in program:
        match op:
            case he.Input():
                yield op, _sealed(op.defined, "encrypt")
            case he.Output():
                yield op, sum(map(_opened, op.xs), Counter[Call]())
            case he.Refresh():
                yield op, _answered(program, op, sent[op.defined.name])


def _answered(program: Program, op: he.Refresh, sent: tuple[Parcel, ...]) -> Work:
    """What the key holder does for a result, and for what goes up with it."""
    high = level_of(op.defined) + 1
    work = Counter(Call(name, high) for name in (_WIRE, "encode", "encrypt_symmetric"))
    work[Call("encode", high)] += _relayout(program, op)
    for parcel in sent:
        primes = level_of(parcel.values[0]) + 1
        work += Counter(Call(name, primes) for name in (_WIRE, "decrypt", "decode"))
        work[Call("encode", primes)] += _taken(program, parcel)
    return work


def _sealed(value: Value, encrypt: str) -> Work:
    return Counter(Call(name, level_of(value) + 1) for name in ("encode", encrypt, "save"))


def _opened(value: Value) -> Work:
    primes = level_of(value) + 1
    calls = [Call(name, primes, _polynomials((value,))) for name in ("load", "decrypt")]
    return Counter([*calls, Call("decode", primes)])
