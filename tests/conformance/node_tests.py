"""The ONNX standard's own node tests, run through import, tensor passes and tensor interpreter.

A node test is a model of one operator (or of the operators that its definition expands into) with
inputs and expected outputs. Which inputs are secret is not part of it, so each choice is tried:
all real-valued inputs, and each of them alone, the others being weights. A test is passed if some
choice can be compiled and every choice that can be compiled gives the expected outputs; it does
not apply if none can be, for the reason that is given.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.backend.test.case import node as node_cases

from hecompile.errors import InputError, UnsupportedError
from hecompile.frontend import import_onnx
from hecompile.frontend.load import OLDEST_OPSET
from hecompile.frontend.plan import HEADS
from hecompile.frontend.site import CONVERTERS
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Output
from hecompile.passbase import Context
from hecompile.pipeline import parse_pipeline
from hecompile.runtime.postprocess import post_process

AnyArray = npt.NDArray[Any]
Secret = tuple[str, ...]
"""Names of the inputs that are encrypted; the others are weights."""

OPERATORS = frozenset(CONVERTERS) | HEADS
"""Operators that can be computed, encrypted or by the client."""

PASSES = "normalise,fold-constants,fold-batchnorm,unroll-recurrent,normalise,cse,dce"
_BFLOAT16 = np.dtype(helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16))
_FLOATS = {
    np.dtype(np.float64): 1e-7,
    np.dtype(np.float32): 1e-5,
    np.dtype(np.float16): 4e-3,
    _BFLOAT16: 2e-2,
}
"""Rounding of the expected outputs, relative where they exceed 1, by the types involved."""

_FEW_DIGITS = {"averagepool_2d_ceil_last_window_starts_on_pad": 1e-4}
"""Tests whose expected outputs are written down with four digits."""

_LONG = ("lppool", "maxpool")
"""Modules that take seconds to make tests of operators that are not in `OPERATORS`."""


@dataclass(frozen=True)
class NodeTest:
    """One node test of the standard.

    Attributes:
        name: its name there.
        operator: the operator under test.
        model: the model.
        inputs: by name; what is no array is left as it is.
        outputs: the expected outputs, by name.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: dict[str, Any]
    outputs: dict[str, Any]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Outcome:
    """What became of a node test.

    Attributes:
        test: the test.
        passed: how many choices of secret inputs gave the expected outputs.
        wrong: what differed, by the names of the secret inputs.
        reason: why it does not apply; empty if it does.
    """

    test: NodeTest
    passed: int
    wrong: tuple[str, ...] = ()
    reason: str = ""

    @property
    def applies(self) -> bool:
        """Whether some choice of secret inputs can be compiled."""
        return not self.reason


