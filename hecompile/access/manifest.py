"""The access manifest: what a bundle holds, what it takes in and gives out, and who may do what.

It travels as an in-toto Statement v1 whose subjects are the bundle's files; the signature around
it is made and checked in `hecompile.access.signing`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hecompile.access.policy import Policy
from hecompile.access.policy_checks import check_policy
from hecompile.access.policy_io import policy_from_json, policy_to_json
from hecompile.access.records import Place, Record, canonical_json, parse_json
from hecompile.errors import HecompileError, InputError, IntegrityError
from hecompile.files import sha256_bytes
from hecompile.numeric.masking import FEWEST_MASK_BITS

MANIFEST_FORMAT = 1
MANIFEST_NAME = "manifest.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_PREFIX = "https://hecompile.dev/manifest/v"
PREDICATE_TYPE = f"{PREDICATE_PREFIX}{MANIFEST_FORMAT}"
MAX_STATEMENT_BYTES = 24 << 20
OWNER_PART = "owner"
"""Folder of a bundle that only the model's owner needs; the others get the bundle without it."""

_MEMBER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PREDICATE_FIELDS = (
    "created",
    "format",
    "galois_steps",
    "io",
    "parameters",
    "policy",
    "predicted_error",
    "program",
    "refresh",
    "versions",
)


def is_member_name(name: str) -> bool:
    """Whether a bundle may hold a file of that name.

    Names are relative, with `/`, of plain characters; no part starts with a dot, so none leads
    out of the bundle or hides.
    """
    return len(name) <= 255 and _MEMBER.fullmatch(name) is not None and name != MANIFEST_NAME


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


@dataclass(frozen=True)
class Manifest:
    """Everything that a party must know and believe before it touches a bundle.

    Attributes:
        created: Time of compilation, RFC 3339 in UTC, such as `2025-01-31T12:00:00Z`.
        program: Name of the program.
        parameters: Encryption parameters, as their own JSON form gives them.
        io: What goes in and comes out.
        galois_steps: Rotation steps for which the evaluator gets keys.
        policy: Who may do what.
        refresh: Round trips to the key holder.
        predicted_error: Bound on the error of a decrypted output, absolute.
        versions: Software that made the bundle.
        files: Every file of the bundle but the manifest, sorted by name; empty until written.
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
    files: tuple[FileDigest, ...] = ()
    format: int = MANIFEST_FORMAT

    @property
    def digest(self) -> str:
        """SHA-256 of the statement: names this manifest in logs and envelopes."""
        return manifest_digest(self)

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


def utc_now() -> str:
    """The time now as manifests state it, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def manifest_digest(manifest: Manifest) -> str:
    """SHA-256 of the canonical statement, 64 hexadecimal digits."""
    return sha256_bytes(statement_bytes(manifest))


def statement_bytes(manifest: Manifest) -> bytes:
    """The manifest as an in-toto Statement in canonical JSON: what is signed.

    Raises:
        IntegrityError: The manifest breaks a rule that `parse_statement` would refuse.
    """
    try:
        data = canonical_json(_to_json(manifest))
    except (TypeError, ValueError) as error:
        raise IntegrityError(
            f"the manifest of program '{manifest.program}' cannot be written as JSON: {error}"
        ) from error
    parse_statement(data)
    return data


def parse_statement(data: bytes) -> Manifest:
    """Read a statement whose signature has been checked; every field is checked again.

    The policy is held against the io contract once more, so that no signed manifest lets the
    evaluator have the secret key.

    Raises:
        IntegrityError: A field is missing, unknown or of a wrong kind, the format is newer than
            this version reads, or the policy fails its checks.
    """
    value = parse_json(data, "the manifest", MAX_STATEMENT_BYTES)
    top = Record.of(value, (), _complain, ("_type", "subject", "predicateType", "predicate"))
    if top.text("_type") != STATEMENT_TYPE:
        raise top.wrong("_type", f"is not '{STATEMENT_TYPE}'")
    _check_format(top)
    body = top.record("predicate", _PREDICATE_FIELDS)
    files = _files(top)
    manifest = _from_json(body, files)
    if canonical_json(_to_json(manifest)) != data:
        raise IntegrityError(
            "the manifest is not in its canonical spelling; compile the model again"
        )
    try:
        check_policy(
            manifest.policy,
            [port.name for port in manifest.io.inputs],
            [port.name for port in manifest.io.outputs],
            refreshes=manifest.refresh.count,
            encrypted_model=manifest.encrypted_model if manifest.files else None,
            unmasked=(manifest.refresh.count > 0 and manifest.refresh.mask_bits < FEWEST_MASK_BITS),
        )
    except InputError as error:
        raise IntegrityError(f"the manifest's policy cannot be enforced: {error}") from error
    return manifest


def _complain(place: Place, message: str) -> HecompileError:
    return IntegrityError(
        f"the manifest is malformed: {message} (bundle made by another version, or not by "
        "hecompile; compile the model again)"
    )


