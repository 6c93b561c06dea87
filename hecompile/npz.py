"""Reading and writing .npz files: arrays of numbers only, equal arrays as equal bytes."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import InputError

_EPOCH = (1980, 1, 1, 0, 0, 0)


def load_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read every array of an .npz file.

    Raises:
        InputError: the file is missing, no .npz, or holds objects instead of numbers.
    """
    try:
        stored = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(_not_npz(path)) from error
    if not isinstance(stored, np.lib.npyio.NpzFile):
        raise InputError(_not_npz(path))
    with stored:
        try:
            return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise InputError(_not_npz(path)) from error


def npz_bytes(arrays: Mapping[str, NDArray[Any]], *, compress: bool = True) -> bytes:
    """Write an .npz file without time stamps; uncompressed, its size tells shapes only."""
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, array in sorted(arrays.items()):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.compress_type = method
            archive.writestr(entry, member.getvalue())
    return buffer.getvalue()


def _not_npz(path: str | Path) -> str:
    return f"{path} is no .npz file of numeric arrays; write it with numpy.savez(path, x=...)"
