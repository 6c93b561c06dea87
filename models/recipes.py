"""From data to a folder that the compiler takes, in one call: what `hecompile train` runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hecompile.errors import InputError
from hecompile.files import atomic_directory, atomic_write_text
from hecompile.models.data import (
    Dataset,
    load_csv,
    load_ecg5000,
    load_npz,
    validation_rows,
)
from hecompile.models.export import (
    Exporter,
    export_onnx,
    save_calibration,
    save_preprocessing,
    save_samples,
)
from hecompile.models.metrics import evaluate_logits
from hecompile.models.networks import CNNLSTM, MLP, CNNLSTMConfig, MLPConfig, Network
from hecompile.models.polynomials import PolynomialForecast, forecast
from hecompile.models.train import (
    Progress,
    TrainConfig,
    TrainingData,
    TrainingResult,
    predict,
    train,
)
from hecompile.preprocess import (
    CapOutliers,
    Crop,
    MeanImpute,
    SequenceWindows,
    Standardise,
    Step,
    apply_steps,
    fit_steps,
    output_shape,
)

BUILT_IN = "ecg5000"
MODELS = ("cnn-lstm", "mlp")
ECG_LENGTH = 128
OUTLIERS_Z = 3.0
VALIDATION_FRACTION = 0.2
FILES = {
    "model": "model.onnx",
    "preprocess": "preprocess.json",
    "calibration": "calibration.npz",
    "test": "test.npz",
    "report": "report.json",
}


@dataclass(frozen=True)
class DataOptions:
    """How to read a user's own file; `load_csv` and `load_npz` say what each means.

    Attributes:
        target: the column to predict (CSV), or the array of labels (NPZ; "y" unless given).
        features: the columns to use; all others when empty.
        group: a column or array whose values must not be in both parts.
        time: a column to sort by (CSV).
        test_fraction: the part of the rows or groups that is held out.
        random_rows: split at random rows, with the run's seed.
        window: (length, step) of the windows into which a series is cut.
    """

    target: str | None = None
    features: tuple[str, ...] = ()
    group: str | None = None
    time: str | None = None
    test_fraction: float = 0.25
    random_rows: bool = False
    window: tuple[int, int] | None = None


@dataclass(frozen=True)
class TrainReport:
    """What `train_to_directory` did and measured; the scores are those of the held-out part.

    Attributes:
        model: "cnn-lstm" or "mlp".
        data: where the data come from.
        classes: the names of the classes, in the order of the logits.
        sample_shape: the shape of a raw sample, without the leading sample axis.
        input_shape: the shape of a preprocessed sample: what the ONNX model takes.
        windows: model inputs that one raw sample becomes.
        preprocessing: the names of the steps.
        samples: raw samples in the parts "fit", "validation", "test" and "calibration".
        parameters: numbers that were trained.
        epochs: epochs that ran.
        best_epoch: the epoch whose weights were kept.
        seconds: wall seconds of the training.
        accuracy: 0 to 1.
        majority_baseline: the accuracy of always answering the most frequent class.
        auc: area under the ROC curve, 0 to 1, or None where a class has no sample.
        f1: 0 to 1.
        polynomial: what cubic activation polynomials would do to the accuracy and the logits.
        files: the names of the files written, by what they hold.
    """

    model: str
    data: str
    classes: tuple[str, ...]
    sample_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    windows: int
    preprocessing: tuple[str, ...]
    samples: Mapping[str, int]
    parameters: int
    epochs: int
    best_epoch: int
    seconds: float
    accuracy: float
    majority_baseline: float
    auc: float | None
    f1: float
    polynomial: PolynomialForecast
    files: Mapping[str, str]

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"


def train_to_directory(
    data: str,
    model: str,
    out: str | Path,
    *,
    seed: int = 0,
    epochs: int | None = None,
    options: DataOptions | None = None,
    activation: str = "square",
    class_weights: bool = False,
    exporter: Exporter | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TrainReport:
    """Train a model and write everything the compiler takes into a new folder.

    The folder holds `model.onnx` (input "x", output "logits", open batch; takes preprocessed
    arrays), `preprocess.json` (the steps, fitted on the training part only), `calibration.npz`
    (raw training samples "x"), `test.npz` (raw held-out samples "x" and labels "y") and
    `report.json`. It appears whole, or not at all.

    Args:
        data: "ecg5000", or the path of a .csv or .npz file.
        model: "cnn-lstm" (series) or "mlp".
        out: the folder to make.
        seed: fixes weights, order and jitter, and the split where rows are split at random.
        epochs: the most epochs; None takes the recipe's.
        options: how to read a file; the built-in data take none.
        activation: of the convolution or the hidden layers.
        class_weights: weigh each class by the inverse of its frequency.
        exporter: "dynamo" or "torchscript"; None takes what this PyTorch prefers.
        overwrite: replace an existing folder.
        progress: called after each epoch.

    Raises:
        InputError: the data cannot be used, an option is wrong, or the folder cannot be made.
    """
    if model not in MODELS:
        raise InputError(f"the model '{model}' is not one of {', '.join(MODELS)}")
    defaults = TrainConfig()
    config = TrainConfig(
        seed=seed, epochs=defaults.epochs if epochs is None else epochs, class_weights=class_weights
    )
    with atomic_directory(out, overwrite) as folder:
        ready = _prepare(data, options, seed)
        result = train(
            lambda: build(model, ready.shape, len(ready.dataset.classes), activation),
            ready.parts,
            config,
            progress,
        )
        export_onnx(result.network, ready.x_train[:1], folder / FILES["model"], exporter=exporter)
        calibration = _write_data(folder, ready)
        report = _report(model, ready, result, calibration)
        atomic_write_text(folder / FILES["report"], report.to_json())
    return report


def load(data: str, options: DataOptions | None = None, seed: int = 0) -> Dataset:
    """Load the built-in data by name, or a .csv or .npz file.

    Args:
        data: "ecg5000", or a path.
        options: how to read a file.
        seed: of the split, where `options.random_rows` asks for one at random rows.

    Raises:
        InputError: options for the built-in data, an unknown kind of file, or unusable contents.
    """
    if data == BUILT_IN:
        if options is not None and options != DataOptions(window=options.window):
            raise InputError(f"{BUILT_IN} comes with its own split and labels; give no columns")
        return load_ecg5000()
    options = options or DataOptions()
    random_rows = seed if options.random_rows else None
    suffix = Path(data).suffix.lower()
    if suffix == ".csv":
        if options.target is None:
            raise InputError(f"{data}: name the column to predict as the target")
        return load_csv(
            data,
            options.target,
            features=options.features,
            group=options.group,
            time=options.time,
            test_fraction=options.test_fraction,
            random_rows=random_rows,
        )
    if suffix == ".npz":
        if options.features or options.time:
            raise InputError(f"{data}: an .npz file has no columns to choose or to sort by")
        return load_npz(
            data,
            y=options.target or "y",
            group=options.group,
            test_fraction=options.test_fraction,
            random_rows=random_rows,
        )
    raise InputError(f"'{data}' is neither {BUILT_IN} nor the path of a .csv or .npz file")


def build(model: str, shape: tuple[int, ...], classes: int, activation: str) -> Network:
    """Make an untrained network for preprocessed samples of `shape`."""
    if model == "mlp":
        return MLP(MLPConfig(shape=shape, classes=classes, activation=activation))
    if len(shape) != 2:
        raise InputError(
            f"cnn-lstm needs series (channels, time), but a sample has shape {shape}; use mlp"
        )
    return CNNLSTM(CNNLSTMConfig.for_series(*shape, classes, activation))


def _plan(data: str, options: DataOptions | None) -> list[tuple[type[Step], Mapping[str, object]]]:
    """The steps to fit. The built-in beats are complete; there a missing value is an error."""
    plan: list[tuple[type[Step], Mapping[str, object]]] = []
    if data != BUILT_IN:
        plan.append((MeanImpute, {}))
    window = options.window if options else None
    if window is None and data == BUILT_IN:
        plan.append((Crop, {"length": ECG_LENGTH}))
    if window is not None:
        plan.append((SequenceWindows, {"length": window[0], "step": window[1]}))
    return [*plan, (CapOutliers, {"z": OUTLIERS_Z}), (Standardise, {})]


@dataclass(frozen=True)
class _Prepared:
    """A data set with its fitted steps and preprocessed parts; `shape` is a model input's."""

    dataset: Dataset
    steps: tuple[Step, ...]
    windows: int
    shape: tuple[int, ...]
    x_train: npt.NDArray[np.float32]
    x_test: npt.NDArray[np.float32]
    y_test: npt.NDArray[np.int64]
    parts: TrainingData


