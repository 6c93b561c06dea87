"""What the search over rings does with objectives and limits."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

import hecompile
from hecompile.config import CompileOptions
from hecompile.errors import CompileError
from hecompile.estimate import Estimate
from hecompile.interpret.slots import run_program_slots
from hecompile.interpret.tensor import run_tensor
from hecompile.ir import he_ops as he
from hecompile.passbase import Context
from hecompile.pipelines import checks
from hecompile.rings import RingSearch
from tests.encrypted.compiled_models import answers, samples, square_mlp, worst
from tests.unit.test_passes_slots import recurrence

MODEL = square_mlp()
CALIBRATION = samples(MODEL, 40, seed=3)


def estimated(model: onnx.ModelProto = MODEL, **options: object) -> Estimate:
    chosen = CompileOptions(**options)  # type: ignore[arg-type]
    compiled = hecompile.compile(model, calibration=CALIBRATION, options=chosen)
    inputs = samples(MODEL, 20)
    found = compiled.simulate({"x": inputs["x"][:, None]})
    flat = {label: array.reshape(-1, *array.shape[2:]) for label, array in found.items()}
    assert worst(flat, answers(MODEL, inputs)) < 1e-5
    return compiled.report.estimate


def test_a_limit_on_keys_is_kept_by_more_rotations() -> None:
    free = estimated()
    each = free.evaluation_key_bytes // (len(free.rotation_steps) + 1)
    limit = each * len(free.rotation_steps)
    tight = estimated(max_key_memory=limit)
    assert tight.evaluation_key_bytes <= limit < free.evaluation_key_bytes
    assert tight.key_switches >= free.key_switches


def test_an_impossible_limit_is_refused_with_the_least_reached() -> None:
    with pytest.raises(CompileError, match=r"--max-client-bytes is .*the least reached is"):
        estimated(max_client_bytes=1000)


def test_objectives_trade_keys_client_and_evaluator() -> None:
    latency = estimated()
    keys, client = estimated(optimize="keys"), estimated(optimize="client")
    assert keys.evaluation_key_bytes <= latency.evaluation_key_bytes
    assert client.client_bytes <= latency.client_bytes


def test_rings_with_fewer_slots_than_the_batch_are_left_out() -> None:
    compiled = hecompile.compile(MODEL, calibration=CALIBRATION, options=CompileOptions(batch=3000))
    assert compiled.spec.parameters.slots >= 3000
    with pytest.raises(CompileError, match="fewer slots than the batch"):
        hecompile.compile(
            MODEL, calibration=CALIBRATION, options=CompileOptions(batch=3000, ring=4096)
        )
    assert np.isfinite(compiled.report.predicted_error)


def test_a_limit_on_what_the_client_sends_is_kept_by_another_packing() -> None:
    free = estimated()
    client = estimated(optimize="client")
    limit = max(client.client_bytes, (client.client_bytes + free.client_bytes) // 2)
    assert estimated(max_client_bytes=limit).client_bytes <= limit


DEEP = recurrence(4)
"""Of nine levels: more than a ring of 8192 carries as precisely as is usual."""

SEEN = {"x": np.random.default_rng(3).normal(size=(40, 1, 8))}


def rounds_of(**options: object) -> int:
    """Rounds of the plan that the search finds for it on the ring of 8192."""
    chosen = CompileOptions(ring=8192, **options)  # type: ignore[arg-type]
    search = RingSearch(DEEP, Context(SEEN), chosen, (), (), lambda _: None)
    _, program = search.best()
    checks().run(program, Context(SEEN))
    few = {"x": SEEN["x"][:5]}
    found, expected = run_program_slots(program, few), run_tensor(DEEP, few)
    np.testing.assert_allclose(found["y"], expected["y"], rtol=0, atol=1e-9)
    return len({op.group for op in program.select(he.Refresh)})


def test_a_program_too_deep_for_a_ring_is_cut() -> None:
    free = rounds_of()
    assert free == 2
    assert rounds_of(max_refreshes=free) == free
    assert rounds_of(rtt=0.0, bandwidth=1e12) >= free
    assert rounds_of(refresh="client") >= free


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"max_refreshes": 1}, "raise --max-refreshes"),
        ({"max_refreshes": 0}, "raise --max-refreshes"),
        ({"refresh": "never"}, "allow --refresh auto"),
    ],
)
def test_rounds_beyond_the_limit_are_refused_with_a_remedy(
    options: dict[str, object], remedy: str
) -> None:
    with pytest.raises(CompileError, match=remedy):
        rounds_of(**options)


DEEPER = recurrence(8)
"""Of 17 levels: more than a ring of 8192 has without refreshes."""


def refusal(precision: float | None = None, **options: object) -> str:
    """What the search says when it finds no plan on the ring of 8192."""
    chosen = CompileOptions(ring=8192, **options)  # type: ignore[arg-type]
    search = RingSearch(DEEPER, Context(SEEN, precision), chosen, (), (), lambda _: None)
    with pytest.raises(CompileError) as caught:
        search.best()
    return str(caught.value)


def test_where_the_limit_is_in_the_way_the_ring_is_not_blamed() -> None:
    told = refusal(max_refreshes=1)
    assert "too few levels" not in told
    (fewest,) = re.findall(r"a ring of 8192 takes (\d+) rounds of refreshes or more", told)
    assert int(fewest) > 1
    assert f"--max-refreshes is 1, and the smallest number of rounds reached is {fewest}" in told


def test_only_remedies_that_help_are_named() -> None:
    never = refusal(refresh="never")
    assert "a ring of 8192 has too few levels" in never
    assert "--max-refreshes" not in never
    assert "--mask-bits" not in never
    assert "give fewer --mask-bits" in refusal(max_refreshes=1)
    assert "--mask-bits" not in refusal(max_refreshes=1, mask_bits=0)
    assert "give a --precision that is enough" in never
    assert "ask for a larger --precision" in refusal(1e-6, refresh="never")


def test_levels_are_those_of_the_deepest_chain() -> None:
    table = refusal(refresh="never").partition("Levels of the deepest chain by stage: ")[2]
    pairs = re.findall(r": (\d+) \((\d+) so far\)", table)
    assert sum(int(own) for own, _ in pairs) == int(pairs[-1][1]) == 17


def test_a_program_that_needs_no_refresh_has_none_where_that_is_cheaper() -> None:
    for options in ({}, {"rtt": 1.0}, {"refresh": "never"}, {"max_refreshes": 0}):
        assert estimated(**options).refreshes == 0
