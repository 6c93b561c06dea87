"""What the search for layouts decides: plans, whole or so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hecompile.ir.operation import Operation
from hecompile.packing import targets as goals
from hecompile.packing.places import Places
from hecompile.packing.pools import Pool
from hecompile.packing.sources import Fit, Free


@dataclass(frozen=True, eq=False)
class Choice:
    """How one linear map is computed.

    Attributes:
        targets: of the result, a ciphertext each.
        chunks: by operand that is gathered for this map: products that share a ciphertext.
        pools: by operand whose elements are added up first: the groups.
    """

    targets: goals.Targets
    chunks: Mapping[int, int] = field(default_factory=dict)
    pools: Mapping[int, Pool] = field(default_factory=dict)


_DIGITS = 12
"""Of prices in seconds that are told apart."""

Use = tuple[str, int]
"""An operand: the name of the operation's result, or what an output reads, and which one it is."""

Placement = tuple[Places, ...] | Free
"""Where a tensor is: places of each ciphertext, or nowhere yet."""


def use_of(op: Operation, operand: int) -> Use:
    """Names one operand of an operation."""
    return (op.result.name if op.result is not None else str(op.operands[0])), operand


@dataclass(frozen=True, eq=False)
class Decisions:
    """All that a plan decides.

    Attributes:
        choices: by the name of each map's result.
        fits: where free operands of other operations are put.
    """

    choices: Mapping[str, Choice] = field(default_factory=dict)
    fits: Mapping[Use, Fit] = field(default_factory=dict)


Trail = tuple["Trail | None", Use | str, "Fit | Choice"]
"""The last decision of a plan, and those before it, which many plans share."""


@dataclass(frozen=True, eq=False)
class State:
    """A plan so far.

    Attributes:
        places: of the live values.
        trail: decisions made so far, the last one first.
        price: of all that.
        packed: what was packed of free tensors that live, by name and places.
    """

    places: Mapping[str, Placement] = field(default_factory=dict)
    trail: Trail | None = None
    price: float = 0.0
    packed: frozenset[tuple[str, bytes]] = frozenset()

    def fit(self, use: Use) -> Fit:
        """Where this plan puts a free operand; decided lately."""
        trail = self.trail
        while trail is not None:
            before, key, decision = trail
            if key == use and isinstance(decision, Fit):
                return decision
            trail = before
        raise KeyError(use)

    @property
    def decisions(self) -> Decisions:
        """All that it decides."""
        choices: dict[str, Choice] = {}
        fits: dict[Use, Fit] = {}
        trail = self.trail
        while trail is not None:
            trail, key, decision = trail
            if isinstance(decision, Choice) and isinstance(key, str):
                choices.setdefault(key, decision)
            elif isinstance(decision, Fit) and isinstance(key, tuple):
                fits.setdefault(key, decision)
        return Decisions(choices, fits)


def prune(states: Iterable[State], prices: int, most: int) -> list[State]:
    """The cheapest plans, one for each set of placements.

    Plans at one point of the program place the same values; equal placements are one object. Those
    of one price differ in what only later maps pay for, such as replicas, and stay together.

    Args:
        states: the plans.
        prices: distinct prices to keep.
        most: plans to keep.
    """
    kept: dict[object, State] = {}
    seen: set[float] = set()
    for state in sorted(states, key=lambda s: s.price):
        seen.add(round(state.price, _DIGITS))
        if len(seen) > prices or len(kept) == most:
            break
        # Placements are shared objects, and plans at one point have the same values alive.
        kept.setdefault(tuple(map(id, state.places.values())), state)
    return list(kept.values())


def placement_key(placement: Placement) -> object:
    """Equal for equal placements."""
    return placement if isinstance(placement, Free) else tuple(p.key for p in placement)