def _check_format(top: Record) -> None:
    kind = top.text("predicateType")
    number = kind.removeprefix(PREDICATE_PREFIX)
    if kind == number or not re.fullmatch(r"[1-9][0-9]{0,5}", number):
        raise top.wrong("predicateType", f"is not '{PREDICATE_TYPE}'")
    predicate = Record.open_table(top.fields["predicate"], ("predicate",), _complain)
    stated = predicate.integer("format", 1)
    newest = max(stated, int(number))
    if newest > MANIFEST_FORMAT:
        raise IntegrityError(
            f"the manifest has format {newest}, but this version reads up to {MANIFEST_FORMAT}; "
            "upgrade hecompile"
        )
    if stated != int(number):
        raise predicate.wrong("format", f"is {stated}, but predicateType says {number}")


def _files(top: Record) -> tuple[FileDigest, ...]:
    files = []
    for record in top.records("subject", ("name", "digest", "annotations")):
        name = record.text("name")
        if not is_member_name(name):
            raise record.wrong("name", f"is {name!r}, which no file of a bundle may be called")
        digest = record.record("digest", ("sha256",)).text("sha256")
        if not _SHA256.fullmatch(digest):
            raise record.wrong("digest", "must hold 64 lower-case hexadecimal digits")
        size = record.record("annotations", ("size",)).integer("size")
        files.append(FileDigest(name, digest, size))
    names = [entry.name for entry in files]
    # Names that differ in case only are one file on some systems.
    if names != sorted(names) or len({name.lower() for name in names}) != len(names):
        raise top.wrong("subject", "must list every file once, in order")
    return tuple(files)


def _from_json(body: Record, files: tuple[FileDigest, ...]) -> Manifest:
    io = body.record("io", ("inputs", "outputs"))
    refresh = body.record("refresh", ("count", "mask_bits"))
    versions = body.record("versions", ("hecompile", "tenseal", "numpy"))
    parameters = Record.open_table(
        body.fields["parameters"], (*body.place, "parameters"), _complain
    )
    steps = body.integers("galois_steps")
    if list(steps) != sorted(set(steps)):
        raise body.wrong("galois_steps", "must be in rising order, each once")
    try:
        policy = policy_from_json(body.fields["policy"])
    except InputError as error:
        raise IntegrityError(f"the manifest's policy is malformed: {error}") from error
    return Manifest(
        created=_time(body, "created"),
        program=_name(body, "program"),
        parameters=dict(parameters.fields),
        io=IoContract(_ports(io, "inputs"), _ports(io, "outputs")),
        galois_steps=steps,
        policy=policy,
        refresh=RefreshInfo(refresh.integer("count"), refresh.integer("mask_bits")),
        predicted_error=body.number("predicted_error"),
        versions=Versions(
            versions.text("hecompile"), versions.text("tenseal"), versions.text("numpy")
        ),
        files=files,
        format=body.integer("format", 1),
    )


def _ports(io: Record, field: str) -> tuple[Port, ...]:
    ports = tuple(
        Port(
            name=_name(record, "name"),
            shape=record.integers("shape", 1),
            ciphertexts=record.integer("ciphertexts", 1),
            byte_limit=record.integer("byte_limit", 1),
            level=record.integer("level"),
        )
        for record in io.records(field, ("name", "shape", "ciphertexts", "byte_limit", "level"))
    )
    if not ports or len({port.name for port in ports}) != len(ports):
        raise io.wrong(field, "must list at least one, and each name once")
    return ports


def _name(record: Record, field: str) -> str:
    text = record.text(field)
    if not text:
        raise record.wrong(field, "is empty")
    return text


def _time(record: Record, field: str) -> str:
    text = record.text(field)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or not text.endswith("Z") or moment.utcoffset() != timedelta(0):
        raise record.wrong(field, "must be a time in UTC such as 2025-01-31T12:00:00Z")
    return text


def _to_json(manifest: Manifest) -> dict[str, object]:
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {
                "name": entry.name,
                "digest": {"sha256": entry.sha256},
                "annotations": {"size": entry.size},
            }
            for entry in manifest.files
        ],
        "predicateType": f"{PREDICATE_PREFIX}{manifest.format}",
        "predicate": {
            "created": manifest.created,
            "format": manifest.format,
            "galois_steps": list(manifest.galois_steps),
            "io": {
                "inputs": _ports_to_json(manifest.io.inputs),
                "outputs": _ports_to_json(manifest.io.outputs),
            },
            "parameters": dict(manifest.parameters),
            "policy": policy_to_json(manifest.policy),
            "predicted_error": float(manifest.predicted_error),
            "program": manifest.program,
            "refresh": {
                "count": manifest.refresh.count,
                "mask_bits": manifest.refresh.mask_bits,
            },
            "versions": {
                "hecompile": manifest.versions.hecompile,
                "tenseal": manifest.versions.tenseal,
                "numpy": manifest.versions.numpy,
            },
        },
    }


def _ports_to_json(ports: Collection[Port]) -> list[dict[str, object]]:
    return [
        {
            "name": port.name,
            "shape": list(port.shape),
            "ciphertexts": port.ciphertexts,
            "byte_limit": port.byte_limit,
            "level": port.level,
        }
        for port in ports
    ]
