"""Damaged ONNX files are refused in a sentence, or mean what onnxruntime says they mean."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from onnx import printer

from hecompile.errors import HecompileError
from hecompile.frontend import import_onnx
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Input, Output
from hecompile.runtime.postprocess import post_process
from tests.differential.damage import damage_fields, damaged_bytes, within
from tests.differential.random_models import random_model

SECONDS = 20.0
"""CPU time that one example may take; nearly all take milliseconds."""

LONGEST = 4000
"""Characters of a refusal; one that lists nodes has a line for each."""

_TYPES = {"tensor(float16)": np.float16, "tensor(double)": np.float64}


def examples(count: int, number: int) -> settings:
    return settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )


def damaged_model(number: int) -> bytes:
    """A random model with damage to its bytes or to its fields."""
    random = np.random.default_rng(number)
    proto = random_model(int(random.integers(2**32)), int(random.integers(1, 5))).proto
    if random.random() < 0.3:
        return damaged_bytes(proto.SerializeToString(), random)
    for _ in range(int(random.integers(1, 3))):
        damage_fields(proto, random)
    return bytes(proto.SerializeToString())


def outcome(data: bytes) -> str:
    """What becomes of the bytes of a model; an assertion fails if that is not allowed."""
    try:
        program = import_onnx(data)
    except HecompileError as error:
        told = str(error)
        assert told
        assert "Traceback" not in told
        assert len(told) < LONGEST, told
        return "refused"
    random = np.random.default_rng(0)
    samples = {
        op.label: random.uniform(-1, 1, (2, *op.dims)).astype(np.float32)
        for op in program.select(Input)
    }
    try:
        expected = _answers(data, samples)
    except Exception:
        # onnxruntime raises many kinds of errors; what it does not run it cannot judge.
        return "not judged"
    _compare(program, samples, expected)
    return "right"


def _answers(data: bytes, samples: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    types = {i.name: _TYPES.get(i.type, np.float32) for i in session.get_inputs()}
    feeds = [{n: a[i].astype(types[n]) for n, a in samples.items()} for i in range(2)]
    return [dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds]


def _compare(
    program: Program, samples: dict[str, np.ndarray], expected: list[dict[str, np.ndarray]]
) -> None:
    raw = run_tensor(program, samples)
    for op in program.select(Output):
        wanted = np.stack([run[op.label] for run in expected]).astype(np.float64)
        with np.errstate(all="ignore"):
            found = post_process(op.post, raw[op.label])
            near = np.isclose(found, wanted, rtol=1e-3, atol=1e-4)
        assert found.shape == wanted.shape, op.label
        # Past the reach of float32 there is nothing to compare.
        tame = np.abs(wanted) < 1e30
        assert np.all(near | ~tame), op.label


def check_many(count: int, number: int) -> Counter[str]:
    found: Counter[str] = Counter()

    @seed(number)
    @examples(count, number)
    @given(st.integers(0, 2**32 - 1))
    def check(choice: int) -> None:
        data = damaged_model(choice)
        try:
            with within(SECONDS):
                found[outcome(data)] += 1
        except Exception as error:
            error.add_note(_text(data))
            raise

    check()
    print(dict(found))
    return found


def _text(data: bytes) -> str:
    try:
        return printer.to_text(onnx.load_model_from_string(data))[:3000]
    except Exception:
        return data[:1000].hex()


def test_damaged_models() -> None:
    found = check_many(600, 0)
    assert found["refused"] >= 100
    assert found["right"] >= 50
    assert found["not judged"] <= 30


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 11))
def test_many_damaged_models(number: int) -> None:
    check_many(2000, number)
