"""The inputs of a model, and the static shapes that they are compiled for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx
from onnx import TensorProto, shape_inference

from hecompile.errors import InputError
from hecompile.frontend.load import Loaded, Source, load_model
from hecompile.frontend.site import MOST_ELEMENTS

Shapes = Mapping[str, tuple[int, ...]]

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_KINDS = {
    "sequence_type": "a sequence",
    "map_type": "a map",
    "optional_type": "optional",
    "sparse_tensor_type": "a sparse tensor",
}


@dataclass(frozen=True)
class ModelInput:
    """An input as the model declares it.

    Attributes:
        name: its name.
        dims: extent of each axis: a number, or the symbol of a dynamic one ("" if it has none);
            None where the model does not even give the rank.
    """

    name: str
    dims: tuple[int | str, ...] | None


@dataclass(frozen=True)
class StaticInput:
    """An input with its shape decided.

    Attributes:
        name: its name.
        shape: extents.
        batch_axes: axes that count samples and were dynamic; their extent is 1 in `shape`.
    """

    name: str
    shape: tuple[int, ...]
    batch_axes: tuple[int, ...] = ()

    def at_batch(self, batch: int) -> StaticInput:
        """The same input for several samples at once."""
        axes = self.batch_axes
        return replace(
            self, shape=tuple(batch if i in axes else e for i, e in enumerate(self.shape))
        )


def model_inputs(source: Source) -> tuple[ModelInput, ...]:
    """The inputs of a model, weights left out.

    Raises:
        InputError: the model cannot be read, or has an input that cannot be encrypted.
    """
    return declared_inputs(load_model(source))


def declared_inputs(loaded: Loaded) -> tuple[ModelInput, ...]:
    """The inputs of a loaded model, weights left out.

    Raises:
        InputError: there is none, or one is not a tensor of real numbers.
    """
    weights = {tensor.name for tensor in loaded.proto.graph.initializer}
    found = [v for v in loaded.proto.graph.input if v.name not in weights]
    if not found:
        raise InputError(
            f"{loaded.where} has no inputs, so there is nothing to encrypt; "
            "export it with its data as an input"
        )
    return tuple(_declared(value, loaded.where) for value in found)


def _declared(value: onnx.ValueInfoProto, where: str) -> ModelInput:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise InputError(
            f"{where}: input '{value.name}' is {_KINDS.get(kind or '', 'of no declared type')}; "
            "only tensors can be encrypted, so export the model with tensors as inputs"
        )
    tensor = value.type.tensor_type
    if tensor.elem_type not in _FLOATS:
        names = {number: name.lower() for name, number in TensorProto.DataType.items()}
        kind = names.get(tensor.elem_type, "an unknown type")
        raise InputError(
            f"{where}: input '{value.name}' holds {kind}, "
            "and only real numbers can be encrypted; export the model with a float input"
        )
    if not tensor.HasField("shape"):
        return ModelInput(value.name, None)
    dims = [d.dim_value if d.dim_value > 0 else d.dim_param for d in tensor.shape.dim]
    return ModelInput(value.name, tuple(dims))


def resolve_inputs(loaded: Loaded, input_shapes: Shapes | None) -> tuple[StaticInput, ...]:
    """Decide the shape of every input: a dynamic batch axis becomes 1.

    The batch axis is the first axis of an input where that is dynamic, else an axis of the same
    symbol, as in an initial state (layers, N, hidden).

    Args:
        loaded: the model.
        input_shapes: shapes that the user gave, by input name.

    Raises:
        InputError: an axis that does not count samples is dynamic and no shape was given for it,
            or a shape given names no input or contradicts the model.
    """
    declared = declared_inputs(loaded)
    known = _Known(dict(input_shapes or {}), loaded.where)
    known.match(declared)
    firsts = {str(d.dims[0]) for d in declared if d.dims and isinstance(d.dims[0], str)}
    batch = {s for s in firsts if s and known.symbols.get(s, 1) == 1}
    resolved = [known.resolve(source, batch) for source in declared]
    for static in resolved:
        if math.prod(static.shape) > MOST_ELEMENTS:
            raise InputError(
                f"{loaded.where}: input '{static.name}' has {math.prod(static.shape)} elements, "
                f"more than the {MOST_ELEMENTS} that are supported"
            )
    if known.open:
        raise InputError(
            f"{loaded.where} leaves open {', '.join(known.open)}; a program has static shapes, so "
            f"give them, as in {' '.join(known.options)}"
        )
    return tuple(resolved)


@dataclass
class _Known:
    """What is known of shapes: those given, what symbols stand for, and what is still open."""

    given: dict[str, tuple[int, ...]]
    where: str
    symbols: dict[str, int] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    def match(self, declared: tuple[ModelInput, ...]) -> None:
        """Check the shapes given against the model, and note what their symbols stand for."""
        names = {source.name: source for source in declared}
        for name, shape in self.given.items():
            if name not in names:
                told = ", ".join(f"'{n}'" for n in names)
                raise InputError(f"{self.where} has no input '{name}'; its inputs are {told}")
            dims = names[name].dims
            text = f"{self.where}: the shape {'x'.join(map(str, shape))} given for input '{name}'"
            if not shape or min(shape) < 1 or len(dims or shape) != len(shape):
                wanted = "x".join(str(d) or "?" for d in dims or ("?",))
                raise InputError(f"{text} does not fit the model's {wanted}")
            for axis, (dim, extent) in enumerate(zip(dims or shape, shape, strict=True)):
                meant = (
                    self.symbols.setdefault(dim, extent) if isinstance(dim, str) and dim else dim
                )
                if meant not in ("", extent):
                    raise InputError(f"{text} has {extent} on axis {axis}, which must be {meant}")

    def resolve(self, source: ModelInput, batch: set[str]) -> StaticInput:
        """Decide one input's shape, noting the axes that stay open."""
        shape = self.given.get(source.name)
        if source.dims is None:
            if shape is None:
                self.open.append(f"the rank of input '{source.name}'")
                self.options.append(f"--input-shape {source.name}:1x8")
            return StaticInput(source.name, shape or ())
        if not source.dims:
            raise InputError(
                f"{self.where}: input '{source.name}' is a scalar; give it a batch axis"
            )
        extents, batch_axes, open_axes = [], [], []
        for axis, dim in enumerate(source.dims):
            elsewhere = isinstance(source.dims[0], int) and dim in batch
            counts_samples = isinstance(dim, str) and (axis == 0 or elsewhere)
            extent = shape[axis] if shape else self._extent(dim, counts_samples)
            if extent is None:
                open_axes.append(f"axis {axis}" + (f" ('{dim}')" if dim else ""))
            elif counts_samples and extent == 1:
                batch_axes.append(axis)
            extents.append(extent or 8)
        if open_axes:
            self.open.append(f"{' and '.join(open_axes)} of input '{source.name}'")
            self.options.append(f"--input-shape {source.name}:{'x'.join(map(str, extents))}")
        return StaticInput(source.name, tuple(extents), tuple(batch_axes))

    def _extent(self, dim: int | str, counts_samples: bool) -> int | None:
        if isinstance(dim, int):
            return dim
        return self.symbols.get(dim, 1 if counts_samples else None)


def specialise(loaded: Loaded, inputs: tuple[StaticInput, ...]) -> onnx.ModelProto:
    """A copy of the model with these input shapes, and every other shape inferred from them."""
    proto = onnx.ModelProto()
    proto.CopyFrom(loaded.proto)
    shapes = {static.name: static.shape for static in inputs}
    for value in proto.graph.input:
        if value.name in shapes:
            tensor = value.type.tensor_type
            tensor.ClearField("shape")
            tensor.shape.SetInParent()
            for extent in shapes[value.name]:
                tensor.shape.dim.add().dim_value = extent
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        # Without data_prop, which counts up to the extents that a hostile model names.
        return shape_inference.infer_shapes(proto)
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        # Only shapes behind unsupported nodes are taken from here; without them, less is told.
        return proto
