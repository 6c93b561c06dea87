"""Samples into and results out of .npz files and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hecompile.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hecompile.runtime.spec import ClientSpec

Arrays = Mapping[str, "NDArray[Any]"]


def read_samples(path: Path, spec: ClientSpec) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz file that are inputs; others (labels, say) are left alone.

    Raises:
        InputError: The file is no .npz file of arrays, or lacks an input.
    """
    from hecompile.npz import load_npz

    arrays = load_npz(path)
    labels = [entry.label for entry in spec.inputs]
    for label in labels:
        if label not in arrays:
            given = ", ".join(arrays) or "none"
            raise InputError(f"{path} has no array named '{label}' as the input; it has {given}")
    return {label: arrays[label] for label in labels}


def write_npz(path: Path, arrays: Arrays) -> None:
    """Write decrypted arrays, whole or not at all, into an .npz file that its owner can read."""
    from hecompile.files import atomic_write_bytes
    from hecompile.npz import npz_bytes

    atomic_write_bytes(path, npz_bytes(arrays), 0o600)


def samples_document(outputs: Arrays, raw: Arrays) -> dict[str, object]:
    """Outputs after and before post-processing as JSON values.

    Raises:
        InputError: A value is no finite number, which JSON cannot hold.
    """
    for name, array in (*outputs.items(), *raw.items()):
        if not all(math.isfinite(value) for value in array.flat):
            raise InputError(f"output '{name}' holds values that are not finite")
    return {
        "outputs": {name: array.tolist() for name, array in outputs.items()},
        "raw_outputs": {name: array.tolist() for name, array in raw.items()},
    }


def shown(outputs: Arrays, raw: Arrays, most: int = 20) -> str:
    """Outputs for people, a line a sample; the raw values beside them where they differ."""
    lines = []
    for name, array in outputs.items():
        differs = array.shape != raw[name].shape or bool((array != raw[name]).any())
        lines.append(f"{name}:")
        for i, row in enumerate(array[:most]):
            told = _row(row)
            if differs and len(raw[name]) == len(array):
                told += f"   (raw {_row(raw[name][i])})"
            lines.append(f"  {i}: {told}")
        if len(array) > most:
            lines.append(f"  ... {len(array) - most} more")
    return "\n".join(lines) + "\n"


def _row(row: Any) -> str:
    values = row.ravel()
    text = " ".join(f"{value:.6g}" for value in values[:12])
    return text if len(values) <= 12 else f"{text} ..."
