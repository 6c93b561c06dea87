"""The front end: from an ONNX model to a tensor program.

`load` reads and checks, `signature` decides the shapes, `importer` walks the graph, and
`independence` checks that samples are not mixed. An operator is added by one function with
`@converts("Name")` in the file of its family (`elementwise`, `linear`, `windows`, `movement`,
`recurrent`); what is refused, and why, stands in `refusals`.
"""

from __future__ import annotations

from hecompile.frontend.importer import import_graph
from hecompile.frontend.independence import check_sample_independence, compare_batches
from hecompile.frontend.load import Source, load_model
from hecompile.frontend.signature import ModelInput, Shapes, model_inputs, resolve_inputs
from hecompile.ir.program import Program

__all__ = [
    "ModelInput",
    "Shapes",
    "Source",
    "check_sample_independence",
    "import_onnx",
    "model_inputs",
]


def import_onnx(source: Source, *, input_shapes: Shapes | None = None) -> Program:
    """Read an ONNX model as a tensor program for one sample.

    A dynamic first axis counts samples: it becomes 1, and the model is checked to treat samples
    one by one. A fixed first axis stays as it is.

    Args:
        source: a file's path, its bytes, or a model in memory.
        input_shapes: shapes of inputs, by name, for axes that the model leaves open.

    Raises:
        InputError: the model cannot be read, contradicts itself, or leaves a shape open.
        UnsupportedError: nodes have no encrypted counterpart (each is listed with a remedy), or
            samples of a batch are mixed.
    """
    loaded = load_model(source)
    inputs = resolve_inputs(loaded, input_shapes)
    program = import_graph(loaded, inputs)
    compare_batches(loaded, inputs, program)
    return program
