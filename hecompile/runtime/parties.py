"""A bundle opened for use: client, evaluator and custodian, each behind the access policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from numpy.typing import ArrayLike

from hecompile.access.audit import AuditLog
from hecompile.access.manifest import Manifest
from hecompile.access.signing import PublicKey, TrustStore
from hecompile.bundle.store import BundleFiles, open_bundle_files
from hecompile.errors import IntegrityError
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.runtime.client import Client
from hecompile.runtime.custodian import Custodian
from hecompile.runtime.evaluator import Evaluator, galois_steps
from hecompile.runtime.guard import PolicyGuard
from hecompile.runtime.keys import (
    Progress,
    load_evaluation_keys,
    load_public_key,
    load_secret_key,
    no_progress,
    write_keys,
)
from hecompile.runtime.model_weights import OWNER_FILE, ModelOwner, read_owner
from hecompile.runtime.program_files import load_program
from hecompile.runtime.run import RunResult, Server, Warn, run_parties
from hecompile.runtime.spec import ClientSpec, program_id
from hecompile.runtime.spec_json import spec_from_json

SPEC_FILE = "client/spec.json"
PROGRAM_FILE = "server/program.hir"
CONSTANTS_FILE = "server/constants.npz"


class Bundle:
    """A bundle whose signature and files were checked.

    Every method that leads to data asks the policy first, in the name of `user`, and logs the
    decision. Without a user, the only one whom the policy allows the action is taken.

    Attributes:
        path: Where the bundle is.
        manifest: Its signed manifest.
        user: Who asks.
    """

    def __init__(
        self, files: BundleFiles, user: str | None = None, audit: AuditLog | None = None
    ) -> None:
        """Wrap checked files; use `open_bundle`."""
        self.path = files.path
        self.manifest: Manifest = files.manifest
        self.user = user
        self._files = files
        log = audit if audit is not None else AuditLog()
        self._guard = PolicyGuard(files.manifest, log, user)

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

    def keygen(self, folder: str | Path, progress: Progress = no_progress) -> str:
        """Make keys for this bundle in a new folder and return their identifier.

        Raises:
            AccessDeniedError: The user may not hold the secret key.
            InputError: The folder exists or cannot be written.
        """
        self._guard.hold()
        program, spec = self.program, self.spec
        steps = galois_steps(program)
        return write_keys(folder, spec.parameters, steps, spec.program, progress, spec.manifest)

    def client(self, keys: str | Path) -> Client:
        """The client, with the public key from `keys`.

        Raises:
            AccessDeniedError: The user may not encrypt.
            HecompileError: The key is missing or not this bundle's.
        """
        self._guard.encrypt(self._guard.inputs)
        spec = self.spec
        key = load_public_key(keys, spec.parameters, spec.program, spec.manifest)
        return Client(spec, key, self._guard)

    def encrypt_model(self, keys: str | Path, progress: Progress = no_progress) -> bytes:
        """Encrypt the weights, with the public key from `keys`: what the evaluator gets of them.

        Raises:
            AccessDeniedError: The user may not encrypt the model.
            InputError: The weights are plain, or the bundle lacks the owner's part.
            HecompileError: The key is missing or not this bundle's.
        """
        self._guard.encrypt_model()
        return model_owner(self._files, self.spec, keys).encrypt(progress)

    def evaluator(
        self,
        keys: str | Path,
        *,
        model: bytes | None = None,
        memory_limit: int | None = None,
        progress: Progress = no_progress,
        weights_cache: str | Path | None = None,
    ) -> Evaluator:
        """The evaluator, with the evaluation keys from `keys`.

        Args:
            keys: Folder of the evaluation keys.
            model: What `encrypt_model` gave, for a program with encrypted weights.
            memory_limit: Most bytes of encoded weights.
            progress: Told what is going on.
            weights_cache: Folder where encoded weights are kept, in clear; None keeps none.

        Raises:
            AccessDeniedError: The user may not evaluate.
            HecompileError: A key is missing or not this bundle's.
        """
        self._guard.evaluate()
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
        )

    def custodian(self, keys: str | Path) -> Custodian:
        """The custodian, with the secret key from `keys`; the policy is asked at each use too.

        Raises:
            AccessDeniedError: The user may neither refresh nor decrypt.
            UsageError: No user was named, and several may.
            HecompileError: The key is missing or not this bundle's.
        """
        guard = self._guard.act_for()
        spec = self.spec
        key = load_secret_key(keys, spec.parameters, spec.program, spec.manifest)
        return Custodian(spec, key, guard)

    def run(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        keys: str | Path | None = None,
        only: Sequence[str] = (),
        memory_limit: int | None = None,
        timeout: float | None = None,
        progress: Progress = no_progress,
        warn: Warn | None = None,
    ) -> RunResult:
        """Play all parties on some samples, the evaluator in a process of its own.

        The user must be allowed to encrypt and to decrypt at least one output; the key is held,
        and the program evaluated, by the user or else by the first one whom the policy allows it.

        Args:
            inputs: As `Client.encrypt` takes them.
            keys: Folder of keys; None for fresh ones, whose secret part never reaches the disk.
            only: Outputs to decrypt; none for all that the policy grants the user.
            memory_limit: Most bytes of the evaluator's encoded weights.
            timeout: Seconds that loading, or the evaluation of one group, may take.
            progress: Told what is going on.
            warn: Told of inputs and decrypted outputs outside the calibrated ranges.

        Raises:
            AccessDeniedError: The policy does not grant a step.
            HecompileError: Bad input, keys of another bundle, or the evaluator failed.
        """
        granted = self._guard.run(only)
        return run_parties(
            read_server(self._files),
            self.spec,
            inputs,
            keys=keys,
            only=granted,
            memory_limit=memory_limit,
            timeout=timeout,
            progress=progress,
            warn=warn,
            model_weights=read_weights(self._files, self.spec),
        )


def read_spec(files: BundleFiles) -> ClientSpec:
    """What client and key holder need of a bundle, bound to its manifest."""
    return replace(spec_from_json(files.read(SPEC_FILE)), manifest=files.manifest.digest)


def read_server(files: BundleFiles) -> Server:
    """The evaluator's files, as they are handed to its process."""
    return Server(files.read(PROGRAM_FILE), files.read(CONSTANTS_FILE))


