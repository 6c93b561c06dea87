"""Rewrites of what exporters emit, where the plain form of an operator would do."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from hecompile.frontend.load import tensor_array

LEAST_THRESHOLD = 15.0
"""Beyond it softplus and the identity differ by less than 4e-7, as float32 tells them apart."""


def simplify(graph: onnx.GraphProto) -> None:
    """Replace, in place, patterns that compare encrypted numbers without need."""
    finder = _Finder(graph)
    for index, node in enumerate(graph.node):
        if node.op_type == "Where" and finder.is_guarded_softplus(node):
            plain = helper.make_node("Identity", [node.input[2]], node.output, name=node.name)
            graph.node[index].CopyFrom(plain)


class _Finder:
    """Producers of tensors in a graph, and constants among them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._weights = {tensor.name: tensor for tensor in graph.initializer}

    def is_guarded_softplus(self, node: onnx.NodeProto) -> bool:
        """Whether it is `where(a > threshold, x, softplus(a) / beta)` with a = x * beta.

        PyTorch computes softplus so; past the threshold the branches are equal to the last place.
        """
        condition, plain, curved = node.input
        greater = self._producers.get(condition)
        if greater is None or greater.op_type != "Greater":
            return False
        if self._number(greater.input[1]) < LEAST_THRESHOLD:
            return False
        argument = greater.input[0]
        if plain == argument:
            return self._is(curved, "Softplus", argument)
        divided = self._producers.get(curved)
        if divided is None or divided.op_type != "Div":
            return False
        beta = self._number(divided.input[1])
        same_beta = any(
            self._is(argument, "Mul", plain, other) and self._number(other) == beta
            for other in self._inputs(argument)
        )
        return beta > 0 and same_beta and self._is(divided.input[0], "Softplus", argument)

    def _inputs(self, name: str) -> list[str]:
        node = self._producers.get(name)
        return list(node.input) if node is not None else []

    def _is(self, name: str, operator: str, *inputs: str) -> bool:
        node = self._producers.get(name)
        found = node is not None and node.op_type == operator
        return found and sorted(self._inputs(name)) == sorted(inputs)

    def _number(self, name: str) -> float:
        """A constant of one element; NaN if it is none."""
        tensor = self._weights.get(name)
        node = self._producers.get(name)
        if node is not None and node.op_type == "Constant":
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        elif node is not None and node.op_type in ("Cast", "CastLike", "Identity"):
            return self._number(node.input[0])
        array = np.zeros(0) if tensor is None else tensor_array(tensor, "the model")
        return float(array.item()) if array.size == 1 else float("nan")
