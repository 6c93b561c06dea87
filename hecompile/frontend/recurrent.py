"""The LSTM operator."""

from __future__ import annotations

from typing import Any

import numpy as np

from hecompile.frontend.site import Result, Site, converts
from hecompile.ir.movement_ops import Lstm, Transpose
from hecompile.ir.operation import Value
from hecompile.numeric.activations import Activation

_OUTPUTS = ("Y", "Y_h", "Y_c")
_ACTIVATIONS = {
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "hardsigmoid": "hard_sigmoid",
    "leakyrelu": "leaky_relu",
    "elu": "elu",
    "softplus": "softplus",
}
_TAKES_ALPHA = ("hardsigmoid", "leakyrelu", "elu")
_TAKES_BETA = ("hardsigmoid",)


@converts("LSTM")
def lstm(site: Site) -> Result:
    """One operation for each result that is used; layout 1 (batch first) by transpositions."""
    batch_first = bool(site.integer("layout", 0))
    x = _swapped(site, site.value(0), (1, 0, 2)) if batch_first else site.value(0)
    for index, what in ((1, "weights"), (2, "recurrent weights"), (3, "biases"), (7, "peepholes")):
        if site.given(index):
            site.constant(index, what)
    direction = site.text("direction", "forward").lower()
    if direction not in ("forward", "reverse", "bidirectional"):
        site.invalid(f"its direction is '{direction}'")
    _check_lengths(site, batch_first)
    h0, c0 = (site.optional(i) for i in (5, 6))
    if batch_first:
        h0, c0 = (s if s is None else _swapped(site, s, (1, 0, 2)) for s in (h0, c0))
    common: dict[str, Any] = {
        "x": x,
        "w": site.value(1),
        "r": site.value(2),
        "b": site.optional(3),
        "h0": h0,
        "c0": c0,
        "p": site.optional(7),
        "hidden": site.integer("hidden_size", site.shape(2)[-1]),
        "direction": direction,
        "activations": _activations(site, 2 if direction == "bidirectional" else 1),
        "clip": site.number("clip", 0.0),
        "input_forget": bool(site.integer("input_forget", 0)),
    }
    results: list[Value | None] = []
    for output, wanted in zip(_OUTPUTS, site.wanted, strict=False):
        y = site.emit(Lstm(output=output, **common)) if wanted else None
        if y is not None and batch_first:
            y = _swapped(site, y, (2, 0, 1, 3) if output == "Y" else (1, 0, 2))
        results.append(y)
    return tuple(results)


def _swapped(site: Site, x: Value, permutation: tuple[int, ...]) -> Value:
    return site.emit(Transpose(x=x, permutation=permutation))


def _check_lengths(site: Site, batch_first: bool) -> None:
    if not site.given(4):
        return
    steps = site.shape(0)[1 if batch_first else 0]
    lengths = site.constant(4, "sequence lengths")
    if not np.all(lengths == steps):
        site.refuse(
            f"its sequence lengths are not all {steps}, the length of its input",
            "compile one program for each length, with sequences of that length",
        )


def _activations(site: Site, directions: int) -> tuple[str, ...]:
    """Texts of the activations; alpha and beta are used up by those that take them, in order."""
    given = site.attribute("activations", None)
    names = (
        [n.decode().lower() for n in given] if given else ["sigmoid", "tanh", "tanh"] * directions
    )
    if len(names) != 3 * directions:
        site.invalid(f"it names {len(names)} activations, not {3 * directions}")
    alphas = [float(str(np.float32(a))) for a in site.attribute("activation_alpha", ())]
    betas = [float(str(np.float32(b))) for b in site.attribute("activation_beta", ())]
    texts = []
    for name in names:
        if name not in _ACTIVATIONS:
            site.refuse(
                f"its activation '{name}' has no counterpart here",
                "use the default activations, and retrain",
            )
        parameters = []
        if name in _TAKES_ALPHA and alphas:
            parameters.append(("alpha", alphas.pop(0)))
        if name in _TAKES_BETA and betas:
            parameters.append(("beta", betas.pop(0)))
        texts.append(str(Activation(_ACTIVATIONS[name], tuple(parameters))))
    return tuple(texts)