def _prepare(data: str, options: DataOptions | None, seed: int) -> _Prepared:
    """Load the data, fit the steps on the training part, apply them, cut the validation part."""
    dataset = load(data, options, seed)
    fit, held = validation_rows(dataset, VALIDATION_FRACTION)
    steps = fit_steps(_plan(data, options), dataset.x_train)
    windows, shape = output_shape(steps, dataset.x_train.shape[1:])
    x_train, x_test = (apply_steps(steps, x) for x in (dataset.x_train, dataset.x_test))
    y_train, y_test = (np.repeat(y, windows) for y in (dataset.y_train, dataset.y_test))
    fit, held = (_windows_of(rows, windows) for rows in (fit, held))
    parts = TrainingData(x_train[fit], y_train[fit], x_train[held], y_train[held])
    return _Prepared(dataset, steps, windows, shape, x_train, x_test, y_test, parts)


def _report(model: str, ready: _Prepared, result: TrainingResult, calibration: int) -> TrainReport:
    """Score the network on the held-out part and gather the facts."""
    scores = evaluate_logits(predict(result.network, ready.x_test), ready.y_test)
    return TrainReport(
        model=model,
        data=ready.dataset.source,
        classes=ready.dataset.classes,
        sample_shape=ready.dataset.x_train.shape[1:],
        input_shape=ready.shape,
        windows=ready.windows,
        preprocessing=tuple(step.name for step in ready.steps),
        samples={
            "fit": len(ready.parts.x_fit) // ready.windows,
            "validation": len(ready.parts.x_validation) // ready.windows,
            "test": len(ready.dataset.x_test),
            "calibration": calibration,
        },
        parameters=sum(p.numel() for p in result.network.parameters()),
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        seconds=result.seconds,
        accuracy=scores.accuracy,
        majority_baseline=scores.majority_baseline,
        auc=scores.auc,
        f1=scores.f1,
        polynomial=forecast(result.network, ready.x_train, ready.x_test, ready.y_test),
        files=FILES,
    )


def _windows_of(rows: npt.NDArray[np.int64], windows: int) -> npt.NDArray[np.int64]:
    """Return the rows of the windows of the samples `rows`."""
    return (rows[:, np.newaxis] * windows + np.arange(windows)).reshape(-1)


def _write_data(folder: Path, ready: _Prepared) -> int:
    """Write preprocessing and raw samples; return how many samples calibrate."""
    dataset = ready.dataset
    save_preprocessing(folder / FILES["preprocess"], ready.steps)
    save_samples(folder / FILES["test"], {"x": dataset.x_test, "y": dataset.y_test})
    return save_calibration(folder / FILES["calibration"], dataset.x_train)
