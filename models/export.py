"""Writing what the compiler takes: the ONNX model, the samples and the preprocessing.

The ONNX model takes preprocessed arrays; `calibration.npz` and `test.npz` hold raw samples, as the
client sees them. `hecompile compile --preprocess preprocess.json` puts the steps into the bundle,
whose client then applies them to raw samples; at compile time they are applied to the calibration.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from hecompile.errors import InputError
from hecompile.files import atomic_write_bytes
from hecompile.preprocess import Step, steps_to_json

Exporter = Literal["dynamo", "torchscript"]


def default_exporter() -> Exporter:
    """Return "dynamo" where this PyTorch has it (2.5 and later), else "torchscript"."""
    has_dynamo = "dynamo" in inspect.signature(torch.onnx.export).parameters
    return "dynamo" if has_dynamo else "torchscript"


def export_onnx(
    model: torch.nn.Module,
    sample: npt.NDArray[np.float32] | torch.Tensor,
    path: str | Path,
    dynamic_batch: bool = True,
    exporter: Exporter | None = None,
    *,
    input_name: str = "x",
    output_name: str = "logits",
) -> None:
    """Export a model to a single ONNX file, written whole or not at all.

    Args:
        model: takes one tensor, samples first.
        sample: preprocessed samples to trace with, at least one.
        path: the file; weights are stored inside it.
        dynamic_batch: leave the number of samples open; otherwise it is fixed to 1.
        exporter: one of PyTorch's two; None means `default_exporter()`.
        input_name: the name of the ONNX model's input.
        output_name: the name of its output.

    Raises:
        InputError: there is no such exporter in this PyTorch, no sample, or the file cannot be
            written.
    """
    exporter = exporter or default_exporter()
    if exporter not in ("dynamo", "torchscript"):
        raise InputError(f"the exporter '{exporter}' is neither 'dynamo' nor 'torchscript'")
    if exporter == "dynamo" and default_exporter() != "dynamo":
        raise InputError(
            f"PyTorch {torch.__version__} has no 'dynamo' exporter; use 'torchscript' or "
            "PyTorch 2.5 or later"
        )
    x = torch.as_tensor(sample)
    if x.ndim < 2 or not len(x):
        raise InputError(f"export needs a sample with samples first, not of shape {tuple(x.shape)}")
    # The exporters take a batch of 1 for a constant, even where the batch is declared open.
    x = torch.cat((x[:1], x[:1])) if dynamic_batch else x[:1]
    names: dict[str, Any] = {"input_names": [input_name], "output_names": [output_name]}
    export = _dynamo if exporter == "dynamo" else _torchscript
    was_training = model.training
    model.eval()
    try:
        with _quiet(), torch.no_grad():
            data = export(model, x, dynamic_batch, names)
    finally:
        model.train(was_training)
    atomic_write_bytes(path, data)


def save_samples(path: str | Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write named arrays to a compressed .npz file, whole or not at all."""
    buffer = io.BytesIO()
    # A dict of names that are no Python identifiers is fine for savez, not for its type stub.
    save: Any = np.savez_compressed
    save(buffer, **arrays)
    atomic_write_bytes(path, buffer.getvalue())


def save_calibration(
    path: str | Path, x: npt.NDArray[Any], input_name: str = "x", most: int = 512
) -> int:
    """Write raw training samples for calibration, the array named as the model's input.

    Args:
        path: the .npz file.
        x: raw training samples, samples first.
        input_name: the name of the ONNX model's input.
        most: with more samples than this, that many at even distances are kept.

    Returns:
        How many samples were written.
    """
    rows = np.arange(len(x)) if len(x) <= most else np.arange(most) * len(x) // most
    save_samples(path, {input_name: x[rows]})
    return len(rows)


def save_preprocessing(path: str | Path, steps: Sequence[Step]) -> None:
    """Write preprocessing steps as JSON."""
    atomic_write_bytes(path, steps_to_json(steps).encode())


def _torchscript(
    model: torch.nn.Module, x: torch.Tensor, dynamic_batch: bool, names: dict[str, Any]
) -> bytes:
    """Export by tracing."""
    options = dict(names)
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    if dynamic_batch:
        both = (*names["input_names"], *names["output_names"])
        options["dynamic_axes"] = {name: {0: "batch"} for name in both}
    buffer: Any = io.BytesIO()
    torch.onnx.export(model, (x,), buffer, **options)
    data: bytes = buffer.getvalue()
    return data


def _dynamo(
    model: torch.nn.Module, x: torch.Tensor, dynamic_batch: bool, names: dict[str, Any]
) -> bytes:
    """Export through torch.export."""
    options = dict(names)
    if dynamic_batch:
        options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    program: Any = torch.onnx.export(model, (x,), dynamo=True, **options)
    # Each node carries a stack trace that names folders of this machine.
    for node in program.model.graph:
        node.metadata_props.clear()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        program.save(str(file), external_data=False)
        return file.read_bytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress off standard output, and their advice to PyTorch's authors.

    They print "[torch.onnx] ..." lines, warn that they are deprecated or use deprecated parts of
    PyTorch, and log which optional packages are absent; nothing of it is for the user.
    """
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
