"""Whether a model with a dynamic batch axis treats its samples one by one.

A program is compiled for one sample, and many samples are packed side by side. That is the model
only if no operator mixes samples, as a reduction or a softmax over the batch axis would.
"""

from __future__ import annotations

import numpy as np

from hecompile.errors import HecompileError, UnsupportedError
from hecompile.frontend.importer import import_graph
from hecompile.frontend.load import Loaded, Source, load_model
from hecompile.frontend.signature import Shapes, StaticInput, resolve_inputs
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Output
from hecompile.runtime.postprocess import Processed, post_process

SEED = 20130


def check_sample_independence(source: Source, input_shapes: Shapes | None = None) -> None:
    """Run a model on two random samples at once and one by one, and compare.

    Nothing is checked where no batch axis is dynamic, or where the model only takes one sample
    although it declares more (a shape baked in at export).

    Raises:
        UnsupportedError: an output of one sample depends on the other.
        InputError: the model cannot be read.
    """
    loaded = load_model(source)
    inputs = resolve_inputs(loaded, input_shapes)
    compare_batches(loaded, inputs, import_graph(loaded, inputs))


def compare_batches(loaded: Loaded, inputs: tuple[StaticInput, ...], single: Program) -> None:
    """As `check_sample_independence`, for a model converted already at one sample."""
    if not any(static.batch_axes for static in inputs):
        return
    try:
        double = import_graph(loaded, tuple(static.at_batch(2) for static in inputs))
    except HecompileError:
        return
    together, apart = _samples(inputs)
    pairs = _run(double, together)
    singles = _run(single, apart)
    mixing = [label for label, pair in pairs.items() if not _agree(pair[0], singles[label])]
    if mixing:
        names = ", ".join(f"'{label}'" for label in mixing)
        raise UnsupportedError(
            f"{loaded.where}: output {names} of two samples at once is not their outputs one after "
            "the other, so an operator mixes the samples of a batch, and samples are encrypted "
            "apart; keep the first axis out of reductions, reshapes and softmax, or export the "
            "model with a fixed first axis"
        )


def _samples(inputs: tuple[StaticInput, ...]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Two random samples as one batch of two, and as two batches of one."""
    random = np.random.default_rng(SEED)
    together, apart = {}, {}
    for static in inputs:
        pair = random.standard_normal((2, *static.shape))
        if not static.batch_axes:
            pair[1] = pair[0]
        joined = pair[0]
        for axis in static.batch_axes:
            joined = np.concatenate([pair[0], pair[1]], axis=axis)
        apart[static.name], together[static.name] = pair, joined[None]
    return together, apart


def _run(program: Program, samples: dict[str, Array]) -> dict[str, Processed]:
    from hecompile.interpret.tensor import run_tensor

    with np.errstate(all="ignore"):
        raw = run_tensor(program, samples)
        return {op.label: post_process(op.post, raw[op.label]) for op in program.select(Output)}


def _agree(pair: Processed, singles: Processed) -> bool:
    """Whether a result for two samples is, along some axis, one result after the other."""
    first, second = singles
    for axis in range(first.ndim):
        joined = np.concatenate([first, second], axis=axis)
        if joined.shape == pair.shape and np.allclose(
            joined, pair, rtol=1e-9, atol=1e-9, equal_nan=True
        ):
            return True
    return False
