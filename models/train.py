"""Training with fixed seeds that keeps activations narrow, as encrypted evaluation needs.

A polynomial stands for each activation function in an encrypted program. It is accurate where the
range of its inputs is narrow, so the loss carries a penalty on inputs beyond a limit per kind of
activation; the samples are jittered so that the ranges hold for samples not seen yet.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hecompile.errors import InputError
from hecompile.models.metrics import Scores, evaluate_logits
from hecompile.models.networks import Network

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

RANGE_LIMITS: Mapping[str, float] = {
    "convolution": 3.0,
    "gates": 1.0,
    "candidate": 0.5,
    "cell": 0.5,
    "dense": 2.0,
}


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        seed: fixes initial weights, the order of samples and the jitter.
        epochs: the most passes over the training data.
        patience: epochs without a better validation loss before training stops early.
        batch: samples per gradient step.
        learning_rate: of Adam at the start; it falls to zero along a half cosine.
        weight_decay: decoupled (Loshchilov and Hutter 2019).
        label_smoothing: keeps the logits modest.
        range_penalty: weight of the squared excess over `range_limits`; 0 turns it off.
        range_limits: per kind of activation, the absolute input from which the penalty counts.
        noise: standard deviation of the noise added to each training sample's values.
        gain: standard deviation of the factor around 1 on each training sample.
        class_weights: weigh each class by the inverse of its frequency.
    """

    seed: int = 0
    epochs: int = 80
    patience: int = 20
    batch: int = 32
    learning_rate: float = 5e-3
    weight_decay: float = 1e-3
    label_smoothing: float = 0.05
    range_penalty: float = 1.0
    range_limits: Mapping[str, float] = field(default_factory=lambda: dict(RANGE_LIMITS))
    noise: float = 0.05
    gain: float = 0.1
    class_weights: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"training: `{name}` must be at least 1")
        if not self.learning_rate > 0:
            raise InputError("training: `learning_rate` must be above 0")
        for name in ("seed", "weight_decay", "label_smoothing", "range_penalty", "noise", "gain"):
            if not getattr(self, name) >= 0:
                raise InputError(f"training: `{name}` must not be negative")


@dataclass(frozen=True)
class Epoch:
    """Progress after one epoch.

    Attributes:
        number: counted from 1.
        epochs: the most there will be.
        train_loss: mean over the epoch's batches, penalty included.
        validation_loss: penalty included.
        validation_accuracy: 0 to 1.
        seconds: wall seconds since training began.
    """

    number: int
    epochs: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


@dataclass(frozen=True)
class TrainingData:
    """Preprocessed float32 samples, samples first, and labels of the two parts."""

    x_fit: FloatArray
    y_fit: IntArray
    x_validation: FloatArray
    y_validation: IntArray


@dataclass(frozen=True)
class TrainingResult:
    """A trained network, in evaluation mode, and how it came about.

    Attributes:
        network: with the weights of the best epoch.
        epochs: how many ran.
        best_epoch: whose weights were kept, counted from 1.
        validation: scores on the validation part.
        seconds: wall seconds.
    """

    network: Network
    epochs: int
    best_epoch: int
    validation: Scores
    seconds: float


Progress = Callable[[Epoch], None]


