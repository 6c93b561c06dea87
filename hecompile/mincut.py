"""Minimum cuts of small directed graphs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from typing import Final

Node = Hashable
SOURCE: Final[Node] = "source"
SINK: Final[Node] = "sink"


class MinimumCut:
    """Finds the cheapest way to part a graph between SOURCE and SINK.

    An arc costs its capacity if its tail stays with the source and its head with the sink. Solved
    as a maximum flow by Dinic's algorithm (Soviet Math. Doklady 11, 1970).
    """

    def __init__(self) -> None:
        """Start with the two ends alone."""
        self._index: dict[Node, int] = {}
        self._arcs: list[list[int]] = []
        self._heads: list[int] = []
        self._left: list[float] = []
        self._forced: set[tuple[int, int]] = set()
        self._source, self._sink = self._at(SOURCE), self._at(SINK)

    def arc(self, tail: Node, head: Node, capacity: float = math.inf) -> None:
        """Add an arc; the default capacity forbids to cut it."""
        ends = self._at(tail), self._at(head)
        if capacity <= 0 or ends in self._forced:
            return
        if math.isinf(capacity):
            self._forced.add(ends)
        for (one, other), room in ((ends, capacity), (ends[::-1], 0.0)):
            self._arcs[one].append(len(self._heads))
            self._heads.append(other)
            self._left.append(room)

    def with_source(self) -> set[Node]:
        """The nodes that stay with the source: of several cheapest cuts the fewest."""
        while (depth := self._layers())[self._sink] >= 0:
            following = [0] * len(self._arcs)
            while self._augment(depth, following):
                pass
        return {node for node, at in self._index.items() if depth[at] >= 0}

    def _at(self, node: Node) -> int:
        if node not in self._index:
            self._index[node] = len(self._arcs)
            self._arcs.append([])
        return self._index[node]

    def _layers(self) -> list[int]:
        """Distance of each node from the source over arcs with room, as far as the sink is.

        -1 where there is no way, or none as short.
        """
        depth = [-1] * len(self._arcs)
        depth[self._source] = 0
        queue = deque([self._source])
        heads, left = self._heads, self._left
        while queue and depth[self._sink] < 0:
            at = queue.popleft()
            for arc in self._arcs[at]:
                head = heads[arc]
                if depth[head] < 0 and left[arc] > 0:
                    depth[head] = depth[at] + 1
                    queue.append(head)
        return depth

    def _augment(self, depth: list[int], following: list[int]) -> bool:
        """Send what fits along one shortest way; False if there is none left."""
        way: list[int] = []
        at = self._source
        while at != self._sink:
            arcs = self._arcs[at]
            while following[at] < len(arcs):
                arc = arcs[following[at]]
                head = self._heads[arc]
                if self._left[arc] > 0 and depth[head] == depth[at] + 1:
                    break
                following[at] += 1
            if following[at] < len(arcs):
                way.append(arcs[following[at]])
                at = self._heads[way[-1]]
            elif not way:
                return False
            else:
                at = self._heads[way.pop() ^ 1]
                following[at] += 1
        room = min(self._left[arc] for arc in way)
        if math.isinf(room):
            raise ValueError("every cut of this graph cuts an arc that must not be cut")
        for arc in way:
            self._left[arc] -= room
            self._left[arc ^ 1] += room
        return True
