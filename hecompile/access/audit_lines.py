"""The form of one line of the audit log: canonical JSON that holds its own SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from hecompile.access.records import canonical_json, parse_json
from hecompile.errors import InputError, IntegrityError
from hecompile.files import sha256_bytes

FIRST_PREVIOUS: Final = "0" * 64
"""What the first line names as the one before."""

MAX_LINE_BYTES: Final = 64 << 10
DECISION: Final = "decision"
CHECKPOINT: Final = "checkpoint"

_TEXTS = {
    DECISION: (
        *("user", "role", "action", "object", "purpose", "session"),
        *("decision", "rule", "manifest"),
    ),
    CHECKPOINT: ("key", "signature"),
}
_LISTS = {DECISION: ("roles", "digests"), CHECKPOINT: ()}
_CHAIN = ("kind", "time", "previous", "digest")


def body_of(
    kind: str, number: int, previous: str, fields: Mapping[str, object]
) -> dict[str, object]:
    """The fields of a line that is written now, without its digest."""
    time = datetime.now(UTC).isoformat(timespec="microseconds")
    return {"kind": kind, "number": number, "time": time, "previous": previous, **fields}


def spell(body: Mapping[str, object]) -> tuple[bytes, str]:
    """A line as it is written, with its line break, and its digest.

    Raises:
        InputError: It is too long.
    """
    digest = sha256_bytes(canonical_json(body))
    line = canonical_json({**body, "digest": digest}) + b"\n"
    # Half, so that the last line is whole in the last MAX_LINE_BYTES of a file.
    if len(line) > MAX_LINE_BYTES // 2:
        raise InputError("an audit entry is too long: the user has too many roles")
    return line, digest


def parse_line(line: bytes, where: str) -> dict[str, Any]:
    """Read a line, without its line break; form, types and digest are checked.

    Raises:
        IntegrityError: It is not a line as `spell` writes it.
    """
    changed = IntegrityError(
        f"{where} was changed or damaged, or another version wrote it; do not rely on the log from "
        "there on"
    )
    try:
        entry = parse_json(line, where, MAX_LINE_BYTES)
    except IntegrityError:
        raise changed from None
    if not isinstance(entry, dict) or not _well_formed(entry):
        raise changed
    body = {key: value for key, value in entry.items() if key != "digest"}
    if canonical_json(entry) != line or entry["digest"] != sha256_bytes(canonical_json(body)):
        raise changed
    return entry


def _well_formed(entry: Mapping[str, object]) -> bool:
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in _TEXTS:
        return False
    texts, lists = (*_CHAIN, *_TEXTS[kind]), _LISTS[kind]
    return (
        entry.keys() == {"number", *texts, *lists}
        and type(entry["number"]) is int
        and all(isinstance(entry[name], str) for name in texts)
        and all(_is_texts(entry[name]) for name in lists)
    )


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
