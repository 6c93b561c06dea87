"""What is measured: reference models with seeded weights, and the packaged demonstration's model.

The reference models and what other compilers reach on them lie in a folder beside the checkout
(HECOMPILE_SHARED names another); where that is absent they are left out, with the reason.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hecompile.preprocess import Step, apply_steps, load_steps

REFERENCE_MODELS = ("DiabetesMLP", "CryptoNets", "CNNLSTM", "LeNet5")
DEMO = "demo-cnn-lstm"
NAMES = (*REFERENCE_MODELS, DEMO)
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
    """

    name: str
    model: Path
    calibration: Samples
    samples: Samples
    steps: tuple[Step, ...] = ()

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

    Raises:
        MissingError: the model or what it needs is not here.
    """
    if name == DEMO:
        return _demo(folder, count)
    if name not in REFERENCE_MODELS:
        raise MissingError(f"there is no model of this name; choose among {', '.join(NAMES)}")
    return _reference(name, folder, count)


def reference_file() -> Path:
    """Where the reference models' source is expected."""
    beside = Path(__file__).resolve().parents[3] / "shared"
    return Path(os.environ.get("HECOMPILE_SHARED", beside)) / "refmodels.py"


def _reference(name: str, folder: Path, count: int) -> Case:
    from hecompile.models.export import export_onnx

    module = _load(reference_file())
    kind = getattr(module, name)
    random = np.random.default_rng(0)
    normal = random.standard_normal((CALIBRATION_SAMPLES + count, *kind.sample)).astype(np.float32)
    path = folder / f"{name}.onnx"
    export_onnx(module.make(kind), normal, path)
    return Case(name, path, normal[:CALIBRATION_SAMPLES], normal[CALIBRATION_SAMPLES:])


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
