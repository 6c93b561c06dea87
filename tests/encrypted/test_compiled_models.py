"""Small models run encrypted: batches, several inputs and outputs, the client's part."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import hecompile
from hecompile.compiler import Compiled
from hecompile.config import CompileOptions
from hecompile.preprocess import CapOutliers, MeanImpute, Standardise, apply_steps
from tests.encrypted.compiled_models import (
    Arrays,
    answers,
    compile_tiny,
    run_encrypted,
    samples,
    small_lstm,
    square_mlp,
    two_in_two_out,
    worst,
)
from tests.encrypted.runtime_parties import make_parties


def check(model: onnx.ModelProto, compiled: Compiled, inputs: Arrays) -> None:
    """Encrypted results on unseen samples are within the promised bound."""
    parties = make_parties(compiled.program, spec=compiled.spec)
    expected = answers(model, inputs)
    raw = run_encrypted(parties, inputs).raw
    assert worst(raw, expected) <= compiled.predicted_error
    assert max(float(np.abs(y).max()) for y in expected.values()) > 10 * compiled.predicted_error


def test_squares() -> None:
    model = square_mlp()
    compiled = compile_tiny(model)
    assert compiled.report.estimate.refreshes == 0
    assert compiled.report.approximation_error < 1e-12
    check(model, compiled, samples(model, 4))


def test_recurrent_steps() -> None:
    model = small_lstm()
    compiled = compile_tiny(model)
    assert {f for fit in compiled.report.fits for f in fit.functions} == {"sigmoid", "tanh"}
    check(model, compiled, samples(model, 2))


def test_several_inputs_and_outputs() -> None:
    model = two_in_two_out()
    compiled = compile_tiny(model)
    assert [entry.label for entry in compiled.spec.inputs] == ["left", "right"]
    assert [entry.label for entry in compiled.spec.outputs] == ["sum", "product"]
    check(model, compiled, samples(model, 3))


@pytest.mark.parametrize("batch", [3, 4])
def test_a_batch_in_one_ciphertext_equals_its_samples_one_by_one(batch: int) -> None:
    model = two_in_two_out()
    packed = compile_tiny(model, options=CompileOptions(batch=batch))
    single = compile_tiny(model)
    inputs = samples(model, batch + 2)
    parties = make_parties(packed.program, spec=packed.spec)
    # The last ciphertext is not full.
    assert len(parties.client.encrypt(inputs)) == 2
    together = run_encrypted(parties, inputs).raw
    one_by_one = run_encrypted(make_parties(single.program), inputs).raw
    bound = packed.report.noise_error + single.report.noise_error
    assert worst(together, one_by_one) <= bound
    assert worst(together, answers(model, inputs)) <= packed.predicted_error


def test_a_batch_of_sequences() -> None:
    model = small_lstm(steps=2)
    compiled = compile_tiny(model, options=CompileOptions(batch=4))
    check(model, compiled, samples(model, 4))


@pytest.mark.parametrize("post", ["Softmax", "LogSoftmax", "ArgMax"])
def test_the_last_node_is_the_clients(post: str) -> None:
    model = square_mlp(post)
    compiled = compile_tiny(model)
    inputs = samples(model, 5)
    found = run_encrypted(make_parties(compiled.program, spec=compiled.spec), inputs)
    logits = answers(square_mlp(), inputs)["d1"]
    assert np.abs(found.raw["y"] - logits).max() <= compiled.predicted_error
    expected = answers(model, inputs)["y"]
    assert found.outputs["y"].shape == expected.shape
    assert np.abs(found.outputs["y"] - expected).max() <= 2 * compiled.predicted_error


def test_preprocessing_travels_with_the_client() -> None:
    model = square_mlp()
    random = np.random.default_rng(5)
    raw = random.normal(3.0, 10.0, (200, 8)).astype(np.float32)
    steps = (
        MeanImpute.fit(raw),
        CapOutliers.fit(raw, 2.0),
        Standardise.fit(raw),
    )
    raw[::7, 3] = np.nan
    compiled = hecompile.compile(model, calibration={"x": raw}, preprocessing={"x": steps})
    fresh = random.normal(3.0, 10.0, (3, 8)).astype(np.float32)
    fresh[0, 0], fresh[1, 2] = np.nan, 1e6
    found = run_encrypted(make_parties(compiled.program, spec=compiled.spec), {"x": fresh})
    prepared = apply_steps(steps, fresh).astype(np.float32)
    assert np.isfinite(prepared).all()
    assert np.abs(prepared).max() <= 2.1
    assert worst(found.raw, answers(model, {"x": prepared})) <= compiled.predicted_error
