"""The door of a bundle: documents are believed, then asked who may enter, then files are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hecompile.access.audit import AuditLog
from hecompile.access.manifest import Manifest
from hecompile.access.state import State
from hecompile.access.trust import TrustedKeys, TrustStore
from hecompile.access.users import Users
from hecompile.bundle.opening import Opening, open_documents, read_users_file
from hecompile.bundle.sources import open_source
from hecompile.bundle.store import BundleFiles, open_bundle_files
from hecompile.cli import console
from hecompile.errors import IntegrityError
from hecompile.runtime.guard import PolicyGuard


@dataclass(frozen=True)
class Door:
    """A bundle whose manifest and users document were checked, and nothing else of it read.

    Attributes:
        path: Where the bundle is.
        opening: The believed documents.
        trusted: The keys believed.
        log: Where decisions are taken down.
    """

    path: Path
    opening: Opening
    trusted: TrustedKeys
    log: AuditLog

    @property
    def manifest(self) -> Manifest:
        """The signed manifest."""
        return self.opening.manifest

    @property
    def users(self) -> Users | None:
        """Who has which role; None where nobody may do anything."""
        return self.opening.users

    def guard(self, user: str | None, purpose: str = "", session: str = "") -> PolicyGuard:
        """What asks the policy in the name of `user`; None for the only one who may."""
        return PolicyGuard(
            self.manifest, self.users, self.log, user, console.say, purpose, session, State()
        )

    def files(self) -> BundleFiles:
        """Open the whole bundle, every file checked.

        Raises:
            IntegrityError: A file was changed, or the bundle exchanged since the door was opened.
        """
        files = open_bundle_files(self.path, self.trusted, users=self.opening.users_envelope)
        if files.manifest != self.manifest:
            raise IntegrityError(f"bundle {self.path} was exchanged meanwhile; try again")
        return files


def open_door(
    bundle: str | Path,
    trust: Sequence[str | Path] = (),
    audit_log: Path | None = None,
    users: str | Path | None = None,
) -> Door:
    """Read a bundle's manifest and users document and check them; no other file is opened.

    Args:
        bundle: The bundle.
        trust: Files of further public keys whose signature is accepted.
        audit_log: Where decisions are logged; None for the user's own log.
        users: File of a newer signed users document than the bundle's.

    Raises:
        NotABundleError: Nothing there is a bundle.
        IntegrityError: A document was changed, is not signed as it should be, is not valid now, or
            a newer one was seen on this machine.
    """
    trusted = TrustStore().load(trust)
    given = read_users_file(users) if users is not None else None
    opening = open_documents(open_source(bundle), trusted, users=given)
    opening.admit(None)
    return Door(Path(bundle), opening, trusted, AuditLog(audit_log))
