"""key.json: which key a folder holds, for which program and parameters, file by file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import ClassVar, Final

from hecompile.access.records import Place, Record, canonical_json, parse_json
from hecompile.errors import HecompileError, IntegrityError
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.context import library_versions
from hecompile.runtime.wrapped import Wrapped, wrapped_from_record

FORMAT: Final = "hecompile-key"
VERSION: Final = 2
MAX_CARD_BYTES: Final = 1 << 20
_FIELDS: Final = (
    "format",
    "version",
    "role",
    "key_id",
    "program",
    "manifest",
    "parameters",
    "galois_steps",
    "files",
    "seal",
    "created",
    "wrapped",
)
_SHORT: Final = 12


class Role(StrEnum):
    """The three key folders, one for each party."""

    SECRET = "secret"
    PUBLIC = "public"
    EVALUATION = "evaluation"


@dataclass(frozen=True)
class KeyCard:
    """Contents of a key.json.

    Attributes:
        role: Which of the three folders it is in.
        key_id: SHA-256 of the serialised public key; the same in all three.
        program: Identity of the program the keys are for.
        manifest: Digest of the manifest of its bundle; empty for a program that is in none.
        parameters: Encryption parameters.
        galois_steps: Rotations that the evaluation keys allow.
        files: SHA-256 and size of each file, by name.
        seal: Version of SEAL that made the keys.
        created: When they were made (RFC 3339, UTC).
        wrapped: The wrapped data key under which the secret key is encrypted; None in the other
            folders, and for a key that was never written.
    """

    FILE: ClassVar[str] = "key.json"

    role: Role
    key_id: str
    program: str
    manifest: str
    parameters: Parameters
    galois_steps: tuple[int, ...]
    files: Mapping[str, tuple[str, int]]
    seal: str
    created: str
    wrapped: Wrapped | None = None

    @classmethod
    def describe(
        cls,
        role: Role,
        key_id: str,
        program: str,
        manifest: str,
        parameters: Parameters,
        galois_steps: tuple[int, ...],
        files: Mapping[str, tuple[str, int]],
    ) -> KeyCard:
        """Make the card of keys that this process made."""
        version, now = library_versions().seal, datetime.now(UTC).isoformat(timespec="microseconds")
        return cls(
            role, key_id, program, manifest, parameters, galois_steps, dict(files), version, now
        )

    @property
    def bound(self) -> bytes:
        """What is authenticated with the encrypted secret key: all that no file can change."""
        return canonical_json(
            {
                "format": FORMAT,
                "version": VERSION,
                "key_id": self.key_id,
                "program": self.program,
                "manifest": self.manifest,
                "parameters": self.parameters.to_json(),
                "created": self.created,
            }
        )

    def age_days(self, now: datetime) -> float:
        """How many days ago the keys were made."""
        return (now - datetime.fromisoformat(self.created)).total_seconds() / 86400.0

    def to_json(self) -> bytes:
        """Write the card; `card_from_json` gives an equal one back."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "role": self.role.value,
            "key_id": self.key_id,
            "program": self.program,
            "manifest": self.manifest,
            "parameters": self.parameters.to_json(),
            "galois_steps": list(self.galois_steps),
            "files": {n: {"sha256": d, "bytes": s} for n, (d, s) in sorted(self.files.items())},
            "seal": self.seal,
            "created": self.created,
            "wrapped": self.wrapped.to_json() if self.wrapped is not None else None,
        }
        return json.dumps(document, indent=1).encode("utf-8") + b"\n"


def galois_file(steps: int) -> str:
    """Name of the file with the Galois key of a rotation by `steps`."""
    return f"galois-{steps}.key"


def short(digest: str) -> str:
    """The first digits of a digest, enough to tell keys apart in a message."""
    return f"{digest[:_SHORT]}..." if len(digest) > _SHORT else digest


def bundle_name(manifest: str) -> str:
    """How a message calls the bundle whose manifest has this digest."""
    return f"the bundle of manifest {short(manifest)}" if manifest else "a program without a bundle"


def check_key(
    card: KeyCard, program: str, manifest: str, parameters: Parameters, what: str = ""
) -> None:
    """Refuse a key that was not made for a program and its bundle; `what` names it in messages.

    Raises:
        IntegrityError: It is another program's or bundle's, or for other parameters.
    """
    what = what or f"the {card.role.value} keys"
    remedy = "make keys for this bundle with hecompile keygen."
    if card.program != program:
        raise IntegrityError(
            f"{what} are for program {short(card.program)}, not {short(program)}; {remedy}"
        )
    if card.manifest != manifest:
        raise IntegrityError(
            f"{what} are for {bundle_name(card.manifest)}, not {bundle_name(manifest)}; {remedy}"
        )
    if card.parameters != parameters:
        raise IntegrityError(
            f"{what} are for other encryption parameters than the program's; {remedy}"
        )


def card_from_json(data: bytes, source: str) -> KeyCard:
    """Read a key.json strictly; `source` names it in messages.

    Raises:
        IntegrityError: It is not such a file.
    """

    def complain(_place: Place, message: str) -> HecompileError:
        return IntegrityError(f"{source}: {message}; make new keys with hecompile keygen.")

    record = Record.of(parse_json(data, source, MAX_CARD_BYTES), (), complain, _FIELDS)
    if record.text("format") != FORMAT or record.integer("version") != VERSION:
        raise IntegrityError(f"{source} is not of format {FORMAT} version {VERSION}.")
    if record.text("role") not in tuple(Role):
        raise record.wrong("role", f"must be one of {', '.join(Role)}")
    try:
        parameters = Parameters.from_json(record.fields["parameters"])
    except HecompileError as error:
        raise IntegrityError(f"{source}: {error}") from error
    table = Record.open_table(record.fields["files"], ("files",), complain)
    files = {}
    for name in table.fields:
        entry = table.record(name, ("sha256", "bytes"))
        files[name] = (entry.text("sha256"), entry.integer("bytes"))
    wrapped = None
    if record.fields["wrapped"] is not None:
        table = Record.open_table(record.fields["wrapped"], ("wrapped",), complain)
        wrapped = wrapped_from_record(table)
    return KeyCard(
        Role(record.text("role")),
        record.text("key_id"),
        record.text("program"),
        record.text("manifest"),
        parameters,
        record.integers("galois_steps", 1),
        files,
        record.text("seal"),
        _created(record),
        wrapped,
    )


def _created(record: Record) -> str:
    created = record.text("created")
    try:
        known = datetime.fromisoformat(created).tzinfo is not None
    except ValueError:
        known = False
    if not known:
        raise record.wrong("created", "must be a date and time with its zone")
    return created