@cache
def node_tests(everything: bool = False) -> tuple[NodeTest, ...]:
    """Node tests of the installed onnx package for the standard's default domain.

    Args:
        everything: also the tests of operators that are not in `OPERATORS`.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for info in pkgutil.iter_modules(node_cases.__path__):
            if everything or info.name not in _LONG:
                importlib.import_module(f"{node_cases.__name__}.{info.name}")
    cases = {case.name: case for case in node_cases._NodeTestCases}
    found = []
    for name, case in sorted(cases.items()):
        plain = cases.get(re.sub(r"_expanded(_ver\d+)?$", "", name), case)
        (inputs, outputs), *_ = case.data_sets
        graph = case.model.graph
        node = plain.model.graph.node[0]
        listed = everything or node.op_type in OPERATORS
        if node.domain not in ("", "ai.onnx") or not listed:
            continue
        found.append(
            NodeTest(
                name.removeprefix("test_"),
                node.op_type,
                case.model,
                dict(zip([i.name for i in graph.input], map(_array, inputs), strict=True)),
                dict(zip([o.name for o in graph.output], map(_array, outputs), strict=True)),
            )
        )
    return tuple(found)


def _array(content: Any) -> Any:
    return numpy_helper.to_array(content) if isinstance(content, onnx.TensorProto) else content


def judge(test: NodeTest) -> Outcome:
    """Run a node test with every choice of secret inputs through the tensor interpreter."""
    if not test.inputs:
        return Outcome(test, 0, reason="no input, so nothing to encrypt")
    if not all(isinstance(array, np.ndarray | np.generic) for array in test.inputs.values()):
        return Outcome(test, 0, reason="inputs that are no tensors")
    possible = list(choices(test))
    if not possible:
        return Outcome(test, 0, reason="no real numbers among its inputs")
    passed, wrong, reasons = 0, [], []
    for secret in possible:
        try:
            difference = _difference(test, import_onnx(with_weights(test, secret)), secret)
        except (UnsupportedError, InputError) as error:
            reasons.append(_reason(error))
            continue
        if difference:
            wrong.append(f"{' and '.join(secret)} secret: {difference}")
        else:
            passed += 1
    # The choice of one secret comes last; it says best what the operator itself is refused for.
    reason = "" if passed or wrong else reasons[-1] if len(reasons) < 2 else reasons[1]
    return Outcome(test, passed, tuple(wrong), reason)


def choices(test: NodeTest) -> Iterator[Secret]:
    """Names of the inputs that may be secret: all of real numbers, then each of them alone."""
    arrays = test.inputs.items()
    real = tuple(name for name, array in arrays if array.dtype in _FLOATS and array.size)
    if real:
        yield real
    if len(real) > 1:
        yield from ((name,) for name in real)


def with_weights(test: NodeTest, secret: Secret) -> onnx.ModelProto:
    """The test's model with all inputs but the secret ones as weights."""
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    for info in test.model.graph.input:
        if info.name not in secret:
            array = np.asarray(test.inputs[info.name])
            model.graph.initializer.append(numpy_helper.from_array(array, info.name))
    kept = [info for info in model.graph.input if info.name in secret]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for opset in model.opset_import:
        older = opset.domain in ("", "ai.onnx") and opset.version < OLDEST_OPSET
        if older and _is_same(model, opset.version):
            opset.version = OLDEST_OPSET
    return model


def _is_same(model: onnx.ModelProto, version: int) -> bool:
    """Whether the operators of an opset mean the same in the oldest opset that is read."""
    schemas = [onnx.defs.get_schema(node.op_type, OLDEST_OPSET) for node in model.graph.node]
    return all(schema.since_version <= version for schema in schemas)


def _difference(test: NodeTest, program: Program, secret: Secret) -> str:
    """What is wrong with the outputs of a compiled test; empty if nothing is."""
    simple = parse_pipeline(PASSES).run(program, Context())
    raw = run_tensor(simple, {name: double(test.inputs[name])[None] for name in secret})
    return compare(test, simple, raw)


def compare(test: NodeTest, program: Program, raw: Mapping[str, AnyArray], room: float = 0) -> str:
    """What is wrong with raw outputs (1, ...) of a test's program; empty if nothing is.

    Args:
        test: knows the expected outputs.
        program: a tensor program with the test's outputs.
        raw: by label.
        room: what the outputs may be off, beside rounding.
    """
    arrays = [*test.inputs.values(), *test.outputs.values()]
    rounding = max(_FLOATS.get(np.asarray(a).dtype, 0.0) for a in arrays)
    rounding = _FEW_DIGITS.get(test.name, rounding)
    for op in program.select(Output):
        found, expected = post_process(op.post, raw[op.label])[0], test.outputs[op.label]
        if found.shape != np.shape(expected):
            return f"{op.label} has shape {found.shape}, not {np.shape(expected)}"
        exact = double(expected)
        allowed = room + rounding * np.maximum(1.0, np.abs(exact))
        with np.errstate(invalid="ignore"):
            off = np.abs(found - exact)
        if not np.all((off <= allowed) | (found == exact)):
            return f"{op.label} is off by {np.nanmax(off):.2g}"
    return ""


def double(array: Any) -> AnyArray:
    """The same numbers in float64, whatever their type."""
    return np.asarray(array).astype(np.float64)


def _reason(error: Exception) -> str:
    """The essence of a refusal, the same for every test that is refused for it."""
    text = str(error).splitlines()[-1].strip()
    refused = re.match(r"node '[^']*' \((\w+)\): (.*?)(; remedy: .*)?$", text)
    text = refused[2] if refused else text
    if "is not finite" in text:
        return "inputs that are not finite"
    if "is a scalar; give it a batch axis" in text:
        return "a scalar input"
    return re.sub(r"^the model:? |node '[^']*' \(\w+\): |; .*", "", text)
