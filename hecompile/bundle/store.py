"""Opening a bundle only if every byte is as signed, and copying one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from hecompile.access.manifest import MANIFEST_NAME, OWNER_PART, FileDigest, Manifest
from hecompile.access.signing import PublicKey
from hecompile.access.users import USERS_NAME, Users
from hecompile.bundle.opening import Memory, Opening, open_documents
from hecompile.bundle.sources import NotABundleError, Source, changed, open_source, read_member
from hecompile.bundle.writing import (
    check_destination,
    install_manifest,
    install_users,
    is_owners,
    write_bundle,
    write_members,
)
from hecompile.errors import InputError, IntegrityError
from hecompile.files import sha256_bytes

__all__ = [
    "BundleFiles",
    "NotABundleError",
    "check_contents",
    "check_destination",
    "export_bundle",
    "install_manifest",
    "install_users",
    "open_bundle_files",
    "write_bundle",
]

_CACHE_BYTES = 8 << 20


class BundleFiles:
    """A bundle whose signatures and files have been checked; read only.

    Attributes:
        path: Where it was opened.
        opening: Its believed documents.
    """

    def __init__(self, source: Source, opening: Opening) -> None:
        """Wrap a checked source and its documents; use `open_bundle_files`."""
        self.path = source.path
        self.opening = opening
        self._source = source
        self._cache: dict[str, bytes] = {}

    @property
    def manifest(self) -> Manifest:
        """The signed manifest."""
        return self.opening.manifest

    @property
    def users(self) -> Users | None:
        """Who has which role, verified; None where nobody may do anything."""
        return self.opening.users

    @property
    def has_owners_part(self) -> bool:
        """Whether the weights that the model's owner encrypts are here, in the clear."""
        return any(map(is_owners, self._source.sizes()))

    def read(self, name: str) -> bytes:
        """The contents of a file; the very bytes returned have been checked.

        Raises:
            InputError: The manifest lists no such file.
            IntegrityError: The file was changed since the bundle was opened.
        """
        if name in self._cache:
            return self._cache[name]
        entry = self.manifest.file(name)
        if entry is None:
            raise InputError(f"bundle {self.path} has no file {name}; make it again")
        if name not in self._source.sizes():
            raise InputError(
                f"bundle {self.path} was exported without its {OWNER_PART}'s part; use the bundle "
                "that hecompile compile wrote"
            )
        data = read_member(self._source, name, entry.size)
        if len(data) != entry.size or sha256_bytes(data) != entry.sha256:
            raise changed(self.path, name)
        if entry.size <= _CACHE_BYTES:
            self._cache[name] = data
        return data


def open_bundle_files(
    path: str | Path,
    trusted: Sequence[PublicKey],
    state: Memory | None = None,
    now: datetime | None = None,
    users: bytes | None = None,
) -> BundleFiles:
    """Open a bundle: check its signatures, its documents, and the SHA-256 of every file.

    The model owner's part may be absent as a whole.

    Args:
        path: A folder, or a `.hec` zip file.
        trusted: Keys whose signature is accepted, as `TrustStore.load` gives them.
        state: What this machine remembers of newer versions; None for the user's own.
        now: The time, with its zone; None for the clock's.
        users: A newer signed users document than the bundle's; None for that.

    Raises:
        NotABundleError: Nothing at `path` is a bundle.
        IntegrityError: A byte was changed, a file is missing or too many, a signature is missing
            or not trusted, a document is not valid now or older than one seen here before, or the
            format is another than this version reads.
    """
    source = open_source(path)
    opening = open_documents(source, trusted, now, users)
    check_contents(source, opening.manifest)
    opening.admit(state)
    return BundleFiles(source, opening)


def export_bundle(files: BundleFiles, path: str | Path, *, overwrite: bool = False) -> list[str]:
    """Copy a bundle without the model owner's part, for everybody else.

    Args:
        files: The bundle, checked.
        path: A folder to make, or a file ending in `.hec`.
        overwrite: Replace a bundle that is there.

    Returns:
        Names of the files left out.

    Raises:
        InputError: The place is taken or cannot be written.
        IntegrityError: A file was changed since the bundle was opened.
    """
    target = Path(path)
    check_destination(target, overwrite)
    names = [entry.name for entry in files.manifest.files]
    left = [name for name in names if is_owners(name)]
    contents = {name: files.read(name) for name in names if name not in left}
    documents = {MANIFEST_NAME: files.opening.envelope}
    if files.opening.users_envelope is not None:
        documents[USERS_NAME] = files.opening.users_envelope
    write_members(target, {**documents, **contents}, overwrite)
    return left


def check_contents(source: Source, manifest: Manifest) -> None:
    """Hold every file of a bundle against its manifest; the model owner's part may be absent.

    Raises:
        IntegrityError: A file was changed, is missing or is not listed.
    """
    sizes = source.sizes()
    exported = not any(is_owners(name) for name in sizes)
    for entry in manifest.files:
        if exported and is_owners(entry.name):
            continue
        if entry.name not in sizes:
            raise IntegrityError(
                f"bundle {source.path} lacks file {entry.name}, which its manifest lists; get a "
                "fresh copy"
            )
    listed = {USERS_NAME, *(entry.name for entry in manifest.files)}
    for name in sizes:
        if name not in listed:
            raise IntegrityError(
                f"bundle {source.path} holds file {name}, which its manifest does not list; "
                "remove it or get a fresh copy"
            )
    for entry in manifest.files:
        if entry.name not in sizes:
            continue
        if sizes[entry.name] != entry.size or _digest(source, entry) != entry.sha256:
            raise changed(source.path, entry.name)


def _digest(source: Source, entry: FileDigest) -> str:
    running = hashlib.sha256()
    size = 0
    for piece in source.pieces(entry.name):
        size += len(piece)
        if size > entry.size:
            raise changed(source.path, entry.name)
        running.update(piece)
    return running.hexdigest()
