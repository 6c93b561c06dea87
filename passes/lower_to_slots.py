"""Packing: tensors become slot vectors, linear maps become diagonals, polynomials products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import SparseMap
from hecompile.ir.operation import Operation
from hecompile.ir.program import Builder, Program
from hecompile.packing import targets as goals
from hecompile.packing.packer import Packer, Term
from hecompile.packing.places import Packed, power_of_two
from hecompile.packing.plans import Choice, Decisions, use_of
from hecompile.packing.price import PRIMES_PER_LEVEL, Prices, Weighing
from hecompile.packing.search import LayoutSearch
from hecompile.packing.sources import Free, Handed, Model
from hecompile.packing.views import contiguous_range
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class LowerToSlots(Pass):
    """Rewrite tensor operations as operations on periodic slot vectors of `slots` slots or fewer.

    Every ciphertext repeats with a power-of-two period, so that a program packed for `slots` slots
    also runs on any larger ring. Where elements sit is searched for over the whole program
    (`packing.search`): linear maps become sums of plaintext products with rotations of their
    operands (`packing.kernels`), and inputs are gathered by the client as the first maps need them.
    Refreshed tensors are gathered alike by the key holder, in replicas or next to what they meet.
    Contiguous slices and reshapes cost nothing: they only change what places mean, and products
    align their operands by one rotation.

    Options: `search`, whether layouts are searched for, or all elements kept in order; `client`,
    `key`, `byte` and `line`, what a CPU second of the client, a Galois key, a byte sent and a byte
    of a refresh count beside a CPU second of the evaluator.

    Requires: what `require-polynomial` admits.
    Ensures: a program of `he.*` without relinearize, rescale or drop_level.
    """

    name: ClassVar[str] = "lower-to-slots"
    after: ClassVar[tuple[str, ...]] = ("merge-linear", "require-polynomial")
    slots: int = 4096
    search: bool = True
    client: float = 0.1
    key: float = 1e-5
    byte: float = 0.0
    line: float = 0.0

    def run(self, program: Program, context: Context) -> Program:
        """Lower the program; one that is lowered already is returned as it is."""
        if program.dialect == "he":
            return program
        _require_encrypted_forms(program)
        if self.slots < 1 or self.slots & (self.slots - 1):
            raise PassError(f"{self.name}: slots is a power of two, not {self.slots}")
        lanes = power_of_two(program.batch)
        if lanes > self.slots:
            raise PassError(
                f"{self.name}: a batch of {program.batch} does not fit {self.slots} slots; "
                "compile for fewer samples at a time"
            )
        most = self.slots // lanes
        if not self.search:
            return _Lowering(program, most, lanes, Decisions()).run()
        weighing = Weighing(self.client, self.key, self.byte, self.line)
        # Where values are refreshed, each level has a prime.
        share = 1.0 if program.select(move.Refresh) else PRIMES_PER_LEVEL
        prices = Prices(2 * self.slots, weighing, share)
        found = []
        for capacity in _capacities(most, lanes):
            decisions, price = LayoutSearch(program, capacity, prices).best()
            found.append((price, capacity, decisions))
        _, capacity, decisions = min(found, key=lambda entry: entry[0])
        return _Lowering(program, capacity, lanes, decisions).run()


_LOWERED = (
    tensor.Input,
    tensor.Output,
    tensor.ConstantTensor,
    tensor.Add,
    tensor.Sub,
    tensor.Mul,
    tensor.Neg,
    tensor.Polynomial,
    move.Affine,
    move.Refresh,
    move.Reshape,
    move.Slice,
)


def _require_encrypted_forms(program: Program) -> None:
    """Refuse what ciphertexts do not have, constants where they are needed, and torn rounds."""
    groups = [op.group if isinstance(op, move.Refresh) else None for op in program]
    begun = [new for new, before in zip(groups, [None, *groups], strict=False) if new != before]
    rounds = [group for group in begun if group is not None]
    if len(set(rounds)) < len(rounds):
        raise PassError("lower-to-slots: refreshes of one group do not follow one another")
    for op in program:
        if not isinstance(op, _LOWERED):
            raise _formless(op)
        for value in op.operands:
            if isinstance(program.definitions[value.name], tensor.ConstantTensor):
                raise PassError(f"lower-to-slots: {value} is clear where a ciphertext is needed")


def _formless(op: Operation) -> PassError:
    return PassError(
        f"lower-to-slots: {op.name} ({op.location or op.result}) has no encrypted form; "
        "run merge-linear and require-polynomial first"
    )


def _capacities(most: int, lanes: int) -> tuple[int, ...]:
    """Elements that a ciphertext may hold, each a split of the slots in features and samples.

    With one element a ciphertext nothing is ever rotated. A single sample fills ciphertexts best.
    """
    if lanes == 1:
        return (most,)
    return tuple(dict.fromkeys((most, most >> most.bit_length() // 3, 1)))


class _Lowering:
    def __init__(self, program: Program, capacity: int, lanes: int, decisions: Decisions) -> None:
        self._program = program
        self._build = Builder(name=program.name, batch=program.batch)
        self._packer = Packer(self._build, capacity, lanes)
        self._capacity = capacity
        self._decisions = decisions
        self._sources: dict[str, Packed | Free] = {}
        self._rounds: dict[int, int] = {}

    def run(self) -> Program:
        inputs: list[Free] = []
        for op in self._program:
            if isinstance(op, tensor.Output):
                self._output(op)
            elif op.result is not None and not isinstance(op, tensor.ConstantTensor):
                found = self._lower(op)
                self._sources[op.result.name] = found
                if isinstance(op, tensor.Input) and isinstance(found, Free):
                    inputs.append(found)
        for free in inputs:
            self._packer.complete(free)
        return self._at_their_rounds(self._build.finish())

    def _at_their_rounds(self, program: Program) -> Program:
        """Move refreshes, which appear where they are first read, to where their round is."""
        waiting: dict[int, list[Operation]] = {}
        for refresh in program.select(he.Refresh):
            waiting.setdefault(self._rounds[refresh.group], []).append(refresh)
        ordered: list[Operation] = []
        for i, op in enumerate(program):
            ordered += waiting.pop(i, [])
            if not isinstance(op, he.Refresh):
                ordered.append(op)
        return program.replace(operations=tuple(ordered))

    def _of(self, op: Operation, operand: int = 0) -> Packed:
        """An operand in ciphertexts, put where the search wants it; in order if it says nothing."""
        source = self._sources[op.operands[operand].name]
        if isinstance(source, Packed):
            return source
        fit = self._decisions.fits.get(use_of(op, operand))
        return self._packer.ordered(source) if fit is None else self._packer.fitted(source, fit)

    def _lower(self, op: Operation) -> Packed | Free:
        packer = self._packer
        match op:
            case tensor.Input():
                return packer.source(op.defined.name, Model(op.label, op.dims))
            case move.Refresh():
                handed = Handed(self._of(op), op.mask_bits, op.group)
                # Where the round is: before all that is emitted from here on.
                self._rounds[op.group] = self._build.count
                return packer.source(op.defined.name, handed)
            case move.Affine():
                return self._affine(op)
            case tensor.Mul():
                return packer.binary(he.Mul, self._of(op), self._of(op, 1))
            case tensor.Add():
                return packer.binary(he.Add, self._of(op), self._of(op, 1))
            case tensor.Sub():
                return packer.binary(he.Sub, self._of(op), self._of(op, 1))
            case tensor.Neg():
                return packer.negate(self._of(op))
            case tensor.Polynomial():
                coefficients = self._program.array(op.coefficients)
                width = tensor.tensor_type(op.x).shape[-1:] or (1,)
                sections = op.sections or width
                return packer.polynomial(self._of(op), coefficients, sections, op.basis)
            case move.Reshape():
                return self._sources[op.x.name]
            case move.Slice():
                start, count = contiguous_range(op)
                source = self._sources[op.x.name]
                if isinstance(source, Free):
                    return source.view(start, count)
                view = packer.view(source, start, count)
                fit = self._decisions.fits.get(use_of(op, 0))
                return view if fit is None else packer.turned_home(view)
        raise _formless(op)

    def _affine(self, op: move.Affine) -> Packed:
        bias = self._program.array(op.bias)
        choice = self._decisions.choices.get(op.defined.name)
        if choice is None:
            choice = Choice(goals.natural(bias.size, self._capacity))
        terms = []
        for i, symbol in enumerate(op.maps):
            linear = SparseMap.from_constant(self._program.array(symbol))
            if i in choice.chunks:
                terms.append(Term(self._sources[op.xs[i].name], linear, choice.chunks[i]))
            else:
                terms.append(Term(self._of(op, i), linear, pool=choice.pools.get(i)))
        return self._packer.affine(terms, bias, choice.targets, op.location)

    def _output(self, op: tensor.Output) -> None:
        parts = self._packer.output(self._of(op))
        dims = tensor.tensor_type(op.x).shape
        self._build.keep(he.Output(xs=parts, label=op.label, dims=dims, post=op.post))
