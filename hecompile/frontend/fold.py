"""Folding of constant subgraphs, by the reference evaluator of ONNX, one node at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from hecompile.frontend.refusals import RANDOM
from hecompile.frontend.site import AnyArray, Clear, RefusalError, Site


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
