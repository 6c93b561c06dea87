"""Writing a bundle whole and signed, and opening one only if every byte is as signed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hecompile.access.manifest import (
    MANIFEST_NAME,
    OWNER_PART,
    FileDigest,
    Manifest,
    is_member_name,
    parse_statement,
    statement_bytes,
)
from hecompile.access.signing import (
    MAX_ENVELOPE_BYTES,
    PublicKey,
    SigningKey,
    parse_envelope,
    sign,
    verify,
)
from hecompile.bundle.sources import (
    NotABundleError,
    Source,
    archive_entry,
    is_archive_name,
    open_source,
)
from hecompile.errors import HecompileError, InputError, IntegrityError
from hecompile.files import (
    atomic_directory,
    atomic_write_bytes,
    cannot_write,
    sha256_bytes,
)

__all__ = [
    "BundleFiles",
    "NotABundleError",
    "check_destination",
    "export_bundle",
    "open_bundle_files",
    "write_bundle",
]

_CACHE_BYTES = 8 << 20
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_ZIP_LIMIT = (1 << 32) - (1 << 20)


class BundleFiles:
    """A bundle whose signature and files have been checked; read only.

    Attributes:
        path: Where it was opened.
        manifest: The signed manifest.
        envelope: The bytes of its file, signature included.
    """

    def __init__(self, source: Source, manifest: Manifest, envelope: bytes) -> None:
        """Wrap a checked source and its signed manifest's bytes; use `open_bundle_files`."""
        self.path = source.path
        self.manifest = manifest
        self.envelope = envelope
        self._source = source
        self._cache: dict[str, bytes] = {}

    @property
    def has_owners_part(self) -> bool:
        """Whether the weights that the model's owner encrypts are here, in the clear."""
        return any(map(_is_owners, self._source.sizes()))

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
        data = _read(self._source, name, entry.size)
        if len(data) != entry.size or sha256_bytes(data) != entry.sha256:
            raise _changed(self.path, name)
        if entry.size <= _CACHE_BYTES:
            self._cache[name] = data
        return data


def open_bundle_files(path: str | Path, trusted_keys: Sequence[PublicKey]) -> BundleFiles:
    """Open a bundle: check its signature, its manifest, and the SHA-256 of every file.

    The model owner's part may be absent as a whole.

    Args:
        path: A folder, or a `.hec` zip file.
        trusted_keys: Keys whose signature is accepted, as `TrustStore.load` gives them.

    Raises:
        NotABundleError: Nothing at `path` is a bundle.
        IntegrityError: A byte was changed, a file is missing or too many, the signer is not
            trusted, or the format is newer than this version reads.
    """
    source = open_source(path)
    envelope = _read(source, MANIFEST_NAME, MAX_ENVELOPE_BYTES)
    statement = verify(envelope, trusted_keys, f"{MANIFEST_NAME} of bundle {source.path}")
    try:
        manifest = parse_statement(statement)
    except IntegrityError as error:
        raise IntegrityError(f"bundle {source.path}: {error}") from error
    _check_contents(source, manifest)
    return BundleFiles(source, manifest, envelope)


