"""Reading a manifest's statement: strict, in its one spelling, every fact derived again."""

from __future__ import annotations

import re
from typing import Final

from hecompile.access import labels, release_plan
from hecompile.access.labels import Flow
from hecompile.access.manifest import (
    MANIFEST_FORMAT,
    FileDigest,
    IoContract,
    Manifest,
    Port,
    RefreshInfo,
    Security,
    Signers,
    Versions,
    is_member_name,
)
from hecompile.access.manifest_checks import check_manifest
from hecompile.access.manifest_json import (
    PORT_FIELDS,
    PREDICATE_FIELDS,
    PREDICATE_PREFIX,
    SECURITY_FIELDS,
    SIGNERS_FIELDS,
    STATEMENT_TYPE,
    VERSIONS_FIELDS,
    statement_of,
)
from hecompile.access.policy_io import policy_from_json
from hecompile.access.records import Place, Record, canonical_json, parse_json
from hecompile.access.release_plan import ReleasePlan
from hecompile.access.times import EXAMPLE, is_period, read_time
from hecompile.access.trust import MAX_SIGNATURES
from hecompile.errors import HecompileError, InputError, IntegrityError

MAX_STATEMENT_BYTES: Final = 24 << 20
_HEX: Final = re.compile(r"[0-9a-f]*")
_SHA256_DIGITS: Final = 64
_LINEAGE_DIGITS: Final = 32


def statement_bytes(manifest: Manifest) -> bytes:
    """The manifest as an in-toto Statement in canonical JSON: what is signed.

    Raises:
        IntegrityError: The manifest breaks a rule that `parse_statement` would refuse.
    """
    try:
        data = canonical_json(statement_of(manifest))
    except (TypeError, ValueError) as error:
        raise IntegrityError(
            f"the manifest of program '{manifest.program}' cannot be written as JSON: {error}"
        ) from error
    parse_statement(data)
    return data


def parse_statement(data: bytes) -> Manifest:
    """Read a statement; whether it is signed is not its matter.

    The policy is held against everything else once more, so that no signed manifest lets the
    evaluator have the secret key.

    Raises:
        IntegrityError: A field is missing, unknown or of a wrong kind, the format is another than
            this version reads, or a check of `check_manifest` fails.
    """
    value = parse_json(data, "the manifest", MAX_STATEMENT_BYTES)
    top = Record.of(value, (), _complain, ("_type", "subject", "predicateType", "predicate"))
    if top.text("_type") != STATEMENT_TYPE:
        raise top.wrong("_type", f"is not '{STATEMENT_TYPE}'")
    _check_format(top)
    body = top.record("predicate", PREDICATE_FIELDS)
    files = _files(top)
    manifest = _manifest(body, files)
    if canonical_json(statement_of(manifest)) != data:
        raise IntegrityError(
            "the manifest is not in its canonical spelling; compile the model again"
        )
    check_manifest(manifest)
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
        raise top.wrong("predicateType", f"is not '{PREDICATE_PREFIX}{MANIFEST_FORMAT}'")
    predicate = Record.open_table(top.fields["predicate"], ("predicate",), _complain)
    stated = predicate.integer("format", 1)
    if stated != int(number):
        raise predicate.wrong("format", f"is {stated}, but predicateType says {number}")
    if stated > MANIFEST_FORMAT:
        raise IntegrityError(
            f"the manifest has format {stated}, but this version reads {MANIFEST_FORMAT}; upgrade "
            "hecompile"
        )
    if stated < MANIFEST_FORMAT:
        raise IntegrityError(
            f"the manifest has format {stated}, but this version reads {MANIFEST_FORMAT}; compile "
            "the model again"
        )


def _files(top: Record) -> tuple[FileDigest, ...]:
    files = []
    for record in top.records("subject", ("name", "digest", "annotations")):
        name = record.text("name")
        if not is_member_name(name):
            raise record.wrong("name", f"is {name!r}, which no file of a bundle may be called")
        digest = _hex(record.record("digest", ("sha256",)), "sha256", _SHA256_DIGITS)
        size = record.record("annotations", ("size",)).integer("size")
        files.append(FileDigest(name, digest, size))
    names = [entry.name for entry in files]
    # Names that differ in case only are one file on some systems.
    if names != sorted(names) or len({name.lower() for name in names}) != len(names):
        raise top.wrong("subject", "must list every file once, in order")
    return tuple(files)


