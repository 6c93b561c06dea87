"""Recurrent networks run encrypted with real keys, within the promised error of onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hecompile
from hecompile.access.signing import SigningKey
from hecompile.bundle.layout import CONSTANTS_FILE, PROGRAM_FILE
from hecompile.compiler import Compiled
from hecompile.config import CompileOptions
from hecompile.runtime.run import Server, run_parties
from tests.benchmarks.cases import MissingError, make_case
from tests.encrypted.compiled_models import Arrays, answers, run_encrypted, worst
from tests.encrypted.runtime_parties import Parties, make_parties

pytest.importorskip("torch", reason="the models are written in torch")

from tests.encrypted.recurrent_models import SMALL, small

# Bits of all primes for 128 bits of security and a ternary secret: the smaller of the standard's
# and eprint 2024/463's.
LARGEST_MODULUS = {4096: 106, 8192: 214, 16384: 430, 32768: 868}
MASK_BITS = 40


def normal(name: str, count: int, seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    return {
        label: random.standard_normal((count, *shape)).astype(np.float32)
        for label, shape in SMALL[name][1].items()
    }


@cache
def compiled_small(name: str, batch: int = 1) -> Compiled:
    # One ring, so that the search for parameters takes seconds.
    options = CompileOptions(ring=8192, batch=batch)
    return hecompile.compile(small(name), calibration=normal(name, 200, seed=7), options=options)


@cache
def parties_of(name: str, batch: int = 1) -> Parties:
    compiled = compiled_small(name, batch)
    return make_parties(compiled.program, spec=compiled.spec)


def check(
    compiled: Compiled, inputs: Arrays, raw: Mapping[str, np.ndarray], expected: Arrays
) -> None:
    """Encrypted outputs are near onnxruntime's, nearer to the polynomials', and 128 bits secure."""
    report = compiled.report
    found = dict(raw)
    assert worst(found, expected) <= report.predicted_error
    # A bound that the outputs themselves are within would say nothing.
    assert max(float(np.abs(y).max()) for y in expected.values()) > 5 * report.predicted_error
    exact = compiled.simulate({label: array[:, None] for label, array in inputs.items()})
    exact = {label: array.reshape(found[label].shape) for label, array in exact.items()}
    assert 0 < worst(found, exact) <= report.noise_error
    parameters = report.parameters
    assert parameters.security_bits == 128
    assert sum(parameters.coeff_modulus_bits) <= LARGEST_MODULUS[parameters.poly_modulus_degree]
    assert report.mask_bits == (MASK_BITS if report.estimate.refreshes else 0)


@pytest.mark.parametrize("name", SMALL)
def test_small_networks(name: str) -> None:
    compiled, inputs = compiled_small(name), normal(name, 2, seed=1)
    assert compiled.report.estimate.refreshes > 0
    raw = run_encrypted(parties_of(name), inputs).raw
    check(compiled, inputs, raw, answers(small(name), inputs))


def test_a_batch_of_sequences_shares_every_round() -> None:
    compiled, inputs = compiled_small("LSTM", batch=3), normal("LSTM", 3, seed=1)
    assert compiled.report.estimate.refreshes > 0
    parties = parties_of("LSTM", batch=3)
    assert len(parties.client.encrypt(inputs)) == 1
    raw = run_encrypted(parties, inputs).raw
    check(compiled, inputs, raw, answers(small("LSTM"), inputs))


def test_a_sequence_goes_on_from_decrypted_states() -> None:
    name = "states go in and out"
    compiled, parties = compiled_small(name), parties_of(name)
    labels = [entry.label for entry in compiled.spec.outputs]
    before = run_encrypted(parties, normal(name, 1, seed=1)).raw
    states = {state: before[label] for state, label in zip("hc", labels[1:], strict=True)}
    inputs = normal(name, 1, seed=2) | {s: a.astype(np.float32) for s, a in states.items()}
    raw = run_encrypted(parties, inputs).raw
    assert worst(raw, answers(small(name), inputs)) <= compiled.predicted_error


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RNN-12", {}),
        ("GRU-12", {}),
        ("BiLSTM-24", {}),
        ("CNNLSTM-8", {}),
        ("CNNLSTM-32", {}),
        ("CNNLSTM-4", {"refresh": "never"}),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value,
)
def test_long_networks(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    try:
        case = make_case(name, tmp_path, 2)
    except MissingError as error:
        pytest.skip(f"{name}: {error}")
    compiled = hecompile.compile(
        case.model,
        calibration={"x": case.calibration},
        options=CompileOptions(degree=3, **options),
    )
    compiled.save(tmp_path / "bundle", signing_key=SigningKey.generate())
    files = ((tmp_path / "bundle" / file).read_bytes() for file in (PROGRAM_FILE, CONSTANTS_FILE))
    samples = case.samples[:1] if options else case.samples
    result = run_parties(Server(*files), compiled.spec, {"x": samples})
    assert result.refresh_rounds == len(samples) * compiled.report.estimate.refreshes
    assert (result.refresh_rounds == 0) == (options.get("refresh") == "never")
    (label,) = result.raw_outputs
    check(compiled, {"x": samples}, result.raw_outputs, {label: case.expected(samples)})
