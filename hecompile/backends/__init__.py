"""Backends: what a finished program becomes on the machine that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hecompile.backends.tenseal_python import TensealBackend
from hecompile.errors import UsageError
from hecompile.ir.program import Program

__all__ = ["BACKENDS", "Backend", "TensealBackend", "find_backend"]


class Backend(Protocol):
    """Writes the server's part of a bundle."""

    @property
    def name(self) -> str:
        """What `--backend` calls it."""

    def emit(self, program: Program) -> Mapping[str, bytes]:
        """Write a finished program.

        Returns:
            Contents of files by their name in the bundle, such as `server/program.py`.

        Raises:
            ProgramError: The program is not finished.
        """


BACKENDS: Mapping[str, Backend] = {backend.name: backend for backend in (TensealBackend(),)}
"""Every backend, by name."""


def find_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in BACKENDS:
        raise UsageError(f"there is no backend '{name}'; use one of {', '.join(BACKENDS)}.")
    return BACKENDS[name]
