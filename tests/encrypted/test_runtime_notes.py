"""What makes evaluations slow reaches whoever waits for them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from hecompile.ir.program import Program
from hecompile.runtime import pair, processes, wire
from hecompile.runtime.context import Context
from hecompile.runtime.residues import LayoutError, SlowWarning, load_residues
from hecompile.runtime.run import run_parties
from hecompile.runtime.spec import spec_from_program
from hecompile.runtime.worker import _heard
from tests.encrypted.runtime_parties import make_parties
from tests.encrypted.runtime_programs import MEDIUM
from tests.encrypted.test_runtime_families import dense
from tests.encrypted.test_runtime_pair import single_program
from tests.encrypted.test_runtime_processes import server_of

# Python imports it when it starts: SEAL's objects then seem to lie elsewhere.
ELSEWHERE = """
from hecompile.runtime import rawmemory
rawmemory.INSTANCE_POINTER = 32
"""


@pytest.fixture
def without_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluators' processes that cannot read ciphertexts in memory."""
    (tmp_path / "sitecustomize.py").write_text(ELSEWHERE)
    real = processes._environment

    def environment() -> dict[str, str]:
        found = real()
        return found | {"PYTHONPATH": f"{tmp_path}:{found['PYTHONPATH']}"}

    monkeypatch.setattr(processes, "_environment", environment)


def run(program: Program, x: np.ndarray, workers: int = 1) -> tuple[np.ndarray, list[str]]:
    told: list[object] = []
    result = run_parties(
        server_of(program), spec_from_program(program), {"x": x}, workers=workers, warn=told.append
    )
    notes = [one for one in told if isinstance(one, str)]
    assert tuple(notes) == result.notes
    return result.raw_outputs["y"], notes


@pytest.mark.usefixtures("without_access")
def test_an_evaluator_that_is_slow_says_so_and_is_right() -> None:
    program, factor = dense()
    x = np.array([[1.25], [0.5]])
    raw, slow = run(program, x)
    assert np.abs(raw - factor * x).max() < 1e-4
    # One when it is loaded, one when it writes its first answer, none for the second.
    assert len(slow) == 2
    assert "sums of scalar products are left to SEAL" in slow[0]
    assert "residues are asked for one by one" in slow[1]
    assert all(text.count(": ") == 1 and text.endswith(".") for text in slow)


@pytest.mark.usefixtures("without_access")
def test_a_second_process_that_cannot_help_is_told_of() -> None:
    x = np.random.default_rng(0).normal(size=(1, 8))
    _, slow = run(single_program(), x, workers=2)
    assert any("two processes cannot share" in text for text in slow)


def test_an_evaluator_that_is_quick_says_nothing() -> None:
    _, slow = run(dense()[0], np.array([[1.25]]))
    assert slow == []


def test_a_warning_is_seen_on_standard_error_without_any_doing() -> None:
    script = "from hecompile.runtime.processes import warn_of; warn_of('it is slow.')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "SlowWarning: it is slow." in done.stderr


def test_the_worker_keeps_other_warnings_out_of_its_notes() -> None:
    with warnings.catch_warnings(record=True) as caught, _heard() as notes:
        for _ in range(2):
            warnings.warn("slow", SlowWarning, stacklevel=1)
        warnings.warn("other", UserWarning, stacklevel=1)
    assert notes == ["slow"]
    assert [str(w.message) for w in caught] == ["other"]


def refuse(_: Context) -> None:
    raise LayoutError("no memory can be read")


def test_slow_packing_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context(MEDIUM)
    residues = np.ones((2, 2, MEDIUM.poly_modulus_degree), dtype=np.uint64)
    value = load_residues(context, residues, 1, 1.0)
    monkeypatch.setattr(wire, "residue_access", refuse)
    with pytest.warns(SlowWarning, match="asked for one by one"):
        wire.ciphertext_bytes(context, value)


def test_no_pair_without_access_and_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    parties = make_parties(single_program())
    monkeypatch.setattr(pair, "residue_access", refuse)
    with pytest.warns(SlowWarning, match="two processes cannot share an evaluation"):
        assert not parties.evaluator.start_helper()
