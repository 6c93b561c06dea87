"""Files and folders that appear whole or not at all, digests, and the user's settings folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from hecompile.errors import InputError


def config_home() -> Path:
    """Folder of the user's signing key, trusted public keys and audit logs.

    Returns:
        `$HECOMPILE_HOME`, else `$XDG_CONFIG_HOME/hecompile`, else `~/.config/hecompile`. The
        folder need not exist.
    """
    if own := os.environ.get("HECOMPILE_HOME"):
        return Path(own)
    shared = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG base directory specification says that a relative path is to be ignored.
    base = Path(shared) if shared and Path(shared).is_absolute() else Path.home() / ".config"
    return base / "hecompile"


def private_folder(path: Path) -> Path:
    """Make `path` and its missing parents, closed to other users (mode 0700), and return it.

    Raises:
        InputError: The folder cannot be made.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
        if not path.is_dir():
            raise InputError(f"{path} is not a folder; name another place")
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def cannot_write(path: Path, error: OSError) -> InputError:
    """The error to raise when the operating system refuses to write `path`."""
    reason = error.strerror or str(error)
    return InputError(
        f"cannot write {path}: {reason}; check that its folder exists, has room and is yours"
    )


def cannot_read(path: Path, error: OSError) -> InputError:
    """The error to raise when the operating system refuses to read `path`."""
    reason = error.strerror or str(error)
    return InputError(f"cannot read {path}: {reason}; check the path and its permissions")


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of `data`, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """SHA-256 of the contents of a file, read in pieces, as 64 lower-case hexadecimal digits.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise cannot_read(Path(path), error) from error


def atomic_write_bytes(
    path: str | Path, data: bytes, mode: int = 0o644, *, exclusive: bool = False
) -> None:
    """Write a file so that a reader sees the old contents or the new, never a part.

    The bytes go to a file beside `path`, reach the disk, and take the name in one step. On any
    failure, Ctrl-C included, the file beside is removed and `path` is as it was.

    Args:
        path: The file to write; a file of that name is replaced.
        data: The contents.
        mode: Permission bits, before the process's umask.
        exclusive: Leave an existing file alone and raise FileExistsError.

    Raises:
        InputError: The operating system refuses, or `path` is there and is no regular file (a
            device, a pipe, a folder): renaming would put a file in its place.
        FileExistsError: `path` exists and `exclusive` is set.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise InputError(f"{target} is no regular file, so it is not replaced; name another place")
    temporary = _beside(target)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, mode), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if exclusive:
            os.link(temporary, target)
        else:
            temporary.replace(target)
        _sync_folder(target.parent)
    except FileExistsError:
        if exclusive:
            raise
        raise InputError(f"{target} cannot be replaced; name another file") from None
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def atomic_write_text(
    path: str | Path, text: str, mode: int = 0o644, *, exclusive: bool = False
) -> None:
    """Write UTF-8 text as `atomic_write_bytes` does; line ends are kept as they are."""
    atomic_write_bytes(path, text.encode("utf-8"), mode, exclusive=exclusive)


@contextlib.contextmanager
def atomic_directory(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Fill a folder that takes its name only when the block ends without an error.

    On any failure, Ctrl-C included, what was written is removed and `path` is as it was. Where an
    existing folder is replaced, it steps aside, and comes back if the new one cannot take its
    name.

    Args:
        path: The folder to make; its parent must exist.
        overwrite: Replace a folder of that name. A file of that name is never replaced.

    Yields:
        An empty folder beside `path`, on the same file system.

    Raises:
        InputError: `path` exists and `overwrite` is not set, or the operating system refuses.
    """
    target = Path(path)
    _check_free(target, overwrite)
    temporary = _beside(target)
    try:
        try:
            temporary.mkdir()
        except OSError as error:
            raise cannot_write(target, error) from error
        yield temporary
        try:
            _sync_tree(temporary)
            _check_free(target, overwrite)
            _take_name(temporary, target)
        except OSError as error:
            raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(target: Path) -> Path:
    if target.name in ("", ".", ".."):
        raise InputError(f"'{target}' does not name a new file or folder; give it a name")
    return target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.partial")


def _check_free(target: Path, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise InputError(f"{target} exists already; name another place or remove it")
    if target.is_symlink() or not target.is_dir():
        raise InputError(f"{target} is not a folder and is not replaced; name another place")


def _take_name(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.rename(target)
        _sync_folder(target.parent)
        return
    aside = _beside(target)
    try:
        target.rename(aside)
        temporary.rename(target)
        _sync_folder(target.parent)
    except BaseException:
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            descriptor = os.open(Path(parent, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_folder(Path(parent))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