def train(
    build: Callable[[], Network],
    data: TrainingData,
    config: TrainConfig | None = None,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train the network that `build` makes; the same seed gives the same weights.

    Adam with decoupled weight decay on the cross-entropy plus the range penalty. The weights of
    the epoch with the least validation loss are kept; training stops early after
    `config.patience` epochs without a better one. PyTorch's global random state and number of
    threads are left as they were.

    Args:
        build: makes the network; its initial weights come from `config.seed`.
        data: preprocessed samples.
        config: how to train.
        progress: called after each epoch.

    Raises:
        InputError: the loss stops being a finite number.
    """
    config = config or TrainConfig()
    began = time.perf_counter()
    with _reproducible(config.seed):
        network = build()
        loss = _Loss(config, data.y_fit, network)
        run = _Run(network, loss, data, config, began)
        best = run.until_done(progress)
        network.load_state_dict(best.weights)
        network.eval()
        scores = evaluate_logits(predict(network, data.x_validation), data.y_validation)
    return TrainingResult(
        network, run.epoch, best.number, scores, round(time.perf_counter() - began, 3)
    )


def predict(network: nn.Module, x: FloatArray) -> npt.NDArray[np.float32]:
    """Return the logits (S, classes) of preprocessed samples."""
    network.eval()
    with torch.no_grad():
        logits: npt.NDArray[np.float32] = network(torch.from_numpy(x)).numpy()
    return logits


@contextlib.contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Fix PyTorch's randomness, and sums in one order (one thread); put both back at the end."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class _Loss:
    """Cross-entropy plus the penalty on inputs of activations beyond their limit."""

    def __init__(self, config: TrainConfig, labels: IntArray, network: Network) -> None:
        weights = None
        if config.class_weights:
            counts = np.bincount(labels)
            weights = torch.from_numpy((len(labels) / (len(counts) * counts)).astype(np.float32))
        self._entropy = nn.CrossEntropyLoss(weights, label_smoothing=config.label_smoothing)
        self._penalty = config.range_penalty
        self._limits = {n: _limit(config.range_limits, n) for n in network.functions()}

    def __call__(self, network: Network, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        trace = network.trace(x)
        loss: Tensor = self._entropy(trace.logits, y)
        for name, values in trace.inputs.items():
            excess = torch.relu(values.abs() - self._limits[name])
            loss = loss + self._penalty * excess.square().sum(dim=1).mean()
        return loss, trace.logits


def _limit(limits: Mapping[str, float], name: str) -> float:
    """The limit of an activation, whose name may end in a layer's number."""
    kind = name.rstrip("0123456789")
    if kind not in limits:
        raise InputError(f"training: `range_limits` lacks '{kind}'")
    return limits[kind]


@dataclass(frozen=True)
class _Best:
    number: int
    loss: float
    weights: Mapping[str, Tensor]


class _Run:
    """The epochs of one training."""

    def __init__(
        self,
        network: Network,
        loss: _Loss,
        data: TrainingData,
        config: TrainConfig,
        began: float,
    ) -> None:
        self.network, self.loss, self.config, self.began = network, loss, config, began
        self.fit = torch.from_numpy(data.x_fit), torch.from_numpy(data.y_fit)
        self.held = torch.from_numpy(data.x_validation), torch.from_numpy(data.y_validation)
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, config.epochs)
        self.epoch = 0

    def until_done(self, progress: Progress | None) -> _Best:
        """Run epochs until the last or until patience ends; return the best."""
        best = _Best(0, math.inf, {})
        while self.epoch < self.config.epochs:
            self.epoch += 1
            train_loss = self._one_epoch()
            with torch.no_grad():
                loss, logits = self.loss(self.network, *self.held)
            now = float(loss)
            if not np.isfinite([train_loss, now]).all():
                raise InputError(
                    f"training: the loss is no finite number after epoch {self.epoch}; lower the "
                    "learning rate or standardise the data"
                )
            if progress is not None:
                accuracy = float((logits.argmax(dim=1) == self.held[1]).float().mean())
                seconds = time.perf_counter() - self.began
                progress(Epoch(self.epoch, self.config.epochs, train_loss, now, accuracy, seconds))
            if now < best.loss:
                weights = {k: v.clone() for k, v in self.network.state_dict().items()}
                best = _Best(self.epoch, now, weights)
            elif self.epoch - best.number >= self.config.patience:
                break
        return best

    def _one_epoch(self) -> float:
        """Pass once over the training data, jittered; return the mean loss."""
        x, y = self.fit
        losses = []
        shuffled = torch.randperm(len(x))
        for first in range(0, len(x), self.config.batch):
            rows = shuffled[first : first + self.config.batch]
            sample = x[rows]
            gain = 1 + self.config.gain * torch.randn(len(rows), *[1] * (x.ndim - 1))
            noise = self.config.noise * torch.randn(sample.shape)
            loss, _ = self.loss(self.network, sample * gain + noise, y[rows])
            self.optimiser.zero_grad()
            torch.autograd.backward(loss)
            self.optimiser.step()
            losses.append(float(loss.detach()))
        self.schedule.step()
        return float(np.mean(losses))
