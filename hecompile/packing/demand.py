"""What a linear map takes: rotations, products, folds and input ciphertexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hecompile.ir.constants import SparseMap
from hecompile.packing.kernels import Target, gather_taps, match
from hecompile.packing.places import Indices, Places, occurrences
from hecompile.packing.price import Prices
from hecompile.packing.rotations import best_split


@dataclass(frozen=True, eq=False)
class Source:
    """An operand of a linear map.

    Attributes:
        linear: the map.
        parts: places of the operand, ciphertext by ciphertext.
        size: its elements.
        chunks: where it is packed for this map, products that share a ciphertext.
        refreshed: whether the key holder packs it then, not the client.
    """

    linear: SparseMap
    parts: tuple[Places, ...]
    size: int
    chunks: int | None = None
    refreshed: bool = False


_UNTIDY = 0.01
"""What a fold of lowest bits costs more: it leaves garbage instead of copies to average."""


@dataclass(frozen=True)
class Demand:
    """Counts of what costs time or memory.

    Attributes:
        rotations: key switches before the products and between partial sums.
        steps: distinct rotations among these, a Galois key each.
        folds: rotations of sums.
        low: those of them that fold lowest bits.
        products: plaintext products.
        scalar: whether every product is with one number.
        taps: input ciphertexts that the client packs for this map.
        returned: ciphertexts that the key holder packs for it.
        results: ciphertexts of the result.
    """

    rotations: int
    steps: int
    folds: int
    low: int
    products: int
    scalar: bool
    taps: int
    returned: int
    results: int

    def price(self, prices: Prices, depth: int) -> float:
        """Predicted seconds.

        Args:
            prices: of primitives.
            depth: levels that follow the result.
        """
        before = depth + 1
        return (
            (self.rotations + self.folds + _UNTIDY * self.low) * prices.of("rotate", before)
            + self.steps * prices.weighing.key
            + self.products * prices.product(before, self.scalar)
            + self.results * prices.of("rescale", before)
            + prices.packed(self.taps, before)
            + prices.returned(self.returned, before)
        )


def demand(sources: Sequence[Source], targets: Sequence[Target]) -> Demand:
    """Count what a map of several operands takes with these targets."""
    where = [occurrences(s.parts, s.size) if s.chunks is None else None for s in sources]
    first = np.cumsum([0, *(len(s.parts) for s in sources)])
    turns: list[Indices] = []
    longest = max(p.period for s in sources for p in s.parts)
    folds = products = taps = returned = 0
    scalar = True
    for target in targets:
        lengths: set[int] = set()
        pairs = []
        for source, found, offset in zip(sources, where, first[:-1], strict=True):
            if found is None:
                gathered = gather_taps(source.linear, target, source.chunks or 1)
                taps += 0 if source.refreshed else len(gathered.places)
                returned += len(gathered.places) if source.refreshed else 0
                products += len(gathered.places)
                lengths.add(gathered.places[0].period)
            else:
                entries = match(found, source.linear, target)
                lengths.update(entries.lengths())
                pairs.append(entries.turns() + np.array([offset, 0]))
        if pairs:
            turns.append(np.concatenate(pairs))
            products += len(turns[-1])
        scalar = scalar and lengths <= {1}
        # The longest sum is folded until it meets the next.
        longest_sum = max(lengths, default=target.places.period)
        folds += (longest_sum // target.places.period).bit_length() - 1 + target.low
    split = best_split(turns, longest) if turns else None
    return Demand(
        rotations=split.rotations if split else 0,
        steps=split.distinct if split else 0,
        folds=folds,
        low=sum(target.low for target in targets),
        products=products,
        scalar=scalar,
        taps=taps,
        returned=returned,
        results=len(targets),
    )
