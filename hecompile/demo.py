"""The demonstration: a CNN-LSTM is trained on heartbeats, compiled, and classifies encrypted beats.

Every number that it prints is measured in the run: encrypted scores beside onnxruntime's, the
accuracy of the plain and of the compiled model, and the seconds of each stage.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hecompile.access.audit import AuditLog
from hecompile.compiler import Compiled
from hecompile.compiler import compile as compile_model
from hecompile.config import CompileOptions
from hecompile.errors import AccessDeniedError, CompileError, InputError
from hecompile.files import atomic_write_text, cannot_write
from hecompile.interpret.compare import out_of_range
from hecompile.interpret.samples import as_samples
from hecompile.ir.recurrent_ops import Lstm
from hecompile.ir.tensor_ops import tensor_type
from hecompile.preprocess import Step, apply_steps, load_steps
from hecompile.runtime.parties import Bundle, open_bundle
from hecompile.runtime.run import RunResult

if TYPE_CHECKING:
    from hecompile.models.data import Dataset
    from hecompile.models.recipes import TrainReport

FEWEST_BEATS = 1
PRECISION = 1e-3
"""Largest error of a logit that is asked for; the report states the smaller one predicted."""

POSITIVE = 1
MARKER = ".hecompile-demo"
CLINICIAN, HOSPITAL, RESEARCHER = "anna", "hospital", "rene"
POLICY = """\
# Who may do what with the heartbeat model; whatever is not granted is refused.
format = 1

[roles.clinician]
description = "Of the hospital that holds the key: sends a patient's beats and reads the answer"

[roles.custodian]
description = "Holds the secret key and refreshes masked ciphertexts"

[roles.evaluator]
description = "Computes on ciphertexts; sees no value and no secret key"

[roles.researcher]
description = "May see that the model is used, by whom and when, but no beat and no answer"

[[permissions]]
role = "clinician"
actions = ["encrypt", "submit"]
objects = ["input:x"]

[[permissions]]
role = "clinician"
actions = ["receive", "decrypt"]
objects = ["output:logits"]

# Decrypted values and their ciphertexts give the key away, so who sees both holds it.
[[permissions]]
role = "clinician"
actions = ["hold"]
objects = ["key:secret"]

[[permissions]]
role = "custodian"
actions = ["hold"]
objects = ["key:secret", "key:public", "key:evaluation"]

[[permissions]]
role = "custodian"
actions = ["refresh"]
objects = ["program"]

[[permissions]]
role = "evaluator"
actions = ["evaluate"]
objects = ["program"]

[[permissions]]
role = "researcher"
actions = ["read"]
objects = ["audit"]

[users]
anna = ["clinician"]
hospital = ["custodian"]
cloud = ["evaluator"]
rene = ["researcher"]
"""


class Progress(Protocol):
    """Told of a task, and how much of it is done."""

    def __call__(self, task: str, done: int = 0, total: int = 0) -> None:
        """Show it."""


@dataclass(frozen=True)
class Beat:
    """One held-out beat: its class, and the logits from both ways of computing them."""

    number: int
    label: str
    encrypted: tuple[float, ...]
    plain: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Largest distance of an encrypted logit from onnxruntime's."""
        return max(abs(a - b) for a, b in zip(self.encrypted, self.plain, strict=True))


@dataclass(frozen=True)
class TestSet:
    """What all held-out beats say, computed in the clear.

    Attributes:
        beats: how many there are.
        majority_baseline: accuracy of always giving the most frequent answer.
        plain_accuracy: accuracy of the model, by onnxruntime.
        compiled_accuracy: accuracy of the encrypted program, by the slot interpreter.
        largest_difference: of the program's logits from the model's.
        outside: share of the values that leave the range of their polynomial.
    """

    beats: int
    majority_baseline: float
    plain_accuracy: float
    compiled_accuracy: float
    largest_difference: float
    outside: float

    @property
    def points_lost(self) -> float:
        """Accuracy that compilation costs, in points; below 0 if it gains some."""
        # Rounded, so that exactly one point is not more than one point.
        return round(100 * (self.plain_accuracy - self.compiled_accuracy), 9)


