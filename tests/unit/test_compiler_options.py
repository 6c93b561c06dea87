"""Options of a compilation and what they decide."""

from __future__ import annotations

import dataclasses
import math

import pytest

from hecompile.config import CompileOptions, parse_bandwidth, parse_size
from hecompile.errors import CompileError, UsageError
from hecompile.estimate import Estimate
from hecompile.pipelines import checks, slot_pipeline, slot_planning, tensor_pipeline
from hecompile.segments import Segment

SEGMENT = Segment(
    levels=2,
    start_primes=4,
    end_primes=2,
    operations=100,
    key_switches=10,
    evaluator_seconds=0.1,
    requests=1,
    responses=2,
    request_bytes=200_000,
    response_bytes=300_000,
    client_seconds=0.2,
)

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
    evaluation_key_bytes=50_000_000,
    upload_bytes=15_000_000,
    download_bytes=10_000_000,
    segments=(SEGMENT,) * 10,
)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("batch", 0, "--batch is 1 or more, not 0"),
        ("refresh", "maybe", "--refresh is auto, never, client, not 'maybe'"),
        ("mask_bits", -1, "--mask-bits is between 0 and 64, not -1"),
        ("mask_bits", 65, "--mask-bits is between 0 and 64, not 65"),
        ("rtt", -0.1, "--rtt is 0 seconds or more, not -0.1"),
        ("rtt", math.nan, "--rtt is 0 seconds or more, not nan"),
        ("bandwidth", 0.0, "--bandwidth is above 0 bits per second, not 0"),
        ("bandwidth", math.inf, "--bandwidth is above 0 bits per second, not inf"),
        ("max_refreshes", -1, "--max-refreshes is 0 or more, not -1"),
        ("method", "taylor", "not 'taylor'"),
        ("ring", 2048, "--ring is one of 4096, 8192, 16384, 32768"),
        ("optimize", "speed", "--optimize is latency, throughput, client, keys, not 'speed'"),
        ("max_key_memory", 0, "--max-key-memory is 1 byte or more, not 0"),
        ("max_client_bytes", -5, "--max-client-bytes is 1 byte or more, not -5"),
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


def test_latency_counts_rounds_unless_the_client_offers_them() -> None:
    # Ten rounds of 50 ms; 5 MB at 100 Mbit/s.
    assert CompileOptions(refresh="auto").price(COSTS) == pytest.approx(1.0 + 0.2 + 0.5 + 0.4)
    assert CompileOptions(refresh="client").price(COSTS) == 1.0


def test_latency_is_that_of_the_line() -> None:
    near = CompileOptions(rtt=0.001, bandwidth=1e9)
    assert near.price(COSTS) == pytest.approx(1.0 + 0.2 + 0.01 + 0.04)
    far = CompileOptions(rtt=0.2, bandwidth=1e6)
    assert far.price(COSTS) == pytest.approx(1.0 + 0.2 + 2.0 + 40.0)
    many = dataclasses.replace(COSTS, evaluator_seconds=0.5)
    few = dataclasses.replace(COSTS, refreshes=1, segments=(SEGMENT,), evaluator_seconds=1.5)
    assert near.price(many) < near.price(few)
    assert far.price(few) < far.price(many)


def test_throughput_hardly_counts_the_client() -> None:
    found = CompileOptions(optimize="throughput").price(COSTS)
    assert found == pytest.approx(1.0 + 0.01 * (2.0 + 25e6 / 12.5e6))
    slow = CompileOptions(optimize="throughput", bandwidth=10e6).price(COSTS)
    assert slow == pytest.approx(1.0 + 0.01 * (2.0 + 20.0))


def test_the_client_counts_its_seconds_and_bytes() -> None:
    found = CompileOptions(optimize="client").price(COSTS)
    assert found == pytest.approx(2.0 + 2.0 + 0.05)


def test_keys_come_first_and_seconds_break_ties() -> None:
    options = CompileOptions(optimize="keys")
    slow = dataclasses.replace(COSTS, evaluator_seconds=1000.0)
    slower = dataclasses.replace(COSTS, evaluator_seconds=1001.0)
    larger = dataclasses.replace(COSTS, evaluation_key_bytes=50_000_001, evaluator_seconds=0.001)
    prices = [options.price(plan) for plan in (COSTS, slow, slower, larger)]
    assert prices == sorted(set(prices))


