"""ONNX models made to break a reader: each is refused in one sentence, at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hecompile.cli import main
from hecompile.errors import HecompileError, InputError
from hecompile.frontend import import_onnx
from tests.differential.damage import within

HUGE = 1 << 40


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, Any] | None = None,
    shape: tuple[Any, ...] = ("n", 4),
    opset: int = 21,
) -> onnx.ModelProto:
    """Nodes from input x to output y."""
    stored = [
        array
        if isinstance(array, TensorProto)
        else numpy_helper.from_array(np.asarray(array), name)
        for name, array in (weights or {}).items()
    ]
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(kind: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], f"{kind}_of_{output}", **attributes)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def one(kind: str, shape: tuple[Any, ...] = ("n", 4), **rest: Any) -> onnx.ModelProto:
    """A single node whose constants are given by name, attributes with a trailing `_`."""
    attributes = {name[:-1]: value for name, value in rest.items() if name.endswith("_")}
    weights = {name: value for name, value in rest.items() if not name.endswith("_")}
    return model([node(kind, "x", *weights, **attributes)], weights, shape)


def lost_weight() -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[HUGE, HUGE])
    return model([node("MatMul", "x", "w")], {"w": weight})


def negative_weight() -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-4, -4], raw_data=bytes(64))
    return model([node("MatMul", "x", "w")], {"w": weight})


def external_weight(location: str) -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4])
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location
    return model([node("MatMul", "x", "w")], {"w": weight})


def constant(kind: str, *inputs: np.ndarray) -> onnx.ModelProto:
    """A constant that grows at compile time, added to the input."""
    names = [f"w{i}" for i in range(len(inputs))]
    nodes = [
        node(kind, *names, output="c"),
        node("Cast", "c", output="f", to=TensorProto.FLOAT),
        node("Add", "x", "f"),
    ]
    return model(nodes, dict(zip(names, inputs, strict=True)))


def doubling(source: str) -> onnx.ModelProto:
    """A tensor joined with itself forty times, the input or a constant."""
    values = [source, *(f"v{i}" for i in range(40))]
    nodes = [node("Concat", a, a, output=b, axis=1) for a, b in pairwise(values)]
    nodes.append(node("Add", "x", values[-1]))
    return model(nodes, {"w": np.ones((1, 1), np.float32)})


def cycle() -> onnx.ModelProto:
    return model(
        [node("Add", "x", "b", output="a"), node("Neg", "a", output="b"), node("Neg", "b")]
    )


def nested(depth: int) -> bytes:
    """Branches within branches: graph > node > attribute > graph, as protobuf writes them."""

    def field(number: int, content: bytes) -> bytes:
        size, rest = b"", len(content)
        while rest > 127:
            size, rest = size + bytes([rest & 127 | 128]), rest >> 7
        return bytes([number << 3 | 2]) + size + bytes([rest]) + content

    graph = b""
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph)
        graph = field(1, field(4, b"If") + field(5, attribute))
    return field(7, graph)


def recursion() -> onnx.ModelProto:
    """A local function that calls itself."""
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    body = [helper.make_node("again", ["a"], ["b"], domain="own")]
    function = helper.make_function("own", "again", ["a"], ["b"], body, imports)
    found = model([helper.make_node("again", ["x"], ["y"], domain="own")])
    found.functions.append(function)
    found.opset_import.append(helper.make_opsetid("own", 1))
    return found


def twice(what: str) -> onnx.ModelProto:
    """The same name for two inputs, outputs, weights or results."""
    found = model([node("Neg", "x")], {"w": np.ones(4, np.float32)})
    repeated: Any = getattr(found.graph, what)
    repeated.add().CopyFrom(repeated[0])
    return found


def without(what: str) -> onnx.ModelProto:
    found = model([node("Neg", "x")])
    if what == "opset_import":
        del found.opset_import[:]
    elif what == "output":
        del found.graph.output[:]
    elif what == "operator":
        found.graph.node[0].op_type = ""
    else:
        found.ClearField(what)
    return found


def opsets(*versions: int) -> onnx.ModelProto:
    found = model([node("Neg", "x")])
    del found.opset_import[:]
    found.opset_import.extend(helper.make_opsetid("", version) for version in versions)
    return found


ONES = np.ones(1, np.float32)
HOSTILE: dict[str, Callable[[], onnx.ModelProto]] = {
    "huge input": lambda: one("Neg", (1, HUGE)),
    "input beyond 64 bits": lambda: one("Neg", (1, 1 << 32, 1 << 32, 1 << 32)),
    "negative input": lambda: one("Neg", (-1, -4)),
    "empty input": lambda: one("Neg", (1, 0)),
    "weight without bytes": lost_weight,
    "weight of negative size": negative_weight,
    "NaN weight": lambda: one("MatMul", w=np.full((4, 4), np.nan, np.float32)),
    "infinite weights": lambda: one("Mul", w=np.full(4, np.inf, np.float32)),
    "text as weights": lambda: one("Mul", w=np.array(["a", "b", "c", "d"], dtype=object)),
    "external file above": lambda: external_weight("../../etc/passwd"),
    "external file from the root": lambda: external_weight("/etc/passwd"),
    "external file missing": lambda: external_weight("w.bin"),
    "huge ConstantOfShape": lambda: constant("ConstantOfShape", whole(HUGE)),
    "huge constant Expand": lambda: constant("Expand", ONES, whole(HUGE)),
    "huge constant Tile": lambda: constant("Tile", ONES, whole(HUGE)),
    "huge constant Pad": lambda: constant("Pad", ONES, whole(HUGE, 0)),
    "huge Range": lambda: constant("Range", *(np.array(v) for v in (0, HUGE, 1))),
    "huge OneHot": lambda: constant("OneHot", whole(0), np.array(HUGE), whole(0, 1)),
    "huge Expand": lambda: one("Expand", shape=(1, 1), s=whole(1, HUGE)),
    "huge Tile": lambda: one("Tile", r=whole(1, HUGE)),
    "negative Tile": lambda: one("Tile", r=whole(1, -1)),
    "huge Pad": lambda: one("Pad", p=whole(0, 0, 0, HUGE)),
    "huge reflected Pad": lambda: one("Pad", p=whole(0, 0, 0, HUGE), mode_="reflect"),
    "negative Pad of all": lambda: one("Pad", p=whole(0, -4, 0, 0)),
    "huge Conv pads": lambda: one(
        "Conv", (1, 1, 4), w=np.ones((1, 1, 2), np.float32), pads_=[HUGE, HUGE], strides_=[HUGE]
    ),
    "Conv stride 0": lambda: one("Conv", (1, 1, 4), w=np.ones((1, 1, 2), np.float32), strides_=[0]),
    "huge pool": lambda: one("AveragePool", (1, 1, 4), kernel_shape_=[HUGE]),
    "huge Split": lambda: one("Split", num_outputs_=HUGE),
    "Flatten beyond": lambda: one("Flatten", axis_=-9),
    "Gather outside": lambda: one("Gather", i=whole(9), axis_=1),
    "GatherElements outside": lambda: one("GatherElements", (1, 4), i=whole(9)[None], axis_=1),
    "Reshape to another size": lambda: one("Reshape", s=whole(1, 9)),
    "Gelu of another kind": lambda: one("Gelu", approximate_="fast"),
    "keepdims 255": lambda: one("ReduceMean", ("n", 4, 2), a=whole(1), keepdims_=255),
    "doubling input": lambda: doubling("x"),
    "doubling constant": lambda: doubling("w"),
    "cycle": cycle,
    "operator reads itself": lambda: model([node("Add", "x", "y")]),
    "recursive function": recursion,
    "two inputs of one name": lambda: twice("input"),
    "two outputs of one name": lambda: twice("output"),
    "two nodes of one result": lambda: twice("node"),
    "no output": lambda: without("output"),
    "no opset": lambda: without("opset_import"),
    "no operator": lambda: without("operator"),
    "no graph": lambda: without("graph"),
    "opset of the future": lambda: opsets(999),
    "negative opset": lambda: opsets(-1),
    "two opsets": lambda: opsets(17, 21),
    "operator of a later opset": lambda: model([node("Gelu", "x")], opset=17),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(HOSTILE[name]().SerializeToString())
    with within(10.0), pytest.raises(HecompileError) as refused:
        import_onnx(path)
    told = str(refused.value)
    assert told.startswith(str(path))
    assert len(told) < 1000, told


@pytest.mark.parametrize("depth", [40, 3000])
def test_branches_nested_beyond_reason(depth: int) -> None:
    with within(10.0), pytest.raises(InputError, match="no ONNX model"):
        import_onnx(nested(depth))


@pytest.mark.parametrize("name", ["cycle", "huge Range", "external file above", "no output"])
def test_hostile_models_by_the_command_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes(HOSTILE[name]().SerializeToString())
    np.savez(tmp_path / "c.npz", x=np.zeros((9, 4), np.float32))
    words = ["compile", str(tmp_path / "m.onnx"), "--calibration", str(tmp_path / "c.npz")]
    assert main([*words, "-o", str(tmp_path / "b")]) == 1
    told = capsys.readouterr().err
    assert "error: " in told
    assert "internal" not in told
    assert not (tmp_path / "b").exists()
