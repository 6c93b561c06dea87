"""A clinic around one small bundle: its policy, its users with identities, and its audit log."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hecompile.access.audit import AuditLog, read_audit
from hecompile.access.checkpoints import known_audit_keys
from hecompile.access.identity import load_identity
from hecompile.access.labels import Flow
from hecompile.access.manifest import (
    IoContract,
    Manifest,
    Port,
    RefreshInfo,
    Security,
    Versions,
)
from hecompile.access.policy import KEY_SECRET, PROGRAM, Action, ObjectRef, Permission, Policy, Role
from hecompile.access.signing import SigningKey
from hecompile.access.users import UserEntry, Users, sign_users
from hecompile.backends import find_backend
from hecompile.bundle.store import write_bundle
from hecompile.files import sha256_bytes
from hecompile.ir.program import Program
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.evaluator import galois_steps
from hecompile.runtime.parties import CONSTANTS_FILE, SPEC_FILE, Bundle, open_bundle
from hecompile.runtime.serial import ciphertext_limit
from hecompile.runtime.spec import ClientSpec, InputSpec, OutputSpec, spec_from_program
from hecompile.runtime.spec_json import spec_to_json
from tests.encrypted.runtime_programs import refresh_program

CLINIC = Policy(
    roles=(
        Role("nurse"),
        Role("doctor"),
        Role("physician", inherits=("nurse", "doctor")),
        Role("cloud"),
        Role("vault"),
    ),
    permissions=(
        Permission("nurse", (Action.ENCRYPT, Action.SUBMIT), (ObjectRef.input("x"),)),
        # Who is given raw results could work out the key, so it may hold it.
        Permission("doctor", (Action.DECRYPT, Action.HOLD), (ObjectRef.output("y"), KEY_SECRET)),
        Permission("cloud", (Action.EVALUATE,), (PROGRAM,)),
        Permission("vault", (Action.REFRESH,), (PROGRAM,)),
        Permission("vault", (Action.HOLD,), (KEY_SECRET,)),
    ),
)
ROLES = {
    "ann": ("nurse",),
    "bea": ("doctor",),
    "cyd": ("physician",),
    "server": ("cloud",),
    "safe": ("vault",),
}
OWNERS = {"owner": ("owner",), "host": ("evaluator",)}
SIGNER = SigningKey.generate()
MASK_BITS = 20


def masked_program(mask_bits: int = MASK_BITS) -> Program:
    return refresh_program(4.0, mask_bits, Parameters(8192, (60, 30, 30, 60), 30))


def ports(
    spec: ClientSpec, entries: tuple[InputSpec, ...] | tuple[OutputSpec, ...]
) -> tuple[Port, ...]:
    limit = ciphertext_limit(spec.parameters, 2)
    return tuple(Port(e.label, e.dims, len(e.ciphertexts), limit, 2) for e in entries)


def signed_users(home: Path, policy: Policy, roles: Mapping[str, tuple[str, ...]]) -> bytes:
    entries = tuple(
        UserEntry(name, given, load_identity(name, home).public_bytes)
        for name, given in roles.items()
    )
    return sign_users(Users(policy.digest, 1, "", "", entries), SIGNER)


def manifest_of(program: Program, spec: ClientSpec, policy: Policy) -> Manifest:
    return Manifest(
        # Bundles of one policy have one digest, so that keys fit all of them.
        created="2025-01-31T12:00:00Z",
        program=program.name,
        parameters=spec.parameters.to_json(),
        io=IoContract(ports(spec, spec.inputs), ports(spec, spec.outputs)),
        galois_steps=galois_steps(program),
        policy=policy,
        refresh=RefreshInfo(1, MASK_BITS),
        predicted_error=1e-6,
        versions=Versions("0", "0", "0", "0"),
        security=Security.of(spec.parameters),
        lineage=sha256_bytes(policy.digest.encode())[:32],
        flows=(Flow("y", ()),),
    )


def write(
    folder: Path, program: Program, spec: ClientSpec, manifest: Manifest, users: bytes | None
) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, unused=np.zeros(1))
    files = {
        SPEC_FILE: spec_to_json(spec),
        CONSTANTS_FILE: buffer.getvalue(),
        **find_backend("tenseal").emit(program),
    }
    write_bundle(folder, files, manifest, SIGNER, users=users)


@dataclass(frozen=True)
class Clinic:
    folder: Path
    log: Path

    def open(self, user: str | None = None) -> Bundle:
        trust = [SIGNER.public_key]
        return open_bundle(self.folder, user=user, trust=trust, audit=AuditLog(self.log))

    def decisions(self) -> list[tuple[str, str, str]]:
        if not self.log.exists():
            return []
        return [
            (entry.user, entry.action, "allow" if entry.allowed else "deny")
            for entry in read_audit(self.log, known_audit_keys())
        ]


def make(
    folder: Path,
    home: Path,
    policy: Policy = CLINIC,
    roles: Mapping[str, tuple[str, ...]] | None = None,
) -> Clinic:
    folder.mkdir(exist_ok=True)
    program = masked_program()
    spec = spec_from_program(program)
    users = signed_users(home, policy, ROLES if roles is None else roles)
    write(folder / "bundle", program, spec, manifest_of(program, spec, policy), users)
    return Clinic(folder / "bundle", folder / "audit" / "log")