def _manifest(body: Record, files: tuple[FileDigest, ...]) -> Manifest:
    io = body.record("io", ("inputs", "outputs"))
    refresh = body.record("refresh", ("count", "mask_bits"))
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
    not_before, not_after = _period(body)
    return Manifest(
        created=_time(body, "created"),
        program=_name(body, "program"),
        parameters=dict(parameters.fields),
        io=IoContract(_ports(io, "inputs"), _ports(io, "outputs")),
        galois_steps=steps,
        policy=policy,
        refresh=RefreshInfo(refresh.integer("count"), refresh.integer("mask_bits")),
        predicted_error=body.number("predicted_error"),
        versions=_versions(body.record("versions", VERSIONS_FIELDS)),
        security=_security(body.record("security", SECURITY_FIELDS)),
        lineage=_hex(body, "lineage", _LINEAGE_DIGITS),
        version=body.integer("version", 1),
        supersedes=_supersedes(body),
        flows=tuple(Flow.from_record(one) for one in body.records("flows", labels.FIELDS)),
        releases=tuple(
            ReleasePlan.from_record(one) for one in body.records("releases", release_plan.FIELDS)
        ),
        signers=_signers(body.record("signers", SIGNERS_FIELDS)),
        not_before=not_before,
        not_after=not_after,
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
        for record in io.records(field, PORT_FIELDS)
    )
    if not ports or len({port.name for port in ports}) != len(ports):
        raise io.wrong(field, "must list at least one, and each name once")
    return ports


def _versions(record: Record) -> Versions:
    return Versions(*(record.text(field) for field in VERSIONS_FIELDS))


def _security(record: Record) -> Security:
    numbers = (record.integer(field) for field in SECURITY_FIELDS[1:])
    return Security(record.text("table"), *numbers)


def _signers(record: Record) -> Signers:
    threshold = record.integer("threshold", 1)
    keyids, users = _keyids(record, "keyids"), _keyids(record, "users")
    if not 0 < threshold <= len(keyids):
        raise record.wrong("threshold", f"is {threshold} of {len(keyids)} signers")
    return Signers(threshold, keyids, users)


def _keyids(record: Record, field: str) -> tuple[str, ...]:
    found = record.texts(field)
    good = all(len(text) == _SHA256_DIGITS and _HEX.fullmatch(text) for text in found)
    if not good or list(found) != sorted(set(found)) or len(found) > MAX_SIGNATURES:
        raise record.wrong(
            field, f"must be at most {MAX_SIGNATURES} identifiers of keys, sorted, each once"
        )
    return found


def _supersedes(body: Record) -> str:
    first = body.integer("version", 1) == 1
    if not first:
        return _hex(body, "supersedes", _SHA256_DIGITS)
    if body.text("supersedes"):
        raise body.wrong("supersedes", "must be empty in version 1")
    return ""


def _hex(record: Record, field: str, digits: int) -> str:
    text = record.text(field)
    if len(text) != digits or not _HEX.fullmatch(text):
        raise record.wrong(field, f"must hold {digits} lower-case hexadecimal digits")
    return text


def _name(record: Record, field: str) -> str:
    text = record.text(field)
    if not text:
        raise record.wrong(field, "is empty")
    return text


def _period(body: Record) -> tuple[str, str]:
    ends = tuple(body.text(field) for field in ("not_before", "not_after"))
    for field, text in zip(("not_before", "not_after"), ends, strict=True):
        if text:
            _time(body, field)
    if not is_period(*ends):
        raise body.wrong("not_after", "must be later than not_before")
    return ends[0], ends[1]


def _time(record: Record, field: str) -> str:
    text = record.text(field)
    if read_time(text) is None:
        raise record.wrong(field, f"must be a time in UTC such as {EXAMPLE}")
    return text
