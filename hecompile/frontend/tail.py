"""The end of a model: steps that move to the client, after decryption."""

from __future__ import annotations

from dataclasses import replace

from hecompile.errors import ProgramError
from hecompile.frontend.plan import HEADS
from hecompile.frontend.site import CONVERTERS, Emitter, Site, Tail
from hecompile.ir.movement_ops import Reshape, Slice
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder
from hecompile.ir.tensor_ops import ConstantTensor, Input, tensor_type
from hecompile.runtime.postprocess import Step, step


def convert_tail(site: Site) -> Tail | Value:
    """Convert a node that only the client needs to compute.

    A follower before any step of the client is an ordinary operation.
    """
    state = site.state(0)
    if site.node.op_type in HEADS:
        return _head(site, state if isinstance(state, Tail) else _start(site.value(0)))
    if isinstance(state, Tail):
        return _follow(site, state)
    return _single(site)


def _start(value: Value) -> Tail:
    return Tail(value, (), tensor_type(value).shape)


def _single(site: Site) -> Value:
    result = CONVERTERS[site.node.op_type](site)
    if not isinstance(result, Value):
        raise ProgramError(f"{site.node.op_type} has one result")
    return result


def _head(site: Site, tail: Tail) -> Tail:
    operator = site.node.op_type
    if operator == "Sigmoid":
        return _with(tail, step("sigmoid"), tail.shape)
    axis = site.axis(site.integer("axis", 0 if operator == "ArgMax" else -1), len(tail.shape))
    if operator != "ArgMax":
        name = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[operator]
        return _with(tail, step(name, axis=axis), tail.shape)
    if site.flag("select_last_index"):
        site.refuse("of equal maxima it chooses the last", "export it with select_last_index=0")
    keepdims = 1 if site.flag("keepdims", True) else 0
    kept = (1,) if keepdims else ()
    shape = (*tail.shape[:axis], *kept, *tail.shape[axis + 1 :])
    return _with(tail, step("argmax", axis=axis, keepdims=keepdims), shape)


def _with(tail: Tail, added: Step, shape: tuple[int, ...]) -> Tail:
    return Tail(tail.value, (*tail.post, str(added)), shape)


def _follow(site: Site, tail: Tail) -> Tail:
    rest = site.inputs[1:]
    if site.node.op_type == "Cast" and any(s.startswith("argmax") for s in tail.post):
        return tail
    if set(tail.post) == {"sigmoid"}:
        # Element by element, so the elements may as well be moved before decryption.
        moved = _single(site.with_inputs(tail.value, *rest))
        return Tail(moved, tail.post, tensor_type(moved).shape)
    # What the node would do to a tensor of this shape is what the client does.
    scratch = Emitter(Builder(name="scratch"))
    start = scratch.builder.emit(Input(label="tail", dims=tail.shape))
    result = _single(replace(site, inputs=(start, *rest), emitter=scratch))
    for op in scratch.builder.finish():
        if not isinstance(op, Input | ConstantTensor):
            tail = _with(tail, _as_step(site, op), tensor_type(op.defined).shape)
    if tail.shape != tensor_type(result).shape:
        site.refuse("the client cannot compute it", "end the model before it")
    return tail


def _as_step(site: Site, op: Operation) -> Step:
    if isinstance(op, Reshape):
        return step("reshape", dims=op.dims)
    if isinstance(op, Slice):
        return step("slice", axis=op.axis, start=op.start, stop=op.stop, step=op.step)
    site.refuse(
        f"what follows {site.node.op_type} at the end of the model reorders it",
        "end the model before it",
    )
