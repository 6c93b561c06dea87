"""Recurrent ONNX models of every form, with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
PLAIN = ("Sigmoid", "Tanh", "Relu", "Softplus", "Softsign")
BETA = ("HardSigmoid", "ScaledTanh", "Affine")
ALPHA = (*BETA, "LeakyRelu", "Elu")
NAMES = (*PLAIN, *ALPHA)


@dataclass(frozen=True)
class Form:
    """What a recurrent operator may have; states are "none", "zero", "constant" or "secret"."""

    kind: str = "LSTM"
    direction: str = "forward"
    steps: int = 3
    batch: int = 1
    bias: bool = True
    h0: str = "none"
    c0: str = "none"
    lengths: bool = False
    peepholes: bool = False
    clip: float = 0.0
    input_forget: bool = False
    linear_before_reset: bool = False
    activations: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ("Y", "Y_h")
    layout: int = 0
    features: int = 3
    hidden: int = 2
    seed: int = 0

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    def attributes(self) -> dict[str, Any]:
        """The node's attributes, defaults left out."""
        found: dict[str, Any] = {"hidden_size": self.hidden, "direction": self.direction}
        flags = {
            "clip": self.clip,
            "input_forget": int(self.input_forget and self.kind == "LSTM"),
            "linear_before_reset": int(self.linear_before_reset and self.kind == "GRU"),
            "layout": self.layout,
        }
        found |= {name: value for name, value in flags.items() if value}
        if self.activations:
            names = self.activations[: FUNCTIONS[self.kind]] * self.directions
            found["activations"] = names
            found["activation_alpha"] = [0.1 + 0.05 * i for i, n in enumerate(names) if n in ALPHA]
            found["activation_beta"] = [0.45] * sum(n in BETA for n in names)
            found = {key: value for key, value in found.items() if value != []}
        return found

    def model(self) -> onnx.ModelProto:
        """The operator alone: input x, further inputs for secret states, outputs by name."""
        random = np.random.default_rng(self.seed)
        d, h, rows = self.directions, self.hidden, GATES[self.kind] * self.hidden
        arrays = {
            "W": random.normal(size=(d, rows, self.features)),
            "R": random.normal(size=(d, rows, h)),
        }
        names = ["x", "W", "R", *[""] * 5]
        if self.bias:
            names[3], arrays["B"] = "B", random.normal(size=(d, 2 * rows))
        if self.lengths:
            names[4] = "lengths"
        inputs = {"x": self.swapped(self.steps, self.batch, self.features)}
        states = ((5, "h0", self.h0), (6, "c0", self.c0 if self.kind == "LSTM" else "none"))
        for index, name, state in states:
            shape = self.swapped(d, self.batch, h)
            if state == "secret":
                names[index], inputs[name] = name, shape
            elif state != "none":
                names[index] = name
                arrays[name] = random.normal(size=shape) * (state == "constant")
        if self.peepholes and self.kind == "LSTM":
            names[7], arrays["P"] = "P", random.normal(size=(d, 3 * h))
        while not names[-1]:
            names.pop()
        kept = ("Y", "Y_h", "Y_c") if self.kind == "LSTM" else ("Y", "Y_h")
        wanted = [name if name in self.outputs else "" for name in kept]
        node = helper.make_node(self.kind, names, wanted, "/layer", **self.attributes())
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in wanted if n],
            [numpy_helper.from_array(a.astype(np.float32) / 4, n) for n, a in arrays.items()],
        )
        if self.lengths:
            steps = np.full(self.batch, self.steps, dtype=np.int32)
            graph.initializer.append(numpy_helper.from_array(steps, "lengths"))
        imports = [helper.make_opsetid("", 22)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    def swapped(self, first: int, batch: int, last: int) -> tuple[int, int, int]:
        """A shape with the batch where the layout has it."""
        return (batch, first, last) if self.layout else (first, batch, last)
