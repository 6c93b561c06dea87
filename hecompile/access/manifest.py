"""The access manifest: what a bundle holds, what it takes in and gives out, and who may do what.

It travels as an in-toto Statement v1 whose subjects are the bundle's files. `manifest_json` writes
and reads the statement, `manifest_checks` derives its facts again, and `signing` signs it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from hecompile.access.labels import Flow
from hecompile.access.manifest_json import statement_of
from hecompile.access.policy import Policy
from hecompile.access.records import canonical_json
from hecompile.access.release_plan import ReleasePlan
from hecompile.access.users import USERS_NAME
from hecompile.files import sha256_bytes
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.security import SECURITY_BITS, max_modulus_bits

MANIFEST_FORMAT: Final = 2
MANIFEST_NAME: Final = "manifest.json"
OWNER_PART: Final = "owner"
"""Folder of a bundle that only the model's owner needs; the others get the bundle without it."""

SECURITY_TABLE: Final = "HE standard 2018 / eprint 2024/463, the smaller"

_MEMBER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


def is_member_name(name: str) -> bool:
    """Whether a bundle's manifest may list a file of that name.

    Names are relative, with `/`, of plain characters; no part starts with a dot, so none leads
    out of the bundle or hides. The manifest is not listed, nor the users document, which is
    signed by itself so that it can be replaced alone.
    """
    return (
        len(name) <= 255
        and _MEMBER.fullmatch(name) is not None
        and name.lower() not in (MANIFEST_NAME, USERS_NAME)
    )


@dataclass(frozen=True, order=True)
class FileDigest:
    """A file of the bundle: its name, its SHA-256 (64 hexadecimal digits), its size in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Port:
    """One input or output as it travels, encrypted.

    Attributes:
        name: Name in the program.
        shape: Shape of one sample, before encoding (outputs: after decoding).
        ciphertexts: How many ciphertexts carry it.
        byte_limit: Largest size accepted for each of them, in bytes.
        level: Rescale primes left in them.
    """

    name: str
    shape: tuple[int, ...]
    ciphertexts: int
    byte_limit: int
    level: int


@dataclass(frozen=True)
class IoContract:
    """What the program takes in and gives out."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class RefreshInfo:
    """Round trips to the key holder in one evaluation, and the bits that their masks hide."""

    count: int
    mask_bits: int


@dataclass(frozen=True)
class Versions:
    """Versions of the software that made the bundle."""

    hecompile: str
    tenseal: str
    numpy: str
    seal: str


@dataclass(frozen=True)
class Security:
    """How safe the encryption parameters are, by which table.

    Attributes:
        table: The table.
        bits: Security level, bits.
        modulus_bits: All primes together, that of key switching too, bits.
        limit: Most bits that the table allows the ring.
        margin: Bits left: `limit` less `modulus_bits`.
    """

    table: str
    bits: int
    modulus_bits: int
    limit: int
    margin: int

    @classmethod
    def of(cls, parameters: Parameters) -> Security:
        """What the table says of some parameters.

        Raises:
            CompileError: The ring is not in the table.
        """
        limit = max_modulus_bits(parameters.poly_modulus_degree)
        used = parameters.modulus_bits
        return cls(SECURITY_TABLE, SECURITY_BITS, used, limit, limit - used)


@dataclass(frozen=True)
class Signers:
    """Who must sign.

    Attributes:
        threshold: How many must sign the manifest.
        keyids: Keys that may sign it, sorted; none only until a bundle is written, which enters
            the key that signs it.
        users: Keys any one of which may sign users documents, sorted; with none, the manifest's
            own signers do, as many as it takes for that.
    """

    threshold: int = 1
    keyids: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


@dataclass(frozen=True)
class Succession:
    """Where a manifest stands among its versions.

    Attributes:
        lineage: What all versions share, 32 hexadecimal digits.
        version: 1 for the first.
        supersedes: Digest of the manifest before it; empty for the first.
    """

    lineage: str
    version: int = 1
    supersedes: str = ""

    @classmethod
    def first(cls) -> Succession:
        """The first version of something new."""
        return cls(secrets.token_hex(16))


@dataclass(frozen=True)
class Manifest:
    """Everything that a party must know and believe before it touches a bundle.

    Attributes:
        created: Time of compilation, RFC 3339 in UTC, such as `2025-01-31T12:00:00Z`.
        program: Name of the program.
        parameters: Encryption parameters, as their own JSON form gives them.
        io: What goes in and comes out.
        galois_steps: Rotation steps for which the evaluator gets keys.
        policy: Who may do what; who has which role is in the users document.
        refresh: Round trips to the key holder.
        predicted_error: Bound on the error of a decrypted output, absolute.
        versions: Software that made the bundle.
        security: What the security table says of the parameters.
        lineage: What all versions of this manifest share, 32 hexadecimal digits.
        version: 1 for the first; a reader that saw one takes none that is lower.
        supersedes: Digest of the manifest before it; empty for the first.
        flows: The labels that flow into each output, in the order of outputs.
        releases: How each output that is published is flooded.
        signers: Who must sign.
        not_before: First second of its validity, or empty.
        not_after: Last second of it, or empty.
        files: Every file of the bundle but manifest and users document, sorted by name; empty
            until written.
        format: Format of the manifest.
    """

    created: str
    program: str
    parameters: Mapping[str, object]
    io: IoContract
    galois_steps: tuple[int, ...]
    policy: Policy
    refresh: RefreshInfo
    predicted_error: float
    versions: Versions
    security: Security
    lineage: str
    version: int = 1
    supersedes: str = ""
    flows: tuple[Flow, ...] = ()
    releases: tuple[ReleasePlan, ...] = ()
    signers: Signers = field(default_factory=Signers)
    not_before: str = ""
    not_after: str = ""
    files: tuple[FileDigest, ...] = ()
    format: int = MANIFEST_FORMAT

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the statement: names this manifest in logs, keys and envelopes."""
        return sha256_bytes(canonical_json(statement_of(self)))

    @property
    def encrypted_model(self) -> bool:
        """Whether the program's weights are encrypted: then the model's owner has a part."""
        return any(entry.name.startswith(f"{OWNER_PART}/") for entry in self.files)

    @property
    def tool_version(self) -> str:
        """Version of the compiler that made the bundle."""
        return self.versions.hecompile

    def file(self, name: str) -> FileDigest | None:
        """The entry of a file, or None."""
        return next((entry for entry in self.files if entry.name == name), None)

    def release(self, output: str) -> ReleasePlan | None:
        """How an output is published, or None."""
        return next((plan for plan in self.releases if plan.output == output), None)


def superseding(old: Manifest) -> Succession:
    """Where the manifest stands that takes the place of `old`."""
    return Succession(old.lineage, old.version + 1, old.digest)
