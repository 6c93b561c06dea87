"""What the linear maps of a program cost, by how their operands are placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import SparseMap
from hecompile.ir.program import Program
from hecompile.packing.demand import Demand, Source, demand
from hecompile.packing.places import Places
from hecompile.packing.plans import Choice, placement_key
from hecompile.packing.pools import Pool, find_pool
from hecompile.packing.price import Prices


@dataclass(frozen=True, eq=False)
class Operand:
    """How a map finds one operand.

    Attributes:
        parts: places of each ciphertext.
        refreshed: whether the key holder packs what is gathered of it, not the client.
    """

    parts: tuple[Places, ...]
    refreshed: bool = False


class MapPrices:
    """Prices of the maps of one program, each computed once for all that look alike."""

    def __init__(self, program: Program, prices: Prices) -> None:
        """Compute nothing yet."""
        self._program = program
        self._prices = prices
        self._maps: dict[str, SparseMap] = {}
        self._pools: dict[str, Pool | None] = {}
        self._known: dict[object, Demand] = {}

    def map(self, symbol: str) -> SparseMap:
        """The map that a constant holds."""
        if symbol not in self._maps:
            self._maps[symbol] = SparseMap.from_constant(self._program.array(symbol))
        return self._maps[symbol]

    def pool(self, symbol: str) -> Pool | None:
        """What can be added up before it, see `find_pool`."""
        if symbol not in self._pools:
            self._pools[symbol] = find_pool(self.map(symbol))
        return self._pools[symbol]

    def price(
        self, op: move.Affine, choice: Choice, operands: Sequence[Operand], depth: int
    ) -> float:
        """Seconds of a map.

        Args:
            op: the map.
            choice: how it is computed.
            operands: of each x.
            depth: levels that follow the result.
        """
        # Steps of a recurrent layer share patterns, not weights; what is gathered costs by count.
        key = (
            tuple(
                self.map(s).row_counts if i in choice.chunks else self.map(s).pattern
                for i, s in enumerate(op.maps)
            ),
            tuple(op.maps[i] for i in choice.pools),
            tuple(t.key for t in choice.targets),
            tuple(choice.chunks.items()),
            tuple(
                one.refreshed if i in choice.chunks else placement_key(one.parts)
                for i, one in enumerate(operands)
            ),
        )
        if key not in self._known:
            sources = [self._source(i, op, choice, one) for i, one in enumerate(operands)]
            self._known[key] = demand(sources, choice.targets)
        price = self._known[key].price(self._prices, depth)
        return price + self._pooling(choice, operands, depth + 1)

    def _source(self, i: int, op: move.Affine, choice: Choice, operand: Operand) -> Source:
        """What a map reads of one operand, pooled where the choice says so."""
        linear, size = self.map(op.maps[i]), tensor.tensor_type(op.xs[i]).size
        if i in choice.chunks:
            return Source(linear, operand.parts, size, choice.chunks[i], operand.refreshed)
        pool = choice.pools.get(i)
        folded = pool.folded(operand.parts) if pool is not None else None
        if pool is None or folded is None:
            return Source(linear, operand.parts, size)
        return Source(pool.reduce(linear), (folded,), pool.groups)

    def _pooling(self, choice: Choice, operands: Sequence[Operand], depth: int) -> float:
        """Price of adding up elements before the products."""
        rotations = additions = 0
        for i, pool in choice.pools.items():
            if i not in choice.chunks:
                additions += pool.size.bit_length() - 1
                rotations += (pool.size // len(operands[i].parts)).bit_length() - 1
        rotate, add = self._prices.of("rotate", depth), self._prices.of("add", depth)
        return rotations * rotate + additions * add
