"""A bundle opened for use: client, evaluator and custodian, each behind the access policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from hecompile.access.audit import AuditLog
from hecompile.access.decide import PolicyIndex, Request
from hecompile.access.identity import Identity, load_identity
from hecompile.access.manifest import Manifest
from hecompile.access.objects import Scope
from hecompile.access.signing import PublicKey, TrustStore
from hecompile.access.state import State
from hecompile.bundle.opening import read_users_file
from hecompile.bundle.store import BundleFiles, open_bundle_files
from hecompile.errors import AccessDeniedError, InputError
from hecompile.ir.program import Program
from hecompile.runtime.bundle_parts import CONSTANTS_FILE as CONSTANTS_FILE
from hecompile.runtime.bundle_parts import PROGRAM_FILE as PROGRAM_FILE
from hecompile.runtime.bundle_parts import SPEC_FILE as SPEC_FILE
from hecompile.runtime.bundle_parts import read_program as read_program
from hecompile.runtime.bundle_parts import read_server as read_server
from hecompile.runtime.bundle_parts import read_spec as read_spec
from hecompile.runtime.bundle_parts import read_weights as read_weights
from hecompile.runtime.client import Client
from hecompile.runtime.evaluator import Evaluator, galois_steps
from hecompile.runtime.guard import PolicyGuard
from hecompile.runtime.inspection import Inspector
from hecompile.runtime.keys import (
    Progress,
    load_evaluation_keys,
    load_public_key,
    load_secret_key,
    no_progress,
    write_keys,
)
from hecompile.runtime.model_weights import ModelOwner
from hecompile.runtime.spec import ClientSpec
from hecompile.runtime.wants import EVALUATION, HOLDING, MODELLING, Want, encryptions

if TYPE_CHECKING:
    # A program that only encrypts or evaluates never loads what uses the secret key.
    from hecompile.runtime.custodian import Custodian
    from hecompile.runtime.run import RunResult, Warn
    from hecompile.runtime.vault import Vault


class Bundle:
    """A bundle whose signatures and files were checked.

    Every method that leads to data asks the policy first, in the name of `user`, and logs the
    decision; then it loads that user's identity from this machine. Without a user, the only one
    whom the policy allows the action is taken, if its identity is here.

    Attributes:
        path: Where the bundle is.
        manifest: Its signed manifest.
        users: Who has which role; None where nobody may do anything.
        user: Who asks.
    """

    def __init__(
        self,
        files: BundleFiles,
        user: str | None = None,
        audit: AuditLog | None = None,
        *,
        purpose: str = "",
        session: str = "",
        state: State | None = None,
    ) -> None:
        """Wrap checked files; use `open_bundle`."""
        self.path = files.path
        self.manifest: Manifest = files.manifest
        self.users = files.users
        self.user = user
        self._files = files
        self._log = audit if audit is not None else AuditLog()
        self._state = state if state is not None else State()
        self._guard = PolicyGuard(
            files.manifest,
            files.users,
            self._log,
            user,
            purpose=purpose,
            session=session,
            memory=self._state,
        )

    @cached_property
    def spec(self) -> ClientSpec:
        """What client and custodian know of the program."""
        return read_spec(self._files)

    @cached_property
    def program(self) -> Program:
        """The encrypted program.

        Raises:
            IntegrityError: It is not the one that the client's specification is for.
        """
        return read_program(self._files, self.spec)

    def keygen(
        self,
        folder: str | Path,
        progress: Progress = no_progress,
        *,
        vault: Vault | None = None,
        secret_folder: str | Path | None = None,
    ) -> str:
        """Make keys for this bundle in a new folder and return their identifier.

        Args:
            folder: The folder to make.
            progress: Told what is going on.
            vault: What wraps the secret key; None for the machine's own.
            secret_folder: A folder to make for the secret key; None puts `secret/` into `folder`.

        Raises:
            AccessDeniedError: The user may not hold the secret key.
            InputError: A folder exists or cannot be written, or the user's identity is not here.
        """
        self._guard.hold()
        self._acting(HOLDING)
        program, spec = self.program, self.spec
        return write_keys(
            folder,
            spec.parameters,
            galois_steps(program),
            spec.program,
            progress,
            spec.manifest,
            vault=vault,
            secret_folder=secret_folder,
        )

    def client(self, keys: str | Path) -> Client:
        """The client, with the public key from `keys`.

        Raises:
            AccessDeniedError: The user may not encrypt.
            HecompileError: The key is missing or not this bundle's, or the user's identity is not
                on this machine.
        """
        self._guard.encrypt(self._guard.inputs)
        identity = self._acting(encryptions(self._guard.inputs))
        spec = self.spec
        key = load_public_key(keys, spec.parameters, spec.program, spec.manifest)
        return Client(spec, key, self._guard, identity)

    def encrypt_model(self, keys: str | Path, progress: Progress = no_progress) -> bytes:
        """Encrypt the weights, with the public key from `keys`: what the evaluator gets of them.

        Raises:
            AccessDeniedError: The user may not encrypt the model.
            InputError: The weights are plain, or the bundle lacks the owner's part.
            HecompileError: The key is missing or not this bundle's, or the user's identity is not
                on this machine.
        """
        self._guard.encrypt_model()
        identity = self._acting(MODELLING)
        spec = self.spec
        key = load_public_key(keys, spec.parameters, spec.program, spec.manifest)
        weights = read_weights(self._files, spec) or {}
        owner = ModelOwner(self.program, weights, key, spec.manifest, identity)
        return owner.encrypt(progress)

    def evaluator(
        self,
        keys: str | Path,
        *,
        model: bytes | None = None,
        memory_limit: int | None = None,
        progress: Progress = no_progress,
        weights_cache: str | Path | None = None,
    ) -> Evaluator:
        """The evaluator, with the evaluation keys from `keys`, in this process.

        Args:
            keys: Folder of the evaluation keys.
            model: What `encrypt_model` gave, for a program with encrypted weights.
            memory_limit: Most bytes of encoded weights.
            progress: Told what is going on.
            weights_cache: Folder where encoded weights are kept, in clear; None keeps none.

        Raises:
            AccessDeniedError: The user may not evaluate.
            HecompileError: A key is missing or not this bundle's, or the user's identity is not on
                this machine.
        """
        self._guard.evaluate()
        identity = self._acting(EVALUATION)
        program, spec = self.program, self.spec
        loaded = load_evaluation_keys(
            keys, spec.parameters, spec.program, galois_steps(program), progress, spec.manifest
        )
        return Evaluator(
            program,
            loaded,
            memory_limit=memory_limit,
            progress=progress,
            guard=self._guard,
            manifest=spec.manifest,
            model=model,
            weights_cache=weights_cache,
            identity=identity,
            inspector=self._inspector(self._guard),
        )

    def custodian(
        self, keys: str | Path, *, vault: Vault | None = None, scope: Scope = Scope.PERSON
    ) -> Custodian:
        """The custodian, with the secret key from `keys`; the policy is asked at each use too.

        Args:
            keys: Folder of the secret key.
            vault: What unwraps it; None for the machine's own.
            scope: What releases will be about.

        Raises:
            AccessDeniedError: The user may neither refresh, decrypt nor release.
            UsageError: No user was named, and several may.
            HecompileError: The key is missing or not this bundle's, or the user's identity is not
                on this machine.
        """
        from hecompile.runtime.custodian import Custodian
        from hecompile.runtime.release_log import ReleaseLog

        guard = self._guard.act_for(scope)
        identity = self._identity(guard.user)
        spec = self.spec
        key = load_secret_key(keys, spec.parameters, spec.program, spec.manifest, vault)
        log = ReleaseLog(self._log, self.users, self.manifest.digest)
        return Custodian(spec, key, guard, identity, self._inspector(guard), log=log)

    def run(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        keys: str | Path | None = None,
        only: Sequence[str] = (),
        scope: Scope = Scope.PERSON,
        memory_limit: int | None = None,
        timeout: float | None = None,
        progress: Progress = no_progress,
        warn: Warn | None = None,
        vault: Vault | None = None,
    ) -> RunResult:
        """Play all parties on some samples, the evaluator in a process of its own.

        The user must be allowed to encrypt, and to decrypt or have released at least one output;
        the key is held, and the program evaluated, by the user or else by the first one whom the
        policy allows it. What passes between the parties stays on this machine and is not signed.

        Args:
            inputs: As `Client.encrypt` takes them.
            keys: Folder of keys; None for fresh ones, whose secret part never reaches the disk.
            only: Outputs to open; none for all that the policy grants the user.
            scope: What releases are about.
            memory_limit: Most bytes of the evaluator's encoded weights.
            timeout: Seconds that loading, or the evaluation of one group, may take.
            progress: Told what is going on.
            warn: Told of inputs and decrypted outputs outside the calibrated ranges.
            vault: What unwraps the secret key in `keys`; None for the machine's own.

        Raises:
            AccessDeniedError: The policy does not grant a step.
            HecompileError: Bad input, keys of another bundle, the user's identity is not on this
                machine, or the evaluator failed.
        """
        from hecompile.runtime.release import ReleaseRules
        from hecompile.runtime.release_log import ReleaseLog
        from hecompile.runtime.run import Opening, run_parties

        granted = self._guard.run(only, scope=scope)
        self._identity(granted[0].request.user)
        log = ReleaseLog(self._log, self.users, self.manifest.digest)
        return run_parties(
            read_server(self._files),
            self.spec,
            inputs,
            keys=keys,
            opening=Opening(granted, ReleaseRules.of(self.manifest), log),
            memory_limit=memory_limit,
            timeout=timeout,
            progress=progress,
            warn=warn,
            model_weights=read_weights(self._files, self.spec),
            vault=vault,
        )

    def _acting(self, wants: Sequence[Want]) -> Identity:
        """The identity of the user in whose name the guard let `wants` pass."""
        if self.user is not None:
            return self._identity(self.user)
        index, purpose = PolicyIndex(self.manifest.policy, self.users), self._guard.purpose
        able = (
            user.name
            for user in (self.users.users if self.users is not None else ())
            if all(index.decide(Request(user.name, *want, purpose)).allowed for want in wants)
        )
        return self._identity(next(able, None))

    def _identity(self, user: str | None) -> Identity:
        """The identity of a user who was let pass, from this machine.

        Raises:
            InputError: It is not here, or is not the one in the users document.
        """
        name = user or ""
        identity = load_identity(name)
        entry = self.users.user(name) if self.users is not None else None
        if entry is None or entry.keyid != identity.keyid:
            raise InputError(
                f"the identity of user '{name}' on this machine is not the one in the users "
                f"document; have its key ('hecompile identity show {name}') put into users.toml "
                "and signed"
            )
        return identity

    def _inspector(self, guard: PolicyGuard) -> Inspector:
        """What looks at envelopes that others sent."""
        if self.users is None:
            raise AccessDeniedError(
                "Access Denied: the bundle has no users document, so nobody may send anything"
            )
        return Inspector(self.manifest, self.users, self._state, guard.gate, purpose=guard.purpose)


def open_bundle(
    path: str | Path,
    *,
    user: str | None = None,
    trust: Sequence[PublicKey] | None = None,
    audit: AuditLog | None = None,
    purpose: str = "",
    session: str = "",
    users: str | Path | None = None,
    state: State | None = None,
) -> Bundle:
    """Open a bundle: check its signatures, its documents and every file.

    Args:
        path: A folder, or a `.hec` file.
        user: Who asks; each method that leads to data refuses what the policy does not grant.
        trust: Keys whose signature is accepted; None for the user's trust store.
        audit: Where decisions are logged; None for the user's log.
        purpose: What for, where the policy's permissions name purposes.
        session: Name of the session, within which separation of duties is kept.
        users: File of a newer signed users document than the bundle's.
        state: What this machine remembers of manifests, users and envelopes; None for the user's.

    Raises:
        InputError: Nothing at `path` is a bundle.
        IntegrityError: A byte was changed, a signature is missing or not trusted, or a document is
            not valid now or older than one seen here before.
    """
    trusted = TrustStore().load() if trust is None else trust
    given = read_users_file(users) if users is not None else None
    files = open_bundle_files(path, trusted, state, users=given)
    return Bundle(files, user, audit, purpose=purpose, session=session, state=state)
