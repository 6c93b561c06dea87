from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from hecompile.errors import InputError
from hecompile.models.data import load_ecg5000
from hecompile.models.export import Exporter, export_onnx
from hecompile.models.metrics import area_under_curve, evaluate_logits
from hecompile.models.networks import (
    ACTIVATIONS,
    CNNLSTM,
    MLP,
    CNNLSTMConfig,
    MLPConfig,
    Network,
)
from hecompile.models.polynomials import forecast
from hecompile.models.recipes import DataOptions, TrainReport, build, train_to_directory
from hecompile.models.train import (
    Epoch,
    TrainConfig,
    TrainingData,
    TrainingResult,
    predict,
    train,
)
from hecompile.preprocess import apply_steps, load_steps

RNG = np.random.default_rng(11)


def toy(samples: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Series whose label is the sign of a slope under noise."""
    y = np.arange(samples) % 2
    slope = (2 * y - 1)[:, None] * np.linspace(-1, 1, 16)
    x = slope + RNG.normal(0, 0.5, (samples, 16))
    return x[:, np.newaxis].astype(np.float32), y.astype(np.int64)


X, Y = toy()
PARTS = TrainingData(X[:80], Y[:80], X[80:], Y[80:])
SMALL = CNNLSTMConfig(length=16, maps=2, kernel=4, stride=2, padding=1, pool=2, hidden=3)
QUICK = TrainConfig(seed=3, epochs=3)


def run(config: TrainConfig = QUICK, parts: TrainingData = PARTS) -> TrainingResult:
    return train(lambda: CNNLSTM(SMALL), parts, config)


def weights(network: torch.nn.Module) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for p in network.parameters()])


def test_the_demo_network_has_at_least_four_steps_and_sixteen_hidden_units() -> None:
    config = CNNLSTMConfig()
    assert config.steps == 4
    assert config.hidden == 16
    assert config == CNNLSTMConfig.for_series(1, 128, 2)


@pytest.mark.parametrize("length", [4, 8, 15, 16, 31, 48, 100, 140, 1000])
def test_sizes_are_found_for_any_length(length: int) -> None:
    config = CNNLSTMConfig.for_series(2, length, 3, "tanh")
    assert 1 <= config.steps <= 16
    assert CNNLSTM(config)(torch.zeros(5, 2, length)).shape == (5, 3)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_trace_computes_what_forward_computes(activation: str) -> None:
    networks: tuple[Network, ...] = (
        CNNLSTM(replace(SMALL, activation=activation)),
        MLP(MLPConfig((1, 16), (5, 4, 3), activation=activation)),
    )
    for network in networks:
        traced = network.trace(torch.from_numpy(X))
        assert set(traced.inputs) == set(network.functions())
        assert torch.allclose(traced.logits, network(torch.from_numpy(X)), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CNNLSTMConfig(activation="swish"), "'swish' is not one of gelu, relu"),
        (lambda: CNNLSTMConfig(length=3), "leaves no LSTM step"),
        (lambda: CNNLSTMConfig(hidden=0), "`hidden` must be at least 1"),
        (lambda: CNNLSTMConfig(classes=1), "at least 2 classes"),
        (lambda: MLPConfig(()), "whole numbers of at least 1"),
        (lambda: build("cnn-lstm", (8,), 2, "square"), "needs series"),
        (lambda: TrainConfig(epochs=0), "`epochs` must be at least 1"),
        (lambda: TrainConfig(learning_rate=float("nan")), "`learning_rate`"),
        (lambda: run(replace(QUICK, range_limits={})), "lacks 'convolution'"),
        (lambda: run(replace(QUICK, learning_rate=1e18)), "no finite number"),
    ],
)
def test_wrong_settings_are_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_training_with_one_seed_is_deterministic_and_leaves_global_state_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    first = run()
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    second = run()
    assert np.array_equal(weights(first.network), weights(second.network))
    assert not np.array_equal(weights(first.network), weights(run(replace(QUICK, seed=4)).network))


def test_training_learns_reports_progress_and_keeps_the_best_epoch() -> None:
    seen: list[Epoch] = []
    config = TrainConfig(epochs=25, class_weights=True)
    result = train(lambda: CNNLSTM(SMALL), PARTS, config, seen.append)
    assert [e.number for e in seen] == list(range(1, result.epochs + 1))
    losses = [e.validation_loss for e in seen]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert result.validation.accuracy == pytest.approx(
        seen[result.best_epoch - 1].validation_accuracy
    )
    assert result.validation.accuracy > 0.8
    assert not result.network.training


def test_training_stops_early() -> None:
    noise = TrainingData(X[:80], RNG.permutation(Y[:80]), X[80:], Y[80:])
    result = run(TrainConfig(epochs=60, patience=2), noise)
    assert result.epochs == result.best_epoch + 2
    assert result.epochs < 60


def test_the_penalty_narrows_the_ranges() -> None:
    free, bound = (run(TrainConfig(epochs=15, range_penalty=p)) for p in (0.0, 10.0))
    limits = TrainConfig().range_limits
    excess = []
    for result in (free, bound):
        with torch.no_grad():
            inputs = result.network.trace(torch.from_numpy(X)).inputs
        excess.append(sum(float(torch.relu(v.abs() - limits[k]).sum()) for k, v in inputs.items()))
    assert excess[1] < excess[0] / 4


def test_forecast_is_exact_for_a_polynomial_network_and_better_with_the_degree() -> None:
    mlp = MLP(MLPConfig((1, 16)))
    assert forecast(mlp, X, X, Y).max_difference == 0
    network = run().network
    cubic, quintic = (forecast(network, X, X, Y, degree=d) for d in (3, 5))
    assert cubic.max_difference is not None
    assert quintic.max_difference is not None
    assert quintic.max_difference < cubic.max_difference < 0.2
    assert [r.name for r in cubic.ranges] == ["convolution", "gates", "candidate", "cell"]
    assert all(r.outside == 0 for r in cubic.ranges)
    far = forecast(network, X[:4], np.float32(1e6) * X, Y)
    assert far.ranges[0].outside > 0
    assert far.max_difference is None


def test_area_under_curve_counts_pairs() -> None:
    scores = np.round(RNG.normal(size=60), 1)
    positive = RNG.random(60) < 0.4
    pairs = scores[positive][:, None] - scores[~positive][None]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert area_under_curve(scores, positive) == pytest.approx(expected)
    assert area_under_curve(scores, np.ones(60, dtype=bool)) is None


def test_scores_of_a_known_table() -> None:
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [3.0, 0.0], [0.0, 0.5]])
    scores = evaluate_logits(logits, np.array([0, 1, 1, 1, 0]))
    assert scores.accuracy == pytest.approx(0.6)
    assert scores.majority_baseline == pytest.approx(0.6)
    assert scores.f1 == pytest.approx(2 / 3)
    assert scores.auc == pytest.approx(4 / 6)
    three = evaluate_logits(np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0]))
    assert (three.accuracy, three.auc, three.f1) == (1, 1, 1)


def onnx_logits(path: Path, x: np.ndarray, name: str = "x") -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {name: x})[0]
    return result


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("kind", ["cnn-lstm", "mlp"])
def test_exported_onnx_equals_torch(
    tmp_path: Path, kind: str, exporter: Exporter, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = build(kind, (1, 16), 2, "square")
    path = tmp_path / "m.onnx"
    export_onnx(network, X[:1], path, exporter=exporter)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    for rows in (X[:1], X[:7]):
        assert np.allclose(onnx_logits(path, rows), predict(network, rows), atol=1e-5)
    assert capsys.readouterr() == ("", "")
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def test_export_with_a_fixed_batch_and_other_names(tmp_path: Path) -> None:
    network = CNNLSTM(SMALL)
    path = tmp_path / "m.onnx"
    export_onnx(
        network, X, path, dynamic_batch=False, exporter="torchscript",
        input_name="beat", output_name="score",
    )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("beat", [1, 1, 16])]
    assert [o.name for o in session.get_outputs()] == ["score"]
    assert network.training


def test_export_refuses_what_it_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="neither 'dynamo' nor"):
        export_onnx(CNNLSTM(SMALL), X, tmp_path / "m.onnx", exporter="tf")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="samples first"):
        export_onnx(CNNLSTM(SMALL), X[:0], tmp_path / "m.onnx")
    monkeypatch.setattr(torch.onnx, "export", lambda model, args, f: None)
    with pytest.raises(InputError, match="has no 'dynamo' exporter"):
        export_onnx(CNNLSTM(SMALL), X, tmp_path / "m.onnx", exporter="dynamo")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainReport]:
    out = tmp_path_factory.mktemp("run") / "model"
    report = train_to_directory("ecg5000", "cnn-lstm", out, epochs=25, exporter="torchscript")
    return out, report


def test_the_folder_holds_what_the_compiler_takes(trained: tuple[Path, TrainReport]) -> None:
    out, report = trained
    assert sorted(p.name for p in out.iterdir()) == sorted(report.files.values())
    test, calibration = np.load(out / "test.npz"), np.load(out / "calibration.npz")
    data = load_ecg5000()
    assert np.array_equal(test["x"], data.x_test)
    assert np.array_equal(test["y"], data.y_test)
    assert calibration.files == ["x"]
    assert np.array_equal(calibration["x"], data.x_train)
    assert json.loads((out / "report.json").read_text()) == json.loads(report.to_json())


def test_reported_accuracy_is_that_of_the_files(trained: tuple[Path, TrainReport]) -> None:
    out, report = trained
    test = np.load(out / "test.npz")
    x = apply_steps(load_steps(out / "preprocess.json"), test["x"])
    assert x.shape[1:] == report.input_shape == (1, 128)
    accuracy = (onnx_logits(out / "model.onnx", x).argmax(1) == test["y"]).mean()
    assert accuracy == pytest.approx(report.accuracy)
    assert report.majority_baseline == pytest.approx(0.584)
    assert report.accuracy > 0.85
    assert report.polynomial.accuracy > report.accuracy - 0.01


def test_statistics_come_from_the_training_part_only(tmp_path: Path) -> None:
    x, y = RNG.normal(size=(80, 3)), np.arange(80) % 2
    files = []
    for shift in (0.0, 1e6):
        changed = x.copy()
        changed[60:] += shift
        np.savez(tmp_path / "d.npz", x=changed, y=y)
        out = tmp_path / f"out{shift:.0f}"
        train_to_directory(
            str(tmp_path / "d.npz"), "mlp", out, epochs=1, exporter="torchscript"
        )  # fmt: skip
        files.append((out / "preprocess.json").read_bytes())
        files.append((out / "model.onnx").read_bytes())
    assert files[0] == files[2]
    assert files[1] == files[3]


def test_a_users_table_with_missing_cells(tmp_path: Path) -> None:
    rows = [f"p{i // 4},{i % 7},{'' if i % 5 == 0 else i % 3},{i % 2}" for i in range(80)]
    (tmp_path / "t.csv").write_text("\n".join(["who,a,b,ill", *rows]))
    report = train_to_directory(
        str(tmp_path / "t.csv"),
        "mlp",
        tmp_path / "out",
        epochs=1,
        options=DataOptions(target="ill", group="who"),
        exporter="torchscript",
    )
    assert report.preprocessing == ("mean_impute", "cap_outliers", "standardise")
    assert report.samples == {"fit": 48, "validation": 12, "test": 20, "calibration": 60}


def test_windows_repeat_the_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=RNG.normal(size=(40, 2, 40)), y=np.arange(40) % 2)
    report = train_to_directory(
        str(tmp_path / "d.npz"),
        "cnn-lstm",
        tmp_path / "out",
        epochs=1,
        options=DataOptions(window=(16, 8)),
        exporter="torchscript",
    )
    assert (report.windows, report.sample_shape, report.input_shape) == (4, (2, 40), (2, 16))


@pytest.mark.parametrize(
    ("data", "model", "options", "message"),
    [
        ("ecg5000", "gru", None, "'gru' is not one of cnn-lstm, mlp"),
        ("ecg500", "mlp", None, "neither ecg5000 nor the path"),
        ("ecg5000", "mlp", DataOptions(target="y"), "its own split"),
        ("t.csv", "mlp", None, "name the column to predict"),
        ("t.npz", "mlp", DataOptions(time="t"), "no columns to choose"),
        ("absent.npz", "mlp", None, r"absent\.npz"),
        ("ecg5000", "mlp", DataOptions(window=(141, 1)), "does not fit"),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(
    tmp_path: Path, data: str, model: str, options: DataOptions | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_to_directory(data, model, tmp_path / "out", options=options)
    assert not list(tmp_path.iterdir())


def test_interrupted_training_leaves_no_folder(tmp_path: Path) -> None:
    def interrupt(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_to_directory("ecg5000", "cnn-lstm", tmp_path / "out", progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused_before_training(tmp_path: Path) -> None:
    seen: list[Epoch] = []
    with pytest.raises(InputError, match="exists already"):
        train_to_directory("ecg5000", "cnn-lstm", tmp_path, progress=seen.append)
    assert not seen
