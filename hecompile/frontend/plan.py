"""Which nodes of a graph matter, and which of them the client computes after decryption."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

HEADS = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "ArgMax"})
"""Operators that move to the client at the very end of a model."""

FOLLOWERS = frozenset(
    {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Slice", "Gather"}
)
"""Operators that may stand between them, or behind them."""

_STATIC = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class Plan:
    """What to convert, and how.

    Attributes:
        live: nodes on which an output depends, in order.
        tails: of these, by index in the graph, those that only the client computes.
        used: names of tensors that something reads.
    """

    live: tuple[tuple[int, onnx.NodeProto], ...]
    tails: frozenset[int]
    used: frozenset[str]


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those captured by its subgraphs included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            for inner in graph.node:
                yield from reads(inner)
            yield from (output.name for output in graph.output)


def plan(graph: onnx.GraphProto) -> Plan:
    """Walk the graph backwards from its outputs."""
    outputs = {output.name for output in graph.output}
    needed = set(outputs)
    live: list[tuple[int, onnx.NodeProto]] = []
    readers: dict[str, list[tuple[int, onnx.NodeProto]]] = defaultdict(list)
    tails: set[int] = set()
    for index, node in reversed(list(enumerate(graph.node))):
        if needed.isdisjoint(node.output):
            continue
        live.append((index, node))
        if _is_tail(node, readers, tails):
            tails.add(index)
        for name in reads(node):
            needed.add(name)
            readers[name].append((index, node))
    return Plan(tuple(reversed(live)), frozenset(tails), frozenset(needed))


def _is_tail(
    node: onnx.NodeProto, readers: dict[str, list[tuple[int, onnx.NodeProto]]], tails: set[int]
) -> bool:
    if node.op_type not in HEADS | FOLLOWERS or node.domain not in ("", "ai.onnx"):
        return False
    for name in node.output:
        for index, reader in readers[name]:
            follows = index in tails and list(reads(reader)).count(name) == 1
            if not (follows and reader.input[0] == name) and reader.op_type not in _STATIC:
                return False
    return True
