"""A bundle opened for use: client, evaluator and custodian, each behind the access policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from hecompile.access.audit import AuditLog
from hecompile.access.key_cards import KeyInspector
from hecompile.access.key_state import KeyState
from hecompile.access.manifest import Manifest
from hecompile.access.objects import Scope
from hecompile.access.signing import PublicKey, TrustStore
from hecompile.access.state import State
from hecompile.bundle.layout import CONSTANTS_FILE as CONSTANTS_FILE
from hecompile.bundle.layout import PROGRAM_FILE as PROGRAM_FILE
from hecompile.bundle.layout import SPEC_FILE as SPEC_FILE
from hecompile.bundle.opening import read_users_file
from hecompile.bundle.store import BundleFiles, open_bundle_files
from hecompile.errors import AccessDeniedError
from hecompile.ir.program import Program
from hecompile.runtime.bundle_parts import read_program as read_program
from hecompile.runtime.bundle_parts import read_server as read_server
from hecompile.runtime.bundle_parts import read_spec as read_spec
from hecompile.runtime.bundle_parts import read_weights as read_weights
from hecompile.runtime.client import Client
from hecompile.runtime.evaluator import Evaluator, galois_steps
from hecompile.runtime.guard import PolicyGuard
from hecompile.runtime.inspection import Inspector
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import (
    Progress,
    load_evaluation_keys,
    load_public_key,
    load_secret_key,
    no_progress,
    write_keys,
)
from hecompile.runtime.model_weights import ModelOwner
from hecompile.runtime.registration import register_keys
from hecompile.runtime.secret_search import check_handed_over
from hecompile.runtime.spec import ClientSpec
from hecompile.runtime.wants import EVALUATION, HOLDING, MODELLING, encryptions

if TYPE_CHECKING:
    # A program that only encrypts or evaluates never loads what uses the secret key.
    from hecompile.runtime.allowance import Allowance
    from hecompile.runtime.custodian import Custodian
    from hecompile.runtime.run import RunResult, Warn
    from hecompile.runtime.vault import Vault


class Bundle:
    """A bundle whose signatures and files were checked.

    Every method that leads to data first checks that the identity of `user` is on this machine,
    then asks the policy in that name, and logs the decision. Without a user, the only one whom the
    policy allows the action is taken.

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
            secret_folder: A folder to make for the secret key. None puts `secret/` into `folder`,
                of whose other parts client and evaluator then take nothing but copies elsewhere.

        Raises:
            AccessDeniedError: The user may not hold the secret key, or its identity is not here.
            InputError: A folder exists or cannot be written.
        """
        identity = self._guard.acting(HOLDING)
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
            identity=identity,
        )

    def register(self, keys: str | Path) -> None:
        """Register public and evaluation keys: sign them, once their holder's signature is right.

        Args:
            keys: A folder of either, or one that holds the folders of both.

        Raises:
            AccessDeniedError: The user may not register or rotate them, or its identity is not
                here.
            HecompileError: There are none, or their holder did not sign them for this bundle.
        """
        register_keys(keys, self._guard, self._cards())

    def client(self, keys: str | Path) -> Client:
        """The client, with the public key from `keys`.

        Raises:
            AccessDeniedError: The user may not encrypt, or its identity is not here.
            HecompileError: The key is missing or not this bundle's, or the secret key is beside it.
        """
        identity = self._guard.acting(encryptions(self._guard.inputs))
        check_handed_over(keys, Role.PUBLIC)
        spec = self.spec
        key = load_public_key(keys, spec.parameters, spec.program, spec.manifest, self._cards())
        return Client(spec, key, self._guard, identity)

    def encrypt_model(self, keys: str | Path, progress: Progress = no_progress) -> bytes:
        """Encrypt the weights, with the public key from `keys`: what the evaluator gets of them.

        Raises:
            AccessDeniedError: The user may not encrypt the model, or its identity is not here.
            InputError: The weights are plain, or the bundle lacks the owner's part.
            HecompileError: The key is missing or not this bundle's, or the secret key is beside it.
        """
        identity = self._guard.acting(MODELLING)
        check_handed_over(keys, Role.PUBLIC)
        spec = self.spec
        key = load_public_key(keys, spec.parameters, spec.program, spec.manifest, self._cards())
        weights = read_weights(self._files, spec) or {}
        purpose = self._guard.purpose
        owner = ModelOwner(self.program, weights, key, spec.manifest, identity, purpose=purpose)
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
            AccessDeniedError: The user may not evaluate, or its identity is not here.
            HecompileError: A key is missing or not this bundle's, or the secret key is beside it.
        """
        identity = self._guard.acting(EVALUATION)
        check_handed_over(keys, Role.EVALUATION)
        program, spec = self.program, self.spec
        loaded = load_evaluation_keys(
            keys,
            spec.parameters,
            spec.program,
            galois_steps(program),
            progress,
            spec.manifest,
            self._cards(),
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
            AccessDeniedError: The user may neither refresh, decrypt nor release, or its identity
                is not here.
            UsageError: No user was named, and several may.
            HecompileError: The key is missing or not this bundle's.
        """
        from hecompile.runtime.custodian import Custodian
        from hecompile.runtime.release_log import ReleaseLog

        guard = self._guard.act_for(scope)
        spec = self.spec
        key = load_secret_key(keys, spec.parameters, spec.program, spec.manifest, vault)
        log = ReleaseLog(self._log, self.users, self.manifest.digest)
        return Custodian(spec, key, guard, guard.identity, self._inspector(guard), log=log)

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
        allowed: Allowance | None = None,
    ) -> RunResult:
        """Play all parties on some samples, the evaluator in a process of its own.

        The user must be allowed to encrypt, and to decrypt or have released at least one output;
        the key is held, and the program evaluated, by the user or else by one whom the policy
        allows it, whose identity must be here too. What passes between the parties stays on this
        machine and is not signed.

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
            allowed: What the evaluator's process may take; None for what is predicted.

        Raises:
            AccessDeniedError: The policy does not grant a step, or the identity of who is to do it
                is not here.
            HecompileError: Bad input, keys of another bundle, or the evaluator failed.
        """
        from hecompile.runtime.release import ReleaseRules
        from hecompile.runtime.release_log import ReleaseLog
        from hecompile.runtime.run import Opening, run_parties

        granted = self._guard.run(only, scope=scope)
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
            allowed=allowed,
            cards=self._cards(),
        )

    def _cards(self) -> KeyInspector:
        """What looks at folders of keys."""
        return KeyInspector(self.manifest, self.users, KeyState.beside(self._state))

    def _inspector(self, guard: PolicyGuard) -> Inspector:
        """What looks at envelopes that others sent."""
        if self.users is None:
            raise AccessDeniedError(
                "Access Denied: the bundle has no users document, so nobody may send anything"
            )
        return Inspector(self.manifest, self.users, self._state, guard.gate, session=guard.session)


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
