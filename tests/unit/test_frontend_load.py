"""Models that cannot be read: one sentence each."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper

from hecompile.errors import HecompileError, InputError
from hecompile.frontend import import_onnx
from tests.differential.onnx_cases import build, random

ROWS = "float[N,3] x"


def small() -> onnx.ModelProto:
    return build("t = MatMul(x, w) y = Relu(t)", ROWS, weights={"w": random(3, 4)})


def refused(source: Path | bytes | onnx.ModelProto) -> str:
    with pytest.raises(InputError) as caught:
        import_onnx(source)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_path_bytes_and_proto_give_the_same_program(tmp_path: Path) -> None:
    model = small()
    before = model.SerializeToString()
    path = tmp_path / "heart.onnx"
    path.write_bytes(before)
    by_path, by_bytes, by_proto = (import_onnx(s) for s in (path, before, model))
    assert by_path.name == "heart"
    assert by_bytes.name == by_proto.name == "case"
    assert by_path.operations == by_bytes.operations == by_proto.operations
    assert model.SerializeToString() == before


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.onnx")
    assert "directory" in refused(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"this is no model at all", "is no ONNX model"),
        (b"\x00" * 64, "is no ONNX model"),
        (b"PK\x03\x04" + b"x" * 30, "zip archive, such as a PyTorch checkpoint"),
        (b"\x08\x08", "holds no ONNX graph"),
    ],
)
def test_files_that_are_no_model(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    text = refused(path)
    assert message in text
    assert text.startswith(str(path))


def test_a_file_cut_off_anywhere_is_refused() -> None:
    data = small().SerializeToString()
    texts = {refused(data[:length]) for length in range(len(data))}
    assert any("is cut off" in text for text in texts)
    assert "is cut off" in refused(data[: len(data) // 2])


def test_damaged_bytes_never_end_in_a_traceback() -> None:
    data = small().SerializeToString()
    numbers = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[numbers.integers(len(data))] = numbers.integers(256)
        with contextlib.suppress(HecompileError):
            import_onnx(bytes(damaged))


def test_names_that_are_no_text() -> None:
    data = small().SerializeToString().replace(b"MatMul", b"Mat\xfful")
    assert "a name in it is no text" in refused(data)


def test_opsets_too_old_and_too_new() -> None:
    text = refused(build("y = Relu(x)", ROWS, opset=12))
    assert "opset 12, and 13 is the oldest" in text
    assert "opset_version=17" in text
    assert "newer than the" in refused(build("y = Relu(x)", ROWS, opset=99))
    model = small()
    del model.opset_import[:]
    assert "does not say which ONNX opset" in refused(model)


def test_what_the_checker_finds() -> None:
    model = small()
    model.graph.node[0].input[0] = "nowhere"
    text = refused(model)
    assert "is no valid ONNX model" in text
    assert "nowhere" in text


def test_faults_behind_an_unknown_operator_are_found() -> None:
    model = small()
    model.graph.node[0].op_type = "Unheard"
    model.graph.node[1].input[0] = "nowhere"
    model.graph.node[1].attribute.add().name = "odd"
    assert "is no valid ONNX model" in refused(model)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    weight = random(3, 4)
    weight[1, 2] = value
    text = refused(build("y = MatMul(x, w)", ROWS, weights={"w": weight}))
    assert "NaN or infinite in 'w'" in text


def test_constants_that_are_not_finite() -> None:
    text = refused(build("c = Constant<value_floats=[1.0, nan]>() y = Mul(x, c)", "float[N,2] x"))
    assert "'c' holds NaN or infinity" in text
    infinite = {"c": np.array(np.inf, dtype=np.float32)}
    assert "'c' holds NaN" in refused(build("y = Mul(x, c)", ROWS, weights=infinite))


def test_an_infinite_bound_is_no_bound() -> None:
    infinite = {"c": np.array(np.inf, dtype=np.float32)}
    program = import_onnx(build("y = Clip(x, , c)", ROWS, weights=infinite))
    assert [op.name for op in program] == ["tensor.input", "tensor.output"]


def test_weights_whose_bytes_do_not_fit() -> None:
    model = small()
    model.graph.initializer[0].raw_data = b"\x00" * 7
    assert "'w'" in refused(model) or "tensor name: w" in refused(model)


def with_external_data(folder: Path) -> Path:
    path = folder / "model.onnx"
    model = small()
    external_data_helper.convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save_model(model, path)
    return path


def test_external_data_missing_short_or_unreachable(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    program = import_onnx(path)
    assert "in the external file 'w.bin'; give the model as the path" in refused(path.read_bytes())
    weights = tmp_path / "w.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4])
    assert "'w'" in refused(path)
    weights.unlink()
    assert "external file 'w.bin', which is missing" in refused(path)
    weights.write_bytes(content)
    assert import_onnx(path) == program


def test_external_data_outside_the_folder_are_refused(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    model = onnx.load_model(path, load_external_data=False)
    (tmp_path.parent / "outside.bin").write_bytes(b"\x00" * 48)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../outside.bin"
    path.write_bytes(model.SerializeToString())
    assert "outside.bin" in refused(path)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("int64[N,3] x", "input 'x' holds int64, and only real numbers"),
        ("bool[N,3] x", "input 'x' holds bool"),
        ("seq(float[N,3]) x", "input 'x' is a sequence"),
        ("optional(float[N,3]) x", "input 'x' is optional"),
        ("float x", "input 'x' is a scalar"),
    ],
)
def test_inputs_that_cannot_be_encrypted(inputs: str, message: str) -> None:
    assert message in refused(build("y = Identity(x)", inputs))


def test_model_without_inputs_or_with_an_output_known_in_advance() -> None:
    weights = {"w": random(3)}
    body = "y = Add(w, w) z = Relu(x)"
    assert "has no inputs" in refused(build("y = Add(w, w)", "", weights=weights))
    text = refused(build(body, ROWS, "float y, float z", weights))
    assert "output 'y' does not depend on any input" in text


def test_shapes_that_do_not_fit_name_the_node() -> None:
    model = build("y = Add(x, w)", ROWS, weights={"w": random(5)})
    model.graph.node[0].name = "/head/Add"
    assert "node '/head/Add' (Add) does not fit its inputs" in refused(model)


def test_division_by_zero() -> None:
    weights = {"w": np.zeros(3, dtype=np.float32)}
    assert "it divides by zero" in refused(build("y = Div(x, w)", ROWS, weights=weights))


def test_variance_below_zero() -> None:
    weights = {n: np.full(3, -1, dtype=np.float32) for n in "sbmv"}
    text = refused(build("y = BatchNormalization(x, s, b, m, v)", ROWS, weights=weights))
    assert "variance that is not positive" in text


def test_weights_listed_as_inputs_stay_weights() -> None:
    model = small()
    weight = onnx.helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 4])
    model.graph.input.append(weight)
    assert import_onnx(model) == import_onnx(small())
