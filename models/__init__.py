"""PyTorch models, data preparation, training and export.

Importing this package imports no PyTorch; `train_to_directory` and `TrainReport` load it on first
use. `hecompile.models.data` and `hecompile.models.metrics` never need it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from hecompile.errors import InputError

if TYPE_CHECKING:
    from hecompile.models.recipes import TrainReport, train_to_directory

__all__ = ["TrainReport", "train_to_directory"]


def __getattr__(name: str) -> object:
    """Import the module behind a lazy export (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        recipes = importlib.import_module("hecompile.models.recipes")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise InputError(
            "training needs PyTorch; install it with: pip install 'hecompile[train]'"
        ) from error
    value: object = getattr(recipes, name)
    return value
