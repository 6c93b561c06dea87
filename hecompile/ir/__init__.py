"""The intermediate representation: one straight-line SSA form for tensors and for ciphertexts."""

from hecompile.ir.constants import Constant, SparseMap
from hecompile.ir.operation import Operation, Symbol, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, Interval, Layout, PlainType, TensorType, Type

__all__ = [
    "CipherType",
    "Constant",
    "Interval",
    "Layout",
    "Operation",
    "PlainType",
    "Program",
    "SparseMap",
    "Symbol",
    "TensorType",
    "Type",
    "Value",
]
