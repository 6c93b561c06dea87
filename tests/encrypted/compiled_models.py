"""Tiny models written with onnx.helper, compiled in seconds, and their answers by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import hecompile
from hecompile.compiler import Compiled
from tests.encrypted.runtime_parties import Parties

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


class Graph:
    """Collects nodes and weights; the first axis of inputs and outputs is an open batch."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        made = helper.make_node(kind, list(inputs), [output], f"{output}_node", **attributes)
        self.nodes.append(made)
        return output

    def dense(self, x: str, wide: int, high: int, output: str) -> str:
        matrix = self.random.normal(size=(wide, high)) / np.sqrt(wide)
        bias = self.random.normal(size=high) / 2
        names = self.weight(f"{output}_w", matrix), self.weight(f"{output}_b", bias)
        return self.node("Gemm", [x, *names], output)

    def square(self, x: str, output: str) -> str:
        return self.node("Mul", [x, x], output)

    def model(self, inputs: Shapes, outputs: Shapes, batch: str | int = "n") -> onnx.ModelProto:
        def infos(shapes: Shapes) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
                for name, shape in shapes.items()
            ]

        graph = helper.make_graph(self.nodes, "tiny", infos(inputs), infos(outputs), self.weights)
        opset = [helper.make_opsetid("", 17)]
        made = helper.make_model(graph, opset_imports=opset, ir_version=8)
        onnx.checker.check_model(made)
        return made


def square_mlp(post: str | None = None, layers: tuple[int, ...] = (8, 8, 4)) -> onnx.ModelProto:
    """Dense layers with squares between them, and one node that moves to the client at the end."""
    graph = Graph(1)
    value = "x"
    for i, (wide, high) in enumerate(pairwise(layers)):
        value = graph.dense(value if i == 0 else graph.square(value, f"s{i}"), wide, high, f"d{i}")
    if post == "ArgMax":
        graph.node("ArgMax", [value], "best", axis=1, keepdims=1)
        value = graph.node("Cast", ["best"], "y", to=TensorProto.FLOAT)
    elif post is not None:
        value = graph.node(post, [value], "y", axis=1)
    return graph.model({"x": (layers[0],)}, {value: (1 if post == "ArgMax" else layers[-1],)})


def sigmoid_mlp() -> onnx.ModelProto:
    graph = Graph(2)
    graph.node("Sigmoid", [graph.dense("x", 6, 6, "d0")], "h")
    graph.dense("h", 6, 3, "y")
    return graph.model({"x": (6,)}, {"y": (3,)})


def small_lstm(steps: int = 4, features: int = 3, hidden: int = 4) -> onnx.ModelProto:
    """An LSTM over `steps`, its last state to two logits."""
    graph = Graph(3)
    gates = 4 * hidden
    scale = 0.25 / np.sqrt(hidden)
    names = [
        graph.weight("w", graph.random.normal(size=(1, gates, features)) * scale),
        graph.weight("r", graph.random.normal(size=(1, gates, hidden)) * scale),
        graph.weight("b", graph.random.normal(size=(1, 2 * gates)) * 0.2),
    ]
    graph.node("Transpose", ["x"], "t", perm=[1, 0, 2])
    made = helper.make_node("LSTM", ["t", *names], ["", "last", ""], "lstm", hidden_size=hidden)
    graph.nodes.append(made)
    axes = numpy_helper.from_array(np.array([0], dtype=np.int64), "axes")
    graph.weights.append(axes)
    graph.node("Squeeze", ["last", "axes"], "state")
    graph.dense("state", hidden, 2, "y")
    return graph.model({"x": (steps, features)}, {"y": (2,)})


def two_in_two_out() -> onnx.ModelProto:
    """sum = dense(left) + dense(right) squared; product = dense(left) * dense(right)."""
    graph = Graph(4)
    left, right = graph.dense("left", 5, 4, "l"), graph.dense("right", 3, 4, "r")
    graph.node("Add", [left, graph.square(right, "rr")], "sum")
    graph.node("Mul", [left, right], "product")
    shapes = {"left": (5,), "right": (3,)}
    return graph.model(shapes, {"sum": (4,), "product": (4,)})


def samples(model: onnx.ModelProto, count: int, seed: int = 0) -> Arrays:
    """Normal samples for every input."""
    random = np.random.default_rng(seed)
    return {
        info.name: random.standard_normal(
            (count, *(d.dim_value for d in info.type.tensor_type.shape.dim[1:]))
        ).astype(np.float32)
        for info in model.graph.input
    }


def answers(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """What onnxruntime computes, by output."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [info.name for info in model.graph.output]
    return dict(zip(names, session.run(names, inputs), strict=True))


def compile_tiny(model: onnx.ModelProto, **options: Any) -> Compiled:
    """Compile with 200 normal samples."""
    return hecompile.compile(model, calibration=samples(model, 200, seed=7), **options)


@dataclass(frozen=True)
class Results:
    """Raw and post-processed outputs, by label, all samples together."""

    raw: Arrays
    outputs: Arrays


def run_encrypted(parties: Parties, inputs: Mapping[str, np.ndarray]) -> Results:
    """Run samples through client, evaluator and custodian."""
    found = []
    for envelope in parties.client.encrypt(inputs):
        evaluation = parties.evaluator.start(envelope)
        while (request := evaluation.advance()) is not None:
            evaluation.accept(parties.custodian.refresh(request))
        found.append(parties.custodian.decrypt(evaluation.output()))
    labels = [entry.label for entry in parties.spec.outputs]
    return Results(
        {label: np.concatenate([f.raw[label] for f in found]) for label in labels},
        {label: np.concatenate([np.asarray(f.outputs[label]) for f in found]) for label in labels},
    )


def worst(one: Arrays, other: Arrays) -> float:
    """Largest distance between two sets of outputs."""
    assert one.keys() == other.keys()
    for label, array in one.items():
        assert array.shape == other[label].shape
    return max(float(np.abs(array - other[label]).max()) for label, array in one.items())
