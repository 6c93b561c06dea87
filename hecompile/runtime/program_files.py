"""The program's files in a bundle, read back."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from hecompile.errors import IntegrityError, ProgramError
from hecompile.ir.constants import Array
from hecompile.ir.parser import parse
from hecompile.ir.program import Program


@dataclass(frozen=True)
class Server:
    """The evaluator's files: contents of `program.hir` and `constants.npz`."""

    program: bytes
    constants: bytes


def load_program(text: bytes, constants: bytes, source: str = "server/program.hir") -> Program:
    """Read a program from the contents of `program.hir` and `constants.npz`.

    Raises:
        IntegrityError: One of them is damaged, or they do not belong together.
    """
    try:
        with np.load(io.BytesIO(constants), allow_pickle=False) as archive:
            arrays: dict[str, Array] = {
                name: np.asarray(archive[name], dtype=np.float64) for name in archive.files
            }
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise IntegrityError(
            "the program's constants.npz is damaged; compile the model again."
        ) from error
    try:
        return parse(text.decode("utf-8"), arrays, source)
    except (UnicodeDecodeError, ProgramError) as error:
        raise IntegrityError(f"the program cannot be read: {error}") from error
