"""Data sets: the heartbeats that ship with the package, and a user's own CSV or NPZ file.

A split is in time (the last rows are the test part) or by group (the last groups, so that no
patient is in both parts). Rows are split at random only where the caller asks for it, because
neighbouring rows of one patient resemble each other and a random split then measures memory.
"""

from __future__ import annotations

import importlib.resources
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hecompile.errors import InputError
from hecompile.files import cannot_read
from hecompile.models.csvfile import read_table

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]
Order = Literal["time", "class", "random"]


@dataclass(frozen=True)
class Dataset:
    """Raw samples and labels, split into a training and a test part.

    Attributes:
        x_train: training samples, samples first: (S, features) or (S, channels, T). NaN = missing.
        y_train: their labels, indices into `classes`, shape (S,).
        x_test: test samples, shaped like `x_train`.
        y_test: their labels.
        classes: the names of the classes; of two, the second is the positive one.
        source: one line on where the data come from.
        order: what the order of the training rows means: time, class (sorted by class, no time
            known) or nothing ("random"). It decides how a validation part is cut.
        groups_train: the group (patient) of each training row, or None.
    """

    x_train: FloatArray
    y_train: IntArray
    x_test: FloatArray
    y_test: IntArray
    classes: tuple[str, ...]
    source: str
    order: Order = "time"
    groups_train: AnyArray | None = None

    def __post_init__(self) -> None:
        for part, x, y in (
            ("training", self.x_train, self.y_train),
            ("test", self.x_test, self.y_test),
        ):
            if len(x) != len(y):
                raise InputError(
                    f"{self.source}: the {part} part has {len(x)} samples and {len(y)} labels; "
                    "give one label per sample"
                )
            if y.size and (y.min() < 0 or y.max() >= len(self.classes)):
                raise InputError(
                    f"{self.source}: a label of the {part} part is outside 0 to "
                    f"{len(self.classes) - 1}; labels are indices into the classes"
                )
        missing = sorted(set(range(len(self.classes))) - set(self.y_train.tolist()))
        if missing or len(self.classes) < 2:
            raise InputError(
                f"{self.source}: the training part lacks the class "
                f"{self.classes[missing[0]] if missing else '(there is only one)'}; give more data "
                "or split otherwise (by group, or at random rows if they are independent)"
            )
        if len(set(self.y_test.tolist())) < 2:
            raise InputError(
                f"{self.source}: the test part needs samples of at least two classes; give more "
                "data or split otherwise (by group, or at random rows if they are independent)"
            )


def load_ecg5000() -> Dataset:
    """Load the built-in heartbeats: normal against abnormal, one lead of 140 samples.

    500 training beats (292 normal) and 1000 test beats (584 normal) of ECG5000, one patient;
    `models/data/README.md` tells their provenance, licence and limits.

    Returns:
        Samples of shape (S, 1, 140), standard deviation 1 per beat; labels 0 normal, 1 abnormal.
    """
    file = importlib.resources.files("hecompile.models") / "data" / "ecg5000.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    step = int(arrays["steps_per_unit"])
    return Dataset(
        x_train=arrays["x_train"][:, np.newaxis].astype(np.float64) / step,
        y_train=(arrays["y_train"] != 1).astype(np.int64),
        x_test=arrays["x_test"][:, np.newaxis].astype(np.float64) / step,
        y_test=(arrays["y_test"] != 1).astype(np.int64),
        classes=("normal", "abnormal"),
        source="ECG5000 (UCR archive 2018; PhysioNet chfdb, record chf07; one patient)",
        order="class",
    )


