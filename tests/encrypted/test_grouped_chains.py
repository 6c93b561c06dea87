"""Chains whose primes stand for several levels, with real keys at 128 bits."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.chains import chain
from hecompile.interpret.slots import run_program_slots, trace_slots
from hecompile.passbase import Context
from hecompile.passes.assign_scales import assign
from hecompile.passes.insert_management import InsertManagement
from hecompile.pipeline import parse_pipeline
from hecompile.precision import predict_noise
from tests.encrypted.compiled_models import run_encrypted
from tests.encrypted.runtime_parties import make_parties
from tests.unit.test_grouped_chains import mlp, sum_of_squares

CALIBRATION = {"x": np.random.default_rng(1).normal(size=(60, 1, 16)) / 4}
KEYS = 4
UNSEEN = {"x": np.random.default_rng(2).normal(size=(3, 1, 16)) / 5}


@pytest.mark.parametrize(
    ("units", "scale_bits", "margin", "policy"),
    [
        ((1, 2, 2, 1), 25, 0, "early"),
        ((2, 1, 2, 1), 24, 0, "late"),
        # The special prime is smaller than the largest data prime.
        ((1, 2, 2, 1), 27, -20, "late"),
    ],
)
def test_a_network_decrypts_within_the_predicted_bound(
    units: tuple[int, ...], scale_bits: int, margin: int, policy: str
) -> None:
    parameters = chain(8192, scale_bits, units, 7, margin)
    assert parameters is not None
    assert (parameters.special_prime < max(parameters.data_primes)) == (margin < 0)
    context = Context(CALIBRATION)
    program = parse_pipeline("calibrate-slots").run(mlp(), context).replace(parameters=parameters)
    finished = assign(InsertManagement(rescale=policy).run(program, context), parameters)
    parse_pipeline("check-levels,check-scales,check-parameters,check-precision").run(
        finished, context
    )
    (predicted,) = predict_noise(finished, trace_slots(finished, CALIBRATION))
    # The bound is about the worst calibration samples, so some of them are measured too.
    known = np.abs(run_program_slots(finished, CALIBRATION)["y"]).max(axis=(1, 2))
    worst = CALIBRATION["x"][np.argsort(-known)[:4]]
    inputs = {"x": np.concatenate([UNSEEN["x"], worst])}
    exact = run_program_slots(finished, inputs)["y"]
    error = 0.0
    # A few elements dominate the error and vary together: one key alone may be lucky.
    for _ in range(KEYS):
        found = run_encrypted(make_parties(finished), {"x": inputs["x"][:, 0]}).raw["y"]
        error = max(error, float(np.abs(found.reshape(exact.shape) - exact).max()))
    assert error <= predicted.bound
    assert predicted.bound <= 16 * error
    assert predicted.bound <= 0.1 * float(np.abs(exact).max())


def test_three_polynomials_are_weighted_before_they_are_relinearized() -> None:
    draw = np.random.default_rng(3)
    inputs = {label: draw.uniform(-1, 1, (5, 1, 4)) for label in "ab"}
    program = parse_pipeline("calibrate-slots").run(sum_of_squares(), Context(inputs))
    assert program.parameters is not None
    finished = assign(InsertManagement().run(program, Context()), program.parameters)
    parse_pipeline("check-levels,check-scales,check-parameters,check-precision").run(
        finished, Context(inputs)
    )
    (predicted,) = predict_noise(finished, trace_slots(finished, inputs))
    flat = {label: array[:, 0] for label, array in inputs.items()}
    found = run_encrypted(make_parties(finished), flat).raw["y"]
    exact = run_program_slots(finished, inputs)["y"]
    error = float(np.abs(found.reshape(exact.shape) - exact).max())
    assert error <= predicted.bound <= 0.1
