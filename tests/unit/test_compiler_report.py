"""What a compilation reports: numbers that add up, and depths by stage."""

from __future__ import annotations

import json

import numpy as np
import pytest

import hecompile
from hecompile.cli.describe import report_text
from hecompile.compiler import Compiled
from hecompile.errors import ProgramError
from hecompile.estimate import estimate
from hecompile.ir import he_ops as he
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.program import Builder
from hecompile.numeric import noise
from hecompile.precision import predict_noise
from hecompile.report import deepest_chain
from tests.encrypted.compiled_models import sigmoid_mlp, square_mlp


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    x = np.random.default_rng(0).normal(size=(50, 6))
    return hecompile.compile(sigmoid_mlp(), calibration={"x": x})


def test_the_parts_of_the_predicted_error_add_up(compiled: Compiled) -> None:
    document = compiled.report.to_json()
    parts = document["predicted_error_parts"]
    assert isinstance(parts, dict)
    assert set(parts) == {"approximation", "noise", "reference"}
    assert sum(parts.values()) == document["predicted_error"] == compiled.predicted_error
    assert all(part > 0 for part in parts.values())
    # Bounds alone, without what the samples show slot by slot, can only promise less.
    assert compiled.report.noise_error <= max(n.bound for n in predict_noise(compiled.program))


def test_counts_are_of_the_program(compiled: Compiled) -> None:
    document, program = compiled.report.to_json(), compiled.program
    rotations, relinearizations = program.select(he.Rotate), program.select(he.Relinearize)
    assert document["key_switches"] == len(rotations) + len(relinearizations)
    steps = sorted({op.steps for op in rotations})
    assert document["rotation_steps"] == steps
    assert document["galois_keys"] == len(steps)
    assert document["refreshes"] == 0
    counts, by_level = document["op_counts"], document["op_counts_by_level"]
    assert isinstance(counts, dict)
    assert isinstance(by_level, dict)
    for name, count in counts.items():
        assert sum(level.get(name, 0) for level in by_level.values()) == count
    products = sum(len(op.xs) for op in program.select(he.SumMulPlain))
    assert counts["multiply_plain"] == products + len(program.select(he.MulPlain))


def test_parameters_are_those_of_the_program(compiled: Compiled) -> None:
    document = compiled.report.to_json()
    parameters = compiled.program.parameters
    assert parameters is not None
    assert document["parameters"] == {
        "poly_modulus_degree": parameters.poly_modulus_degree,
        "coeff_modulus_bits": list(parameters.coeff_modulus_bits),
        "scale_bits": parameters.scale_bits,
        "level_units": list(parameters.level_units),
        "security_bits": 128,
    }
    assert document["levels"] == len(parameters.coeff_modulus_bits) - 2


def test_the_condition_of_the_predicted_error_is_stated(compiled: Compiled) -> None:
    document = compiled.report.to_json()
    assert document["error_holds_for"] == "samples like those of calibration"
    assert document["error_failure_probability"] == noise.FAILURE
    told = report_text(document)
    assert (
        "on samples like the calibration samples, in all but about one evaluation in 10 000" in told
    )


def test_it_is_json_text(compiled: Compiled) -> None:
    text = compiled.report.to_text()
    assert text.endswith("}\n")
    assert json.loads(text) == json.loads(json.dumps(compiled.report.to_json()))


def test_activations_are_reported(compiled: Compiled) -> None:
    (fit,) = compiled.report.fits
    assert fit.node == "h_node"
    assert fit.functions == ("sigmoid",)
    assert fit.lower < 0 < fit.upper
    assert 0 < fit.fit_error < 0.2
    assert 0 <= fit.outside < 0.1
    assert compiled.report.calibration_samples == 40


def test_the_stages_of_the_deepest_chain_end_at_the_depth() -> None:
    x = np.random.default_rng(0).normal(size=(20, 8))
    found = hecompile.compile(square_mlp(), calibration={"x": x})
    stages = [(stage.name, stage.levels, stage.total) for stage in deepest_chain(found.polynomial)]
    assert stages == [("d0_node", 1, 1), ("s1_node", 1, 2), ("d1_node", 1, 3)]
    assert found.report.depth == 3


def test_what_lies_beside_the_deepest_chain_is_not_counted() -> None:
    build = Builder(name="branches")
    x = build.emit(tensor.Input(label="x", dims=(4,)), "x")
    beside = build.emit(tensor.Mul(x=x, y=x))
    first = build.emit(tensor.Mul(x=x, y=x), "first")
    second = build.emit(tensor.Mul(x=first, y=x), "second")
    last = build.emit(tensor.Mul(x=beside, y=second), "last")
    build.keep(tensor.Output(x=last, label="y"))
    stages = deepest_chain(build.finish())
    assert [(stage.levels, stage.total) for stage in stages] == [(1, 1), (1, 2), (1, 3)]
    assert [stage.name.split("%")[1] for stage in stages] == ["first", "second", "last"]


def test_programs_without_levels_have_no_estimate(compiled: Compiled) -> None:
    with pytest.raises(ProgramError, match="has no parameters; run choose-parameters"):
        estimate(compiled.program.replace(parameters=None))
