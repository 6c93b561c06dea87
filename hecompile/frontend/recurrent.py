"""The recurrent operators: LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from hecompile.frontend.site import Result, Site, converts
from hecompile.ir.movement_ops import Transpose
from hecompile.ir.operation import Value
from hecompile.ir.recurrent_ops import DIRECTIONS, Gru, Lstm, Recurrent, Rnn
from hecompile.numeric.activations import Activation

_KINDS: Final[Mapping[str, type[Recurrent]]] = MappingProxyType(
    {kind.kind: kind for kind in (Lstm, Gru, Rnn)}
)
_DEFAULTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
)
_ACTIVATIONS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "sigmoid": ("sigmoid", ()),
        "tanh": ("tanh", ()),
        "relu": ("relu", ()),
        "hardsigmoid": ("hard_sigmoid", ("alpha", "beta")),
        "leakyrelu": ("leaky_relu", ("alpha",)),
        "elu": ("elu", ("alpha",)),
        "softplus": ("softplus", ()),
        "softsign": ("softsign", ()),
        "scaledtanh": ("scaled_tanh", ("alpha", "beta")),
        "affine": ("affine", ("alpha", "beta")),
    }
)
"""What an operator's attribute may name: the counterpart, and the numbers that it takes.

ThresholdedRelu is left out: no polynomial comes near a function that jumps.
"""

_STATED = frozenset({"scaled_tanh", "affine"})
"""Functions whose numbers the standard gives no defaults for."""


@converts("LSTM", "GRU", "RNN")
def recurrent(site: Site) -> Result:
    """One operation for each result that is used; layout 1 (batch first) by transpositions."""
    kind = _KINDS[site.node.op_type]
    batch_first = site.flag("layout")
    for index, what in ((1, "weights"), (2, "recurrent weights"), (3, "biases")):
        if site.given(index):
            site.constant(index, what)
    if len(site.shape(0)) != 3:
        site.invalid(f"its input of shape {site.shape(0)} is no sequence")
    _check_lengths(site, site.shape(0)[1 if batch_first else 0])
    direction = site.text("direction", "forward").lower()
    if direction not in DIRECTIONS:
        site.invalid(f"its direction is '{direction}'")
    hidden = site.integer("hidden_size", site.shape(2)[-1])
    common: dict[str, Any] = {
        "x": _swapped(site, site.value(0), batch_first),
        "w": site.value(1),
        "r": site.value(2),
        "b": site.optional(3),
        "h0": _state(site, 5, batch_first),
        "hidden": hidden,
        "direction": direction,
        "activations": _activations(site, kind, 2 if direction == "bidirectional" else 1),
        "clip": _clip(site),
        **_own(site, kind, hidden, batch_first),
    }
    results: list[Value | None] = []
    for output, wanted in zip(kind.outputs, site.wanted, strict=False):
        y = site.emit(kind(output=output, **common)) if wanted else None
        if y is not None and batch_first:
            permutation = (2, 0, 1, 3) if output == "Y" else (1, 0, 2)
            y = site.emit(Transpose(x=y, permutation=permutation))
        results.append(y)
    return tuple(results)


def _own(site: Site, kind: type[Recurrent], hidden: int, batch_first: bool) -> dict[str, Any]:
    """What only one of the operators has."""
    if kind is Lstm:
        if site.given(7):
            site.constant(7, "peephole weights")
        if site.given(6) and site.shape(6)[-1] != hidden:
            # PyTorch's newer exporter cuts the weights to proj_size rows a gate; only this tells.
            site.refuse(
                f"its cell state has {site.shape(6)[-1]} units and its hidden state {hidden}, as "
                "PyTorch writes proj_size, and ONNX has no LSTM with a projection",
                "train without proj_size, with a Linear layer behind the LSTM",
            )
        return {
            "c0": _state(site, 6, batch_first),
            "p": site.optional(7),
            "input_forget": site.flag("input_forget"),
        }
    if kind is Gru:
        return {"linear_before_reset": site.flag("linear_before_reset")}
    return {}


def _swapped(site: Site, x: Value, batch_first: bool) -> Value:
    return site.emit(Transpose(x=x, permutation=(1, 0, 2))) if batch_first else x


def _state(site: Site, index: int, batch_first: bool) -> Value | None:
    """An initial state as (D, N, H)."""
    value = site.optional(index)
    return value if value is None else _swapped(site, value, batch_first)


def _clip(site: Site) -> float:
    clip = site.number("clip", 0.0)
    if site.attribute("clip", None) is not None and not 0.0 < clip < np.inf:
        site.invalid(f"its clip is {clip:g}, not a positive number")
    return clip


def _check_lengths(site: Site, steps: int) -> None:
    if not site.given(4):
        return
    lengths = site.constant(4, "sequence lengths")
    if not np.all(lengths == steps):
        site.refuse(
            f"its sequence lengths are not all {steps}, the length of its input",
            "compile one program for each length, with sequences of that length",
        )


def _activations(site: Site, kind: type[Recurrent], directions: int) -> tuple[str, ...]:
    """Texts of the activations; alpha and beta are used up by those that take them, in order."""
    given = site.attribute("activations", None)
    defaults = _DEFAULTS[kind.kind] * directions
    names = [n.decode() for n in given] if given else list(defaults)
    if len(names) != len(defaults):
        site.invalid(f"it names {len(names)} activations, not {len(defaults)}")
    numbers = {
        key: [float(str(np.float32(v))) for v in site.attribute(f"activation_{key}", ())]
        for key in ("alpha", "beta")
    }
    texts = []
    for name in names:
        if name.lower() not in _ACTIVATIONS:
            site.refuse(
                f"its activation '{name}' has no counterpart here",
                "use the default activations, and retrain",
            )
        counterpart, takes = _ACTIVATIONS[name.lower()]
        parameters = [(key, numbers[key].pop(0)) for key in takes if numbers[key]]
        if counterpart in _STATED and len(parameters) < len(takes):
            site.invalid(f"its activation '{name}' lacks activation_alpha or activation_beta")
        texts.append(str(Activation(counterpart, tuple(parameters))))
    if any(numbers.values()):
        site.invalid("it gives more activation_alpha or activation_beta than its activations take")
    return tuple(texts)