def check_destination(path: str | Path, overwrite: bool = False) -> None:
    """Refuse a place that `write_bundle` would refuse, before hours of work are done for it.

    Raises:
        InputError: Something is there which is not to be overwritten, or the parent is no folder.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"folder {target.parent} does not exist; make it first")
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise InputError(
            f"{target} exists already; name another place, remove it, or ask to overwrite it"
        )
    if target.is_symlink() or target.is_dir() is is_archive_name(target) or not _is_ours(target):
        raise InputError(
            f"{target} is not a bundle as this command would write it, so it is not overwritten; "
            "name another place"
        )


def write_bundle(
    path: str | Path,
    files: Mapping[str, bytes],
    manifest: Manifest,
    signing_key: SigningKey,
    *,
    overwrite: bool = False,
) -> Manifest:
    """Write a signed bundle that appears whole or not at all.

    Equal files, manifest and key give equal bytes.

    Args:
        path: A folder to make, or a file ending in `.hec` for one zip file.
        files: Name in the bundle to contents, without the manifest.
        manifest: The manifest; its `files` are filled in here.
        signing_key: The key that signs.
        overwrite: Replace a bundle that is there; anything else is never replaced.

    Returns:
        The manifest with the digests, as signed.

    Raises:
        InputError: The place is taken or cannot be written.
        IntegrityError: The manifest breaks a rule that would keep the bundle from being opened.
    """
    target = Path(path)
    check_destination(target, overwrite)
    for name in files:
        if not is_member_name(name):
            raise InputError(
                f"a bundle cannot hold a file named {name!r}; use letters, digits, '_', '-', '.'"
            )
    entries = sorted(
        FileDigest(name, sha256_bytes(data), len(data)) for name, data in files.items()
    )
    complete = dataclasses.replace(manifest, files=tuple(entries))
    envelope = sign(statement_bytes(complete), signing_key)
    contents = {MANIFEST_NAME: envelope, **{entry.name: files[entry.name] for entry in entries}}
    _write(target, contents, overwrite)
    return complete


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
    left = [name for name in names if _is_owners(name)]
    contents = {name: files.read(name) for name in names if name not in left}
    _write(target, {MANIFEST_NAME: files.envelope, **contents}, overwrite)
    return left


def _is_owners(name: str) -> bool:
    return name.startswith(f"{OWNER_PART}/")


def _write(target: Path, contents: Mapping[str, bytes], overwrite: bool) -> None:
    if is_archive_name(target):
        # The weights that a model's owner encrypts are nobody else's.
        mode = 0o600 if any(map(_is_owners, contents)) else 0o644
        atomic_write_bytes(target, _pack(target, contents), mode)
    else:
        with atomic_directory(target, overwrite) as folder:
            _fill(folder, target, contents)


def _fill(folder: Path, target: Path, contents: Mapping[str, bytes]) -> None:
    try:
        for name, data in contents.items():
            place = folder / name
            private = _is_owners(name)
            place.parent.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
            with os.fdopen(os.open(place, _NEW_FILE, 0o600 if private else 0o666), "wb") as stream:
                stream.write(data)
    except OSError as error:
        raise cannot_write(target, error) from error


def _pack(target: Path, contents: Mapping[str, bytes]) -> bytes:
    if sum(map(len, contents.values())) > _ZIP_LIMIT:
        raise InputError(
            f"the bundle is too large for one file {target}; give a name without '.hec' to have "
            "a folder"
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in contents.items():
            info = archive_entry(name, data)
            archive.writestr(info, data, info.compress_type)
    return buffer.getvalue()


def _is_ours(path: Path) -> bool:
    """Whether all there is at `path` is a bundle, by its form; its signer does not matter."""
    with contextlib.suppress(HecompileError):
        source = open_source(path)
        envelope = parse_envelope(_read(source, MANIFEST_NAME, MAX_ENVELOPE_BYTES))
        manifest = parse_statement(envelope.payload)
        return {entry.name for entry in manifest.files} >= set(source.sizes())
    return False


def _read(source: Source, name: str, limit: int) -> bytes:
    data = bytearray()
    for piece in source.pieces(name):
        data += piece
        if len(data) > limit:
            raise _changed(source.path, name)
    return bytes(data)


def _check_contents(source: Source, manifest: Manifest) -> None:
    sizes = source.sizes()
    exported = not any(_is_owners(name) for name in sizes)
    for entry in manifest.files:
        if exported and _is_owners(entry.name):
            continue
        if entry.name not in sizes:
            raise IntegrityError(
                f"bundle {source.path} lacks file {entry.name}, which its manifest lists; get a "
                "fresh copy"
            )
    listed = {entry.name for entry in manifest.files}
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
            raise _changed(source.path, entry.name)


def _digest(source: Source, entry: FileDigest) -> str:
    running = hashlib.sha256()
    size = 0
    for piece in source.pieces(entry.name):
        size += len(piece)
        if size > entry.size:
            raise _changed(source.path, entry.name)
        running.update(piece)
    return running.hexdigest()


def _changed(path: Path, name: str) -> IntegrityError:
    return IntegrityError(
        f"file {name} of bundle {path} was changed: it does not match the signed manifest; get a "
        "fresh copy"
    )
