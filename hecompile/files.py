"""Files and folders that appear whole or not at all, digests, and the user's settings folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
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
    name. Until then everything lies in a folder beside `path` that is closed to others (mode 0700).
    What a killed process left there is cleared away by the next call for the same `path`.

    Args:
        path: The folder to make; its parent must exist.
        overwrite: Replace a folder of that name. A file of that name is never replaced.

    Yields:
        An empty folder on the same file system.

    Raises:
        InputError: `path` exists and `overwrite` is not set, or the operating system refuses.
    """
    target = Path(path)
    _clear_leftovers(target)
    _check_free(target, overwrite)
    with _workshop(target) as workshop:
        new = workshop / _NEW
        try:
            new.mkdir()
        except OSError as error:
            raise cannot_write(target, error) from error
        yield new
        try:
            _sync_tree(new)
            _check_free(target, overwrite)
            _take_name(new, target)
        except OSError as error:
            raise cannot_write(target, error) from error


_NEW, _OLD = "new", "old"
"""In the folder beside: what is being made, and what it replaces."""


@contextlib.contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """A folder of one's own beside `target`, locked as long as this process lives."""
    while True:
        place = _beside(target)
        try:
            place.mkdir(mode=0o700)
            descriptor = os.open(place, _FOLDER_FLAGS)
        except FileNotFoundError as error:
            if target.parent.is_dir():
                continue
            raise cannot_write(target, error) from error
        except OSError as error:
            raise cannot_write(target, error) from error
        try:
            # Another process may have taken it for a leftover before it was locked.
            if not _locked(descriptor, place, unlockable=True):
                continue
            try:
                yield place
            finally:
                _clear(place, target)
            return
        finally:
            os.close(descriptor)


_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _locked(descriptor: int, place: Path, *, unlockable: bool = False) -> bool:
    """Lock a folder; False where another process has it, or it is no longer the one of that name.

    Args:
        descriptor: Of the folder; the lock goes when it is closed, be it by the process's death.
        place: Its name.
        unlockable: The answer where the file system knows no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return unlockable
    try:
        return os.path.samestat(os.fstat(descriptor), place.lstat())
    except FileNotFoundError:
        return False


def _clear_leftovers(target: Path) -> None:
    """Remove what killed processes left beside `target`; what they had put aside comes back."""
    pattern = re.compile(rf"\.{re.escape(target.name[:100])}\.[0-9a-f]{{16}}\.partial")
    with contextlib.suppress(OSError):
        for place in list(target.parent.iterdir()):
            if pattern.fullmatch(place.name) is None:
                continue
            # Files of that name, links and what is closed to this user are none of ours.
            with contextlib.suppress(OSError):
                descriptor = os.open(place, _FOLDER_FLAGS)
                try:
                    own = os.fstat(descriptor).st_uid == os.geteuid()
                    if own and _locked(descriptor, place):
                        if (place / _OLD).exists() and not os.path.lexists(target):
                            (place / _OLD).rename(target)
                        _clear(place, target)
                finally:
                    os.close(descriptor)


def _clear(place: Path, target: Path) -> None:
    """Remove a folder beside `target`, unless it holds the only copy of what was replaced."""
    if os.path.lexists(target) or not (place / _OLD).exists():
        shutil.rmtree(place, ignore_errors=True)


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


def _take_name(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        _sync_folder(target.parent)
        return
    aside = new.with_name(_OLD)
    try:
        target.rename(aside)
        new.rename(target)
        _sync_folder(target.parent)
    except BaseException:
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise


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
