"""Compile trained neural networks into homomorphically encrypted programs.

`compile` turns an ONNX model, calibration samples and an access policy into a `Compiled`;
`open_bundle` opens what it saved and hands out the client, the evaluator and the custodian.
Both load on first use, so that a machine that only runs bundles never imports the compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hecompile.compiler import Compiled, compile
    from hecompile.runtime.parties import open_bundle

__all__ = ["Compiled", "__version__", "compile", "open_bundle"]

__version__ = "0.1.0"

_LAZY = {
    "Compiled": "hecompile.compiler",
    "compile": "hecompile.compiler",
    "open_bundle": "hecompile.runtime.parties",
}


def __getattr__(name: str) -> object:
    """Import the module behind a lazy export (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
