"""The PyTorch networks: a CNN-LSTM for series and a multilayer perceptron for tables.

Both give logits, take samples first, and can show the inputs of their activation functions
(`trace`). Training keeps those narrow, because an encrypted program replaces each function by a
polynomial that holds on the range seen in calibration only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hecompile.errors import InputError

Function = Callable[[Tensor], Tensor]


def square(x: Tensor) -> Tensor:
    """Return x², the one activation that an encrypted program computes exactly."""
    return x * x


ACTIVATIONS: Mapping[str, Function] = {
    "gelu": nn.functional.gelu,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": nn.functional.softplus,
    "square": square,
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class Trace:
    """What one forward pass met.

    Attributes:
        logits: (S, classes).
        inputs: the inputs of each group of activation functions, (S, anything).
    """

    logits: Tensor
    inputs: Mapping[str, Tensor]


class Network(nn.Module):
    """A network that can show the inputs of its activation functions."""

    def functions(self) -> Mapping[str, Function]:
        """Return the function behind each name of `Trace.inputs`."""
        raise NotImplementedError

    def trace(self, x: Tensor, replace: Mapping[str, Function] | None = None) -> Trace:
        """Compute the logits and show the inputs of the activation functions.

        Args:
            x: samples first, preprocessed.
            replace: other functions (polynomials) for some of the names of `functions`.
        """
        raise NotImplementedError

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample, without the leading sample axis."""
        raise NotImplementedError


