"""The models: references with seeded weights, the packaged demonstration's, dense ones of any size.

The reference models lie in a folder beside the checkout (HECOMPILE_SHARED names another); where
that is absent they are left out, with the reason.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hecompile.preprocess import Step, apply_steps, load_steps

REFERENCE_MODELS = ("DiabetesMLP", "CryptoNets", "CNNLSTM", "LeNet5")
DEMO = "demo-cnn-lstm"
NAMES = (*REFERENCE_MODELS, DEMO)
DENSE = "dense-"
CONVOLUTIONAL = "CNNLSTM"
RECURRENT_MODELS = (CONVOLUTIONAL, "BiLSTM", "GRU", "RNN")
POOL, CHANNELS, FEATURES = 4, 4, 4
"""Samples in time that one step of CNNLSTM averages, its channels, the other models' features."""

CALIBRATION_SAMPLES = 64

Samples = NDArray[np.float32]


class MissingError(Exception):
    """A model cannot be measured here; the text is the reason."""


@dataclass(frozen=True)
class Case:
    """A trained model in a file, with samples.

    Attributes:
        name: how it is called in tables.
        model: the ONNX file; its input is "x".
        calibration: raw samples for the compiler.
        samples: raw samples that the compiler does not see.
        steps: the client's preprocessing.
        weights: as the plain TenSEAL programs take them: `weight0`, `bias0` and so on for dense
            layers, `kernels`, `kernel_bias` and `stride_padding` for a convolution before them.
    """

    name: str
    model: Path
    calibration: Samples
    samples: Samples
    steps: tuple[Step, ...] = ()
    weights: Mapping[str, Samples] = field(default_factory=dict)

    @property
    def preprocessing(self) -> Mapping[str, Sequence[Step]]:
        """The steps as the compiler takes them."""
        return {"x": self.steps} if self.steps else {}

    def expected(self, raw: Samples) -> NDArray[np.float64]:
        """What onnxruntime computes for raw samples."""
        import onnxruntime

        session = onnxruntime.InferenceSession(str(self.model), providers=["CPUExecutionProvider"])
        inputs = apply_steps(self.steps, raw).astype(np.float32)
        return np.asarray(session.run(None, {"x": inputs})[0], dtype=np.float64)


def make_case(name: str, folder: Path, count: int) -> Case:
    """Export or train a model into a folder, with `count` samples to run.

    Besides those of `NAMES` there are models `dense-N0-N1-...`: N0 features, then dense layers of
    N1, N2, ... outputs with squares between them, and models `KIND-STEPS` of the kinds in
    `RECURRENT_MODELS`, of so many steps.

    Raises:
        MissingError: the model or what it needs is not here.
    """
    if name == DEMO:
        return _demo(folder, count)
    if name.startswith(DENSE):
        return _dense(name, folder, count)
    kind, _, steps = name.partition("-")
    if kind in RECURRENT_MODELS and steps.isdecimal() and int(steps):
        return _recurrent(name, kind, int(steps), folder, count)
    if name not in REFERENCE_MODELS:
        raise MissingError(f"there is no model of this name; choose among {', '.join(NAMES)}")
    return _reference(name, folder, count)


def reference_file() -> Path:
    """Where the reference models' source is expected."""
    beside = Path(__file__).resolve().parents[3] / "shared"
    return Path(os.environ.get("HECOMPILE_SHARED", beside)) / "refmodels.py"


def widths(name: str) -> tuple[int, ...]:
    """Features and outputs of each layer of a model `dense-...`.

    Raises:
        MissingError: the name is not of this kind.
    """
    numbers = name.removeprefix(DENSE).split("-")
    if len(numbers) < 2 or not all(n.isdecimal() and int(n) for n in numbers):
        raise MissingError(f"'{name}' is not {DENSE} and two numbers or more")
    return tuple(map(int, numbers))


def _reference(name: str, folder: Path, count: int) -> Case:
    module = _load(reference_file())
    kind = getattr(module, name)
    return _exported(name, module.make(kind), kind.sample, folder, count)


def _recurrent(name: str, kind: str, steps: int, folder: Path, count: int) -> Case:
    if kind == CONVOLUTIONAL:
        module = _load(reference_file())
        length = POOL * steps
        model = module.make(lambda: module.CNNLSTM(c=CHANNELS, T=length))
        return _exported(name, model, (CHANNELS, length), folder, count)
    try:
        from tests.benchmarks.recurrent import recurrent
    except ModuleNotFoundError as error:
        raise MissingError(f"it needs {error.name}, which is not installed") from error
    return _exported(name, recurrent(kind), (steps, FEATURES), folder, count)


def _dense(name: str, folder: Path, count: int) -> Case:
    sizes = widths(name)
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingError(f"it needs {error.name}, which is not installed") from error

    class Squares(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pairs = itertools.pairwise(sizes)
            self.layers = torch.nn.ModuleList(torch.nn.Linear(m, n) for m, n in pairs)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i, layer in enumerate(self.layers):
                x = layer(x * x if i else x)
            return x

    torch.manual_seed(0)
    return _exported(name, Squares(), sizes[:1], folder, count)


def _exported(name: str, model: Any, sample: Sequence[int], folder: Path, count: int) -> Case:
    from hecompile.models.export import export_onnx

    random = np.random.default_rng(0)
    normal = random.standard_normal((CALIBRATION_SAMPLES + count, *sample)).astype(np.float32)
    path = folder / f"{name}.onnx"
    export_onnx(model.eval(), normal, path)
    calibration, samples = normal[:CALIBRATION_SAMPLES], normal[CALIBRATION_SAMPLES:]
    return Case(name, path, calibration, samples, weights=_weights(model))


def _weights(model: Any) -> dict[str, Samples]:
    """Weights of dense layers and of one convolution, in the order of the modules."""
    found: dict[str, Samples] = {}
    dense = 0
    for module in model.modules():
        kind = type(module).__name__
        if kind == "Linear":
            found[f"weight{dense}"] = module.weight.detach().numpy()
            found[f"bias{dense}"] = module.bias.detach().numpy()
            dense += 1
        elif kind == "Conv2d" and module.in_channels == 1:
            found["kernels"] = module.weight.detach().numpy()
            found["kernel_bias"] = module.bias.detach().numpy()
            found["stride_padding"] = np.array([module.stride[0], module.padding[0]], np.float32)
    return found


def _load(path: Path) -> Any:
    if not path.is_file():
        raise MissingError(f"{path.name} is not in the folder {path.parent.name}/")
    found = importlib.util.spec_from_file_location("reference_models", path)
    if found is None or found.loader is None:
        raise MissingError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise MissingError(f"it needs {error.name}, which is not installed") from error
    return module


def _demo(folder: Path, count: int) -> Case:
    try:
        from hecompile.models import train_to_directory

        trained = folder / "demo"
        train_to_directory("ecg5000", "cnn-lstm", trained)
    except ModuleNotFoundError as error:
        raise MissingError(f"it needs {error.name}, which is not installed") from error
    with np.load(trained / "test.npz", allow_pickle=False) as stored:
        beats = stored["x"]
    with np.load(trained / "calibration.npz", allow_pickle=False) as stored:
        calibration = stored["x"]
    chosen = np.linspace(0, len(beats) - 1, count).astype(int)
    steps = load_steps(trained / "preprocess.json")
    return Case(DEMO, trained / "model.onnx", calibration, beats[chosen], steps)
