"""Believing a bundle's signed documents: signatures, times, what follows from them, roll-back.

Nothing else of the bundle is read here, so that whoever may not enter is refused before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from hecompile.access.manifest import MANIFEST_NAME, Manifest
from hecompile.access.manifest_checks import facts_of
from hecompile.access.manifest_reader import parse_statement
from hecompile.access.proof import check_policy
from hecompile.access.records import canonical_json
from hecompile.access.signing import (
    MAX_ENVELOPE_BYTES,
    PublicKey,
    Signed,
    TrustedKeys,
    check_signatures,
    not_trusted,
    parse_envelope,
    verify_signed,
)
from hecompile.access.state import State
from hecompile.access.succession import Line
from hecompile.access.times import check_period
from hecompile.access.users import (
    USERS_NAME,
    Users,
    check_policy_digest,
    check_times,
    check_users,
    verify_users,
)
from hecompile.bundle.sources import Source, open_source, read_member
from hecompile.errors import InputError, IntegrityError
from hecompile.files import cannot_read, sha256_bytes

MAX_USERS_BYTES: Final = 8 << 20


class Memory(Protocol):
    """Remembers the newest documents seen on this machine, as `access.state.State` does."""

    def admit_manifest(
        self, lineage: str, line: Line, supersedes: str, signed_by: Sequence[str]
    ) -> None:
        """Take a manifest as seen; refuse one that may not follow the one seen before."""

    def admit_users(self, line: str, version: int, digest: str) -> None:
        """Take a users document as seen; refuse one older, or another of the same version."""


@dataclass(frozen=True)
class Opening:
    """The believed documents of a bundle.

    Attributes:
        path: The bundle.
        manifest: The manifest.
        envelope: The bytes of its file, signatures included.
        keyids: Trusted keys that signed it, those of the signers of the version before too.
        threshold: How many it took here.
        users: Who has which role; None where the bundle has no users document: then nobody may
            do anything.
        users_envelope: The bytes of that document, signatures included.
    """

    path: Path
    manifest: Manifest
    envelope: bytes
    keyids: tuple[str, ...]
    threshold: int
    users: Users | None
    users_envelope: bytes | None

    def admit(self, state: Memory | None) -> None:
        """Refuse documents older than those seen on this machine; remember these.

        Done last: only what passed everything else is remembered.

        Args:
            state: What this machine remembers; None for the user's own.

        Raises:
            IntegrityError: A newer one was seen here, or another of the same version, or the
                manifest may not follow the one seen.
        """
        memory = state if state is not None else State()
        manifest = self.manifest
        try:
            memory.admit_manifest(
                manifest.lineage, line_of(manifest), manifest.supersedes, self.keyids
            )
            if self.users is not None:
                memory.admit_users(users_line(manifest), self.users.version, self.users.digest)
        except IntegrityError as error:
            raise IntegrityError(f"bundle {self.path}: {error}") from error


def open_documents(
    source: Source,
    trusted: Sequence[PublicKey],
    now: datetime | None = None,
    users: bytes | None = None,
) -> Opening:
    """Read manifest and users document of a bundle, and check all but what was seen before.

    Args:
        source: The bundle.
        trusted: Keys whose signature is accepted, as `TrustStore.load` gives them.
        now: The time, with its zone; None for the clock's.
        users: A newer signed users document than the bundle's; None for that.

    Raises:
        IntegrityError: Something was changed or contradicts itself, a signature is missing or not
            trusted, or a document is not valid now.
    """
    manifest, envelope, keyids, threshold = _signed_manifest(source, TrustedKeys.of(trusted))
    _check_period(source, manifest, now)
    chosen, own = _users(source, users)
    found = None
    if chosen is not None:
        found = check_users_document(chosen, manifest, trusted, now)
        if own is not None and chosen is not own:
            _check_newer(found, own, manifest, trusted)
    return Opening(source.path, manifest, envelope, keyids, threshold, found, chosen)


def manifest_to_supersede(path: str | Path, trusted: Sequence[PublicKey]) -> Manifest:
    """The manifest of a bundle that another is to take the place of; it may have expired.

    Raises:
        NotABundleError: Nothing at `path` is a bundle.
        IntegrityError: It was changed, or a signature is missing or not trusted.
    """
    return _signed_manifest(open_source(path), TrustedKeys.of(trusted))[0]


def manifest_for_users(path: str | Path, trusted: Sequence[PublicKey]) -> Manifest:
    """The manifest of a bundle for which a users document is to be signed.

    The users document that is in the bundle is not looked at: it may be missing or outdated.

    Raises:
        NotABundleError: Nothing at `path` is a bundle.
        IntegrityError: The manifest was changed, a signature is missing or not trusted, or it is
            not valid now.
    """
    source = open_source(path)
    manifest = _signed_manifest(source, TrustedKeys.of(trusted))[0]
    _check_period(source, manifest, None)
    return manifest


def check_users_document(
    signed: bytes, manifest: Manifest, trusted: Sequence[PublicKey], now: datetime | None = None
) -> Users:
    """A users document that a manifest's bundle is to go by, if it may.

    Args:
        signed: The document, as `sign_users` gave it.
        manifest: The bundle's manifest.
        trusted: Keys whose signature is accepted.
        now: The time, with its zone; None for the clock's.

    Raises:
        IntegrityError: It was changed, is signed by others than may sign it, is for another
            policy or not valid now, or gives a user roles that do not go together.
    """
    users = check_users_form(signed, manifest, trusted)
    check_times(users, now)
    try:
        check_users(manifest.policy, users)
        check_policy(manifest.policy, facts_of(manifest), users)
    except InputError as error:
        raise IntegrityError(f"{USERS_NAME} cannot be enforced: {error}") from error
    return users


def check_users_form(signed: bytes, manifest: Manifest, trusted: Sequence[PublicKey]) -> Users:
    """A users document whose signatures and policy fit a manifest; times and roles are not judged.

    Raises:
        IntegrityError: It was changed, is signed by others than may sign it, or is for another
            policy.
    """
    keys = TrustedKeys.of(trusted)
    if len(signed) > MAX_USERS_BYTES:
        raise IntegrityError(f"{USERS_NAME} is larger than {MAX_USERS_BYTES} bytes; get another")
    signers = manifest.signers
    if signers.users:
        # Named by the manifest's own signers to do this alone.
        able, threshold = (*keys, *keys.delegates), 1
    else:
        able, threshold = tuple(keys), max(keys.threshold, signers.threshold)
    named = [key for key in able if key.keyid in users_signers(manifest)]
    users = verify_users(signed, named, threshold)
    check_policy_digest(manifest.policy, users)
    return users


def users_signers(manifest: Manifest) -> tuple[str, ...]:
    """The keys that may sign users documents for a manifest."""
    return manifest.signers.users or manifest.signers.keyids


def users_line(manifest: Manifest) -> str:
    """Under what name a machine remembers the newest users document of a manifest's policy.

    Two hospitals may have the same policy, and each its own users; their manifests are of other
    lines. Who signs users documents is no part of it: a change of signers brings nobody back.
    """
    return sha256_bytes(canonical_json([manifest.policy.digest, manifest.lineage]))


def line_of(manifest: Manifest) -> Line:
    """What a machine remembers of a manifest, to judge what may take its place."""
    signers = manifest.signers
    return Line(manifest.version, manifest.digest, signers.threshold, signers.keyids)


def read_users_file(path: str | Path) -> bytes:
    """A signed users document from a file of its own.

    Raises:
        InputError: The file cannot be read or is too large.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_USERS_BYTES + 1)
    except OSError as error:
        raise cannot_read(Path(path), error) from error
    if len(data) > MAX_USERS_BYTES:
        raise InputError(f"{path} is larger than {MAX_USERS_BYTES} bytes and no users document")
    return data


