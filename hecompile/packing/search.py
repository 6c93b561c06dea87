"""Search for layouts: which target each linear map gets, and how free tensors are packed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.packing import targets as goals
from hecompile.packing.arrangements import Arrangements, views
from hecompile.packing.mapprices import MapPrices, Operand
from hecompile.packing.places import Places, in_order
from hecompile.packing.plans import (
    Choice,
    Decisions,
    Placement,
    State,
    prune,
    use_of,
)
from hecompile.packing.pools import Pool
from hecompile.packing.price import Prices, remaining_levels
from hecompile.packing.sources import Fit, Free, as_needed
from hecompile.packing.views import contiguous_range

BEAM = 4
"""Plans that are followed into a linear map or a refresh."""

WIDE = 64
"""Plans that are followed at once until then."""

_REPACKING = 400
"""Rotations that operands which do not meet are priced at, for packing anew takes a level."""


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
        self._sizes = {
            op.defined.name: tensor.tensor_type(op.defined).size
            for op in program
            if isinstance(op, tensor.Input | move.Refresh)
        }
        self._costs = MapPrices(program, prices)
        self._rows: dict[str, tuple[int, ...]] = {}
        self._arranged = Arrangements(capacity)

    def best(self) -> tuple[Decisions, float]:
        """The cheapest decisions found, and their price."""
        states = [State()]
        for position, op in enumerate(self._program):
            # What a target is worth shows where its elements meet others, before the next map.
            if isinstance(op, move.Affine | move.Refresh):
                states = prune(states, BEAM, 2 * BEAM)
            grown = (new for state in states for new in self._grow(op, state))
            states = prune((self._forget(state, op, position) for state in grown), WIDE, WIDE)
        found = min(states, key=lambda state: state.price)
        return found.decisions, found.price

    def _forget(self, state: State, op: Operation, position: int) -> State:
        dead = {v.name for v in op.operands if self._last[v.name] <= position}
        if not dead:
            return state
        places = {k: v for k, v in state.places.items() if k not in dead}
        packed = state.packed
        if isinstance(op, move.Refresh):
            alive = {p.source for p in places.values() if isinstance(p, Free)}
            packed = frozenset(entry for entry in packed if entry[0] in alive)
        return replace(state, places=places, packed=packed)

    def _grow(self, op: Operation, state: State) -> Iterator[State]:
        """Every way to go on."""
        match op:
            case move.Affine():
                yield from self._affine(op, state)
            case tensor.Output():
                for ready in self._settled(op, 0, state):
                    yield self._leave(op, ready)
            case tensor.Mul() | tensor.Add() | tensor.Sub():
                for ready in self._pairs(op, state):
                    yield self._meet(op, ready)
            case tensor.Polynomial() | tensor.Neg():
                for ready in self._settled(op, 0, state):
                    yield self._single(op, ready)
            case tensor.ConstantTensor():
                yield state
            case move.Slice():
                yield from self._sliced(op, state)
            case _:
                yield self._renamed(op, state)

    def _renamed(self, op: Operation, state: State) -> State:
        """What costs nothing by itself: inputs, refreshes, views."""
        placement: Placement
        price = 0.0
        name = op.defined.name
        match op:
            case tensor.Input():
                placement = Free(name, 0, tensor.tensor_type(op.defined).size)
            case move.Refresh():
                before = state.places[op.x.name]
                price = 0.0 if isinstance(before, Free) else self._prices.handed(len(before))
                placement = Free(name, 0, tensor.tensor_type(op.defined).size)
            case move.Slice():
                start, count = contiguous_range(op)
                viewed = state.places[op.x.name]
                if isinstance(viewed, Free):
                    placement = viewed.view(start, count)
                else:
                    placement = views(viewed, start, count)
            case _:
                placement = state.places[op.operands[0].name]
        return self._with(state, name, placement, price)

    def _sliced(self, op: move.Slice, state: State) -> Iterator[State]:
        """A view as it is, or turned to the first place, where products that are added up meet."""
        name = op.defined.name
        viewed = self._renamed(op, state)
        yield viewed
        places = viewed.places[name]
        if isinstance(places, Free) or len(places) > 1 or not self._enters_sum(op.defined):
            return
        steps = int(places[0].held[0])
        if steps:
            home = (places[0].turned(steps),)
            decided = replace(viewed, trail=(viewed.trail, use_of(op, 0), Fit(home)))
            price = self._prices.of("rotate", self._depth.get(name, 0))
            yield self._with(decided, name, home, price)

    def _enters_sum(self, value: Value) -> bool:
        """Whether the one reader of a value is a product that is added to another product."""
        readers = self._program.users[value.name]
        if len(readers) != 1 or not isinstance(readers[0], tensor.Mul):
            return False
        users = self._program.users[readers[0].defined.name]
        return len(users) == 1 and self._sums_products(users[0])

    def _settled(self, op: Operation, operand: int, state: State) -> Iterator[State]:
        """Plans in which an operand has a place."""
        value = op.operands[operand]
        placement = state.places[value.name]
        if not isinstance(placement, Free):
            yield state
            return
        for fit in self._fits(op, placement):
            yield self._fit(op, operand, fit, state)

    def _fits(self, op: Operation, free: Free) -> Iterator[Fit]:
        """Where to put a free operand: in order, within its tensor, or as later maps like it."""
        yield self._in_order(free.size)
        whole = self._whole(free)
        if whole is not None:
            yield whole
        if op.result is None:
            return
        for rows in self._rows_of_readers(op.result):
            yield from self._arranged.replicas(free.size, rows)

    def _in_order(self, size: int) -> Fit:
        return self._arranged.in_order(size)

    def _whole(self, free: Free) -> Fit | None:
        return self._arranged.whole(free, self._sizes[free.source])

    def _fit(self, op: Operation, operand: int, fit: Fit, state: State) -> State:
        """Put a free operand somewhere; it stays free for others."""
        value = op.operands[operand]
        free = state.places[value.name]
        if not isinstance(free, Free):
            return state
        paid = self._pack(free, fit, self._depth.get(value.name, 0), state)
        return replace(paid, trail=(paid.trail, use_of(op, operand), fit))

    def _pack(self, free: Free, fit: Fit, depth: int, state: State) -> State:
        """Pay for the ciphertexts of a fit that are not there yet."""
        if fit.whole:
            free = Free(free.source, 0, self._sizes[free.source])
            fit = self._in_order(free.size)
        needed = {(free.source, free.within(places).key) for places in fit.places}
        new = needed - state.packed
        if not new:
            return state
        pay = self._prices.returned if self._is_refreshed(free) else self._prices.packed
        price = state.price + pay(len(new), depth)
        return replace(state, packed=state.packed | new, price=price)

    def _is_refreshed(self, free: Free) -> bool:
        return isinstance(self._program.definitions[free.source], move.Refresh)

    def _place(self, op: Operation, operand: int, state: State) -> tuple[Places, ...]:
        """Where an operand is, once it is settled."""
        placement = state.places[op.operands[operand].name]
        if isinstance(placement, Free):
            return state.fit(use_of(op, operand)).places
        return placement

    def _pairs(self, op: tensor.Mul | tensor.Add | tensor.Sub, state: State) -> Iterator[State]:
        """Plans in which both operands have a place: what is free goes where the other one is."""
        free = [isinstance(state.places[v.name], Free) for v in (op.x, op.y)]
        if free == [True, True]:
            x, y = (state.places[v.name] for v in (op.x, op.y))
            if isinstance(x, Free):
                for fit in self._fits(op, x):
                    first = self._fit(op, 0, fit, state)
                    yield self._fit(op, 1, Fit(tuple(map(as_needed, fit.places))), first)
            if isinstance(y, Free) and (whole := self._whole(y)) is not None:
                last = self._fit(op, 1, whole, state)
                yield self._fit(op, 0, Fit(tuple(map(as_needed, whole.places))), last)
                yield from self._settled(op, 0, last)
            return
        for operand in (0, 1):
            if free[operand]:
                other = self._place(op, 1 - operand, state)
                yield self._fit(op, operand, Fit(tuple(map(as_needed, other))), state)
                yield from self._settled(op, operand, state)
        if not any(free):
            yield state

    def _meet(self, op: tensor.Mul | tensor.Add | tensor.Sub, state: State) -> State:
        x, y = self._place(op, 0, state), self._place(op, 1, state)
        depth = self._depth.get(op.defined.name, 0)
        product = isinstance(op, tensor.Mul)
        price, rotate = 0.0, self._prices.of("rotate", depth + 1)
        steps = self._arranged.steps(x, y)
        if steps is None:
            price = (len(x) + len(y)) * _REPACKING * rotate
            x = y = self._in_order(tensor.tensor_type(op.x).size).places
            steps = [(0, 0)] * len(x)
        price += sum(left + right > 0 for left, right in steps) * rotate
        price += len(x) * self._prices.square(depth + 1) * product
        if self._sums_products(op) and not any(map(any, steps)):
            # Products that meet as they are share what follows them.
            price -= len(x) * self._prices.completion(depth + 1)
        places = self._arranged.met(x, y, steps, product)
        return self._with(state, op.defined.name, places, price)

    def _sums_products(self, op: Operation) -> bool:
        """Whether an operation adds two products that nothing else reads."""
        definitions, users = self._program.definitions, self._program.users
        return isinstance(op, tensor.Add | tensor.Sub) and all(
            isinstance(definitions[v.name], tensor.Mul) and len(users[v.name]) == 1
            for v in (op.x, op.y)
        )

    def _single(self, op: tensor.Polynomial | tensor.Neg, state: State) -> State:
        places = self._place(op, 0, state)
        price = 0.0
        if isinstance(op, tensor.Polynomial) and op.degree > 1:
            products = max(1, int(np.ceil(2 * np.sqrt(op.degree))))
            depth = self._depth.get(op.defined.name, 0)
            price = len(places) * products * self._prices.square(depth + 1)
        return self._with(state, op.defined.name, places, price)

    def _with(self, state: State, name: str, placement: Placement, price: float) -> State:
        shared = self._arranged.shared(placement)
        return replace(state, places={**state.places, name: shared}, price=state.price + price)

    def _leave(self, op: tensor.Output, state: State) -> State:
        """Outputs that no layouts describe are packed anew."""
        parts = self._place(op, 0, state)
        if in_order(parts):
            return state
        price = len(parts) * _REPACKING * self._prices.of("rotate", 1)
        return replace(state, price=state.price + price)

    def _affine(self, op: move.Affine, state: State) -> Iterator[State]:
        name = op.defined.name
        for choice in self._choices(op, state):
            rest = state
            for i, x in enumerate(op.xs):
                free = state.places[x.name]
                if isinstance(free, Free) and i not in choice.chunks:
                    depth = self._depth.get(x.name, 0)
                    rest = self._pack(free, self._in_order(free.size), depth, rest)
            decided = replace(rest, trail=(rest.trail, name, choice))
            operands = [self._operand(x, state) for x in op.xs]
            price = self._costs.price(op, choice, operands, self._depth.get(name, 0))
            yield self._with(decided, name, tuple(t.places for t in choice.targets), price)

    def _choices(self, op: move.Affine, state: State) -> Iterator[Choice]:
        size = tensor.tensor_type(op.defined).size
        inputs = {i for i, x in enumerate(op.xs) if isinstance(state.places[x.name], Free)}
        pools = {
            i: pool
            for i, x in enumerate(op.xs)
            if (pool := self._costs.pool(op.maps[i])) and pool.folded(self._parts(x, state))
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
        self, op: move.Affine, state: State, pools: Mapping[int, Pool]
    ) -> Iterator[goals.Targets]:
        """Targets for any operands: orders with strides, and the operands' own grids."""
        size = tensor.tensor_type(op.defined).size
        yield from goals.strided(size, self._capacity)
        for i, x in enumerate(op.xs):
            grid, linear = self._parts(x, state), self._costs.map(op.maps[i])
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
            pool = self._costs.pool(linear)
            if pool is not None and pool.groups * pool.size == size:
                shape = tensor.tensor_type(op.defined).shape
                yield from goals.phased(pool, shape, self._capacity)

    def _rows_of_readers(self, value: Value) -> tuple[int, ...]:
        """Rows of the first maps that read a value through slot-wise operations."""
        if value.name not in self._rows:
            readers = self._readers(value)
            rows = (tensor.tensor_type(reader.defined).size for reader, _ in readers)
            self._rows[value.name] = tuple(dict.fromkeys(rows))
        return self._rows[value.name]

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

    def _parts(self, x: Value, state: State) -> tuple[Places, ...]:
        """Where an operand of a map is; in order if it is free."""
        placement = state.places[x.name]
        return self._in_order(placement.size).places if isinstance(placement, Free) else placement

    def _operand(self, x: Value, state: State) -> Operand:
        placement = state.places[x.name]
        refreshed = isinstance(placement, Free) and self._is_refreshed(placement)
        return Operand(self._parts(x, state), refreshed)
