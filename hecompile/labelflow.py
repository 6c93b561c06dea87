"""Which labels of the inputs' fields reach which elements of a tensor program's values.

Every value has a set of labels for each of its elements, as bits of 64-bit words; an operation
gives each element of its result the union of what that element is computed from. Only constants
that are exactly zero cut a flow, so that the result is sound: what does not carry a label stays the
same, bit for bit, when everything with that label changes (non-interference: Goguen and Meseguer,
"Security Policies and Security Models", IEEE S&P 1982). One bit more stands for the weights: every
constant counts as one, for a trained zero or one tells of the training set too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hecompile.access.labels import check_labels, sample_shape
from hecompile.access.policy import FieldLabels, ObjectRef
from hecompile.interpret.kernels import KERNELS
from hecompile.interpret.scope import Scope
from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array, SparseMap
from hecompile.ir.linear import Reader, linear_form
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.recurrent_ops import Gru, Lstm, Recurrent, Rnn
from hecompile.ir.tensor_ops import tensor_type

Masks = NDArray[np.uint64]
"""Label sets as bits: the value's shape, then an axis of words."""

_BITS = 64
_BLOCK = 1 << 22
"""Entries of a linear map whose label sets are gathered at a time."""


@dataclass(frozen=True, eq=False)
class ElementLabels:
    """The labels of each element of one value.

    Attributes:
        names: every label that some input carries, sorted.
        carried: (elements, names), whether an element carries a label, in row-major order.
        from_weights: whether some element depends on a constant of the program.
    """

    names: tuple[str, ...]
    carried: NDArray[np.bool_]
    from_weights: bool

    @property
    def size(self) -> int:
        """Number of elements."""
        return len(self.carried)

    @property
    def uniform(self) -> bool:
        """Whether all elements carry the same labels."""
        return bool((self.carried == self.carried[:1]).all())

    @cached_property
    def union(self) -> tuple[str, ...]:
        """The labels that some element carries, sorted."""
        return self._named(np.logical_or.reduce(self.carried, axis=0))

    @property
    def elements(self) -> tuple[tuple[str, ...], ...]:
        """The labels of each element, sorted."""
        return tuple(self._named(row) for row in self.carried)

    def _named(self, row: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(self.names[i] for i in np.flatnonzero(row))


def propagate(program: Program, fields: Sequence[FieldLabels]) -> dict[str, ElementLabels]:
    """The labels of each element of every output, by the output's name.

    Args:
        program: a verified program of `tensor.*` operations.
        fields: labels of inputs; an input without any carries none.

    Raises:
        InputError: the labels do not fit the program's inputs.
    """
    check_labels(fields, {op.label: op.dims for op in program.select(tensor.Input)})
    names = tuple(sorted({label for field in fields for label in field.labels}))
    # The first bit is that of the weights.
    known = _Known(program, {}, {}, len(names) // _BITS + 1)
    found: dict[str, ElementLabels] = {}
    for op in program:
        if isinstance(op, tensor.Output):
            found[op.label] = _unpacked(known(op.x), names)
        elif isinstance(op, tensor.Input):
            known.masks[op.defined.name] = _of_input(op, fields, names, known)
        else:
            _note_constant(op, known)
            known.masks[op.defined.name] = _flow(op, known)
    return found


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of the values so far.

    Attributes:
        program: for the constants that attributes name.
        masks: label sets of every value.
        constants: arrays (1, *shape) of the values that depend on no input.
        words: words that hold one element's labels.
    """

    program: Program
    masks: dict[str, Masks]
    constants: dict[str, Array]
    words: int

    def __call__(self, value: Value) -> Masks:
        return self.masks[value.name]

    def constant(self, value: Value) -> Array | None:
        """The array of a value that depends on no input."""
        found = self.constants.get(value.name)
        return None if found is None else found[0]

    def nothing(self, shape: tuple[int, ...]) -> Masks:
        """Elements without labels."""
        return np.zeros((*shape, self.words), dtype=np.uint64)

    def only(self, bit: int) -> Masks:
        """One set of one label, (words,)."""
        mask = self.nothing(())
        mask[bit // _BITS] = np.uint64(1) << np.uint64(bit % _BITS)
        return mask


_Rule = Callable[[Any, _Known], Masks]


def _of_input(
    op: tensor.Input, fields: Iterable[FieldLabels], names: tuple[str, ...], known: _Known
) -> Masks:
    masks = known.nothing(op.dims)
    skipped = len(op.dims) - len(sample_shape(op.dims))
    for field in fields:
        if not field.object.covers(ObjectRef.input(op.label)):
            continue
        bits = np.stack([known.only(1 + names.index(label)) for label in field.labels])
        if field.axis is None:
            masks |= np.bitwise_or.reduce(bits, axis=0)
        else:
            axis = field.axis + skipped
            masks |= bits.reshape(-1, *(1,) * (len(op.dims) - axis - 1), known.words)
    return masks


def _unpacked(masks: Masks, names: tuple[str, ...]) -> ElementLabels:
    flat = masks.reshape(-1, masks.shape[-1])
    bits = np.arange(len(names) + 1)
    shifted = flat[:, bits // _BITS] >> (bits % _BITS).astype(np.uint64)
    carried = (shifted & np.uint64(1)).astype(np.bool_)
    return ElementLabels(names, carried[:, 1:], bool(carried[:, 0].any()))


def _note_constant(op: Operation, known: _Known) -> None:
    """Compute what depends on no input: its zeros cut flows where it multiplies."""
    kernel = KERNELS.get(type(op))
    if kernel is not None and all(v.name in known.constants for v in op.operands):
        with np.errstate(all="ignore"):
            known.constants[op.defined.name] = kernel(op, Scope(known.program, known.constants))


def _flow(op: Operation, known: _Known) -> Masks:
    shape = tensor_type(op.defined).shape
    rule = _RULES.get(type(op), _everything)
    form = None
    if not isinstance(op, movement.Affine):
        form = linear_form(op, Reader(known.program, known.constant))
    if form is None:
        masks = np.array(np.broadcast_to(rule(op, known), (*shape, known.words)))
    else:
        flat = known.nothing((form.bias.size,))
        for value, matrix in form.terms:
            _add_entries(flat, matrix.rows, matrix.columns, known(value))
        masks = flat.reshape(*shape, known.words)
    if _reads_weights(op, known):
        masks |= known.only(0)
    return masks


def _reads_weights(op: Operation, known: _Known) -> bool:
    """Whether a constant of the model is among what an operation computes from."""
    if any(True for _ in op.symbols) or any(v.name in known.constants for v in op.operands):
        return True
    if isinstance(op, movement.Pad):
        return op.fill != 0.0
    # A function's parameters, as in `leaky_relu(alpha=0.1)`, may have been learned.
    return isinstance(op, tensor.Activation) and any("(" in text for text in op.functions)


def _add_entries(
    flat: Masks, rows: NDArray[np.int64], columns: NDArray[np.int64], source: Masks
) -> None:
    """Add to each row the labels of its columns; rows must be sorted.

    Args:
        flat: (elements of the result, words), changed.
        rows: row of each entry that is not zero.
        columns: column of each.
        source: label sets of the operand.
    """
    given = source.reshape(-1, source.shape[-1])
    step = max(1, _BLOCK // flat.shape[-1])
    for i in range(0, len(rows), step):
        block = rows[i : i + step]
        starts = np.flatnonzero(np.diff(block, prepend=-1))
        taken = given[columns[i : i + step]]
        flat[block[starts]] |= np.bitwise_or.reduceat(taken, starts, axis=0)


def _everything(op: Operation, known: _Known) -> Masks:
    """The union of all labels of all operands: right for any operation."""
    union = known.nothing(())
    for value in op.operands:
        masks = known(value).reshape(-1, known.words)
        union |= np.bitwise_or.reduce(masks, axis=0)
    return union


def _affine(op: movement.Affine, known: _Known) -> Masks:
    """By the maps' entries as they stand: two that cancel may still leave a rounding error."""
    flat = known.nothing((tensor_type(op.defined).size,))
    for value, symbol in zip(op.xs, op.maps, strict=True):
        entries = SparseMap.from_constant(known.program.array(symbol))
        kept = np.flatnonzero(entries.values)
        order = kept[np.argsort(entries.rows[kept], kind="stable")]
        _add_entries(flat, entries.rows[order], entries.columns[order], known(value))
    return flat.reshape(*op.dims, known.words)


def _same(op: tensor.Unary, known: _Known) -> Masks:
    return known(op.x)


def _either(op: tensor.Binary, known: _Known) -> Masks:
    return np.bitwise_or(known(op.x), known(op.y))


def _polynomial(op: tensor.Polynomial, known: _Known) -> Masks:
    """Element by element; a segment whose polynomial is constant cuts."""
    x = known(op.x)
    alive = np.logical_or.reduce(known.program.array(op.coefficients)[1:] != 0.0, axis=0)
    if op.sections:
        alive = np.repeat(np.broadcast_to(alive, (len(op.sections),)), op.sections)
    chosen = alive[:, None] if x.ndim > 1 else alive[:1]
    return np.where(chosen, x, np.uint64(0))


def _matmul(op: tensor.MatMul, known: _Known) -> Masks:
    """Of two values that both depend on inputs: a row of one and a column of the other."""
    x, y = known(op.x), known(op.y)
    left, right = x[None] if x.ndim == 2 else x, y[:, None] if y.ndim == 2 else y
    rows = np.bitwise_or.reduce(left, axis=-2)
    columns = np.bitwise_or.reduce(right, axis=-3)
    met = np.bitwise_or(rows[..., :, None, :], columns[..., None, :, :])
    shaped: Masks = met.reshape(*op.shape(), known.words)
    return shaped


def _recurrent(op: Recurrent, known: _Known) -> Masks:
    """Each step: what enters it and the steps before it, of the same sequence, all units alike."""
    x, shape = known(op.x), tensor_type(op.defined).shape
    weights, states = [op.w, op.r, op.b], [op.h0]
    if isinstance(op, Lstm):
        weights.append(op.p)
        states.append(op.c0)
    always = known.nothing(())
    for value in weights:
        if value is not None:
            always |= np.bitwise_or.reduce(known(value).reshape(-1, known.words), axis=0)
    table = known.constant(op.w)
    directions = []
    for d in range(op.directions):
        fed = x if table is None else np.where(np.any(table[d], axis=0)[:, None], x, np.uint64(0))
        steps = np.bitwise_or.reduce(fed, axis=2) | always
        for state in states:
            if state is not None:
                steps |= np.bitwise_or.reduce(known(state)[d], axis=1)
        # Steps in the order in which the direction walks, and back in the input's order.
        walked = np.bitwise_or.accumulate(steps[::-1] if op.backwards(d) else steps, axis=0)
        if op.output == "Y":
            directions.append(walked[::-1] if op.backwards(d) else walked)
        else:
            directions.append(walked[-1])
    joined = np.stack(directions, axis=-3)
    return np.broadcast_to(joined[..., None, :], (*shape, known.words))


_RULES: Final[Mapping[type[Operation], _Rule]] = MappingProxyType(
    {
        tensor.Mul: _either,
        tensor.Power: _same,
        tensor.Activation: _same,
        tensor.Polynomial: _polynomial,
        tensor.MatMul: _matmul,
        movement.Affine: _affine,
        movement.Refresh: _same,
        Lstm: _recurrent,
        Gru: _recurrent,
        Rnn: _recurrent,
    }
)
"""How labels go through operations that are not linear in what depends on inputs, and through
merged maps; any other operation without a linear form gives the union of everything it reads."""
