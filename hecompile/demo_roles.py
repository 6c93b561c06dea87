"""The roles of a hospital around one bundle: each asks for what it wants, and gets what it may.

Each party has its own identity and folder, as if on a machine of its own: the technician the public
key, the evaluator its keys in a process of its own, the vault the secret key. They share a log.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from hecompile.access.audit import AuditEntry, AuditLog, read_audit
from hecompile.access.checkpoints import known_audit_keys
from hecompile.access.decide import Gate, PolicyIndex
from hecompile.access.identity import load_identity
from hecompile.access.key_cards import KeyInspector
from hecompile.access.objects import AUDIT, Action, Scope
from hecompile.access.state import State
from hecompile.access.trust import TrustStore
from hecompile.access.users import Users
from hecompile.bundle.store import BundleFiles, open_bundle_files
from hecompile.errors import AccessDeniedError, CompileError
from hecompile.runtime.custodian import Custodian
from hecompile.runtime.guard import PolicyGuard
from hecompile.runtime.inspection import Inspector, OpenInspector
from hecompile.runtime.keys import load_secret_key
from hecompile.runtime.parties import Bundle, open_bundle, read_server, read_spec
from hecompile.runtime.processes import EvaluatorProcess
from hecompile.runtime.release import ReleasedOutput

OUTPUT: Final = "logits"
CARE, RESEARCH = "care", "research"


class Progress(Protocol):
    """Told of a task, and how much of it is done."""

    def __call__(self, task: str, done: int = 0, total: int = 0) -> None:
        """Show it."""


@dataclass(frozen=True)
class Evaluated:
    """Beats that went through the encrypted program.

    Attributes:
        envelopes: Encrypted outputs, signed by the evaluator.
        rounds: Refreshes that the vault answered.
        encrypting: Wall seconds of the technician.
        evaluating: Wall seconds of the evaluator and of the vault's refreshes.
        sent: Bytes to the evaluator.
        received: Bytes from it.
        refreshed: Bytes between evaluator and vault.
    """

    envelopes: tuple[bytes, ...]
    rounds: int
    encrypting: float
    evaluating: float
    sent: int
    received: int
    refreshed: int


@dataclass(frozen=True)
class Answer:
    """What somebody asked for, what came of it, and what the log says of that.

    Attributes:
        user: Who asked.
        role: The role in which it asked.
        asked: What for, in words.
        released: What was let out; None where nothing was.
        refusal: Why nothing was; empty where something was.
        entry: The entry in the log that the answer ended with.
    """

    user: str
    role: str
    asked: str
    released: ReleasedOutput | None
    refusal: str
    entry: AuditEntry


@dataclass(frozen=True)
class Hospital:
    """The parties around one bundle.

    Attributes:
        bundle: Folder of the bundle.
        keys: Folder of the keys that client and evaluator get.
        vault: Folder of the secret key.
        log: The log that all of them write to.
        progress: Told what is going on.
    """

    bundle: Path
    keys: Path
    vault: Path
    log: AuditLog
    progress: Progress

    def files(self) -> BundleFiles:
        """The bundle's files, checked."""
        return open_bundle_files(self.bundle, TrustStore().load())

    def users(self) -> Users:
        """Who has which role.

        Raises:
            CompileError: The bundle does not say.
        """
        users = self.files().users
        if users is None:
            raise CompileError("the demonstration's bundle has no users document")
        return users

    def user(self, role: str) -> str:
        """The first user who has a role and no other.

        Raises:
            CompileError: There is none.
        """
        for entry in self.users().users:
            if entry.roles == (role,):
                return entry.name
        raise CompileError(f"the demonstration's users document has nobody in role '{role}'")

    def acting(self, user: str, purpose: str = "") -> Bundle:
        """The bundle as a user opens it."""
        return open_bundle(self.bundle, user=user, audit=self.log, purpose=purpose)

    def make_keys(self) -> None:
        """Let the vault make the keys, and the security officer register those handed out.

        The secret one goes to a folder of its own.
        """
        vault = self.acting(self.user("custodian"))
        vault.keygen(self.keys, self.progress, secret_folder=self.vault)
        self.acting(self.user("security-officer")).register(self.keys)

    def evaluate(self, beats: NDArray[Any]) -> Evaluated:
        """Send beats through technician, evaluator and vault."""
        files, users = self.files(), self.users()
        manifest, server, spec = files.manifest, read_server(files), read_spec(files)
        began = time.perf_counter()
        client = self.acting(self.user("lab-technician")).client(self.keys / "public")
        requests = client.encrypt({"x": beats})
        encrypted = time.perf_counter()
        custodian = self.acting(self.user("custodian")).custodian(self.vault)
        cloud = self.user("evaluator")
        gate = Gate(PolicyIndex(manifest.policy, users), self.log, manifest.digest)
        process = EvaluatorProcess(
            server.program,
            server.constants,
            spec,
            self.keys / "evaluation",
            progress=self.progress,
            identity=load_identity(cloud),
            cards=KeyInspector(manifest, users),
            inspector=Inspector(manifest, users, State(), gate),
        )
        with process:
            envelopes = []
            for number, request in enumerate(requests, start=1):
                self.progress("evaluating encrypted beats", number, len(requests))
                envelopes.append(process.evaluate(request, custodian.refresh))
        return Evaluated(
            tuple(envelopes),
            custodian.rounds,
            encrypted - began,
            time.perf_counter() - encrypted,
            sum(map(len, requests)),
            sum(map(len, envelopes)),
            process.refresh_bytes,
        )

    def raw(self, envelopes: Sequence[bytes]) -> NDArray[np.float64]:
        """What the holder of the key could decrypt: for comparison, and shown to nobody else."""
        spec = read_spec(self.files())
        key = load_secret_key(self.vault, spec.parameters, spec.program, spec.manifest)
        custodian = Custodian(spec, key, inspector=OpenInspector())
        return np.asarray(custodian.decrypt_all(envelopes).raw[OUTPUT], dtype=np.float64)

    def ask(
        self,
        role: str,
        asked: str,
        envelopes: Sequence[bytes],
        purpose: str = "",
        scope: Scope = Scope.PERSON,
    ) -> Answer:
        """Ask the vault, in somebody's name, to release the answers of some evaluations."""
        user, files = self.user(role), self.files()
        guard = PolicyGuard(files.manifest, files.users, self.log, user, purpose=purpose)
        released, refusal = None, ""
        try:
            decisions = guard.declassify((OUTPUT,), scope)
            custodian = self.acting(user, purpose).custodian(self.vault, scope=scope)
            released = custodian.release_granted(envelopes, decisions).outputs[OUTPUT]
        except AccessDeniedError as denied:
            refusal = str(denied)
        return Answer(user, role, asked, released, refusal, self._last_entry(user))

    def read_log(self, role: str) -> Answer:
        """Ask to read the audit log."""
        user, files = self.user(role), self.files()
        index = PolicyIndex(files.manifest.policy, files.users)
        refusal = ""
        try:
            Gate(index, self.log, files.manifest.digest).require(user, Action.READ, AUDIT)
        except AccessDeniedError as denied:
            refusal = str(denied)
        return Answer(user, role, "the audit log", None, refusal, self._last_entry(user))

    def _last_entry(self, user: str) -> AuditEntry:
        entries = read_audit(self.log.path, known_audit_keys())
        return next(entry for entry in reversed(entries) if entry.user == user)
