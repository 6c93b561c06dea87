"""A bundle's program, its users with identities, and envelopes of theirs, for those who attack."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import tenseal.sealapi as seal

from hecompile.access.audit import AuditLog
from hecompile.access.decide import Gate, PolicyIndex
from hecompile.access.identity import Identity, generate_identity
from hecompile.access.manifest import IoContract, Manifest, Port
from hecompile.access.policy import (
    KEY_SECRET,
    PROGRAM,
    Action,
    ObjectRef,
    Permission,
    Policy,
    Role,
)
from hecompile.access.records import canonical_json
from hecompile.access.state import State
from hecompile.access.users import UserEntry, Users
from hecompile.files import sha256_bytes
from hecompile.ir.program import Program
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.wire import PACKED_HEADER
from hecompile.runtime.client import Client
from hecompile.runtime.envelope import signed_text
from hecompile.runtime.evaluator import Evaluator, galois_steps
from hecompile.runtime.framing import PREFIX_BYTES
from hecompile.runtime.gateway import Gateway
from hecompile.runtime.header import SIGNATURE_BYTES
from hecompile.runtime.inspection import Clock, Inspector, utc_now
from hecompile.runtime.keycard import Role as KeyRole
from hecompile.runtime.keys import KeyRing, evaluation_keys, generate_keys, public_key
from hecompile.runtime.spec import CipherSpec, ClientSpec, spec_from_program
from tests.encrypted.runtime_programs import matrix_program
from tests.unit import manifests

HUGE = "a number of JSON that is no float"
"""Stands for 1e400 in a header that is put together: read carelessly, it is an infinity."""
_QUOTED = canonical_json(HUGE)
X, Y = ObjectRef.input("x"), ObjectRef.output("y")
POLICY = Policy(
    (Role("clinician"), Role("custodian"), Role("evaluator"), Role("researcher")),
    (
        Permission("clinician", (Action.ENCRYPT, Action.SUBMIT), (X,)),
        Permission("custodian", (Action.HOLD, Action.REFRESH), (KEY_SECRET, PROGRAM)),
        Permission("evaluator", (Action.EVALUATE,), (PROGRAM,)),
        Permission("researcher", (Action.ENCRYPT,), (X,)),
    ),
)
ROLES = {"anna": "clinician", "vault": "custodian", "cloud": "evaluator", "rene": "researcher"}
IDENTITIES = {name: generate_identity(name) for name in ROLES}
USERS = Users(
    POLICY.digest,
    1,
    "",
    "",
    tuple(UserEntry(n, (r,), IDENTITIES[n].public_bytes) for n, r in ROLES.items()),
)


@dataclass(frozen=True)
class World:
    """One program of a bundle, its keys, and the folder of the evaluator's own files."""

    program: Program
    manifest: Manifest
    spec: ClientSpec
    ring: KeyRing
    folder: Path
    users: Users

    @property
    def log(self) -> Path:
        return self.folder / "audit.jsonl"

    @property
    def state(self) -> Path:
        return self.folder / "state.db"

    def gate(self) -> Gate:
        index, state = PolicyIndex(self.manifest.policy, self.users), State(self.state)
        return Gate(index, AuditLog(self.log), self.manifest.digest, state)

    def inspector(self, now: Clock = utc_now) -> Inspector:
        return Inspector(self.manifest, self.users, State(self.state), self.gate(), now)

    def gateway(self, **more: Any) -> Gateway:
        return Gateway(self.spec, self.ring.key_id, inspector=self.inspector(), **more)

    def client(self, user: str = "anna", **more: Any) -> Client:
        key = public_key(self.ring.source(KeyRole.PUBLIC))
        return Client(self.spec, key, identity=IDENTITIES[user], **more)

    def input(self, user: str = "anna", **more: Any) -> bytes:
        return self.client(user, **more).encrypt({"x": np.ones((1, 4))})[0]

    def evaluator(self, now: Clock = utc_now) -> Evaluator:
        return Evaluator(
            self.program,
            evaluation_keys(self.ring.source(KeyRole.EVALUATION)),
            manifest=self.manifest.digest,
            identity=IDENTITIES["cloud"],
            inspector=self.inspector(now),
        )

    def decisions(self) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def make_world(
    folder: Path,
    program: Program | None = None,
    name: str = "ecg",
    policy: Policy = POLICY,
    users: Users = USERS,
) -> World:
    program = program or matrix_program(np.eye(4) * 2, np.ones(4))
    ports = IoContract((Port("x", (4,), 1, 400_000, 1),), (Port("y", (4,), 1, 200_000, 0),))
    manifest = replace(manifests.MANIFEST, program=name, policy=policy, io=ports)
    spec = replace(spec_from_program(program), manifest=manifest.digest)
    steps = galois_steps(program)
    ring = generate_keys(spec.parameters, steps, spec.program, manifest=manifest.digest)
    folder.mkdir(parents=True, exist_ok=True)
    return World(program, manifest, spec, ring, folder, users)


@dataclass(frozen=True)
class Pieces:
    """An envelope taken apart, to be put together otherwise."""

    prefix: bytes
    header: dict[str, Any]
    signature: bytes
    body: bytes

    @classmethod
    def of(cls, data: bytes) -> Pieces:
        end = PREFIX_BYTES + int.from_bytes(data[6:PREFIX_BYTES], "little")
        rest = end + SIGNATURE_BYTES
        return cls(data[:6], json.loads(data[PREFIX_BYTES:end]), data[end:rest], data[rest:])

    def joined(self, by: Identity | None = None) -> bytes:
        """The envelope again, signed anew if a signer is given."""
        text = canonical_json(self.header).replace(_QUOTED, b"1e400")
        signature = self.signature
        if by is not None:
            signature = by.key.private.sign(signed_text(text))
        return b"".join((self.prefix, len(text).to_bytes(4, "little"), text, signature, self.body))

    def with_header(self, **changes: Any) -> Pieces:
        return replace(self, header={**self.header, **changes})

    def with_body(self, body: bytes) -> Pieces:
        """Other ciphertexts, with digests and sizes that are right for them."""
        (item,) = self.header["ciphertexts"]
        item = {**item, "size": len(body), "sha256": sha256_bytes(body)}
        return replace(self, body=body, header={**self.header, "ciphertexts": [item]})


def random_ciphertext(parameters: Parameters, cipher: CipherSpec, seed: int = 0) -> bytes:
    """A packed ciphertext of random residues: right in form, an encryption of nothing."""
    random = np.random.default_rng(seed)
    degree, primes = parameters.poly_modulus_degree, parameters.data_primes[: cipher.level + 1]
    parts = [PACKED_HEADER.pack(b"HECR", 1, 2, len(primes), degree, cipher.scale)]
    for _ in range(2):
        for prime in primes:
            width = (prime.bit_length() + 7) // 8
            residues = random.integers(0, prime, degree, dtype=np.uint64)
            parts.append(residues.view(np.uint8).reshape(-1, 8)[:, :width].tobytes())
    return b"".join(parts)


def forbid_seal(patch: pytest.MonkeyPatch) -> None:
    """Fail the test where SEAL loads anything."""

    def load(self: object, *arguments: object) -> NoReturn:
        pytest.fail(f"hostile bytes reached SEAL: {type(self).__name__}.load was called")

    for name in ("Ciphertext", "Plaintext", "PublicKey", "SecretKey", "RelinKeys", "GaloisKeys"):
        patch.setattr(getattr(seal, name), "load", load)


def at(moment: datetime) -> Clock:
    """A clock that stands still."""
    return functools.partial(_same, moment)


def _same(moment: datetime) -> datetime:
    return moment
