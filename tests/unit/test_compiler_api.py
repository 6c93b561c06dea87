"""`hecompile.compile` and what it gives: sources of models and samples, messages, saving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import hecompile
from hecompile.access.signing import SigningKey
from hecompile.compiler import Compiled
from hecompile.config import CompileOptions
from hecompile.errors import HecompileError, InputError, UsageError
from hecompile.observe import Timing
from hecompile.runtime.parties import open_bundle
from hecompile.runtime.spec import program_id
from tests.encrypted.compiled_models import answers, samples, sigmoid_mlp, square_mlp, worst

MODEL = square_mlp()
CALIBRATION = samples(MODEL, 40, seed=3)


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return hecompile.compile(MODEL, calibration=CALIBRATION)


def test_models_and_samples_come_from_files_bytes_or_memory(
    compiled: Compiled, tmp_path: Path
) -> None:
    onnx.save(MODEL, str(tmp_path / "tiny.onnx"))
    np.savez(tmp_path / "cal.npz", labels=np.zeros(3), **CALIBRATION)  # type: ignore[arg-type]
    from_files = hecompile.compile(tmp_path / "tiny.onnx", calibration=tmp_path / "cal.npz")
    from_text = hecompile.compile(str(tmp_path / "tiny.onnx"), calibration=CALIBRATION)
    from_bytes = hecompile.compile(MODEL.SerializeToString(), calibration=CALIBRATION)
    for other in (from_files, from_text, from_bytes):
        assert other.program == compiled.program
        assert other.report == compiled.report


def test_simulation_is_the_model_without_noise(compiled: Compiled) -> None:
    inputs = samples(MODEL, 20)
    found = compiled.simulate({"x": inputs["x"][:, None]})
    found = {label: array.reshape(-1, *array.shape[2:]) for label, array in found.items()}
    assert worst(found, answers(MODEL, inputs)) < 1e-5


def test_stages_notes_and_passes_are_told() -> None:
    told: list[str] = []
    notes: list[str] = []
    timing = Timing()
    hecompile.compile(
        sigmoid_mlp(),
        calibration=samples(sigmoid_mlp(), 40),
        progress=told.append,
        note=notes.append,
        observers=[timing],
    )
    assert told[:2] == ["importing the model", "approximating activations"]
    assert any(stage.startswith("planning on a ring of ") for stage in told[2:])
    assert any("sigmoid" in note for note in notes)
    names = [name.partition("{")[0] for name, _, _ in timing.rows]
    assert names[0] == "normalise"
    assert names[-1] == "check-precision"


def test_a_saved_bundle_opens_to_the_same_program(compiled: Compiled, tmp_path: Path) -> None:
    key = SigningKey.generate()
    for name in ("bundle", "bundle.hec"):
        compiled.save(tmp_path / name, signing_key=key)
        opened = open_bundle(tmp_path / name, trust=[key.public_key])
        assert program_id(opened.program) == compiled.spec.program
        assert opened.program == compiled.program
        assert opened.spec == replace(compiled.spec, manifest=opened.manifest.digest)
        assert opened.manifest.predicted_error == compiled.predicted_error
    assert (tmp_path / "bundle.hec").is_file()
    with pytest.raises(InputError, match="exists"):
        compiled.save(tmp_path / "bundle", signing_key=key)
    compiled.save(tmp_path / "bundle", signing_key=key, overwrite=True)


def test_the_built_in_policy_names_the_models_objects(compiled: Compiled) -> None:
    objects = {str(o) for p in compiled.policy.permissions for o in p.objects}
    assert {"input:x", "output:d1", "program"} <= objects


def test_a_policy_that_does_not_fit_is_refused_before_the_work(tmp_path: Path) -> None:
    from tests.unit.cli_calls import POLICY

    (tmp_path / "p.toml").write_text(POLICY)
    told: list[str] = []
    with pytest.raises(InputError, match="output:y"):
        hecompile.compile(
            MODEL, calibration=CALIBRATION, policy=tmp_path / "p.toml", progress=told.append
        )
    assert told == ["importing the model"]


def test_an_unknown_backend_is_refused_first() -> None:
    with pytest.raises(UsageError, match="no backend 'tfhe'"):
        hecompile.compile(MODEL, calibration={}, backend="tfhe")


def test_few_samples_are_fitted_and_judged_alike() -> None:
    compiled = hecompile.compile(MODEL, calibration=samples(MODEL, 3))
    assert compiled.report.calibration_samples == 3
    with pytest.raises(InputError, match="'x' is empty"):
        hecompile.compile(MODEL, calibration={"x": np.zeros((0, 8))})


def test_a_batch_that_no_ring_holds_is_refused() -> None:
    with pytest.raises(HecompileError, match="slots"):
        hecompile.compile(MODEL, calibration=CALIBRATION, options=CompileOptions(batch=1 << 16))


def test_the_largest_batch_that_a_ring_holds() -> None:
    options = CompileOptions(batch=256, ring=8192)
    compiled = hecompile.compile(MODEL, calibration=CALIBRATION, options=options)
    inputs = samples(MODEL, 300)
    found = compiled.simulate({"x": inputs["x"][:, None]})
    found = {label: array.reshape(-1, *array.shape[2:]) for label, array in found.items()}
    assert worst(found, answers(MODEL, inputs)) < 1e-5