def _name(source: Source) -> str:
    return f"{MANIFEST_NAME} of bundle {source.path}"


def _check_period(source: Source, manifest: Manifest, now: datetime | None) -> None:
    remedy = "get the bundle that supersedes it"
    check_period(manifest.not_before, manifest.not_after, now, _name(source), remedy)


def _signed_manifest(
    source: Source, trusted: TrustedKeys
) -> tuple[Manifest, bytes, tuple[str, ...], int]:
    """The manifest, its file's bytes, who signed it, and how many had to.

    One that takes the place of another may bear signatures by that one's signers too, whether they
    are still trusted here or not; among what it needs itself they do not count.
    """
    what = _name(source)
    envelope = read_member(source, MANIFEST_NAME, MAX_ENVELOPE_BYTES)
    signed, strangers = _believed(envelope, trusted, what)
    try:
        manifest = parse_statement(signed.payload)
    except IntegrityError as error:
        raise IntegrityError(f"bundle {source.path}: {error}") from error
    own, keyids = manifest.signers.keyids, signed.keyids
    follows = manifest.version > 1
    for stranger in strangers:
        if not follows or stranger in own:
            raise not_trusted(what, stranger)
    threshold = max(trusted.threshold, manifest.signers.threshold)
    counted = tuple(keyid for keyid in keyids if keyid in own or not follows)
    check_signatures(counted, threshold, what, own)
    return manifest, envelope, keyids, threshold


def _believed(envelope: bytes, trusted: TrustedKeys, what: str) -> tuple[Signed, tuple[str, ...]]:
    """What trusted keys signed, at least one, and the keys of signatures that are not trusted."""
    bearing = parse_envelope(envelope, what).signatures
    known = {key.keyid for key in trusted}
    strangers = tuple(sorted(bearing.keys() - known))
    if len(strangers) == len(bearing):
        strangers = ()
    return verify_signed(envelope, trusted, what, passing=strangers), strangers


def _users(source: Source, given: bytes | None) -> tuple[bytes | None, bytes | None]:
    """The users document to go by, and the bundle's own."""
    own = None
    if USERS_NAME in source.sizes():
        own = read_member(source, USERS_NAME, MAX_USERS_BYTES)
    return (given if given is not None else own), own


def _check_newer(
    given: Users, signed: bytes, manifest: Manifest, trusted: Sequence[PublicKey]
) -> None:
    """Refuse a document that is older than the bundle's own."""
    try:
        own = check_users_form(signed, manifest, trusted)
    except IntegrityError:
        # Of no account: it may lack signatures that the one given has by now.
        return
    if own.version > given.version or (own.version == given.version and own != given):
        raise IntegrityError(
            f"the users document that was given has version {given.version}, but the bundle's has "
            f"{own.version}; give a newer one, or none"
        )
