"""Small ONNX models grown node by node at random, and their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, shape_inference

AnyArray = npt.NDArray[Any]
Arrays = dict[str, AnyArray]
Shape = tuple[int, ...]
T = TypeVar("T")

OPSET = 21


@dataclass(frozen=True)
class RandomModel:
    """A model and what is worth knowing of it.

    Attributes:
        proto: the model; each input's first axis counts samples.
        shapes: of one sample, by input name, the first axis of 1 included.
        kinds: the operators under test, in order.
    """

    proto: onnx.ModelProto
    shapes: dict[str, Shape]
    kinds: tuple[str, ...]

    def samples(self, count: int, seed: int = 0) -> Arrays:
        """Uniform samples in [-1, 1]: (count, *shape) by input name."""
        random = np.random.default_rng(seed)
        return {
            name: random.uniform(-1, 1, (count, *shape)).astype(np.float32)
            for name, shape in self.shapes.items()
        }

    def answers(self, samples: Arrays) -> Arrays:
        """What onnxruntime computes, sample by sample: (count, *shape) by output name."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        # Its fusions of pads into pools are wrong where the pad is as wide as the window.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(
            self.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        count = len(next(iter(samples.values())))
        runs = [session.run(names, {n: a[i] for n, a in samples.items()}) for i in range(count)]
        return {name: np.stack([run[i] for run in runs]) for i, name in enumerate(names)}


class Growing:
    """A graph under construction."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.shapes: dict[str, Shape] = {}
        self.inputs: dict[str, Shape] = {}
        self.kinds: list[str] = []
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def whole(self, least: int, most: int) -> int:
        return int(self.random.integers(least, most + 1))

    def pick(self, among: Sequence[T]) -> T:
        return among[self.whole(0, len(among) - 1)]

    def input(self, *dims: int) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs[name] = self.shapes[name] = (1, *dims)
        return name

    def weight(self, array: npt.ArrayLike) -> str:
        """A constant; float64 becomes float32."""
        exact = np.asarray(array)
        stored = exact.astype(np.float32) if exact.dtype == np.float64 else exact
        name = f"w{len(self._weights)}"
        self._weights[name] = numpy_helper.from_array(stored, name)
        return name

    def normal(self, *shape: int, fan: int = 1) -> str:
        """Weights for sums of `fan` terms."""
        return self.weight(self.random.normal(size=shape) / np.sqrt(fan))

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """A node; its last output is what counts, the others are left out."""
        name = f"v{len(self._nodes)}"
        results = [""] * (outputs - 1) + [name]
        node = helper.make_node(kind, inputs, results, f"{kind}_{name}", **attributes)
        self._nodes.append(node)
        self.shapes[name] = self._inferred(node, name)
        self.kinds.append(kind)
        return name

    def split(self, x: str, axis: int, parts: Sequence[int]) -> list[str]:
        """The parts of a value along an axis."""
        first = len(self._nodes)
        names = [f"v{first}_{i}" for i in range(len(parts))]
        sizes = self.weight(np.array(parts))
        self._nodes.append(helper.make_node("Split", [x, sizes], names, f"split{first}", axis=axis))
        for name, part in zip(names, parts, strict=True):
            shape = self.shapes[x]
            self.shapes[name] = (*shape[:axis], part, *shape[axis + 1 :])
        self.kinds.append("Split")
        return names

    def _inferred(self, node: onnx.NodeProto, name: str) -> Shape:
        used = [self._weights[n] for n in node.input if n in self._weights]
        infos = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, self.shapes[n])
            for n in dict.fromkeys(node.input)
            if n in self.shapes
        ]
        graph = helper.make_graph([node], "one", infos, [onnx.ValueInfoProto(name=name)], used)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        (output,) = inferred.graph.output
        return tuple(d.dim_value for d in output.type.tensor_type.shape.dim)

    def model(self, outputs: Sequence[str], batch: int | str) -> RandomModel:
        def declared(name: str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, kind, [batch, *self.shapes[name][1:]])

        kinds = {n: node.op_type for node in self._nodes for n in node.output}
        results = [
            declared(n, TensorProto.INT64 if kinds.get(n) == "ArgMax" else TensorProto.FLOAT)
            for n in outputs
        ]
        graph = helper.make_graph(
            self._nodes, "random", [declared(n) for n in self.inputs], results,
            list(self._weights.values()),
        )  # fmt: skip
        opset = [helper.make_opsetid("", OPSET)]
        proto = helper.make_model(graph, opset_imports=opset, ir_version=10)
        return RandomModel(proto, dict(self.inputs), tuple(self.kinds))
