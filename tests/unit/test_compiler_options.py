"""Options of a compilation and what they decide."""

from __future__ import annotations

import dataclasses

import pytest

from hecompile.config import CompileOptions
from hecompile.errors import UsageError
from hecompile.estimate import ROUND_TRIP_SECONDS, Estimate
from hecompile.pipelines import checks, slot_pipeline, slot_planning, tensor_pipeline

COSTS = Estimate(
    op_counts={},
    op_counts_by_level={},
    key_switches=0,
    rotation_steps=(),
    galois_key_bytes=0,
    refreshes=10,
    refreshed_ciphertexts=20,
    evaluator_seconds=1.0,
    client_seconds=2.0,
    weight_bytes=0,
    memory_bytes=0,
    input_bytes=0,
    output_bytes=0,
)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("batch", 0, "--batch is 1 or more, not 0"),
        ("refresh", "maybe", "--refresh is auto, never, client, not 'maybe'"),
        ("mask_bits", -1, "--mask-bits is between 0 and 48, not -1"),
        ("mask_bits", 49, "--mask-bits is between 0 and 48, not 49"),
        ("method", "taylor", "not 'taylor'"),
        ("ring", 2048, "--ring is one of 4096, 8192, 16384, 32768"),
    ],
)
def test_values_that_no_compilation_could_use(name: str, value: object, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        dataclasses.replace(CompileOptions(), **{name: value})  # type: ignore[arg-type]


def test_rings_are_tried_smallest_first_or_only_the_one_named() -> None:
    assert CompileOptions().rings() == (4096, 8192, 16384, 32768)
    assert CompileOptions(ring=16384).rings() == (16384,)


def test_no_shapes_are_none() -> None:
    assert CompileOptions().shapes() is None
    assert CompileOptions(input_shapes={"x": (1, 2)}).shapes() == {"x": (1, 2)}


def test_rounds_have_a_price_unless_the_client_offers_them() -> None:
    assert CompileOptions(refresh="auto").price(COSTS) == 3.0 + 10 * ROUND_TRIP_SECONDS
    assert CompileOptions(refresh="client").price(COSTS) == 1.0


def test_options_reach_the_pipelines() -> None:
    given = CompileOptions(
        degree=5, max_degree=9, method="minimax", margin=0.25, refresh="never", mask_bits=12
    )
    text = str(tensor_pipeline(given))
    for part in ("degree=5", "max_degree=9", "method=minimax", "margin=0.25"):
        assert part in text
    text = str(slot_pipeline(16384, given))
    for part in ("ring=16384", "refresh=false", "mask_bits=12"):
        assert part in text
    assert "refresh=false" not in str(slot_pipeline(16384, CompileOptions()))
    assert "slots=2048" in str(slot_planning(4096, given))


def test_every_check_is_among_the_checks() -> None:
    text = str(checks())
    for name in ("check-levels", "check-scales", "check-parameters", "check-precision"):
        assert text.count(name) == 1
