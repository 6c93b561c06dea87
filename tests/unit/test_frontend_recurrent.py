"""What recurrent operators are refused for, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hecompile.errors import HecompileError, InputError, UnsupportedError
from hecompile.frontend import import_onnx
from hecompile.ir.recurrent_ops import Gru, Lstm, Recurrent, Rnn
from tests.differential.recurrent_cases import GATES, Form

DEFAULTS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}


def changed(form: Form, **attributes: Any) -> onnx.ModelProto:
    """The model of a form with attributes of its node replaced."""
    model = form.model()
    node = model.graph.node[0]
    kept = [a for a in node.attribute if a.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in attributes.items())])
    return model


def told(model: onnx.ModelProto, error: type[HecompileError]) -> str:
    with pytest.raises(error) as raised:
        import_onnx(model)
    return str(raised.value)


@pytest.mark.parametrize("name", ["ThresholdedRelu", "Sine"])
@pytest.mark.parametrize("kind", GATES)
def test_activations_without_a_counterpart(kind: str, name: str) -> None:
    names = {"LSTM": ["Sigmoid", "Tanh", name], "GRU": ["Sigmoid", name], "RNN": [name]}
    text = told(changed(Form(kind), activations=names[kind]), UnsupportedError)
    assert f"node '/layer' ({kind}): its activation '{name}' has no counterpart here" in text


def test_activations_whose_numbers_have_no_defaults() -> None:
    text = told(changed(Form("RNN"), activations=["ScaledTanh"]), InputError)
    assert "its activation 'ScaledTanh' lacks activation_alpha or activation_beta" in text


@pytest.mark.parametrize("kind", GATES)
def test_shorter_sequences(kind: str) -> None:
    model = Form(kind, batch=2, lengths=True).model()
    for tensor in model.graph.initializer:
        if tensor.name == "lengths":
            tensor.CopyFrom(numpy_helper.from_array(np.array([3, 2], dtype=np.int32), "lengths"))
    assert "its sequence lengths are not all 3" in told(model, UnsupportedError)


def test_a_projection_as_pytorch_exports_it() -> None:
    # torch.nn.LSTM(3, 4, proj_size=2) becomes 2 units with weights cut off, but 4 cells.
    model = Form("LSTM", c0="zero").model()
    for tensor in model.graph.initializer:
        if tensor.name == "c0":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((1, 1, 4), np.float32), "c0"))
    text = told(model, UnsupportedError)
    assert "its cell state has 4 units and its hidden state 2, as PyTorch writes proj_size" in text


def test_contradictions() -> None:
    assert "its direction is 'up'" in told(changed(Form(), direction="up"), InputError)
    assert "its clip is -1" in told(changed(Form(), clip=-1.0), InputError)
    assert "names 2 activations, not 3" in told(
        changed(Form(), activations=["Sigmoid", "Tanh"]), InputError
    )
    assert "more activation_alpha" in told(changed(Form(), activation_alpha=[1.0]), InputError)
    assert "does not fit its inputs" in told(changed(Form(), hidden_size=3), InputError)
    assert "is no sequence" in told(_flat(), InputError)


def _flat() -> onnx.ModelProto:
    model = Form("RNN").model()
    del model.graph.input[0].type.tensor_type.shape.dim[1]
    return model


@pytest.mark.parametrize("index", [1, 2, 3])
def test_weights_that_depend_on_the_input(index: int) -> None:
    form = Form("GRU", features=2, hidden=2, steps=6)
    model = form.model()
    name = model.graph.node[0].input[index]
    (weight,) = (t for t in model.graph.initializer if t.name == name)
    secret = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, weight.dims)
    model.graph.input.append(secret)
    model.graph.initializer.remove(weight)
    assert "computed from an encrypted input" in told(model, UnsupportedError)


@pytest.mark.parametrize(("kind", "op"), [("LSTM", Lstm), ("GRU", Gru), ("RNN", Rnn)])
def test_one_operation_for_each_result_that_is_used(kind: str, op: type[Recurrent]) -> None:
    form = Form(kind, "bidirectional", outputs=op.outputs)
    found = import_onnx(form.model()).select(op)
    assert [one.output for one in found] == list(op.outputs)
    (last,) = import_onnx(replace(form, outputs=("Y_h",)).model()).select(op)
    assert (last.output, last.directions) == ("Y_h", 2)
    assert last.activations == DEFAULTS[kind] * 2