@pytest.mark.parametrize("optimize", ["latency", "throughput", "client", "keys"])
def test_a_plan_over_a_limit_has_no_price(optimize: str) -> None:
    known = {"max_key_memory": 50_000_000, "max_client_bytes": 25_000_000, "max_refreshes": 10}
    for limit, reached in known.items():
        fits = CompileOptions(optimize=optimize, **{limit: reached})  # type: ignore[arg-type]
        assert fits.price(COSTS) < math.inf
        fits.check_limits([COSTS])
        over = dataclasses.replace(fits, **{limit: reached - 1})  # type: ignore[arg-type]
        assert over.price(COSTS) == math.inf


def test_limits_that_nothing_keeps_tell_the_least_reached() -> None:
    options = CompileOptions(max_key_memory=10_000_000, max_client_bytes=40_000_000)
    better = dataclasses.replace(COSTS, evaluation_key_bytes=20_000_000)
    with pytest.raises(CompileError, match="--max-key-memory") as caught:
        options.check_limits([COSTS, better])
    assert "the least reached is 20 MB" in str(caught.value)
    assert "--max-client-bytes" not in str(caught.value)
    fits = dataclasses.replace(COSTS, evaluation_key_bytes=10_000_000)
    options.check_limits([COSTS, fits])


def test_limits_kept_one_by_one_but_never_together_are_refused() -> None:
    options = CompileOptions(max_key_memory=10_000_000, max_client_bytes=10_000_000)
    small_keys = dataclasses.replace(COSTS, evaluation_key_bytes=10_000_000)
    few_bytes = dataclasses.replace(COSTS, upload_bytes=0)
    with pytest.raises(CompileError, match=r"--max-key-memory.*--max-client-bytes"):
        options.check_limits([small_keys, few_bytes])


def test_too_many_rounds_are_refused_with_the_fewest_reached() -> None:
    options = CompileOptions(max_refreshes=3)
    fewer = dataclasses.replace(COSTS, refreshes=5)
    with pytest.raises(CompileError) as caught:
        options.check_limits([COSTS, fewer])
    told = str(caught.value)
    assert "--max-refreshes is 3, and the smallest number of rounds reached is 5;" in told
    assert "give a --precision that is enough, or try a smaller --degree" in told
    assert "--optimize" not in told
    options.check_limits([COSTS, dataclasses.replace(COSTS, refreshes=3)])
    with pytest.raises(CompileError, match="ask for a larger --precision, or try"):
        options.check_limits([COSTS, fewer], asked=True)


def test_a_number_of_refreshes_where_none_is_allowed_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--max-refreshes 3 allows .* --refresh never does not"):
        CompileOptions(refresh="never", max_refreshes=3)
    assert CompileOptions(refresh="never", max_refreshes=0).max_refreshes == 0


@pytest.mark.parametrize(
    ("text", "bits"), [("100Mbit", 100e6), ("1.5Gbit", 1.5e9), ("56 kbit", 56e3)]
)
def test_bandwidths(text: str, bits: float) -> None:
    assert parse_bandwidth("--bandwidth", text) == bits


@pytest.mark.parametrize("text", ["", "100", "100MB", "-1Mbit", "0Mbit", "1e3kbit", "Mbit", "nan"])
def test_what_is_no_bandwidth(text: str) -> None:
    with pytest.raises(UsageError, match="--bandwidth is bits per second such as 100Mbit"):
        parse_bandwidth("--bandwidth", text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("500MB", 500_000_000), ("1.5GB", 1_500_000_000), ("20kB", 20_000), ("7B", 7)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size("--max-key-memory", text) == size


@pytest.mark.parametrize(
    "text",
    ["", "500", "MB", "-1MB", "0MB", "1e3MB", "5  MB", "5mb", "5MiB", "5MB ", "\u0665MB", "nan"],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="--max-key-memory is a size such as 500MB"):
        parse_size("--max-key-memory", text)


def test_options_reach_the_pipelines() -> None:
    given = CompileOptions(
        degree=5, max_degree=9, method="minimax", margin=0.25, refresh="never", mask_bits=12
    )
    text = str(tensor_pipeline(given))
    for part in ("degree=5", "max_degree=9", "method=minimax", "margin=0.25"):
        assert part in text
    assert "ring=16384" in str(slot_pipeline(16384, given))
    assert "slots=2048" in str(slot_planning(4096, given))
    assert "insert-refresh" not in str(slot_planning(4096, given))
    assert "insert-refresh{levels=4 mask_bits=12}" in str(slot_planning(4096, given, levels=4))


def test_every_check_is_among_the_checks() -> None:
    text = str(checks())
    for name in ("check-levels", "check-scales", "check-parameters", "check-precision"):
        assert text.count(name) == 1
