"""Minimum cuts against every cut of small graphs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hecompile.mincut import SINK, SOURCE, MinimumCut, Node


def weight(arcs: list[tuple[Node, Node, float]], kept: set[Node]) -> float:
    return sum(room for tail, head, room in arcs if tail in kept and head not in kept)


@pytest.mark.parametrize("seed", range(30))
def test_no_cut_is_cheaper(seed: int) -> None:
    random = np.random.default_rng(seed)
    nodes: list[Node] = [SOURCE, SINK, *range(6)]
    arcs: list[tuple[Node, Node, float]] = []
    for _ in range(16):
        tail, head = random.choice(len(nodes), 2, replace=False)
        arcs.append((nodes[tail], nodes[head], int(random.integers(0, 9))))
    cut = MinimumCut()
    for arc in arcs:
        cut.arc(*arc)
    found = weight(arcs, cut.with_source())
    every = itertools.product([True, False], repeat=6)
    best = min(weight(arcs, {SOURCE, *itertools.compress(range(6), some)}) for some in every)
    assert found == best


def test_arcs_add_up_but_those_that_must_not_be_cut_are_kept_once() -> None:
    cut = MinimumCut()
    for _ in range(3):
        cut.arc(SOURCE, "a", 2)
        cut.arc("a", "b")
        cut.arc("b", SINK, 2.5)
    assert cut.with_source() == {SOURCE}
    assert len(cut._heads) == 2 * 7


def test_ties_keep_the_fewest_with_the_source() -> None:
    cut = MinimumCut()
    for tail, head in itertools.pairwise([SOURCE, "a", "b", SINK]):
        cut.arc(tail, head, 2)
    assert cut.with_source() == {SOURCE}


def test_what_must_not_be_cut_is_not() -> None:
    cut = MinimumCut()
    cut.arc(SOURCE, "a", 1)
    cut.arc("a", "b", math.inf)
    cut.arc("b", SINK, 5)
    assert cut.with_source() == {SOURCE}
    cut.arc(SOURCE, "a")
    cut.arc("b", SINK)
    with pytest.raises(ValueError, match="must not be cut"):
        cut.with_source()