@dataclass
class Demo:
    """The demonstration in a folder of its own, stage by stage.

    Attributes:
        out: the folder.
        count: beats to run encrypted.
        batch: beats in one evaluation.
        progress: told what is going on.
        seconds: wall seconds of each stage done.
    """

    out: Path
    count: int
    batch: int
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    def prepare(self) -> None:
        """Make the folder anew.

        Raises:
            InputError: something else than an earlier demonstration is there.
        """
        if self.count < FEWEST_BEATS or self.batch < 1:
            raise InputError("the demonstration needs at least one beat, and one in a batch")
        if self.count > (known := len(_dataset().y_test)):
            raise InputError(f"there are {known} held-out beats; ask for no more")
        _runtime()
        if self.out.exists():
            ours = (self.out / MARKER).is_file()
            if not ours and (not self.out.is_dir() or any(self.out.iterdir())):
                raise InputError(
                    f"{self.out} exists and is no earlier demonstration; name another folder"
                )
            shutil.rmtree(self.out)
        try:
            self.out.mkdir(parents=True)
        except OSError as error:
            raise cannot_write(self.out, error) from error
        atomic_write_text(self.out / MARKER, "made by hecompile demo; may be removed\n")
        atomic_write_text(self.out / "policy.toml", POLICY)

    def train(self) -> TrainReport:
        """Train the model and export it; return its `TrainReport`."""
        from hecompile.models import train_to_directory

        with self._stage("train"):
            return train_to_directory(
                "ecg5000",
                "cnn-lstm",
                self.out / "model",
                progress=lambda epoch: self.progress("training", epoch.number, epoch.epochs),
            )

    def compile(self) -> Compiled:
        """Compile the exported model and write the bundle."""
        model = self.out / "model"
        with self._stage("compile"):
            compiled = compile_model(
                model / "model.onnx",
                calibration=model / "calibration.npz",
                policy=self.out / "policy.toml",
                precision=PRECISION,
                options=CompileOptions(batch=self.batch),
                preprocessing={"x": self.steps()},
                progress=self.progress,
            )
            compiled.save(self.out / "bundle")
        return compiled

    def keygen(self) -> None:
        """Let the hospital make the keys."""
        with self._stage("keygen"):
            self._bundle(HOSPITAL).keygen(self.out / "keys", self.progress)

    def run(self) -> tuple[list[Beat], RunResult]:
        """Classify held-out beats encrypted, the evaluator in a process of its own."""
        beats, labels = self._test()
        chosen = _spread(labels, self.count)
        with self._stage("run encrypted"):
            result = self._bundle(CLINICIAN).run(
                {"x": beats[chosen]}, keys=self.out / "keys", progress=self.progress
            )
        names = self.classes()
        encrypted = result.raw_outputs["logits"]
        plain = self._plain(beats[chosen])
        if encrypted.shape != plain.shape or not np.isfinite(encrypted).all():
            raise CompileError(f"the decrypted logits are unusable: shape {encrypted.shape}")
        found = [
            Beat(int(i), names[int(labels[i])], tuple(map(float, e)), tuple(map(float, p)))
            for i, e, p in zip(chosen, encrypted, plain, strict=True)
        ]
        return found, result

    def denied(self) -> str:
        """What the researcher hears, who asks to decrypt.

        Raises:
            CompileError: the policy did not refuse.
        """
        bundle = self._bundle(RESEARCHER)
        try:
            bundle.custodian(self.out / "keys")
        except AccessDeniedError as error:
            return str(error)
        raise CompileError(f"the policy let user '{RESEARCHER}' decrypt")

    def test(self, compiled: Compiled) -> TestSet:
        """Compare the model with the compiled program on all held-out beats."""
        beats, labels = self._test()
        with self._stage("test set in the clear"):
            inputs = as_samples(compiled.original, {"x": apply_steps(self.steps(), beats)})
            plain = self._plain(beats)
            simulated = compiled.simulate(inputs)["logits"].reshape(plain.shape)
            ranges = out_of_range(compiled.polynomial, inputs)
        return TestSet(
            beats=len(labels),
            majority_baseline=float(np.bincount(labels).max() / len(labels)),
            plain_accuracy=float((plain.argmax(axis=1) == labels).mean()),
            compiled_accuracy=float((simulated.argmax(axis=1) == labels).mean()),
            largest_difference=float(np.abs(simulated - plain).max()),
            outside=float(np.mean([r.fraction for r in ranges])) if ranges else 0.0,
        )

    def steps(self) -> tuple[Step, ...]:
        """The client's preprocessing, fitted on the training part."""
        return load_steps(self.out / "model" / "preprocess.json")

    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return _dataset().classes

    def _bundle(self, user: str) -> Bundle:
        audit = AuditLog(self.out.resolve() / "audit" / "decisions.jsonl")
        return open_bundle(self.out / "bundle", user=user, audit=audit)

    def _test(self) -> tuple[NDArray[Any], NDArray[Any]]:
        with np.load(self.out / "model" / "test.npz", allow_pickle=False) as stored:
            return stored["x"], stored["y"]

    def _plain(self, beats: NDArray[Any]) -> NDArray[Any]:
        """The model's logits by onnxruntime."""
        session = _runtime().InferenceSession(
            str(self.out / "model" / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        logits = session.run(["logits"], {"x": apply_steps(self.steps(), beats)})[0]
        return np.asarray(logits, dtype=np.float64)

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def lstm_shape(compiled: Compiled) -> Mapping[str, int]:
    """Steps and hidden units of the model's LSTM."""
    op = compiled.original.select(Lstm)[0]
    return {"steps": tensor_type(op.x).shape[0], "hidden": op.hidden}


def _spread(labels: NDArray[Any], count: int) -> NDArray[Any]:
    """Beats evenly over the held-out part, so that both classes occur."""
    return np.linspace(0, len(labels) - 1, count).astype(int)


def _dataset() -> Dataset:
    from hecompile.models.data import load_ecg5000

    return load_ecg5000()


def _runtime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise InputError(
            "the demonstration compares with onnxruntime; install it with: "
            "pip install 'hecompile[train]'"
        ) from error
    return onnxruntime
