from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecompile.errors import InputError
from hecompile.preprocess import (
    CapOutliers,
    Crop,
    MeanImpute,
    SequenceWindows,
    Standardise,
    Step,
    apply_steps,
    fit_steps,
    load_steps,
    output_shape,
    steps_from_json,
    steps_to_json,
)

SERIES = np.random.default_rng(5).normal([[1.0], [-3.0]], [[2.0], [0.5]], (40, 2, 30))
PLAN: tuple[tuple[type[Step], dict[str, object]], ...] = (
    (MeanImpute, {}),
    (SequenceWindows, {"length": 12, "step": 6}),
    (CapOutliers, {"z": 2.0}),
    (Standardise, {}),
)


def test_mean_impute_fills_with_the_channel_mean_of_what_is_present() -> None:
    train = np.array([[1.0, np.nan], [3.0, 10.0], [np.nan, 20.0]])
    step = MeanImpute.fit(train)
    assert step.means == (2.0, 15.0)
    assert step(np.array([[np.nan, np.nan], [7.0, 8.0]])).tolist() == [[2.0, 15.0], [7.0, 8.0]]


def test_cap_outliers_moves_values_to_mean_plus_minus_z_deviations() -> None:
    train = np.array([[-1.0], [1.0]])
    assert CapOutliers.fit(train, z=1.5)(np.array([[9.0], [-9.0], [0.3]])).tolist() == [
        [1.5],
        [-1.5],
        [0.3],
    ]


def test_standardise_gives_mean_zero_and_deviation_one_per_channel() -> None:
    z = Standardise.fit(SERIES)(SERIES)
    assert np.allclose(z.mean(axis=(0, 2)), 0)
    assert np.allclose(z.std(axis=(0, 2)), 1)


def test_statistics_follow_the_stored_axis() -> None:
    last = np.moveaxis(SERIES, 1, 2)
    step = Standardise.fit(last, axis=2)
    assert step.axis == 2
    assert np.array_equal(np.moveaxis(step(last), 2, 1), Standardise.fit(SERIES)(SERIES))


def test_a_crop_gives_one_row_of_a_series_however_long_it_is() -> None:
    step = Crop.fit(SERIES, length=12)
    assert np.array_equal(step(SERIES), SERIES[:, :, :12])
    assert step(np.zeros((1, 1, 5000))).shape == (1, 1, 12)
    assert output_shape((step,), (2, 30)) == (1, (2, 12))
    assert steps_from_json(steps_to_json((step,))) == (step,)
    with pytest.raises(InputError, match=r"crop: expected .* with 12 samples"):
        step(SERIES[:, :, :11])
    with pytest.raises(InputError, match="crop: `length`"):
        Crop(0)


def test_windows_follow_one_another_and_leave_out_the_tail() -> None:
    x = np.arange(2 * 1 * 7, dtype=float).reshape(2, 1, 7)
    step = SequenceWindows(3, 2)
    assert step.windows(7) == 3
    starts = [0, 2, 4, 7, 9, 11]
    assert step(x)[:, 0].tolist() == [[s, s + 1, s + 2] for s in starts]
    assert SequenceWindows(4, 4)(x)[:, 0].tolist() == [[0, 1, 2, 3], [7, 8, 9, 10]]


def test_output_shape_says_windows_per_sample_and_matches_the_arrays() -> None:
    steps = fit_steps(PLAN, SERIES)
    windows, shape = output_shape(steps, (2, 30))
    assert (windows, shape) == (4, (2, 12))
    result = apply_steps(steps, SERIES)
    assert result.shape == (40 * windows, *shape)
    assert result.dtype == np.float32


def test_each_step_is_fitted_on_what_the_ones_before_it_give() -> None:
    steps = fit_steps(((CapOutliers, {"z": 1.0}), (Standardise, {})), SERIES)
    assert steps[1] == Standardise.fit(steps[0](SERIES))


def test_json_round_trip_is_exact(tmp_path: Path) -> None:
    steps = fit_steps(PLAN, SERIES)
    assert steps_from_json(steps_to_json(steps)) == steps
    (tmp_path / "p.json").write_text(steps_to_json(steps))
    assert load_steps(tmp_path / "p.json") == steps


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(finite, st.floats(1e-300, 1e300)), min_size=1, max_size=4))
def test_json_keeps_any_statistic(pairs: list[tuple[float, float]]) -> None:
    means, stds = (tuple(column) for column in zip(*pairs, strict=True))
    steps = (MeanImpute(means, axis=2), Standardise(means, stds))
    assert steps_from_json(steps_to_json(steps)) == steps


