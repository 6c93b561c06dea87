"""Writing a bundle whole and signed, and exchanging its signed documents in one step."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from hecompile.access.manifest import (
    MANIFEST_NAME,
    OWNER_PART,
    FileDigest,
    Manifest,
    is_member_name,
)
from hecompile.access.manifest_reader import parse_statement, statement_bytes
from hecompile.access.signing import MAX_ENVELOPE_BYTES, SigningKey, parse_envelope, sign
from hecompile.access.users import USERS_NAME, USERS_PAYLOAD_TYPE
from hecompile.bundle.sources import (
    MAX_TOTAL_BYTES,
    archive_entry,
    is_archive_name,
    open_source,
    read_member,
)
from hecompile.errors import HecompileError, InputError
from hecompile.files import atomic_directory, atomic_write_bytes, cannot_write, sha256_bytes

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_ZIP_LIMIT = (1 << 32) - (1 << 20)


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
    users: bytes | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write a signed bundle that appears whole or not at all.

    Equal files, manifest, users document and key give equal bytes. Where the manifest asks for
    several signatures, the others are added with `hecompile manifest sign`.

    Args:
        path: A folder to make, or a file ending in `.hec` for one zip file.
        files: Name in the bundle to contents, without manifest and users document.
        manifest: The manifest; its `files` are filled in here, and its signers if it names none.
        signing_key: The key that signs.
        users: The signed users document; None for none yet, so that nobody may do anything.
        overwrite: Replace a bundle that is there; anything else is never replaced.

    Returns:
        The manifest with the digests, as signed.

    Raises:
        InputError: The place is taken or cannot be written, or the key is none of the signers.
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
    complete = _with_signer(dataclasses.replace(manifest, files=tuple(entries)), signing_key)
    contents = {MANIFEST_NAME: sign(statement_bytes(complete), signing_key)}
    if users is not None:
        contents[USERS_NAME] = users
    write_members(
        target, {**contents, **{entry.name: files[entry.name] for entry in entries}}, overwrite
    )
    return complete


def write_members(target: Path, contents: Mapping[str, bytes], overwrite: bool) -> None:
    """Write files as a bundle, a folder or one zip file, whole or not at all.

    Raises:
        InputError: The place is taken or cannot be written.
    """
    if is_archive_name(target):
        # The weights that a model's owner encrypts are nobody else's.
        mode = 0o600 if any(map(is_owners, contents)) else 0o644
        atomic_write_bytes(target, _pack(target, contents), mode)
    else:
        with atomic_directory(target, overwrite) as folder:
            _fill(folder, target, contents)


def install_users(path: str | Path, signed: bytes) -> None:
    """Put a signed users document into a bundle, in the place of the one there, in one step.

    Its form is checked, its signature is not: whoever opens the bundle does that.

    Args:
        path: The bundle.
        signed: What `users.sign_users` gave.

    Raises:
        NotABundleError: Nothing at `path` is a bundle.
        IntegrityError: What is there is damaged, or the document has not the form of one.
        InputError: The bundle cannot be written.
    """
    parse_envelope(signed, USERS_NAME, USERS_PAYLOAD_TYPE)
    _exchange(Path(path), USERS_NAME, signed)


def install_manifest(path: str | Path, envelope: bytes) -> None:
    """Put the same manifest with other signatures into a bundle, in one step.

    Raises:
        NotABundleError: Nothing at `path` is a bundle.
        IntegrityError: What is there is damaged, or `envelope` holds another manifest.
        InputError: The bundle cannot be written.
    """
    found = read_member(open_source(path), MANIFEST_NAME, MAX_ENVELOPE_BYTES)
    if parse_envelope(found).payload != parse_envelope(envelope).payload:
        raise InputError(f"bundle {path} was exchanged meanwhile; try again")
    _exchange(Path(path), MANIFEST_NAME, envelope)


def is_owners(name: str) -> bool:
    """Whether a file of a bundle belongs to the model owner's part."""
    return name.startswith(f"{OWNER_PART}/")


def _with_signer(manifest: Manifest, key: SigningKey) -> Manifest:
    signers = manifest.signers
    if not signers.keyids and signers.threshold == 1:
        signers = dataclasses.replace(signers, keyids=(key.keyid,))
        return dataclasses.replace(manifest, signers=signers)
    if key.keyid not in signers.keyids:
        raise InputError(
            f"signing key {key.keyid} is not among the manifest's signers; add it, or sign with "
            "the key of one"
        )
    return manifest


def _exchange(path: Path, name: str, data: bytes) -> None:
    source = open_source(path)
    if path.is_dir():
        atomic_write_bytes(path / name, data)
        return
    contents = {name: data}
    for member in (MANIFEST_NAME, *source.sizes()):
        contents.setdefault(member, read_member(source, member, MAX_TOTAL_BYTES))
    order = [entry for entry in (MANIFEST_NAME, USERS_NAME) if entry in contents]
    order += sorted(set(contents) - set(order))
    write_members(path, {member: contents[member] for member in order}, overwrite=True)


def _fill(folder: Path, target: Path, contents: Mapping[str, bytes]) -> None:
    try:
        for name, data in contents.items():
            place = folder / name
            private = is_owners(name)
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
        envelope = parse_envelope(read_member(source, MANIFEST_NAME, MAX_ENVELOPE_BYTES))
        manifest = parse_statement(envelope.payload)
        return {USERS_NAME, *(entry.name for entry in manifest.files)} >= set(source.sizes())
    return False