def load_csv(
    path: str | Path,
    target: str,
    *,
    features: tuple[str, ...] = (),
    group: str | None = None,
    time: str | None = None,
    test_fraction: float = 0.25,
    random_rows: int | None = None,
) -> Dataset:
    """Load a table with a header line; every feature is a number, the target is any label.

    Args:
        path: the file; UTF-8, separated by commas, a cell that is empty, NA, NaN or ? is missing.
        target: the column to predict.
        features: the columns to use; without it all but target, group and time.
        group: a column (patient, record) whose values must not be in both parts.
        time: a numeric or ISO 8601 column to sort by; without it the file's order counts as time.
        test_fraction: how much of the rows (of the groups, with `group`) is the test part.
        random_rows: a seed: split at random rows. Only for rows that are independent.

    Returns:
        Samples of shape (S, features), NaN where a cell is missing.

    Raises:
        InputError: a missing file or column, a line of another length, a cell that is no number
            (with its line), a missing label, or a split that leaves a part without classes.
    """
    table = read_table(Path(path))
    names = features or tuple(c for c in table.header if c not in (target, group, time))
    if not names:
        raise InputError(f"{path}: no column is left as a feature; name them")
    if target in names:
        raise InputError(f"{path}: the target '{target}' cannot be a feature as well")
    labels = table.labels(target)
    x = np.stack([table.numbers(name) for name in names], axis=1)
    groups = None if group is None else table.labels(group)
    if time is not None:
        order = np.argsort(table.moments(time), kind="stable")
        x, labels = x[order], labels[order]
        groups = None if groups is None else groups[order]
    return _split(x, labels, str(path), groups, test_fraction, random_rows)


def load_npz(
    path: str | Path,
    *,
    x: str = "x",
    y: str = "y",
    group: str | None = None,
    test_fraction: float = 0.25,
    random_rows: int | None = None,
) -> Dataset:
    """Load arrays: samples first, (S, features) or (S, channels, T).

    A file that holds `x_train`, `y_train`, `x_test` and `y_test` keeps that split; otherwise the
    arrays named `x` and `y` are split like a table's rows.

    Args:
        path: the file; arrays of objects are refused.
        x: the name of the samples.
        y: the name of the labels, (S,) whole numbers or strings.
        group: the name of an array (S,) of groups that must not be in both parts.
        test_fraction: how much of the rows (of the groups, with `group`) is the test part.
        random_rows: a seed: split at random rows. Only for rows that are independent.

    Raises:
        InputError: a missing file or array, unequal lengths, wrong types, or a split that leaves
            a part without classes.
    """
    arrays = _read_npz(Path(path))
    if {"x_train", "y_train", "x_test", "y_test"} <= set(arrays):
        train = _samples(path, "x_train", arrays["x_train"])
        test = _samples(path, "x_test", arrays["x_test"])
        if train.shape[1:] != test.shape[1:]:
            raise InputError(
                f"{path}: a sample of 'x_train' has shape {train.shape[1:]}, one of 'x_test' "
                f"{test.shape[1:]}; they must agree"
            )
        labels = [_labels(path, name, arrays[name]) for name in ("y_train", "y_test")]
        classes, indices = _encode(np.concatenate(labels))
        cut = len(labels[0])
        return Dataset(train, indices[:cut], test, indices[cut:], classes, str(path))
    samples = _samples(path, x, _named(path, arrays, x))
    found = _labels(path, y, _named(path, arrays, y))
    groups = None if group is None else _labels(path, group, _named(path, arrays, group))
    for name, rows in ((y, found), (group, groups)):
        if rows is not None and len(rows) != len(samples):
            raise InputError(
                f"{path}: '{x}' has {len(samples)} samples and '{name}' has {len(rows)} entries; "
                "they must agree"
            )
    return _split(samples, found, str(path), groups, test_fraction, random_rows)


