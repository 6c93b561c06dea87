"""What the key holder is told of decrypted outputs outside the ranges seen in calibration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hecompile.compiler import Compiled
from hecompile.config import CompileOptions
from hecompile.runtime.client import RangeWarning
from hecompile.runtime.custodian import OutputWarning
from tests.encrypted.compiled_models import (
    Arrays,
    answers,
    compile_tiny,
    samples,
    square_mlp,
    two_in_two_out,
)
from tests.encrypted.runtime_parties import Parties, make_parties

MODEL = square_mlp()


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_tiny(MODEL)


@pytest.fixture(scope="module")
def parties(compiled: Compiled) -> Parties:
    return make_parties(compiled.program, spec=compiled.spec)


def evaluate(parties: Parties, inputs: Arrays, heard: list[RangeWarning]) -> list[bytes]:
    """Output envelopes; what the client warns of goes to `heard`."""
    found = []
    for envelope in parties.client.encrypt(inputs, heard.append):
        evaluation = parties.evaluator.start(envelope)
        assert evaluation.advance() is None
        found.append(evaluation.output())
    return found


def corner() -> np.ndarray:
    """The corner of the box of the calibration samples with the largest output."""
    seen = samples(MODEL, 200, seed=7)["x"]
    sides = zip(seen.min(axis=0), seen.max(axis=0), strict=True)
    corners = np.array(list(itertools.product(*sides)), dtype=np.float32)
    largest = np.abs(answers(MODEL, {"x": corners})["d1"]).max(axis=1)
    return np.asarray(corners[int(np.argmax(largest))])


def test_a_corner_that_the_client_accepts_is_told_by_its_output(parties: Parties) -> None:
    x = samples(MODEL, 3)["x"]
    x[2] = corner()
    inputs: list[RangeWarning] = []
    envelopes = evaluate(parties, {"x": x}, inputs)
    assert inputs == []
    heard: list[OutputWarning] = []
    found = parties.custodian.decrypt_all(envelopes, warn=heard.append)
    (warning,) = heard
    assert (warning.label, warning.sample) == ("d1", 2)
    assert warning.worst == found.raw["d1"][2, warning.element]
    assert not warning.lower <= warning.worst <= warning.upper
    assert str(warning).startswith(f"output 'd1' holds {warning.worst:.4g} in sample 2, element ")
    assert str(warning).endswith("the stated error bound may not hold.")
    # One envelope alone counts its samples from 0.
    parties.custodian.decrypt(envelopes[2], warn=heard.append)
    assert heard[1].sample == 0


def test_unseen_ordinary_samples_are_not_warned_of() -> None:
    x = samples(MODEL, 64, seed=11)
    packed = compile_tiny(MODEL, options=CompileOptions(batch=64))
    assert packed.spec.outputs[0].ranges is not None
    assert len(packed.spec.outputs[0].ranges.lower) == 4
    heard: list[OutputWarning] = []
    many = make_parties(packed.program, spec=packed.spec)
    many.custodian.decrypt_all(evaluate(many, x, []), warn=heard.append)
    assert heard == []


def test_only_outputs_that_are_decrypted_are_looked_at() -> None:
    model = two_in_two_out()
    made = compile_tiny(model)
    parties = make_parties(made.program, spec=made.spec)
    far = {name: 10 * array for name, array in samples(model, 1).items()}
    envelopes = evaluate(parties, far, [])
    heard: list[OutputWarning] = []
    parties.custodian.decrypt_all(envelopes, ["product"], heard.append)
    assert [warning.label for warning in heard] == ["product"]
    parties.custodian.decrypt_all(envelopes, warn=heard.append)
    assert [warning.label for warning in heard[1:]] == ["sum", "product"]