def test_steps_are_frozen_and_refuse_changed_nonsense() -> None:
    step = Standardise((0.0,), (1.0,))
    with pytest.raises(InputError, match="`std` must be above zero"):
        replace(step, std=(0.0,))


WINDOWS = (
    '{"format": "hecompile-preprocess", "version": 1, "steps": '
    '[{"name": "sequence_windows", "length": LENGTH, "step": 1}]}'
)


def change(**fields: object) -> str:
    step = {"name": "standardise", "mean": [0.0], "std": [1.0], "axis": 1} | fields
    return json.dumps({"format": "hecompile-preprocess", "version": 1, "steps": [step]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        ("[]", '"format": "hecompile-preprocess"'),
        ('{"format": "hecompile-preprocess", "version": 2, "steps": []}', "version 2"),
        ('{"format": "hecompile-preprocess", "version": 1}', "`steps` must be a list"),
        ('{"format": "hecompile-preprocess", "version": 1, "steps": [], "x": 1}', "`x`"),
        ('{"format": "hecompile-preprocess", "version": 1, "steps": [3]}', "step 0"),
        (change(name="whiten"), "step 0 is 'whiten'"),
        (change(std=[0.0]), "step 0: standardise: `std`"),
        (change(std=[1.0, 2.0]), "`mean` and `std` differ in length"),
        (change(std="1"), "`std` must be a list"),
        (change(mean=[True]), "`mean` must hold finite numbers, but channel 0 is True"),
        (change(mean=[10**400]), "`mean` must hold finite numbers"),
        (change(mean=[[1.0]]), "`mean` must hold finite numbers"),
        (change(axis=0), "`axis` must be a whole number of at least 1"),
        (change(axis=1.0), "`axis`"),
        (change(extra=1), "unknown field `extra`"),
        (change().replace('"mean": [0.0], ', ""), "lacks the field `mean`"),
        (change().replace("[0.0]", "[NaN]"), "NaN is not a number"),
        (change().replace("[0.0]", "[1e999]"), "`mean` must hold finite numbers"),
        (WINDOWS.replace("LENGTH", "0"), "step 0: sequence_windows: `length`"),
        (WINDOWS.replace("LENGTH", "1.5"), "step 0: sequence_windows: `length`"),
    ],
)
def test_bad_json_names_step_and_field(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        steps_from_json(text)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json"):
        load_steps(tmp_path / "absent.json")


def test_nan_needs_imputation_first() -> None:
    x = SERIES.copy()
    x[3, 1, 4] = np.nan
    steps = fit_steps(PLAN[1:], SERIES)
    with pytest.raises(InputError, match=r"missing value \(NaN\).*mean_impute"):
        apply_steps(steps, x)
    with pytest.raises(InputError, match=r"sample 3 at \[1, 4\]"):
        apply_steps((), x)
    assert np.isfinite(apply_steps(fit_steps(PLAN, SERIES), x)).all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full((2, 2, 30), np.inf), "infinite"),
        (np.zeros((2, 3, 30)), "expected 2 channels on axis 1"),
        (np.zeros((2, 2, 11)), "does not fit into a series"),
        (np.zeros((2, 30)), "expected 2 channels on axis 1"),
        (np.zeros(30), "samples on the first axis"),
        (np.zeros((0, 2, 30)), "at least one sample"),
        (np.zeros((2, 2, 30), dtype=complex), "real numbers"),
        (np.zeros((2, 2, 30), dtype=bool), "real numbers"),
        (np.full((2, 2, 30), "1"), "real numbers"),
        ([[1.0]], "numpy array"),
    ],
)
def test_wrong_samples_are_refused(x: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        apply_steps(fit_steps(PLAN, SERIES), x)
    assert "\n" not in str(caught.value)


def test_what_float32_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="float32"):
        apply_steps((), np.array([[1e300]]))


def test_fitting_refuses_what_has_no_statistics() -> None:
    with pytest.raises(InputError, match="channel 1 has no value"):
        MeanImpute.fit(np.array([[1.0, np.nan], [2.0, np.nan]]))
    with pytest.raises(InputError, match="channel 0 is constant"):
        Standardise.fit(np.full((5, 1), 0.1))
    with pytest.raises(InputError, match="`z` must be a positive number"):
        CapOutliers.fit(SERIES, z=math.nan)
    with pytest.raises(InputError, match="axis 3 is no channel axis"):
        Standardise.fit(SERIES, axis=3)
    with pytest.raises(InputError, match="does not fit"):
        SequenceWindows.fit(SERIES, length=31, step=1)


def test_the_client_side_imports_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, hecompile.preprocess, hecompile.models, hecompile.models.data;"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'networkx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
