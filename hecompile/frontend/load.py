"""Reading an ONNX model: from a file, bytes or a proto, checked, with its weights in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import external_data_helper, inliner, numpy_helper

from hecompile.errors import InputError

Source = Path | str | bytes | onnx.ModelProto
"""What a model is read from: the path of a file, a file's bytes, or a model in memory."""

OLDEST_OPSET = 13
_MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
_VARINT, _BYTES = 0, 2


@dataclass(frozen=True)
class Loaded:
    """A checked model.

    Attributes:
        proto: the model, local functions inlined, external data loaded.
        name: the program's name: the file's stem, else the graph's name.
        where: how messages name the model.
    """

    proto: onnx.ModelProto
    name: str
    where: str


def load_model(source: Source) -> Loaded:
    """Read and check a model; a proto is copied, never changed.

    Raises:
        InputError: there is no such file, it is no valid ONNX model, its opset is not readable
            here, external data are missing, or a weight is damaged or not finite.
    """
    if isinstance(source, onnx.ModelProto):
        proto, where, folder = onnx.ModelProto(), "the model", None
        proto.CopyFrom(source)
    elif isinstance(source, bytes):
        where, folder = "the model", None
        proto = _decode(source, where)
    else:
        path = Path(source)
        where, folder = str(path), path.parent
        proto = _decode(_read(path), where)
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise InputError(f"{where} holds no ONNX graph; export the model again")
    _check_outputs(proto.graph, where)
    _check_texts(proto, where)
    _check_opset(proto, where)
    _load_external_data(proto, where, folder)
    proto = _inline(proto, where)
    _check_splits(proto, where)
    _check(proto, where)
    _check_weights(proto, where)
    own = proto.graph.name
    name = Path(source).stem if isinstance(source, Path | str) else own
    return Loaded(proto, name or own or "model", where)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"{path} cannot be read: {reason}; give the path of an ONNX file"
        ) from None


def _decode(data: bytes, where: str) -> onnx.ModelProto:
    if not data:
        raise InputError(f"{where} is empty; export the model again")
    if data.startswith(b"PK\x03\x04"):
        raise InputError(
            f"{where} is a zip archive, such as a PyTorch checkpoint, and no ONNX model; "
            "export the model with torch.onnx.export"
        )
    try:
        return onnx.load_model_from_string(data)
    except Exception:
        # Whatever protobuf raises, the bytes are at fault.
        if _is_cut_off(data):
            raise InputError(
                f"{where} is cut off: its {len(data)} bytes end inside the model; "
                "copy or export it again"
            ) from None
        raise InputError(f"{where} is no ONNX model; export one with torch.onnx.export") from None