def validation_rows(dataset: Dataset, fraction: float) -> tuple[IntArray, IntArray]:
    """Cut a validation part off the training part: its last groups, or its last rows.

    Rows that are sorted by class, or in no order, give the last rows of each class.

    Returns:
        The rows to fit on and the rows to validate on, both ascending.
    """
    y = dataset.y_train
    held = np.zeros(len(y), dtype=bool)
    if dataset.groups_train is not None:
        held = _last_groups(dataset.groups_train, fraction, dataset.source)
    elif dataset.order == "time":
        held[len(y) - max(1, round(fraction * len(y))) :] = True
    else:
        for label in np.unique(y):
            rows = np.flatnonzero(y == label)
            held[rows[len(rows) - round(fraction * len(rows)) :]] = True
    if held.all() or not held.any() or set(y[~held].tolist()) != set(y.tolist()):
        raise InputError(
            f"{dataset.source}: cutting a validation part of {fraction:.0%} off the training part "
            "leaves a part without some class; give more data"
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def _split(
    x: FloatArray,
    labels: AnyArray,
    source: str,
    groups: AnyArray | None,
    fraction: float,
    seed: int | None,
) -> Dataset:
    """Split rows in time, by group, or at random when a seed is given."""
    if not 0 < fraction < 1:
        raise InputError(f"{source}: the test fraction must be between 0 and 1, not {fraction}")
    if groups is not None and seed is not None:
        raise InputError(f"{source}: a split is by group or at random rows, not both")
    if len(x) < 4:
        raise InputError(f"{source}: {len(x)} samples are too few to split; give more data")
    test = np.zeros(len(x), dtype=bool)
    count = min(len(x) - 1, max(1, round(fraction * len(x))))
    if groups is not None:
        test = _last_groups(groups, fraction, source)
    elif seed is not None:
        test[np.random.default_rng(seed).permutation(len(x))[:count]] = True
    else:
        test[len(x) - count :] = True
    classes, y = _encode(labels)
    return Dataset(
        x[~test],
        y[~test],
        x[test],
        y[test],
        classes,
        source,
        order="random" if seed is not None else "time",
        groups_train=None if groups is None else groups[~test],
    )


def _last_groups(groups: AnyArray, fraction: float, source: str) -> npt.NDArray[np.bool_]:
    """Return a mask of the groups that appear last, as many as `fraction` of all groups."""
    names, first = np.unique(groups, return_index=True)
    if len(names) < 2:
        raise InputError(f"{source}: a split by group needs at least two groups in each part")
    ordered = names[np.argsort(first, kind="stable")]
    count = min(len(names) - 1, max(1, round(fraction * len(names))))
    return np.isin(groups, ordered[-count:])


def _encode(labels: AnyArray) -> tuple[tuple[str, ...], IntArray]:
    """Return the class names, sorted (as numbers where all are), and each row's index."""
    names, indices = np.unique(labels, return_inverse=True)
    texts = [str(name) for name in names.tolist()]
    try:
        rank = np.argsort([float(text) for text in texts], kind="stable")
    except ValueError:
        rank = np.arange(len(texts))
    place = np.empty(len(texts), dtype=np.int64)
    place[rank] = np.arange(len(texts))
    return tuple(texts[i] for i in rank), place[indices.reshape(-1)]


def _read_npz(path: Path) -> dict[str, AnyArray]:
    """Read every array of an .npz file, refusing pickled objects."""
    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise InputError(f"{path}: this is a single array, not an .npz file of named ones")
        with stored:
            return {name: stored[name] for name in stored.files}
    except OSError as error:
        raise cannot_read(path, error) from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: this is no readable .npz file of plain arrays") from error


def _named(path: str | Path, arrays: dict[str, AnyArray], name: str) -> AnyArray:
    if name not in arrays:
        raise InputError(f"{path}: there is no array '{name}', only {', '.join(sorted(arrays))}")
    return arrays[name]


def _samples(path: str | Path, name: str, array: AnyArray) -> FloatArray:
    """Check samples: real numbers, samples first, nothing infinite; NaN means missing."""
    if array.dtype.kind not in "iuf" or array.ndim not in (2, 3):
        raise InputError(
            f"{path}: '{name}' must hold real numbers of shape (samples, features) or "
            f"(samples, channels, time), not {array.dtype} of shape {array.shape}"
        )
    if not array.size or np.isinf(array).any():
        raise InputError(f"{path}: '{name}' is empty or holds an infinite value")
    return array.astype(np.float64)


def _labels(path: str | Path, name: str, array: AnyArray) -> AnyArray:
    """Check labels or groups: one whole number, bool or string per sample."""
    whole = array.dtype.kind == "f" and bool((array == np.rint(array)).all())
    if array.ndim != 1 or not (array.dtype.kind in "iubU" or whole):
        raise InputError(
            f"{path}: '{name}' must hold one whole number or string per sample, "
            f"not {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int64) if array.dtype.kind in "fb" else array
