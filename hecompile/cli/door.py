"""The door of a bundle: its manifest is believed, then asked who may enter, then files are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hecompile.access.audit import AuditLog
from hecompile.access.manifest import MANIFEST_NAME, Manifest, parse_statement
from hecompile.access.signing import MAX_ENVELOPE_BYTES, PublicKey, TrustStore, verify
from hecompile.bundle.sources import open_source
from hecompile.bundle.store import BundleFiles, open_bundle_files
from hecompile.cli import console
from hecompile.errors import IntegrityError
from hecompile.runtime.guard import PolicyGuard

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Door:
    """A bundle whose manifest's signature was checked, and nothing else of it read.

    Attributes:
        path: Where the bundle is.
        manifest: The signed manifest.
        trusted: The keys believed.
        log: Where decisions are taken down.
    """

    path: Path
    manifest: Manifest
    trusted: tuple[PublicKey, ...]
    log: AuditLog

    def guard(self, user: str | None) -> PolicyGuard:
        """What asks the policy in the name of `user`; None for the only one who may."""
        return PolicyGuard(self.manifest, self.log, user, console.say)

    def files(self) -> BundleFiles:
        """Open the whole bundle, every file checked.

        Raises:
            IntegrityError: A file was changed, or the bundle exchanged since the door was opened.
        """
        files = open_bundle_files(self.path, self.trusted)
        if files.manifest != self.manifest:
            raise IntegrityError(f"bundle {self.path} was exchanged meanwhile; try again")
        return files


def open_door(
    bundle: str | Path, trust: Sequence[str | Path] = (), audit_log: Path | None = None
) -> Door:
    """Read a bundle's manifest and check its signature; no other file is opened.

    Raises:
        NotABundleError: Nothing there is a bundle.
        IntegrityError: The manifest was changed, or its signer is not trusted.
    """
    trusted = TrustStore().load(trust)
    source = open_source(bundle)
    envelope = bytearray()
    for piece in source.pieces(MANIFEST_NAME):
        envelope += piece
        if len(envelope) > MAX_ENVELOPE_BYTES:
            raise IntegrityError(f"the manifest of bundle {bundle} is too large; get a fresh copy")
    statement = verify(bytes(envelope), trusted, f"{MANIFEST_NAME} of bundle {bundle}")
    try:
        manifest = parse_statement(statement)
    except IntegrityError as error:
        raise IntegrityError(f"bundle {bundle}: {error}") from error
    return Door(Path(bundle), manifest, trusted, AuditLog(audit_log))