def read_weights(files: BundleFiles, spec: ClientSpec) -> dict[str, Array] | None:
    """The model owner's weights by value name; None for a program whose weights are plain.

    Raises:
        InputError: The bundle was exported without them.
        IntegrityError: They are not the program's.
    """
    if not files.manifest.encrypted_model:
        return None
    return read_owner(files.read(OWNER_FILE), read_program(files, spec))


def model_owner(files: BundleFiles, spec: ClientSpec, keys: str | Path) -> ModelOwner:
    """Who encrypts the weights of a bundle, with the public key from `keys`.

    Raises:
        InputError: The weights are plain, the bundle was exported without them, or the key is
            missing.
        IntegrityError: The key is another bundle's.
    """
    key = load_public_key(keys, spec.parameters, spec.program, spec.manifest)
    weights = read_weights(files, spec) or {}
    return ModelOwner(read_program(files, spec), weights, key, spec.manifest)


def read_program(files: BundleFiles, spec: ClientSpec) -> Program:
    """The encrypted program of a bundle.

    Raises:
        IntegrityError: It is not the one that the client's specification is for, or hides less
            than the manifest states.
    """
    server = read_server(files)
    program = load_program(server.program, server.constants, f"{files.path}/{PROGRAM_FILE}")
    if program_id(program) != spec.program:
        raise IntegrityError(
            f"bundle {files.path}: client and server parts are of different programs; compile"
            " again."
        )
    stated = files.manifest.refresh.mask_bits
    hidden = min((op.mask_bits for op in program.select(he.Refresh)), default=stated)
    if hidden < stated:
        raise IntegrityError(
            f"bundle {files.path} promises masks of {stated} bits, and its program has some of"
            f" {hidden}; have it compiled again."
        )
    return program


def open_bundle(
    path: str | Path,
    *,
    user: str | None = None,
    trust: Sequence[PublicKey] | None = None,
    audit: AuditLog | None = None,
) -> Bundle:
    """Open a bundle: check its signature and every file.

    Args:
        path: A folder, or a `.hec` file.
        user: Who asks; each method that leads to data refuses what the policy does not grant.
        trust: Keys whose signature is accepted; None for the user's trust store.
        audit: Where decisions are logged; None for the user's log.

    Raises:
        InputError: Nothing at `path` is a bundle.
        IntegrityError: A byte was changed, or the signer is not trusted.
    """
    trusted = TrustStore().load() if trust is None else tuple(trust)
    return Bundle(open_bundle_files(path, trusted), user, audit)
