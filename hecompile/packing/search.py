"""Search for layouts: which target each linear map of a program gets, and what the client packs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import SparseMap
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.packing import targets as goals
from hecompile.packing.demand import Source, demand
from hecompile.packing.places import Places, alignment, in_order, joined
from hecompile.packing.pools import Pool, find_pool
from hecompile.packing.price import Prices, remaining_levels
from hecompile.packing.views import contiguous_range

BEAM = 4
"""Plans that are followed at once."""

_REPACKING = 40
"""Rotations that operands which do not meet slot by slot are priced at."""


@dataclass(frozen=True, eq=False)
class Choice:
    """How one linear map is computed.

    Attributes:
        targets: of the result, a ciphertext each.
        chunks: by operand that the client packs for this map: products that share a ciphertext.
        pools: by operand whose elements are added up first: the groups.
    """

    targets: goals.Targets
    chunks: Mapping[int, int] = field(default_factory=dict)
    pools: Mapping[int, Pool] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _State:
    """A plan so far.

    Attributes:
        places: of the live values.
        choices: made so far.
        price: of all that.
        ordered: names of the inputs that are packed in order of their elements.
    """

    places: Mapping[str, tuple[Places, ...]] = field(default_factory=dict)
    choices: Mapping[str, Choice] = field(default_factory=dict)
    price: float = 0.0
    ordered: frozenset[str] = frozenset()


class LayoutSearch:
    """Beam search over the linear maps of a tensor program, in order of execution.

    Every map's result gets one of the targets that `packing.targets` proposes; what follows slot
    by slot keeps its places. The price is the evaluator's predicted time, with the client's work
    and the keys weighed in (`packing.price`).

    Args:
        program: what `require-polynomial` admits.
        capacity: places of a ciphertext.
        prices: of primitives.
    """

    def __init__(self, program: Program, capacity: int, prices: Prices) -> None:
        """Prepare a search."""
        self._program = program
        self._capacity = capacity
        self._prices = prices
        self._depth = remaining_levels(program)
        self._last = program.last_uses
        self._maps: dict[str, SparseMap] = {}
        self._pools: dict[str, Pool | None] = {}
        self._memory: dict[object, float] = {}

    def best(self) -> tuple[Mapping[str, Choice], float]:
        """The cheapest choices found, by the name of each map's result, and their price."""
        states = [_State()]
        for position, op in enumerate(self._program):
            if isinstance(op, move.Affine):
                grown = [new for state in states for new in self._affine(op, state)]
                states = _prune(grown)
            else:
                states = [self._follow(op, state) for state in states]
            states = [self._forget(state, op, position) for state in states]
        found = min(states, key=lambda state: state.price)
        return found.choices, found.price

    def _forget(self, state: _State, op: Operation, position: int) -> _State:
        dead = {v.name for v in op.operands if self._last[v.name] <= position}
        if not dead:
            return state
        return replace(state, places={k: v for k, v in state.places.items() if k not in dead})

    def _follow(self, op: Operation, state: _State) -> _State:
        """Places of what works slot by slot."""
        if not isinstance(op, move.Reshape):
            state = self._read(op.operands, state)
        if isinstance(op, tensor.Output):
            return self._leave(op, state)
        if op.result is None or isinstance(op, tensor.ConstantTensor):
            return state
        name, depth = op.result.name, self._depth.get(op.result.name, 0)
        price = 0.0
        match op:
            case tensor.Input():
                size = tensor.tensor_type(op.result).size
                places = tuple(t.places for t in goals.natural(size, self._capacity))
            case move.Slice():
                start, count = contiguous_range(op)
                views = (p.view(start, count) for p in state.places[op.x.name])
                places = tuple(v for v in views if v is not None)
            case tensor.Mul() | tensor.Add() | tensor.Sub():
                places, price = self._meet(op, state, depth)
            case tensor.Polynomial():
                places = state.places[op.x.name]
                products = max(1, int(np.ceil(2 * np.sqrt(op.degree)))) if op.degree > 1 else 0
                price = len(places) * products * self._prices.square(depth + 1)
            case _:
                places = state.places[op.operands[0].name]
        return replace(state, places={**state.places, name: places}, price=state.price + price)

    def _read(self, values: Iterable[Value], state: _State) -> _State:
        """Pay for the ciphertexts of inputs that are read in order of their elements."""
        for value in values:
            name = self._input(value)
            if name is not None and name not in state.ordered:
                parts = goals.natural(tensor.tensor_type(value).size, self._capacity)
                price = self._prices.packed(len(parts), self._depth[name])
                state = replace(state, ordered=state.ordered | {name}, price=state.price + price)
        return state

    def _meet(
        self, op: tensor.Mul | tensor.Add | tensor.Sub, state: _State, depth: int
    ) -> tuple[tuple[Places, ...], float]:
        x, y = state.places[op.x.name], state.places[op.y.name]
        product = isinstance(op, tensor.Mul)
        price, rotate = 0.0, self._prices.of("rotate", depth + 1)
        steps = alignment(x, y)
        if steps is None:
            price = (len(x) + len(y)) * _REPACKING * rotate
            size = tensor.tensor_type(op.x).size
            x = y = tuple(t.places for t in goals.natural(size, self._capacity))
            steps = [(0, 0)] * len(x)
        price += sum(left + right > 0 for left, right in steps) * rotate
        price += len(x) * self._prices.square(depth + 1) * product
        places = tuple(
            joined(a.turned(left), b.turned(right), product)
            for a, b, (left, right) in zip(x, y, steps, strict=True)
        )
        return places, price

    def _leave(self, op: tensor.Output, state: _State) -> _State:
        """Outputs that no layouts describe are packed anew."""
        parts = state.places[op.x.name]
        if in_order(parts):
            return state
        price = len(parts) * _REPACKING * self._prices.of("rotate", 1)
        return replace(state, price=state.price + price)

    def _affine(self, op: move.Affine, state: _State) -> Iterator[_State]:
        name = op.defined.name
        for choice in self._choices(op, state):
            price = self._price(op, choice, state)
            places = tuple(t.places for t in choice.targets)
            rest = self._read((x for i, x in enumerate(op.xs) if i not in choice.chunks), state)
            yield replace(
                rest,
                places={**state.places, name: places},
                choices={**state.choices, name: choice},
                price=rest.price + price,
            )

    def _choices(self, op: move.Affine, state: _State) -> Iterator[Choice]:
        size = tensor.tensor_type(op.defined).size
        inputs = {i for i, x in enumerate(op.xs) if self._input(x) is not None}
        pools = {
            i: pool
            for i, x in enumerate(op.xs)
            if (pool := self._pool(op.maps[i])) and pool.folded(state.places[x.name])
        }
        for chosen in ({}, pools) if pools else ({},):
            for proposal in self._proposals(op, state, chosen):
                yield Choice(proposal, {}, chosen)
                if inputs and not proposal[0].low:
                    for chunks in self._chunks(proposal):
                        yield Choice(proposal, dict.fromkeys(inputs, chunks), chosen)
        if len(inputs) == len(op.xs):
            for proposal in self._free(op, size):
                for chunks in self._chunks(proposal):
                    yield Choice(proposal, dict.fromkeys(inputs, chunks))

    def _proposals(
        self, op: move.Affine, state: _State, pools: Mapping[int, Pool]
    ) -> Iterator[goals.Targets]:
        """Targets for any operands: orders with strides, and the operands' own grids."""
        size = tensor.tensor_type(op.defined).size
        yield from goals.strided(size, self._capacity)
        for i, x in enumerate(op.xs):
            grid, linear = state.places[x.name], self._map(op.maps[i])
            folded = pools[i].folded(grid) if i in pools else None
            if folded is not None:
                grid, linear = (folded,), pools[i].reduce(linear)
            kept = goals.inherited(size, self._capacity, linear, grid)
            if kept is not None:
                yield kept

    def _free(self, op: move.Affine, size: int) -> Iterator[goals.Targets]:
        """Targets that only client-packed operands can serve, with a view to the next maps."""
        for reader, linear in self._readers(op.defined):
            rows = tensor.tensor_type(reader.defined).size
            yield from goals.turned_copies(size, self._capacity, rows)
            pool = self._pool(linear)
            if pool is not None and pool.groups * pool.size == size:
                shape = tensor.tensor_type(op.defined).shape
                yield from goals.phased(pool, shape, self._capacity)

    def _readers(self, value: Value) -> list[tuple[move.Affine, str]]:
        """The first maps that read a value through slot-wise operations, and their maps."""
        found: list[tuple[move.Affine, str]] = []
        waiting, seen = [value.name], set()
        while waiting:
            name = waiting.pop()
            for user in self._program.users.get(name, ()):
                if user.result is None or user.result.name in seen:
                    continue
                seen.add(user.result.name)
                if isinstance(user, move.Affine):
                    maps = zip(user.xs, user.maps, strict=True)
                    found += [(user, symbol) for x, symbol in maps if x.name == name][:1]
                elif not isinstance(user, move.Slice):
                    waiting.append(user.result.name)
        return found[:2]

    def _chunks(self, proposal: goals.Targets) -> list[int]:
        period = max(t.places.period for t in proposal)
        return [1 << k for k in range((self._capacity // period).bit_length())]

    def _input(self, x: Value) -> str | None:
        """Name of the input that a value is but for its shape; None for other values."""
        source = self._program.definitions[x.name]
        while isinstance(source, move.Reshape):
            source = self._program.definitions[source.x.name]
        return source.defined.name if isinstance(source, tensor.Input) else None

    def _map(self, symbol: str) -> SparseMap:
        if symbol not in self._maps:
            self._maps[symbol] = SparseMap.from_constant(self._program.array(symbol))
        return self._maps[symbol]

    def _pool(self, symbol: str) -> Pool | None:
        if symbol not in self._pools:
            self._pools[symbol] = find_pool(self._map(symbol))
        return self._pools[symbol]

    def _price(self, op: move.Affine, choice: Choice, state: _State) -> float:
        depth = self._depth.get(op.defined.name, 0)
        key = (
            op.maps,
            depth,
            tuple(t.key for t in choice.targets),
            tuple(choice.chunks.items()),
            tuple(choice.pools),
            tuple(p.key for x in op.xs for p in state.places[x.name]),
        )
        if key not in self._memory:
            sources = [self._source(i, op, choice, state) for i in range(len(op.xs))]
            price = demand(sources, choice.targets).price(self._prices, depth)
            self._memory[key] = price + self._pooling(op, choice, state, depth + 1)
        return self._memory[key]

    def _source(self, i: int, op: move.Affine, choice: Choice, state: _State) -> Source:
        """What a map reads of one operand, pooled where the choice says so."""
        x, linear = op.xs[i], self._map(op.maps[i])
        parts, size = state.places[x.name], tensor.tensor_type(x).size
        if i in choice.chunks:
            return Source(linear, parts, size, choice.chunks[i])
        pool = choice.pools.get(i)
        folded = pool.folded(parts) if pool is not None else None
        if pool is None or folded is None:
            return Source(linear, parts, size)
        return Source(pool.reduce(linear), (folded,), pool.groups)

    def _pooling(self, op: move.Affine, choice: Choice, state: _State, depth: int) -> float:
        """Price of adding up elements before the products."""
        rotations = additions = 0
        for i, pool in choice.pools.items():
            parts = state.places[op.xs[i].name]
            if i not in choice.chunks:
                additions += pool.size.bit_length() - 1
                rotations += (pool.size // len(parts)).bit_length() - 1
        rotate, add = self._prices.of("rotate", depth), self._prices.of("add", depth)
        return rotations * rotate + additions * add


def _prune(states: list[_State]) -> list[_State]:
    """The cheapest plans, one for each set of placements."""
    kept: dict[object, _State] = {}
    for state in sorted(states, key=lambda s: s.price):
        live = tuple((name, tuple(p.key for p in places)) for name, places in state.places.items())
        kept.setdefault(live, state)
        if len(kept) == BEAM:
            break
    return list(kept.values())
