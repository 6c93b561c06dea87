"""From a checked ONNX graph of static shapes to a tensor program, node by node."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from hecompile.errors import InputError, ProgramError

# The families register their converters when they are imported.
from hecompile.frontend import elementwise, linear, movement, recurrent, windows  # noqa: F401
from hecompile.frontend.fold import fold, has_subgraph, is_foldable, result_types, shape_of
from hecompile.frontend.load import Loaded, tensor_array
from hecompile.frontend.patterns import simplify
from hecompile.frontend.plan import Plan, plan, reads
from hecompile.frontend.refusals import Refusal, reason, unsupported
from hecompile.frontend.signature import StaticInput, specialise
from hecompile.frontend.site import (
    CONVERTERS,
    Clear,
    Emitter,
    Lost,
    RefusalError,
    Result,
    Site,
    State,
    Tail,
    identifier,
)
from hecompile.frontend.tail import convert_tail
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import Input, Output
from hecompile.ir.verifier import verify

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def import_graph(loaded: Loaded, inputs: tuple[StaticInput, ...]) -> Program:
    """Convert a model for these input shapes.

    Raises:
        UnsupportedError: nodes without an encrypted counterpart, all of them listed.
        InputError: the model contradicts itself, or an output depends on no input.
    """
    importer = _Importer(loaded, inputs)
    for index, node in importer.plan.live:
        importer.convert(node, is_tail=index in importer.plan.tails)
    return importer.finish()


class _Importer:
    """The state of one conversion: what is known of each tensor, and what was refused."""

    def __init__(self, loaded: Loaded, inputs: tuple[StaticInput, ...]) -> None:
        self._loaded = loaded
        self._proto = specialise(loaded, inputs)
        simplify(self._proto.graph)
        self.plan: Plan = plan(self._proto.graph)
        self._used = set(self.plan.used)
        self._builder = Builder(name=loaded.name)
        self._emitter = Emitter(self._builder, tuple(self._proto.opset_import))
        self._states: dict[str, State] = {}
        self._refusals: list[Refusal] = []
        self._weights = {t.name: t for t in self._proto.graph.initializer}
        self._declared = {v.name: v.type.tensor_type for v in self._proto.graph.value_info}
        self._declared |= {v.name: v.type.tensor_type for v in self._proto.graph.output}
        for static in inputs:
            op = Input(label=static.name, dims=static.shape, location=static.name)
            self._states[static.name] = self._builder.emit(op, identifier(static.name))

    def finish(self) -> Program:
        """Append the outputs and verify the program."""
        if self._refusals:
            raise unsupported(self._loaded.where, self._refusals)
        for output in self._proto.graph.output:
            state = self._states.get(output.name)
            if isinstance(state, Tail):
                op = Output(x=state.value, label=output.name, post=state.post)
            elif isinstance(state, Value):
                op = Output(x=state, label=output.name)
            else:
                raise InputError(
                    f"{self._loaded.where}: output '{output.name}' does not depend on any input, "
                    "so it is known before encryption; export the model without it"
                )
            self._builder.keep(op)
        program = self._builder.finish()
        verify(program)
        return program

    def convert(self, node: onnx.NodeProto, is_tail: bool = False) -> None:
        """Convert one node and note what is known of its outputs."""
        location = node.name or f"{node.op_type}:{next((n for n in node.output if n), '')}"
        try:
            inputs = tuple(self._state(name) if name else None for name in node.input)
            wanted = tuple(name in self._used for name in node.output)
            result = self._dispatch(Site(node, inputs, self._emitter, wanted, location), is_tail)
        except RefusalError as refused:
            self._refusals.append(Refusal(location, node.op_type, refused.why, refused.remedy))
            types = result_types(node, inputs, self._emitter.opsets)
            result = tuple(self._placeholder(name, types.get(name)) for name in node.output)
        except (ProgramError, InputError, ValueError) as error:
            if not self._refusals:
                told = (
                    str(error)
                    if isinstance(error, InputError)
                    else (f"node '{location}' ({node.op_type}) does not fit its inputs: {error}")
                )
                raise InputError(f"{self._loaded.where}: {told}") from None
            # It may not fit only because of what stands in for a refused node.
            result = tuple(Lost() for _ in node.output)
        states = result if isinstance(result, tuple) else (result,)
        for name, state in zip(node.output, states, strict=False):
            if name and state is not None:
                self._states[name] = state

    def _dispatch(self, site: Site, is_tail: bool) -> Result:
        node = site.node
        standard = node.domain in ("", "ai.onnx")
        convertible = standard and node.op_type in CONVERTERS
        if any(isinstance(state, Lost) for state in site.inputs):
            static = standard and node.op_type in ("Shape", "Size", "ConstantOfShape", "Range")
            if not (convertible or is_tail or static):
                site.refuse(*reason(node.op_type, node.domain))
            return tuple(Lost() for _ in node.output)
        if standard and node.op_type == "If" and site.is_clear(0):
            return self._branch(site)
        static_result = shape_of(site)
        if static_result is not None:
            return Clear(node.output[0], static_result)
        if is_foldable(site):
            return fold(site, self._emitter.opsets)
        if is_tail:
            return convert_tail(site)
        if not convertible or has_subgraph(node):
            site.refuse(*reason(node.op_type, node.domain))
        return CONVERTERS[node.op_type](site)

    def _branch(self, site: Site) -> Result:
        """Convert the branch of an If that its constant condition chooses."""
        taken = "then_branch" if site.constant(0, "condition").any() else "else_branch"
        graph: onnx.GraphProto = site.attribute(taken, None)
        self._weights |= {t.name: t for t in graph.initializer}
        self._used |= {name for node in graph.node for name in reads(node)}
        self._used |= {output.name for output in graph.output}
        for node in graph.node:
            self.convert(node)
        return tuple(self._state(output.name) for output in graph.output)

    def _state(self, name: str) -> State:
        if name not in self._states:
            if name not in self._weights:
                raise InputError(f"nothing defines tensor '{name}' before it is read")
            array = tensor_array(self._weights[name], self._loaded.where)
            self._states[name] = Clear(name, np.asarray(array))
        return self._states[name]

    def _placeholder(self, name: str, known: tuple[int, tuple[int, ...]] | None) -> State:
        """A stand-in for the result of a refused node, so that the rest can be examined."""
        declared = self._declared.get(name)
        if known is None and declared is not None and declared.HasField("shape"):
            known = declared.elem_type, tuple(d.dim_value for d in declared.shape.dim)
        if known is None or known[0] not in _FLOATS or not all(e > 0 for e in known[1]):
            return Lost()
        return self._builder.emit(Input(label=name, dims=known[1]))
