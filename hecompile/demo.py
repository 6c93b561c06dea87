"""The demonstration: a CNN-LSTM is trained on heartbeats, compiled, and classifies encrypted beats.

Every number that it prints is measured in the run: encrypted scores beside onnxruntime's, what each
role of a hospital gets of them, the accuracy of the plain and of the compiled model, and the
seconds of each stage.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hecompile.access.audit import AuditLog
from hecompile.access.manifest import Manifest
from hecompile.access.objects import Scope
from hecompile.compiler import Compiled
from hecompile.compiler import compile as compile_model
from hecompile.config import CompileOptions
from hecompile.costs import default_cost_path
from hecompile.demo_roles import CARE, RESEARCH, Answer, Evaluated, Hospital, Progress
from hecompile.errors import CompileError, InputError
from hecompile.files import atomic_write_text, cannot_write, private_folder
from hecompile.interpret.compare import out_of_range
from hecompile.interpret.samples import as_samples
from hecompile.ir.constants import Array
from hecompile.ir.recurrent_ops import Lstm
from hecompile.ir.tensor_ops import tensor_type
from hecompile.preprocess import Step, apply_steps, load_steps

if TYPE_CHECKING:
    from hecompile.models.data import Dataset
    from hecompile.models.recipes import TrainReport

FEWEST_BEATS = 1
MOST_BATCH = 16
"""Persons that the policy asks of a cohort: one batch alone is to be too few."""

PRECISION = 1e-3
"""Largest error of a logit that is asked for; the report states the smaller one predicted."""

MASK_BITS = 30
"""Flooding asks for so little noise that masks of the usual 40 bits find no room in the modulus."""

POSITIVE = 1
MARKER = ".hecompile-demo"
HOME_VARIABLE = "HECOMPILE_HOME"
POLICY_FILE, USERS_FILE = "demo_policy.toml", "demo_users.toml"
"""The hospital's policy and users: data of this package, equal to those in examples/policies."""

COHORT_MEAN = "mean over the cohort"
FOR_DOCTOR = FOR_NURSE = 4
"""Beats about which doctor and nurse ask; the others are the researcher's cohort."""


@dataclass(frozen=True)
class Beat:
    """One held-out beat: its class, and the logits from both ways of computing them.

    Attributes:
        number: of the beat in the held-out part.
        label: its class.
        encrypted: logits that the holder of the key could decrypt, and shows nobody.
        plain: logits by onnxruntime.
    """

    number: int
    label: str
    encrypted: tuple[float, ...]
    plain: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Largest distance of an encrypted logit from onnxruntime's."""
        return max(abs(a - b) for a, b in zip(self.encrypted, self.plain, strict=True))


@dataclass(frozen=True)
class Ward:
    """Beats about which one role asks, and their encrypted answers."""

    beats: tuple[Beat, ...]
    evaluated: Evaluated