@dataclass(frozen=True)
class CNNLSTMConfig:
    """The sizes of a `CNNLSTM`; the defaults are the demo's: 128 samples become 4 LSTM steps.

    Powers of two fill the slots of a ciphertext without waste: 8 maps x 16 positions are 128
    features after the convolution, and the four gates of 16 units are 64.

    Attributes:
        channels: channels of the series.
        length: its samples in time.
        maps: feature maps of the convolution, which are the features of one LSTM step.
        kernel: the convolution's width.
        stride: the convolution's step.
        padding: zeros on each side.
        pool: positions that one LSTM step averages.
        hidden: hidden units of the LSTM.
        classes: logits.
        activation: after the convolution, one of `ACTIVATIONS`.
    """

    channels: int = 1
    length: int = 128
    maps: int = 8
    kernel: int = 16
    stride: int = 8
    padding: int = 4
    pool: int = 4
    hidden: int = 16
    classes: int = 2
    activation: str = "square"

    def __post_init__(self) -> None:
        for name in ("channels", "length", "maps", "kernel", "stride", "pool", "hidden"):
            if getattr(self, name) < 1:
                raise InputError(f"cnn-lstm: `{name}` must be at least 1")
        _check_output(self.classes, self.activation)
        if self.padding < 0 or self.steps < 1:
            raise InputError(
                f"cnn-lstm: a series of {self.length} samples leaves no LSTM step after a "
                f"convolution of width {self.kernel}, step {self.stride}, and a pool of {self.pool}"
            )

    @property
    def positions(self) -> int:
        """Positions after the convolution."""
        return max(0, (self.length + 2 * self.padding - self.kernel) // self.stride + 1)

    @property
    def steps(self) -> int:
        """LSTM steps."""
        return self.positions // self.pool

    @classmethod
    def for_series(
        cls, channels: int, length: int, classes: int, activation: str = "square"
    ) -> CNNLSTMConfig:
        """Choose sizes for a series of any length: about 16 positions in 4 LSTM steps."""
        stride = max(1, length // 16)
        return cls(
            channels=channels,
            length=length,
            kernel=2 * stride,
            stride=stride,
            padding=stride // 2,
            pool=4 if length >= 16 else 1,
            classes=classes,
            activation=activation,
        )


class CNNLSTM(Network):
    """Conv1d, activation, average pool, LSTM, the last hidden state, a linear layer.

    Takes (S, channels, length), gives logits (S, classes).
    """

    def __init__(self, config: CNNLSTMConfig | None = None) -> None:
        super().__init__()
        c = self.config = config or CNNLSTMConfig()
        self.conv = nn.Conv1d(c.channels, c.maps, c.kernel, stride=c.stride, padding=c.padding)
        self.pool = nn.AvgPool1d(c.pool)
        self.lstm = nn.LSTM(c.maps, c.hidden, batch_first=True)
        self.head = nn.Linear(c.hidden, c.classes)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(channels, length)."""
        return (self.config.channels, self.config.length)

    def functions(self) -> Mapping[str, Function]:
        """The convolution's activation and the LSTM's: gates, candidate, and cell state."""
        return {
            "convolution": ACTIVATIONS[self.config.activation],
            "gates": torch.sigmoid,
            "candidate": torch.tanh,
            "cell": torch.tanh,
        }

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (S, classes)."""
        convolved = ACTIVATIONS[self.config.activation](self.conv(x))
        hidden, _ = self.lstm(self.pool(convolved).transpose(1, 2))
        logits: Tensor = self.head(hidden[:, -1])
        return logits

    def trace(self, x: Tensor, replace: Mapping[str, Function] | None = None) -> Trace:
        """Compute the logits step by step, the way the unrolled program does.

        The recurrence is that of `torch.nn.LSTM`: gates in the order input, forget, candidate,
        output; c' = f·c + i·g, h' = o·tanh(c') (Hochreiter and Schmidhuber 1997; Gers 2000).
        """
        f = {**self.functions(), **(replace or {})}
        convolved = self.conv(x)
        features = self.pool(f["convolution"](convolved)).transpose(1, 2)
        w_ih, w_hh, b_ih, b_hh = self.lstm.all_weights[0]
        projected = features @ w_ih.T + (b_ih + b_hh)
        hidden = projected.new_zeros(len(x), self.config.hidden)
        cell = hidden
        gates, candidates, cells = [], [], []
        for step in range(self.config.steps):
            i, forget, g, o = (projected[:, step] + hidden @ w_hh.T).chunk(4, dim=1)
            cell = f["gates"](forget) * cell + f["gates"](i) * f["candidate"](g)
            hidden = f["gates"](o) * f["cell"](cell)
            gates.append(torch.cat((i, forget, o), dim=1))
            candidates.append(g)
            cells.append(cell)
        inputs = {
            "convolution": convolved.flatten(1),
            "gates": torch.cat(gates, dim=1),
            "candidate": torch.cat(candidates, dim=1),
            "cell": torch.cat(cells, dim=1),
        }
        return Trace(self.head(hidden), inputs)


@dataclass(frozen=True)
class MLPConfig:
    """The sizes of an `MLP`.

    Attributes:
        shape: of one sample; a sample with more than one axis is flattened.
        widths: units of each hidden layer.
        classes: logits.
        activation: after each hidden layer, one of `ACTIVATIONS`.
    """

    shape: tuple[int, ...]
    widths: tuple[int, ...] = (32, 16)
    classes: int = 2
    activation: str = "square"

    def __post_init__(self) -> None:
        if min(self.shape, default=0) < 1 or min(self.widths, default=0) < 1:
            raise InputError("mlp: `shape` and `widths` must hold whole numbers of at least 1")
        _check_output(self.classes, self.activation)

    @property
    def features(self) -> int:
        """Numbers per sample."""
        return math.prod(self.shape)


class MLP(Network):
    """Linear layers with an activation between them.

    Takes (S, *shape), gives logits (S, classes).
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        sizes = (config.features, *config.widths)
        self.hidden = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(sizes, config.widths, strict=False)
        )
        self.head = nn.Linear(config.widths[-1], config.classes)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """As configured."""
        return self.config.shape

    def functions(self) -> Mapping[str, Function]:
        """One activation per hidden layer, named dense0, dense1, ..."""
        function = ACTIVATIONS[self.config.activation]
        return {f"dense{layer}": function for layer in range(len(self.config.widths))}

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (S, classes)."""
        return self.trace(x).logits

    def trace(self, x: Tensor, replace: Mapping[str, Function] | None = None) -> Trace:
        """Compute the logits and keep the input of each activation."""
        f = {**self.functions(), **(replace or {})}
        inputs: dict[str, Tensor] = {}
        if len(self.config.shape) > 1:
            x = x.flatten(1)
        for layer, linear in enumerate(self.hidden):
            x = linear(x)
            inputs[f"dense{layer}"] = x
            x = f[f"dense{layer}"](x)
        return Trace(self.head(x), inputs)


def _check_output(classes: int, activation: str) -> None:
    if classes < 2:
        raise InputError(f"a classifier needs at least 2 classes, not {classes}")
    if activation not in ACTIVATIONS:
        raise InputError(
            f"the activation '{activation}' is not one of {', '.join(sorted(ACTIVATIONS))}"
        )
