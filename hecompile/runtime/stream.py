"""SEAL objects to bytes in SEAL's own format.

SEAL writes to paths only, so an anonymous file in memory (memfd) stands between.
"""

from __future__ import annotations

import os
import struct
from typing import Any, Final

from hecompile.errors import InputError

HEADER: Final = struct.Struct("<HBBBBHQ")
"""Magic, size of the header, SEAL's version (major, minor), compression, reserved, total size."""
MAGIC: Final = 0xA15E


def to_bytes(value: Any) -> bytes:
    """Serialise a SEAL object, also the seed-compressed kind, in SEAL's own format.

    Raises:
        InputError: There is no room for it in memory, or the process may not write as much.
    """
    descriptor = os.memfd_create("hecompile", os.MFD_CLOEXEC)
    try:
        _save(value, f"/proc/self/fd/{descriptor}")
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            stream.seek(0)
            return stream.read()
    finally:
        os.close(descriptor)


def _save(value: Any, path: str) -> None:
    try:
        value.save(path)
    except RuntimeError as error:
        raise InputError(
            f"a key or ciphertext cannot be written to memory: SEAL says '{error}'; free memory, or"
            " allow this process larger files (ulimit -f)."
        ) from error
