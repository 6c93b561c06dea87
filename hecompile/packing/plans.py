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


@dataclass(frozen=True, eq=False)
class State:
    """A plan so far.

    Attributes:
        places: of the live values.
        decisions: made so far.
        price: of all that.
        packed: what was packed of free tensors, by name and places.
    """

    places: Mapping[str, Placement] = field(default_factory=dict)
    decisions: Decisions = field(default_factory=Decisions)
    price: float = 0.0
    packed: frozenset[tuple[str, bytes]] = frozenset()


def prune(states: Iterable[State], width: int) -> list[State]:
    """The cheapest plans, one for each set of placements."""
    kept: dict[object, State] = {}
    for state in sorted(states, key=lambda s: s.price):
        live = tuple((name, placement_key(places)) for name, places in state.places.items())
        kept.setdefault(live, state)
        if len(kept) == width:
            break
    return list(kept.values())


def placement_key(placement: Placement) -> object:
    """Equal for equal placements."""
    return placement if isinstance(placement, Free) else tuple(p.key for p in placement)
