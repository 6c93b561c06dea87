"""What the client refuses, what it warns of, and how rows become samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hecompile.errors import InputError, IntegrityError
from hecompile.ir.types import Interval
from hecompile.preprocess import fit_steps
from hecompile.preprocess_steps import MeanImpute, Standardise
from hecompile.runtime.client import Client, RangeWarning, prepare
from hecompile.runtime.envelope import read_header
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import PublicKey, generate_keys, public_key
from hecompile.runtime.ranges import Ranges
from hecompile.runtime.spec import ClientSpec, spec_from_program
from tests.encrypted.runtime_programs import polynomial_program

PROGRAM = polynomial_program(np.ones(4), batch=2)
SPEC = spec_from_program(PROGRAM, ranges={"x": Ranges(Interval(-2.0, 2.0))})


@pytest.fixture(scope="module")
def key() -> PublicKey:
    ring = generate_keys(SPEC.parameters, (), SPEC.program)
    return public_key(ring.source(Role.PUBLIC))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "the input 'x' is missing; the arrays given are none"),
        ({"y": np.ones((1, 4))}, "no input 'y'; name the arrays x"),
        ({"x": np.ones((1, 4)), "y": np.ones(1)}, "no input 'y'"),
        ({"x": np.ones(4)}, r"has the shape \(4,\), where \(n, 4\) is needed"),
        ({"x": np.ones((2, 5))}, r"has the shape \(2, 5\), where \(n, 4\) is needed"),
        ({"x": np.ones((0, 4))}, "n at least 1"),
        ({"x": np.array([["a"] * 4])}, "elements of type <U1, where real numbers"),
        ({"x": np.ones((1, 4), dtype=complex)}, "complex128"),
        ({"x": np.array([[1, 2, np.nan, 4]])}, "holds nan in sample 0"),
        ({"x": np.array([[1] * 4, [1, 2, 3, np.inf]])}, "holds inf in sample 1"),
        ({"x": np.full((1, 4), 1e40)}, "does not fit the encryption"),
    ],
)
def test_bad_arrays_are_refused(key: PublicKey, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Client(SPEC, key).encrypt(inputs)


def test_one_envelope_for_each_batch(key: PublicKey) -> None:
    envelopes = Client(SPEC, key).encrypt({"x": np.zeros((5, 4), dtype=np.float32)})
    headers = [read_header(data) for data in envelopes]
    assert [header.samples for header in headers] == [2, 2, 1]
    assert len({header.session for header in headers}) == 3
    assert {header.key_id for header in headers} == {key.card.key_id}


def test_a_leading_axis_of_several_rows_makes_one_sample() -> None:
    spec = replace(SPEC, inputs=(replace(SPEC.inputs[0], dims=(2, 2)),))
    rows = prepare(spec, {"x": np.arange(12).reshape(6, 2)})["x"]
    assert np.array_equal(rows, np.arange(12.0).reshape(3, 4))
    with pytest.raises(InputError, match=r"where \(n\*2, 2\) is needed"):
        prepare(spec, {"x": np.ones((5, 2))})


def test_values_outside_the_calibrated_range_are_told_not_refused(key: PublicKey) -> None:
    heard: list[RangeWarning] = []
    x = np.zeros((2, 4))
    x[1] = [0.0, -3.0, 2.5, 1.0]
    assert len(Client(SPEC, key).encrypt({"x": x}, heard.append)) == 1
    assert heard == [RangeWarning("x", 0.25, -3.0, -2.0, 2.0, 1, 1, by_element=False)]
    assert "25.00% of the values are outside" in str(heard[0])
    assert "element 1 of sample 1, with the range [-2, 2] of the whole input" in str(heard[0])


def test_each_element_has_its_range(key: PublicKey) -> None:
    seen = Ranges(Interval(-2.0, 2.0), (-2.0, 0.0, 0.0, -1.0), (2.0, 0.0, 1.0, 1.0))
    spec = replace(SPEC, inputs=(replace(SPEC.inputs[0], ranges=seen),))
    heard: list[RangeWarning] = []
    client = Client(spec, key)
    client.encrypt({"x": [[2.0, 0.0, 1.0, 1.0], [-2.0, 0.0, 0.0, -1.0]]}, heard.append)
    assert heard == []
    client.encrypt({"x": [[2.0, 0.0, 1.0, 1.0], [-2.0, 0.5, 1.75, 1.0]]}, heard.append)
    assert heard == [RangeWarning("x", 0.25, 1.75, 0.0, 1.0, 1, 2, by_element=True)]
    assert "with the range [0, 1]; the result may be wrong" in str(heard[0])


def with_steps() -> ClientSpec:
    train = np.array([[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 7.0]])
    plan: list[Any] = [(MeanImpute, {}), (Standardise, {})]
    return spec_from_program(PROGRAM, {"x": fit_steps(plan, train)})


def test_preprocessing_comes_first() -> None:
    rows = prepare(with_steps(), {"x": np.array([[0.0, np.nan, 4.0, 5.0]])})["x"]
    assert np.allclose(rows, [[-1.0, 0.0, 1.0, 0.0]])


def test_errors_of_preprocessing_name_the_input() -> None:
    with pytest.raises(InputError, match="input 'x', preprocessing: "):
        prepare(with_steps(), {"x": np.ones((1, 3))})


def test_a_key_of_another_program_is_refused(key: PublicKey) -> None:
    with pytest.raises(IntegrityError, match="the public keys are for program"):
        Client(replace(SPEC, program="0" * 64), key)
