"""Options of the refresh planner on the command line, and the plan as it is shown."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from hecompile.cli.describe import report_text
from hecompile.estimate import estimate
from hecompile.ir.program import Program
from hecompile.report import Report
from hecompile.segments import Line
from tests.encrypted.runtime_programs import matrix_program, refresh_program
from tests.unit.cli_calls import Caller, save_mlp, weights

COMPILE = ("compile", "m.onnx", "--calibration", "cal.npz", "-o", "b")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and samples, and nothing else."""
    monkeypatch.chdir(tmp_path)
    save_mlp(tmp_path / "m.onnx", weights(1, 4, 3, 2))
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.savez(tmp_path / "cal.npz", x=x)
    return tmp_path


def reported(program: Program, line: Line) -> Report:
    assert program.parameters is not None
    return Report(
        program=program.name,
        parameters=program.parameters,
        batch=1,
        depth=3,
        levels=program.parameters.levels,
        estimate=estimate(program),
        mask_bits=40,
        approximation_error=0.0,
        noise_error=1e-3,
        reference_error=0.0,
        precision=None,
        fits=(),
        calibration_samples=10,
        line=line,
    )


def test_the_plan_is_a_table_of_segments() -> None:
    report = reported(refresh_program(), Line(rtt=0.2, bandwidth=1e6))
    found = report.to_json()
    text = report_text(found)
    plan = text.partition("plan, each segment with the round that ends it:\n")[2].splitlines()
    assert re.split(r"\s{2,}", plan[0].strip()) == [
        *("segment", "levels", "primes", "operations", "key switches", "evaluator s"),
        *("up", "down", "key holder s", "line s"),
    ]
    first, last = (re.split(r"\s{2,}", row.strip()) for row in plan[1:3])
    assert first[:5] == ["1", "2", "3 to 1", "7", "2"]
    assert last[:5] == ["2", "1", "3 to 2", "4", "1"]
    # Two values share a ciphertext on their way up.
    assert first[6].startswith("1, ")
    assert first[7].startswith("2, ")
    assert len(last) == 6
    taken = report.estimate.line_seconds(report.line)
    assert taken > 0.2
    assert f"{taken:.2f} s on a line of 1 Mbit/s with round trips of 200 ms" in text
    assert float(first[9]) == pytest.approx(taken, abs=1e-3)


def test_json_has_every_segment() -> None:
    report = reported(refresh_program(), Line())
    found = report.to_json()
    segments = found["segments"]
    assert isinstance(segments, list)
    assert len(segments) == 2
    assert (segments[0]["requests"], segments[0]["responses"]) == (1, 2)
    assert segments[1]["line_seconds"] == 0.0
    assert segments[0]["line_seconds"] == pytest.approx(found["predicted_line_seconds"])
    both = segments[0]["request_bytes"] + segments[0]["response_bytes"]
    assert found["refresh_bytes"] == both
    assert found["rtt_seconds"] == 0.05
    assert found["bandwidth_bits_per_second"] == 100e6


def test_segments_that_look_alike_share_a_row() -> None:
    report = reported(refresh_program(), Line())
    first, last = report.estimate.segments
    plan = dataclasses.replace(report.estimate, segments=(first,) * 5 + (last,), refreshes=5)
    rows = report_text(dataclasses.replace(report, estimate=plan).to_json()).splitlines()
    at = rows.index("plan, each segment with the round that ends it:")
    assert rows[at + 2].strip().startswith("1 to 5   2 ")
    assert rows[at + 3].strip().startswith("6        1 ")
    assert rows[at + 4].startswith("operations by level")


def test_a_program_without_refreshes_has_no_table() -> None:
    found = reported(matrix_program(np.eye(4), np.ones(4)), Line()).to_json()
    assert "plan, each segment" not in report_text(found)
    assert isinstance(found["segments"], list)
    assert len(found["segments"]) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--rtt", "-1"), "--rtt is 0 seconds or more, not -1"),
        (("--bandwidth", "10MB"), "--bandwidth is bits per second such as 100Mbit"),
        (("--max-refreshes", "-2"), "--max-refreshes is 0 or more, not -2"),
        (("--mask-bits", "65"), "--mask-bits is between 0 and 64, not 65"),
    ],
)
def test_options_that_no_plan_could_use(
    place: Path, call: Caller, words: tuple[str, ...], told: str
) -> None:
    assert told in call(*COMPILE, *words, code=2).err
    assert not (place / "b").exists()


def test_the_line_is_part_of_the_report(place: Path, call: Caller) -> None:
    words = ("--rtt", "0.2", "--bandwidth", "1.5Gbit", "--max-refreshes", "0")
    found = call(*COMPILE, *words, "--json").document
    assert (found["rtt_seconds"], found["bandwidth_bits_per_second"]) == (0.2, 1.5e9)
    assert len(found["segments"]) == 1
    assert call("inspect", "b", "--json").document["segments"] == found["segments"]


def test_unmasked_refreshes_need_a_key_holder_who_owns_the_model(place: Path, call: Caller) -> None:
    told = call(*COMPILE, "--mask-bits", 0, code=1).err
    assert "role 'owner' may hold key:secret (owner) and does not own the model" in told
    assert "approximating" not in told
    call(*COMPILE, "--mask-bits", 0, "--refresh", "never")
    assert not call("inspect", "b", "--json").document["refreshes"]
    call(*COMPILE, "--mask-bits", 0, "--encrypt-model", "--overwrite")


def test_programs_without_refreshes_say_what_their_keys_take_before_they_are_made(
    place: Path, call: Caller
) -> None:
    never = (*COMPILE, "--refresh", "never")
    told = call(*never, "--max-key-memory", "10kB", code=1).err
    assert "--max-key-memory is 0.01 MB, and the least reached is " in told
    assert sorted(path.name for path in place.iterdir()) == ["cal.npz", "m.onnx"]
    found = call(*never, "--json").document
    memory = found["evaluation_key_bytes"]
    limit = f"{memory - 1}B"
    refused = call("keygen", "b", "-o", "keys", "--max-key-memory", limit, code=1).err
    keys = f"{found['galois_keys']} Galois keys and one to relinearize: about "
    assert keys in refused
    assert f"{memory / 1e6:.1f} MB in the evaluator's memory" in refused
    assert "more than the --max-key-memory of" in refused
    assert not (place / "keys").exists()
    assert (
        "such as 500MB" in call("keygen", "b", "-o", "keys", "--max-key-memory", "much", code=2).err
    )
    assert keys in call("keygen", "b", "-o", "keys", "--max-key-memory", f"{memory}B").err
    np.savez(place / "x.npz", x=np.zeros((1, 4)))
    words = ("run", "b", "--input", "x.npz", "--as", "owner")
    assert keys in call(*words).err
    assert keys not in call(*words, "--keys", "keys").err
