"""Why operators without a converter are refused, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hecompile.errors import UnsupportedError


@dataclass(frozen=True)
class Refusal:
    """A node that cannot be converted."""

    location: str
    operator: str
    why: str
    remedy: str

    def __str__(self) -> str:
        """Write the refusal as one line."""
        return f"node '{self.location}' ({self.operator}): {self.why}; remedy: {self.remedy}"


_MAXIMUM = "a maximum is a comparison, which encrypted numbers do not allow"
_COMPARISON = "it compares encrypted numbers, which their encryption hides"
_NORM = "it divides by a statistic of the encrypted data"
_END_ONLY = "it can only be computed by the client, at the very end of the model"
_STEP = "it is not smooth, so no polynomial comes near it"
_MOVE = "it is not supported"
_AFTER = "let the client compute it after decryption: end the model before it"
_USE_BATCH_NORM = "use BatchNormalization, whose statistics are constants, and retrain"
_SUPPORTED = "use a supported activation (Relu, Sigmoid, Tanh, Softplus, Elu, Gelu...) and retrain"

_FAMILIES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "maximum pool": (
        ("MaxPool",),
        _MAXIMUM,
        "replace it by AveragePool with the same window, and retrain",
    ),
    "global maximum pool": (
        ("GlobalMaxPool",),
        _MAXIMUM,
        "replace it by GlobalAveragePool, and retrain",
    ),
    "extremum": (
        ("ReduceMax", "ReduceMin"),
        _MAXIMUM,
        "replace it by ReduceMean, and retrain",
    ),
    "end only": (
        ("Softmax", "LogSoftmax", "ArgMax"),
        _END_ONLY,
        "end the model with it, or drop what needs its result (as attention does), and retrain",
    ),
    "arg min": (("ArgMin",), _END_ONLY, "negate its input and end the model with ArgMax"),
    "normalisation": (
        (
            "LayerNormalization",
            "InstanceNormalization",
            "GroupNormalization",
            "LpNormalization",
            "MeanVarianceNormalization",
            "RMSNormalization",
            "LRN",
        ),
        _NORM,
        _USE_BATCH_NORM,
    ),
    "attention": (
        ("Attention", "RotaryEmbedding"),
        "it takes a softmax of encrypted numbers",
        "use convolutions or LSTM, and retrain",
    ),
    "resampling": (
        ("Resize", "Upsample", "GridSample", "AffineGrid", "RoiAlign", "MaxUnpool"),
        "resampling is not supported",
        "resample the signal before encryption, or use Expand and Reshape",
    ),
    "transposed": (
        ("ConvTranspose", "DeformConv", "Col2Im"),
        "only plain convolutions are supported",
        "use Conv with padding, and retrain",
    ),
    "comparison": (
        (
            "Greater",
            "GreaterOrEqual",
            "Less",
            "LessOrEqual",
            "Equal",
            "Not",
            "And",
            "Or",
            "Xor",
            "Sign",
            "TopK",
            "NonZero",
            "IsNaN",
            "IsInf",
            "Unique",
            "Hardmax",
            "NonMaxSuppression",
        ),
        _COMPARISON,
        _AFTER,
    ),
    "step": (
        ("Abs", "Floor", "Ceil", "Round", "Mod", "ThresholdedRelu", "Shrink"),
        _STEP,
        _SUPPORTED,
    ),
    "function": (
        (
            "Exp",
            "Log",
            "Sqrt",
            "Reciprocal",
            "Sin",
            "Cos",
            "Tan",
            "Sinh",
            "Cosh",
            "Asin",
            "Acos",
            "Atan",
            "Asinh",
            "Acosh",
            "Atanh",
        ),
        "this function of an encrypted number is not supported",
        f"compute it before encryption or after decryption, or {_SUPPORTED}",
    ),
    "reduction": (
        (
            "ReduceL1",
            "ReduceL2",
            "ReduceProd",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceSumSquare",
            "LpPool",
            "GlobalLpPool",
        ),
        "only sums and means are supported",
        "write it with Mul, ReduceSum and ReduceMean, or retrain without it",
    ),
    "product": (
        ("Einsum", "CumSum", "CumProd", "Det"),
        _MOVE,
        "write it with MatMul, Mul and ReduceSum",
    ),
    "movement": (
        (
            "ScatterElements",
            "ScatterND",
            "Scatter",
            "Trilu",
            "TensorScatter",
        ),
        _MOVE,
        "write it with Slice, Concat, Reshape and Transpose",
    ),
    "control flow": (
        ("Loop", "Scan", "If"),
        "an encrypted program does not branch",
        "export with static shapes and without control flow that depends on the data",
    ),
    "quantised": (
        (
            "QuantizeLinear",
            "DequantizeLinear",
            "DynamicQuantizeLinear",
            "QLinearConv",
            "QLinearMatMul",
            "ConvInteger",
            "MatMulInteger",
        ),
        "integers cannot be computed with here",
        "export the model in float, before quantisation",
    ),
    "random": (
        (
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
            "Bernoulli",
            "Multinomial",
        ),
        "it draws random numbers",
        "export the model after model.eval()",
    ),
}

REASONS = {op: (why, todo) for ops, why, todo in _FAMILIES.values() for op in ops}
"""Why operators are refused, and the remedy, by the operator's name."""

RANDOM = frozenset(_FAMILIES["random"][0])
"""Operators that are never constant, whatever their inputs."""


def reason(operator: str, domain: str) -> tuple[str, str]:
    """Why an operator without a converter is refused, and the remedy."""
    if domain not in ("", "ai.onnx"):
        return (
            f"the operator domain '{domain}' is not supported",
            "export the model with standard ONNX operators, before any runtime's own optimisation",
        )
    default = (
        "this operator is not supported",
        "compute it before encryption, or retrain without it",
    )
    return REASONS.get(operator, default)


def unsupported(where: str, refusals: Iterable[Refusal]) -> UnsupportedError:
    """One error that lists every refused node."""
    lines = [f"  {refusal}" for refusal in refusals]
    count = "1 node" if len(lines) == 1 else f"{len(lines)} nodes"
    have = "has" if len(lines) == 1 else "have"
    head = f"{where}: {count} of the model {have} no encrypted counterpart:"
    return UnsupportedError("\n".join([head, *lines]))
