"""What is measured: which model, how compiled, beside which plain TenSEAL program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LARGE_BATCH = 4096


@dataclass(frozen=True)
class Row:
    """One line of the tables.

    Attributes:
        name: how it is called.
        model: a name that `cases.make_case` knows.
        precision: what the compiler is asked for; None for its own choice.
        options: fields of `CompileOptions` that are not left to the compiler.
        plain: the plain TenSEAL program beside it, see `plain.PROGRAMS`; None for none.
        polynomial: compare with the polynomial model in float64 instead of with onnxruntime: the
            fitted polynomials are no part of what is measured.
        pair: measure wall seconds with two evaluator processes as well.
        heavy: takes minutes; `--quick` leaves it out.
        slow: a large ring and gigabytes of keys; run only with `--slow`, or where it is named.
        series: the scaling curve or further table that it is in; "" for the main table.
        at: its place on the curve or in the table.
    """

    name: str
    model: str
    precision: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    plain: str | None = None
    polynomial: bool = False
    pair: bool = False
    heavy: bool = False
    slow: bool = False
    series: str = ""
    at: int = 0

    @property
    def batch(self) -> int:
        """Samples in one evaluation."""
        return int(self.options.get("batch", 1))


def _batch(samples: int, **more: Any) -> dict[str, Any]:
    return {"batch": samples, "optimize": "throughput", **more}


MAIN = (
    Row("CryptoNets 1e-3", "CryptoNets", 1e-3, plain="convolution", pair=True),
    Row("CryptoNets 1e-6", "CryptoNets", 1e-6),
    Row("DiabetesMLP", "DiabetesMLP", 2e-4, plain="dense"),
    Row("DiabetesMLP x4096", "DiabetesMLP", 1e-3, _batch(LARGE_BATCH)),
    Row(
        "DiabetesMLP x4096, encrypted weights",
        "DiabetesMLP",
        1e-3,
        _batch(LARGE_BATCH, encrypt_model=True),
    ),
    Row("LeNet5 degree 2", "LeNet5", 1e-3, {"degree": 2}, polynomial=True, pair=True, heavy=True),
    Row("CryptoNets x4096", "CryptoNets", 1e-3, _batch(LARGE_BATCH), heavy=True),
    Row("CNNLSTM", "CNNLSTM", heavy=True),
    Row("demo-cnn-lstm", "demo-cnn-lstm", heavy=True),
)

FEATURES = (16, 64, 256, 1024)
LAYERS = (1, 2, 3, 4)
BATCHES = (1, 16, 256, 4096)
WIDTH = 16

SCALING = (
    *(
        Row(f"features {n}", f"dense-{n}-32-1", 1e-3, plain="dense", series="features", at=n)
        for n in FEATURES
    ),
    *(
        Row(
            f"layers {n}",
            "-".join(["dense", *[str(WIDTH)] * (n + 1), "1"]),
            1e-3,
            plain="dense",
            series="layers",
            at=n,
        )
        for n in LAYERS
    ),
    *(Row(f"batch {n}", "DiabetesMLP", 1e-3, _batch(n), series="batch", at=n) for n in BATCHES),
)

STEPS = (1, 2, 4, 8, 16, 32)
CUBIC = {"degree": 3}

RECURRENT = (
    *(Row(f"steps {n}", f"CNNLSTM-{n}", options=CUBIC, series="steps", at=n) for n in STEPS),
    *(
        Row(name, model, options=CUBIC, series="recurrent", at=n)
        for n, (name, model) in enumerate(
            (
                ("BiLSTM 24 steps", "BiLSTM-24"),
                ("GRU 12 steps", "GRU-12"),
                ("RNN 12 steps", "RNN-12"),
            )
        )
    ),
    Row(
        "CNNLSTM 4 steps without refresh",
        "CNNLSTM-4",
        options=CUBIC | {"refresh": "never"},
        slow=True,
        series="recurrent",
        at=3,
    ),
)
"""Of any number of steps; polynomials of degree 3."""

EVERY = (*MAIN, *RECURRENT, *SCALING)


def choose(only: Sequence[str], quick: bool, slow: bool = False) -> tuple[Row, ...]:
    """The rows to measure.

    Args:
        only: names of rows or beginnings of several, whatever their case; none means all rows.
        quick: leave out what takes minutes, and the curves, unless `only` names them.
        slow: also what is slow, which otherwise `only` has to name.

    Raises:
        ValueError: a word in `only` begins no name.
    """
    if not only:
        return tuple(row for row in (MAIN_QUICK if quick else EVERY) if slow or not row.slow)
    chosen: set[str] = set()
    for word in only:
        chosen |= _named(word.strip().lower())
    return tuple(row for row in EVERY if row.name in chosen)


def find(name: str) -> Row:
    """The row of a name.

    Raises:
        ValueError: there is none.
    """
    for row in EVERY:
        if row.name == name:
            return row
    raise ValueError(f"there is no row '{name}'")


def _named(word: str) -> set[str]:
    """The row of this name, or else all whose names begin so."""
    names = {row.name.lower(): row.name for row in EVERY}
    found = (
        {names[word]} if word in names else {n for low, n in names.items() if low.startswith(word)}
    )
    if not found:
        told = ", ".join(f"'{name}'" for name in names.values())
        raise ValueError(f"no row's name begins with '{word}'; the rows are {told}")
    return found


MAIN_QUICK = tuple(row for row in MAIN if not row.heavy)