@dataclass(frozen=True)
class TestSet:
    """What all held-out beats say, computed in the clear.

    Attributes:
        beats: how many there are.
        majority_baseline: accuracy of always giving the most frequent answer.
        plain_accuracy: accuracy of the model, by onnxruntime.
        compiled_accuracy: accuracy of the encrypted program, by the slot interpreter.
        largest_difference: of the program's logits from the model's, on beats about whose values
            the client does not warn.
        warned: beats about which it warns: some value lies outside the calibrated ranges.
        largest_warned: largest difference on those, for which no bound is promised.
        outside: share of the values that leave the range of their polynomial.
    """

    beats: int
    majority_baseline: float
    plain_accuracy: float
    compiled_accuracy: float
    largest_difference: float
    warned: int
    largest_warned: float
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
        if self.count < FEWEST_BEATS or not 1 <= self.batch < MOST_BATCH:
            raise InputError(
                f"the demonstration needs at least one beat, and 1 to {MOST_BATCH - 1} in a batch"
            )
        if self.count > (known := len(_dataset().y_test)):
            raise InputError(f"there are {known} held-out beats; ask for no more")
        _runtime()
        if find_spec("opendp") is None:
            raise InputError(
                "the demonstration makes a private mean with OpenDP; install it with: "
                "pip install 'hecompile[train,dp]'"
            )
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
        for name in (POLICY_FILE, USERS_FILE):
            text = (resources.files("hecompile") / name).read_text(encoding="utf-8")
            atomic_write_text(self.out / name.removeprefix("demo_"), text)
        private_folder(self.settings)
        if default_cost_path().is_file():
            shutil.copy(default_cost_path(), self.settings)

    @property
    def settings(self) -> Path:
        """Settings of all its parties: identities, trusted keys, state, the audit log."""
        return self.out.resolve() / "settings"

    @contextlib.contextmanager
    def own_settings(self) -> Iterator[None]:
        """Leave the settings of whoever runs the demonstration alone."""
        before = os.environ.get(HOME_VARIABLE)
        os.environ[HOME_VARIABLE] = str(self.settings)
        try:
            yield
        finally:
            if before is None:
                del os.environ[HOME_VARIABLE]
            else:
                os.environ[HOME_VARIABLE] = before

    @property
    def hospital(self) -> Hospital:
        """The parties around the bundle."""
        return Hospital(
            self.out / "bundle",
            self.out / "keys",
            self.out / "vault",
            AuditLog(),
            self.progress,
        )

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
                users=self.out / "users.toml",
                precision=PRECISION,
                options=CompileOptions(batch=self.batch, mask_bits=MASK_BITS),
                preprocessing={"x": self.steps()},
                progress=self.progress,
            )
            compiled.save(self.out / "bundle")
        return compiled

    def manifest(self) -> Manifest:
        """The signed manifest of the bundle."""
        return self.hospital.files().manifest

    def keygen(self) -> None:
        """Let the vault make the keys."""
        with self._stage("keygen"):
            self.hospital.make_keys()

    def run(self) -> list[Ward]:
        """Classify held-out beats encrypted, in groups for those who ask about them."""
        beats, labels = self._test()
        chosen = _spread(labels, self.count)
        cuts = np.cumsum([FOR_DOCTOR, FOR_NURSE])
        with self._stage("run encrypted"):
            return [
                Ward(self._beats(group, labels, done), done)
                for group in np.split(chosen, cuts)
                if len(group)
                for done in [self.hospital.evaluate(beats[group])]
            ]

    def _beats(
        self, chosen: NDArray[Any], labels: NDArray[Any], done: Evaluated
    ) -> tuple[Beat, ...]:
        names, encrypted = self.classes(), self.hospital.raw(done.envelopes)
        plain = self._plain(self._test()[0][chosen])
        if encrypted.shape != plain.shape or not np.isfinite(encrypted).all():
            raise CompileError(f"the decrypted logits are unusable: shape {encrypted.shape}")
        return tuple(
            Beat(int(i), names[int(labels[i])], tuple(map(float, e)), tuple(map(float, p)))
            for i, e, p in zip(chosen, encrypted, plain, strict=True)
        )

    def ask(self, wards: list[Ward]) -> list[Answer]:
        """Let every role ask for what it may have, and some for what they may not."""
        hospital = self.hospital
        with self._stage("releases"):
            first, *others = (ward.evaluated.envelopes for ward in wards)
            answers = [
                hospital.ask("lab-technician", "a patient's scores", first, CARE),
                hospital.ask("evaluator", "a patient's scores", first, CARE),
                hospital.ask("doctor", "scores, for no stated purpose", first),
                hospital.ask("doctor", "scores of each patient", first, CARE),
            ]
            if others:
                answers.append(hospital.ask("nurse", "labels of each patient", others[0], CARE))
            if others[1:]:
                cohort, persons = others[1], min(self.batch, len(wards[2].beats))
                answers += [
                    hospital.ask("researcher", "a patient's scores", cohort[:1], RESEARCH),
                    hospital.ask(
                        "researcher", f"mean over {persons}", cohort[:1], RESEARCH, Scope.COHORT
                    ),
                    hospital.ask("researcher", COHORT_MEAN, cohort, RESEARCH, Scope.COHORT),
                ]
            answers += [hospital.read_log("auditor"), hospital.read_log("nurse")]
        return answers

    def test(self, compiled: Compiled) -> TestSet:
        """Compare the model with the compiled program on all held-out beats."""
        beats, labels = self._test()
        with self._stage("test set in the clear"):
            inputs = as_samples(compiled.original, {"x": apply_steps(self.steps(), beats)})
            plain = self._plain(beats)
            simulated = compiled.simulate(inputs)["logits"].reshape(plain.shape)
            ranges = out_of_range(compiled.polynomial, inputs)
            differences = np.abs(simulated - plain).max(axis=1)
            warned = _warned(compiled, inputs)
        return TestSet(
            beats=len(labels),
            majority_baseline=float(np.bincount(labels).max() / len(labels)),
            plain_accuracy=float((plain.argmax(axis=1) == labels).mean()),
            compiled_accuracy=float((simulated.argmax(axis=1) == labels).mean()),
            largest_difference=float(differences[~warned].max(initial=0.0)),
            warned=int(warned.sum()),
            largest_warned=float(differences[warned].max(initial=0.0)),
            outside=float(np.mean([r.fraction for r in ranges])) if ranges else 0.0,
        )

    def steps(self) -> tuple[Step, ...]:
        """The client's preprocessing, fitted on the training part."""
        return load_steps(self.out / "model" / "preprocess.json")

    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return _dataset().classes

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


def _warned(compiled: Compiled, inputs: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Which samples the client would warn about."""
    (entry,) = compiled.spec.inputs
    rows = inputs["x"].reshape(len(inputs["x"]), -1)
    found = [entry.ranges is not None and entry.ranges.outside(row[None]) for row in rows]
    return np.array([bool(one) for one in found])


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
