"""Recurrent operators of every form: imported and unrolled, they mean what onnxruntime computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.frontend import import_onnx
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.parser import parse
from hecompile.ir.printer import print_program
from hecompile.ir.program import Program
from hecompile.ir.recurrent_ops import Recurrent
from hecompile.passbase import Context
from hecompile.pipeline import parse_pipeline
from tests.differential.onnx_cases import compare, interpret, run_onnxruntime, samples
from tests.differential.recurrent_cases import FUNCTIONS, GATES, NAMES, Form

UNROLL = "normalise,fold-constants,unroll-recurrent,normalise,cse,dce"
STATES = st.sampled_from(["none", "zero", "constant", "secret"])


@st.composite
def forms(draw: st.DrawFn) -> Form:
    """Any form of any of the operators."""
    kind = draw(st.sampled_from(sorted(GATES)))
    outputs = ("Y", "Y_h", "Y_c") if kind == "LSTM" else ("Y", "Y_h")
    functions = st.tuples(*[st.sampled_from(NAMES)] * FUNCTIONS[kind])
    return Form(
        kind=kind,
        direction=draw(st.sampled_from(["forward", "reverse", "bidirectional"])),
        steps=draw(st.integers(1, 4)),
        batch=draw(st.integers(1, 2)),
        bias=draw(st.booleans()),
        h0=draw(STATES),
        c0=draw(STATES),
        lengths=draw(st.booleans()),
        peepholes=draw(st.booleans()),
        clip=draw(st.sampled_from([0.0, 0.0, 0.7])),
        input_forget=draw(st.booleans()),
        linear_before_reset=draw(st.booleans()),
        activations=draw(functions) if draw(st.booleans()) else (),
        outputs=tuple(draw(st.sets(st.sampled_from(outputs), min_size=1))),
        features=draw(st.integers(1, 3)),
        hidden=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 9)),
    )


def unrolled(program: Program) -> Program:
    """A program without recurrent operations."""
    result = parse_pipeline(UNROLL).run(program, Context())
    assert not result.select(Recurrent)
    return result


@settings(max_examples=150, deadline=None)
@given(forms())
def test_any_form(form: Form) -> None:
    model = form.model()
    program = import_onnx(model)
    assert parse(print_program(program, inline_elements=1000)) == program
    inputs = samples(program)
    exact = run_tensor(program, inputs)
    compare(interpret(program, inputs), run_onnxruntime(model, inputs))
    for name, array in run_tensor(unrolled(program), inputs).items():
        np.testing.assert_allclose(array, exact[name], rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_batch_first_is_the_transposed_one(kind: str, direction: str) -> None:
    # onnxruntime has no batch-first layers.
    form = Form(kind, direction, batch=2, h0="secret", c0="secret", outputs=("Y", "Y_h", "Y_c"))
    plain, swapped = (import_onnx(replace(form, layout=i).model()) for i in (0, 1))
    inputs = samples(plain)
    other = {name: array.swapaxes(1, 2) for name, array in inputs.items()}
    expected, found = run_tensor(plain, inputs), run_tensor(unrolled(swapped), other)
    for name, array in expected.items():
        order = (0, 3, 1, 2, 4) if name == "Y" else (0, 2, 1, 3)
        np.testing.assert_allclose(found[name], array.transpose(order), atol=1e-12)
