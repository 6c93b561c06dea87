"""A bundle's documents as they stand, believed or not: for who is to sign or compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hecompile.access.manifest import MANIFEST_NAME, Manifest
from hecompile.access.manifest_reader import parse_statement
from hecompile.access.signing import (
    MAX_ENVELOPE_BYTES,
    PublicKey,
    SigningKey,
    TrustedKeys,
    cosign,
    is_signed_by,
    parse_envelope,
)
from hecompile.access.state import State
from hecompile.access.succession import Line
from hecompile.access.times import check_period
from hecompile.access.users import USERS_NAME, Users
from hecompile.bundle.opening import MAX_USERS_BYTES, check_users_document
from hecompile.bundle.sources import Source, open_source, read_member
from hecompile.bundle.store import check_contents, install_manifest
from hecompile.errors import InputError, IntegrityError


@dataclass(frozen=True)
class Signature:
    """One signature of a manifest.

    Attributes:
        keyid: Identifier of the key that it says it is by.
        trusted: Whether that key is trusted here.
        valid: Whether it is right; None where the key is not known here.
        listed: Whether the manifest lets that key sign it.
    """

    keyid: str
    trusted: bool
    valid: bool | None
    listed: bool

    @property
    def counts(self) -> bool:
        """Whether it is one of those that the manifest needs."""
        return self.trusted and self.valid is True and self.listed


@dataclass(frozen=True)
class Review:
    """A bundle's documents, read strictly and proved, but not believed.

    Attributes:
        path: The bundle.
        manifest: Its manifest.
        envelope: The bytes of the manifest's file.
        signatures: The signatures of the manifest.
        threshold: How many must count before the bundle opens here.
        owed: Signatures that are missing by signers of the older version that was seen here.
        time_fault: Why the manifest is not valid now; empty if it is.
        users: Who has which role; None where the users document is missing or not to be believed.
        users_fault: Why it is not to be believed; empty if it is, or is missing.
    """

    path: Path
    manifest: Manifest
    envelope: bytes
    signatures: tuple[Signature, ...]
    threshold: int
    owed: int
    time_fault: str
    users: Users | None
    users_fault: str

    @property
    def missing(self) -> int:
        """Signatures that are missing before the bundle opens here."""
        return max(0, self.threshold - sum(one.counts for one in self.signatures))

    @property
    def has_wrong_signatures(self) -> bool:
        """Whether a signature keeps the bundle from being opened.

        What takes the place of another manifest may bear signatures by others than its signers.
        """
        needed = self.signatures
        if self.manifest.version > 1:
            needed = tuple(one for one in needed if one.listed or one.valid is False)
        return not all(one.counts for one in needed)


def review_bundle(
    path: str | Path, trusted: Sequence[PublicKey], state: State | None = None
) -> Review:
    """Read a bundle's documents without asking whose they are, how old, or whether signed enough.

    Args:
        path: The bundle.
        trusted: Keys that are trusted here.
        state: What this machine remembers of older versions; None for the user's own.

    Raises:
        NotABundleError: Nothing at `path` is a bundle.
        IntegrityError: The manifest is malformed, contradicts itself, or its policy cannot be
            enforced.
    """
    return _review(open_source(path), TrustedKeys.of(trusted), _memory(state))


def add_signature(
    path: str | Path,
    key: SigningKey,
    trusted: Sequence[PublicKey],
    digest: str = "",
    state: State | None = None,
) -> Review:
    """Sign a bundle's manifest too, after its form, its policy and all its files were checked.

    Args:
        path: The bundle.
        key: Who signs.
        trusted: Keys that are trusted here, to judge the signatures that are there.
        digest: The manifest that is meant, by its digest or the first digits of it; empty for
            whichever is there.
        state: What this machine remembers: signers of the version that this one follows sign it
            too. None for the user's own.

    Returns:
        The bundle's documents as they now are.

    Raises:
        InputError: The key is none of the manifest's signers, nor of those before, or has signed
            already, another manifest is meant, or the bundle cannot be written.
        IntegrityError: The bundle is not whole, or a signature that is there is wrong.
    """
    source = open_source(path)
    keys, memory = TrustedKeys.of(trusted), _memory(state)
    found = _review(source, keys, memory)
    manifest = found.manifest
    if not manifest.digest.startswith(digest.lower()):
        raise InputError(
            f"bundle {path} has the manifest {manifest.digest}, not {digest}; nothing was signed"
        )
    before = _before(manifest, memory)
    if key.keyid not in (*manifest.signers.keyids, *(before.keyids if before else ())):
        raise InputError(
            f"key {key.keyid} is not among the manifest's signers, nor among those of an older "
            "version seen here, so that its signature is of no use; compile it with that signer, or"
            f" sign with the key of one: {', '.join(manifest.signers.keyids)}"
        )
    for one in found.signatures:
        if one.valid is False:
            raise IntegrityError(
                f"{MANIFEST_NAME} of bundle {path} does not match its signature by key "
                f"{one.keyid}: it was changed after signing; get a fresh copy"
            )
    check_contents(source, manifest)
    install_manifest(path, cosign(found.envelope, key))
    return _review(open_source(path), keys.and_also(key.public_key), memory)


def _memory(state: State | None) -> State:
    return state if state is not None else State()


def _before(manifest: Manifest, memory: State) -> Line | None:
    """The newest older version of a manifest that was seen on this machine."""
    line = memory.line(manifest.lineage)
    return line if line is not None and line.version < manifest.version else None


def _review(source: Source, trusted: TrustedKeys, memory: State) -> Review:
    envelope = read_member(source, MANIFEST_NAME, MAX_ENVELOPE_BYTES)
    what = f"{MANIFEST_NAME} of bundle {source.path}"
    parsed = parse_envelope(envelope, what)
    try:
        manifest = parse_statement(parsed.payload)
    except IntegrityError as error:
        raise IntegrityError(f"bundle {source.path}: {error}") from error
    known = {key.keyid: key for key in trusted}
    signatures = tuple(
        Signature(
            keyid,
            keyid in known,
            is_signed_by(parsed, known[keyid]) if keyid in known else None,
            keyid in manifest.signers.keyids,
        )
        for keyid in sorted(parsed.signatures)
    )
    users, fault = _users(source, manifest, trusted)
    threshold = max(trusted.threshold, manifest.signers.threshold)
    before = _before(manifest, memory)
    right = [one.keyid for one in signatures if one.valid]
    return Review(
        source.path,
        manifest,
        envelope,
        signatures,
        threshold,
        before.owed(right) if before is not None else 0,
        _time_fault(manifest),
        users,
        fault,
    )


def _time_fault(manifest: Manifest) -> str:
    try:
        check_period(
            manifest.not_before, manifest.not_after, None, "the manifest", "get a newer one"
        )
    except IntegrityError as error:
        return str(error)
    return ""


def _users(source: Source, manifest: Manifest, trusted: TrustedKeys) -> tuple[Users | None, str]:
    if USERS_NAME not in source.sizes():
        return None, ""
    try:
        data = read_member(source, USERS_NAME, MAX_USERS_BYTES)
        return check_users_document(data, manifest, trusted), ""
    except IntegrityError as error:
        return None, str(error)
