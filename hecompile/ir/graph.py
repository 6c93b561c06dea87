"""Questions about a program, asked of a networkx view: depth, critical path, drawings."""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx

from hecompile.ir import he_ops, tensor_ops
from hecompile.ir.operation import Operation
from hecompile.ir.printer import quote
from hecompile.ir.program import Program

LEVEL_COST: dict[type[Operation], int] = {
    he_ops.Mul: 1,
    he_ops.MulPlain: 1,
    he_ops.SumMulPlain: 1,
    tensor_ops.Mul: 1,
}
"""Levels that an operation consumes, where it consumes any."""


def dataflow(program: Program) -> nx.DiGraph:
    """Operations as nodes (by index), values as edges."""
    graph = nx.DiGraph(name=program.name)
    index: dict[str, int] = {}
    for i, op in enumerate(program):
        graph.add_node(i, operation=op)
        graph.add_edges_from((index[v.name], i, {"value": v.name}) for v in op.operands)
        if op.result is not None:
            index[op.result.name] = i
    return graph


def levels_consumed(op: Operation) -> int:
    """Levels that one operation consumes: 1 for a product, else 0."""
    return LEVEL_COST.get(type(op), 0)


def critical_path(
    program: Program, weight: Callable[[Operation], float] = levels_consumed
) -> tuple[Operation, ...]:
    """The heaviest chain of dependent operations, by `weight` of each operation."""
    graph = dataflow(program)
    best: dict[int, tuple[float, int | None]] = {}
    for node in graph.nodes:
        before = max(graph.predecessors(node), key=lambda p: best[p][0], default=None)
        so_far = best[before][0] if before is not None else 0.0
        best[node] = (so_far + weight(program.operations[node]), before)
    node = max(best, key=lambda n: best[n][0], default=None)
    path: list[Operation] = []
    while node is not None:
        path.append(program.operations[node])
        node = best[node][1]
    return tuple(reversed(path))


def multiplicative_depth(program: Program) -> int:
    """Levels on the deepest chain of products; a refresh starts at zero again."""
    depth: dict[str, int] = {}
    for op in program:
        if op.result is not None:
            before = max((depth[v.name] for v in op.operands), default=0)
            fresh = isinstance(op, he_ops.Refresh)
            depth[op.result.name] = 0 if fresh else before + levels_consumed(op)
    return max(depth.values(), default=0)


def to_dot(program: Program) -> str:
    """Draw the program in Graphviz DOT."""
    lines = [f"digraph {quote(program.name)} {{", "  rankdir=TB; node [shape=box];"]
    graph = dataflow(program)
    for i, op in enumerate(program):
        label = f"{op.result} = {op.name}" if op.result is not None else op.name
        lines.append(f"  n{i} [label={quote(label)}];")
    lines += [
        f"  n{a} -> n{b} [label={quote('%' + data['value'])}];"
        for a, b, data in graph.edges(data=True)
    ]
    return "\n".join([*lines, "}"]) + "\n"
