"""Recurrent networks of any number of steps, with seeded random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

LAYERS: dict[str, Callable[..., Any]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


class Recurrent(nn.Module):
    """Recurrent layers over a sequence, then a dense one.

    Args:
        kind: "LSTM", "GRU" or "RNN".
        features: of each step.
        hidden: units of each layer and direction.
        layers: one on top of the other.
        bidirectional: in both directions.
        pooled: the dense layer reads the mean over all steps instead of the last one.
        outputs: of the dense layer.
    """

    def __init__(
        self,
        kind: str,
        features: int = 4,
        hidden: int = 8,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        pooled: bool = False,
        outputs: int = 2,
    ) -> None:
        super().__init__()
        self.layers = LAYERS[kind](
            features, hidden, num_layers=layers, bidirectional=bidirectional, batch_first=True
        )
        self.dense = nn.Linear(hidden * (1 + bidirectional), outputs)
        self.pooled = pooled

    def forward(self, x: torch.Tensor) -> Any:
        sequence = self.layers(x)[0]
        return self.dense(sequence.mean(1) if self.pooled else sequence[:, -1])


def recurrent(kind: str, seed: int = 1) -> nn.Module:
    """A network of a kind that `cases.RECURRENT_MODELS` names: "BiLSTM", "GRU" or "RNN"."""
    torch.manual_seed(seed)
    if kind == "BiLSTM":
        return Recurrent("LSTM", layers=2, bidirectional=True, pooled=True)
    return Recurrent(kind)
