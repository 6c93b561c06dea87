"""The door of a bundle: its manifest is believed, then asked who may enter, then files are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hecompile.access.audit import AuditLog
from hecompile.access.decide import Gate, PolicyIndex
from hecompile.access.manifest import MANIFEST_NAME, Manifest, parse_statement
from hecompile.access.policy import (
    KEY_SECRET,
    PROGRAM,
    Action,
    ObjectRef,
)
from hecompile.access.signing import MAX_ENVELOPE_BYTES, PublicKey, TrustStore, verify
from hecompile.bundle.sources import open_source
from hecompile.bundle.store import BundleFiles, open_bundle_files
from hecompile.cli import console
from hecompile.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from hecompile.ir.program import Program
    from hecompile.runtime.run import Server
    from hecompile.runtime.spec import ClientSpec

Want = tuple[Action, ObjectRef]

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

    @cached_property
    def _index(self) -> PolicyIndex:
        return PolicyIndex(self.manifest.policy)

    @cached_property
    def _gate(self) -> Gate:
        return Gate(self._index, self.log, self.manifest.digest)

    def enter(self, user: str | None, wants: Sequence[Want], option: str = "--as") -> str:
        """Let a user do what is wanted.

        Args:
            user: Who asks; None for the only one who may.
            wants: Actions and objects, all of them needed.
            option: The option that names the user, for messages.

        Returns:
            The user.

        Raises:
            UsageError: No user was named, and none or several may.
            AccessDeniedError: The policy does not grant it, or it cannot be logged.
        """
        found = user if user is not None else self._only(wants, option)
        for action, obj in wants:
            self._gate.require(found, action, obj)
        return found

    def files(self) -> BundleFiles:
        """Open the whole bundle, every file checked.

        Raises:
            IntegrityError: A file was changed, or the bundle exchanged since the door was opened.
        """
        files = open_bundle_files(self.path, self.trusted)
        if files.manifest != self.manifest:
            raise IntegrityError(f"bundle {self.path} was exchanged meanwhile; try again")
        return files

    def encryptions(self) -> tuple[Want, ...]:
        """What encrypting all inputs asks for."""
        ports = self.manifest.io.inputs
        return tuple((Action.ENCRYPT, ObjectRef.input(port.name)) for port in ports)

    def decryptions(self) -> tuple[Want, ...]:
        """What decrypting all outputs asks for."""
        ports = self.manifest.io.outputs
        return tuple((Action.DECRYPT, ObjectRef.output(port.name)) for port in ports)

    def play(self, user: str | None, wants: Sequence[Want], preferred: str) -> str:
        """Let a further party of a run do what is wanted.

        Args:
            user: Who plays it; None for `preferred` if the policy lets that user, else the first
                user whom it lets.
            wants: Actions and objects, all of them needed.
            preferred: The user who started the run.

        Raises:
            AccessDeniedError: The policy does not grant it, or it cannot be logged.
        """
        able = self._able(wants)
        if user is None and able:
            user = preferred if preferred in able else able[0]
            if user != preferred:
                console.say(f"'{user}' is to {wants[0][0]} {wants[0][1]}")
        return self.enter(user if user is not None else preferred, wants)

    def _able(self, wants: Sequence[Want]) -> list[str]:
        return [
            user.name
            for user in self.manifest.policy.users
            if all(self._index.decide(user.name, *want).allowed for want in wants)
        ]

    def _only(self, wants: Sequence[Want], option: str) -> str:
        able = self._able(wants)
        action, obj = wants[0]
        if len(able) != 1:
            who = ", ".join(able) if able else "none of the policy's users"
            raise UsageError(
                f"name the user who is to {action} {obj} with {option} USER; allowed: {who}"
            )
        console.say(f"acting as '{able[0]}', the only user who may {action} {obj}")
        return able[0]


EVALUATION: tuple[Want, ...] = ((Action.EVALUATE, PROGRAM),)
REFRESHING: tuple[Want, ...] = ((Action.REFRESH, PROGRAM),)
HOLDING: tuple[Want, ...] = ((Action.HOLD, KEY_SECRET),)


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


def read_spec(files: BundleFiles) -> ClientSpec:
    """What client and key holder need of a bundle."""
    from hecompile.runtime.parties import SPEC_FILE
    from hecompile.runtime.spec_json import spec_from_json

    return spec_from_json(files.read(SPEC_FILE))


def read_server(files: BundleFiles) -> Server:
    """The evaluator's files, as they are handed to its process."""
    from hecompile.runtime.parties import CONSTANTS_FILE, PROGRAM_FILE
    from hecompile.runtime.run import Server

    return Server(files.read(PROGRAM_FILE), files.read(CONSTANTS_FILE))


def read_program(files: BundleFiles) -> Program:
    """The encrypted program of a bundle.

    Raises:
        IntegrityError: It is not the one that the client's part was made for.
    """
    from hecompile.runtime.program_files import load_program
    from hecompile.runtime.spec import program_id

    server = read_server(files)
    program = load_program(server.program, server.constants, f"{files.path}/server/program.hir")
    if program_id(program) != read_spec(files).program:
        raise IntegrityError(f"the two halves of bundle {files.path} are of different programs")
    return program
