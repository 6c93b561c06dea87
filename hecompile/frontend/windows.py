"""Convolutions and pools."""

from __future__ import annotations

from typing import Any

import numpy as np

from hecompile.frontend.site import Result, Site, converts
from hecompile.ir.tensor_ops import AveragePool, Conv, ReduceMean

SPATIAL_RANKS = (1, 2)


def _spatial(site: Site) -> tuple[int, ...]:
    """Extents of the spatial axes.

    Raises:
        RefusalError: there are not one or two of them.
    """
    shape = site.shape(0)
    if len(shape) - 2 not in SPATIAL_RANKS:
        site.refuse(
            f"it slides over {len(shape) - 2} spatial axes; 1 and 2 are supported",
            "fold the further axes into channels",
        )
    return shape[2:]


def _window(site: Site, kernel: tuple[int, ...]) -> dict[str, Any]:
    """Strides, dilations and pads of a sliding window, automatic padding resolved.

    Source: ONNX operators Conv and AveragePool, attribute auto_pad.
    """
    spatial = site.shape(0)[2:]
    ones = (1,) * len(spatial)
    strides = site.tuple_of("strides", ones)
    dilations = site.tuple_of("dilations", ones)
    pads = site.tuple_of("pads", (0,) * (2 * len(spatial)))
    mode = site.text("auto_pad", "NOTSET")
    if not len(kernel) == len(strides) == len(dilations) == len(pads) / 2 == len(spatial):
        site.invalid(f"its window does not have the {len(spatial)} spatial axes of its input")
    if min(*strides, *dilations, *kernel, 1) < 1 or min(pads, default=0) < 0:
        site.invalid("its window has an extent, stride or dilation below 1, or negative padding")
    if mode == "VALID":
        pads = (0,) * (2 * len(spatial))
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = []
        for extent, k, s, d in zip(spatial, kernel, strides, dilations, strict=True):
            positions = -(-extent // s)
            totals.append(max(0, (positions - 1) * s + d * (k - 1) + 1 - extent))
        less = tuple(t // 2 for t in totals)
        more = tuple(t - t // 2 for t in totals)
        pads = (*less, *more) if mode == "SAME_UPPER" else (*more, *less)
    elif mode != "NOTSET":
        site.invalid(f"auto_pad '{mode}' is not one of ONNX's")
    rank = len(spatial)
    padded = (e + pads[i] + pads[i + rank] for i, e in enumerate(spatial))
    site.bounded(*site.shape(0)[:2], *padded)
    return {"strides": strides, "dilations": dilations, "pads": pads}


@converts("Conv")
def conv(site: Site) -> Result:
    """Convolution with constant weights."""
    _spatial(site)
    weight = site.numbers(1, "weights")
    if site.given(2):
        site.constant(2, "biases")
    kernel = site.tuple_of("kernel_shape", weight.shape[2:])
    if kernel != weight.shape[2:]:
        site.invalid(f"kernel_shape {kernel} contradicts weights of shape {weight.shape}")
    return site.emit(
        Conv(
            x=site.value(0),
            weight=site.value(1),
            bias=site.optional(2),
            groups=site.integer("group", 1),
            **_window(site, kernel),
        )
    )


@converts("AveragePool")
def average_pool(site: Site) -> Result:
    """Mean over windows."""
    _spatial(site)
    kernel = site.tuple_of("kernel_shape")
    window = _window(site, kernel)
    reach = [d * (k - 1) for d, k in zip(window["dilations"], kernel, strict=True)]
    if (np.array(window["pads"]) > np.array([*reach, *reach])).any():
        site.invalid("its padding is larger than its window, so a mean would be over nothing")
    return site.emit(
        AveragePool(
            x=site.value(0),
            kernel=kernel,
            ceil=site.flag("ceil_mode"),
            count_include_pad=site.flag("count_include_pad"),
            **window,
        )
    )


@converts("GlobalAveragePool")
def global_average_pool(site: Site) -> Result:
    """Mean over all spatial axes."""
    rank = len(_spatial(site))
    return site.emit(ReduceMean(x=site.value(0), axes=tuple(range(2, 2 + rank)), keepdims=True))
