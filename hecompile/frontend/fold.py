"""Folding of constant subgraphs, by the reference evaluator of ONNX, one node at a time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from hecompile.frontend.refusals import RANDOM
from hecompile.frontend.site import AnyArray, Clear, RefusalError, Site, State
from hecompile.ir.operation import Value
from hecompile.ir.tensor_ops import tensor_type

MOST_CONSTANTS = 1 << 26
"""Elements of the largest constant that is computed."""

_SHORT = 64
"""Elements of a tensor whose contents may decide on the shape of a result."""


def is_foldable(site: Site) -> bool:
    """Whether every input is known at compile time and the operator is deterministic."""
    known = all(state is None or isinstance(state, Clear) for state in site.inputs)
    return known and site.node.op_type not in RANDOM and not has_subgraph(site.node)


def has_subgraph(node: onnx.NodeProto) -> bool:
    """Whether the node holds a graph, as If and Loop do."""
    return any(a.HasField("g") or a.graphs for a in node.attribute)


def fold(site: Site, opsets: Sequence[onnx.OperatorSetIdProto]) -> tuple[Clear | None, ...]:
    """Compute a constant node.

    Raises:
        RefusalError: the evaluator does not know the operator, or it fails on these inputs.
    """
    feeds: dict[str, AnyArray] = {}
    for name, state in zip(site.node.input, site.inputs, strict=True):
        if isinstance(state, Clear):
            feeds[name] = state.array
    _check_indices(site)
    _check_size(site, opsets)
    outputs = [name for name in site.node.output if name]
    graph = helper.make_graph(
        [site.node],
        "constant",
        [onnx.ValueInfoProto(name=name) for name in feeds],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=list(opsets))
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:
        raise RefusalError(
            f"this constant cannot be computed at compile time ({type(error).__name__})",
            "export the model with constant folding, or store the result as a weight",
        ) from error
    found = dict(zip(outputs, results or (), strict=True))
    if not all(isinstance(array, np.ndarray | np.generic) for array in found.values()):
        raise RefusalError("its result is no tensor", "export the model without sequences")
    return tuple(
        Clear(name, np.asarray(found[name])) if name else None for name in site.node.output
    )


def _check_indices(site: Site) -> None:
    """Refuse indices that the evaluator would wrap around or clip.

    Source: ONNX operators GatherElements and ReverseSequence.
    """
    kind = site.node.op_type
    if kind not in ("GatherElements", "ReverseSequence") or site.node.domain not in ("", "ai.onnx"):
        return
    shape, places = site.shape(0), np.asarray(site.constant(1, "indices"))
    if kind == "GatherElements":
        extent = shape[site.axis(site.integer("axis", 0), len(shape))]
        fits = places.size == 0 or -extent <= places.min() <= places.max() < extent
    else:
        extent = shape[site.axis(site.integer("time_axis", 0), len(shape))]
        fits = places.size == 0 or 0 <= places.min() <= places.max() <= extent
    if not fits:
        site.invalid(f"its indices leave the {extent} entries of its axis")


def _check_size(site: Site, opsets: Sequence[onnx.OperatorSetIdProto]) -> None:
    """Refuse a result that would take too much memory, where its shape can be told before."""
    for _, shape in result_types(site.node, site.inputs, opsets).values():
        if math.prod(shape) > MOST_CONSTANTS:
            site.invalid(
                f"its constant result of shape {shape} has more than the {MOST_CONSTANTS} elements "
                "that are supported"
            )


def result_types(
    node: onnx.NodeProto, states: Sequence[State | None], opsets: Sequence[onnx.OperatorSetIdProto]
) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Element type and shape of each of a node's results, by name, without computing them.

    A shape has 0 for an extent that cannot be told. Empty where nothing can be told.
    """
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    try:
        for name, state in zip(node.input, states, strict=True):
            if isinstance(state, Clear):
                kind = helper.np_dtype_to_tensor_dtype(state.array.dtype)
                types[name] = helper.make_tensor_type_proto(kind, state.array.shape)
                if state.array.size <= _SHORT:
                    data[name] = numpy_helper.from_array(state.array)
            elif isinstance(state, Value):
                shape = tensor_type(state).shape
                types[name] = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, shape)
            elif state is not None:
                return {}
        version = next(o.version for o in opsets if o.domain == node.domain)
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        found = shape_inference.infer_node_outputs(
            schema, node, types, data, opset_imports=list(opsets)
        )
    except Exception:
        # Not every operator has an inference, and what contradicts itself is told elsewhere.
        return {}
    tensors = {name: kind.tensor_type for name, kind in found.items()}
    return {
        name: (tensor.elem_type, tuple(d.dim_value for d in tensor.shape.dim))
        for name, tensor in tensors.items()
        if tensor.HasField("shape")
    }


def shape_of(site: Site) -> AnyArray | None:
    """The result of Shape or Size, static whatever the tensor holds; None for other operators."""
    if site.node.op_type == "Shape" and site.node.domain in ("", "ai.onnx"):
        shape = site.shape(0)
        end = site.attribute("end", None)
        cut = shape[site.integer("start", 0) : len(shape) if end is None else int(end)]
        return np.array(cut, dtype=np.int64)
    if site.node.op_type == "Size" and site.node.domain in ("", "ai.onnx"):
        return np.array(np.prod(site.shape(0), dtype=np.int64))
    return None