def _is_cut_off(data: bytes) -> bool:
    """Whether the fields of a ModelProto start well and the last one runs past the end."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        if tag >> 3 not in _MODEL_FIELDS or tag & 7 not in (_VARINT, _BYTES):
            return False
        length, position = _varint(data, position)
        if tag & 7 == _BYTES:
            position += length
    return position > len(data)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    # One past the end says that the number itself is cut off.
    return value, len(data) + 1


def _check_texts(message: Any, where: str) -> None:
    """Refuse names that are no text; protobuf hands those out as bytes."""
    for field, content in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        single = isinstance(content, str | bytes) or hasattr(content, "ListFields")
        for item in (content,) if single else content:
            if field.type == field.TYPE_MESSAGE:
                _check_texts(item, where)
            elif isinstance(item, bytes):
                raise InputError(f"{where} is damaged: a name in it is no text; export it again")


def _check_outputs(graph: onnx.GraphProto, where: str) -> None:
    names = [output.name for output in graph.output]
    if not names:
        raise InputError(f"{where} has no output; export the model again")
    if len(set(names)) < len(names):
        raise InputError(f"{where} has two outputs of one name; export the model again")


def _check_splits(proto: onnx.ModelProto, where: str) -> None:
    """Refuse a Split into more parts than it has outputs, before shape inference counts them."""
    for node in (node for graph in _graphs(proto.graph) for node in graph.node):
        parts = [a.i for a in node.attribute if a.name == "num_outputs"]
        if node.op_type == "Split" and parts not in ([], [len(node.output)]):
            raise InputError(
                f"{where}: node '{node.name}' (Split) has {len(node.output)} outputs, and its "
                f"num_outputs is {parts[0]}; export the model again"
            )


def _check_opset(proto: onnx.ModelProto, where: str) -> None:
    versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    if not versions:
        raise InputError(f"{where} does not say which ONNX opset it uses; export it again")
    if len(set(versions)) > 1:
        told = " and ".join(str(version) for version in sorted(set(versions)))
        raise InputError(f"{where} uses ONNX opsets {told} at once; export it again")
    newest = onnx.defs.onnx_opset_version()
    if versions[0] < OLDEST_OPSET:
        raise InputError(
            f"{where} uses ONNX opset {versions[0]}, and {OLDEST_OPSET} is the oldest read here; "
            "export it with opset_version=17, or convert it with onnx.version_converter"
        )
    if versions[0] > newest:
        raise InputError(
            f"{where} uses ONNX opset {versions[0]}, newer than the {newest} that the installed "
            "onnx package knows; upgrade onnx, or export with an older opset_version"
        )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    nodes = [node for function in proto.functions for node in function.node]
    for graph in _graphs(proto.graph):
        yield from graph.initializer
        nodes.extend(graph.node)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _load_external_data(proto: onnx.ModelProto, where: str, folder: Path | None) -> None:
    for tensor in _tensors(proto):
        if not external_data_helper.uses_external_data(tensor):
            continue
        location = external_data_helper.ExternalDataInfo(tensor).location
        if folder is None:
            raise InputError(
                f"{where} keeps weight '{tensor.name}' in the external file '{location}'; "
                "give the model as the path of its file"
            )
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (OSError, ValueError, onnx.checker.ValidationError):
            raise InputError(
                f"{where} keeps weight '{tensor.name}' in the external file '{location}', which is "
                "missing beside it or too short; copy it there or export the model again"
            ) from None
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _inline(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    if not proto.functions:
        return proto
    try:
        return inliner.inline_local_functions(proto, convert_version=True)
    except Exception as error:
        raise InputError(
            f"{where}: its local functions cannot be inlined: {_first_line(error)}; "
            "export the model again"
        ) from None


def _check(proto: onnx.ModelProto, where: str) -> None:
    checked, has_all_shapes = _with_shapes(proto)
    try:
        try:
            onnx.checker.check_model(checked, full_check=has_all_shapes)
        except onnx.shape_inference.InferenceError:
            # Exporters leave contradictory intermediate shapes; every shape is derived anew here.
            onnx.checker.check_model(checked)
    except Exception as error:
        # The checker, protobuf and its C++ core each raise errors of their own.
        if "No Op registered" in str(error):
            # The importer lists every unknown operator, where the checker stops at the first.
            _check_known_nodes(proto, where)
            return
        raise InputError(
            f"{where} is no valid ONNX model: {_first_line(error)}; export it again"
        ) from None


def _check_known_nodes(proto: onnx.ModelProto, where: str) -> None:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = proto.ir_version
    context.opset_imports = {o.domain: o.version for o in proto.opset_import}
    for node in proto.graph.node:
        try:
            onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            if "No Op registered" not in str(error):
                raise InputError(
                    f"{where} is no valid ONNX model: {_first_line(error)}; export it again"
                ) from None
            _check_age(node, context.opset_imports.get(node.domain, 1), where)


def _check_age(node: onnx.NodeProto, version: int, where: str) -> None:
    """Refuse an operator that the model's opset does not have yet."""
    if not onnx.defs.has(node.op_type, node.domain):
        return
    first = onnx.defs.get_schema(node.op_type, node.domain).since_version
    if first > version:
        raise InputError(
            f"{where}: node '{node.name}' uses {node.op_type}, which ONNX opset {version} does not "
            f"have; export it with opset_version={first} or newer"
        )


def _with_shapes(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """A model for the checker, which insists on shapes that exporters leave out."""
    values = (*proto.graph.input, *proto.graph.output)
    if all(v.type.tensor_type.HasField("shape") for v in values if v.type.HasField("tensor_type")):
        return proto, True
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    return copy, False


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[0].split()) if lines else type(error).__name__
    return text.removesuffix(":").removesuffix(".")


def _check_weights(proto: onnx.ModelProto, where: str) -> None:
    if proto.graph.sparse_initializer:
        raise InputError(f"{where} stores weights sparsely; export it with dense initializers")
    bad = []
    for tensor in proto.graph.initializer:
        array = tensor_array(tensor, where)
        if array.dtype.kind not in "iubOSU" and not _all_finite(array):
            bad.append(f"'{tensor.name}'")
    if bad:
        raise InputError(
            f"{where} has weights that are NaN or infinite in {', '.join(bad)}; "
            "train the model again or mend them"
        )


def _all_finite(array: np.typing.NDArray[np.generic]) -> bool:
    with np.errstate(invalid="ignore"):
        values = array.astype(np.float64)
    # A lone infinity is a legitimate bound of a Clip; it is refused where it would be a weight.
    return not np.isnan(values).any() and (values.size == 1 or bool(np.isfinite(values).all()))


def tensor_array(tensor: onnx.TensorProto, where: str) -> np.typing.NDArray[np.generic]:
    """A tensor of the model as an array of its own type.

    Raises:
        InputError: its bytes do not make up its shape and type.
    """
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError):
        raise InputError(
            f"{where}: the bytes of weight '{tensor.name}' do not fit its shape and type; "
            "export the model again"
        ) from None
