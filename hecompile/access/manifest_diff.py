"""What changed from one manifest to another, in the words of those who are to sign the second."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hecompile.access.manifest import Manifest
from hecompile.access.manifest_json import statement_of
from hecompile.access.policy import PermissionRow, Policy, permission_table

GAINED: Final = "gained"
LOST: Final = "lost"
CHANGED: Final = "changed"


@dataclass(frozen=True)
class Difference:
    """One thing that changed.

    Attributes:
        place: Where in the manifest, as a dotted path; `permissions.ROLE` for what a role may do.
        change: `gained`, `lost` or `changed`.
        text: What: a permission, or the old and the new value.
    """

    place: str
    change: str
    text: str


def compare_manifests(old: Manifest, new: Manifest) -> tuple[Difference, ...]:
    """What changed; empty only for manifests of one digest.

    Permissions are compared as each role has them in effect, inheritance included.
    """
    found = list(_permissions(old.policy, new.policy))
    before, after = (_tables(manifest) for manifest in (old, new))
    for place, change, text in _walk("", before, after):
        if not place.startswith("policy.permissions"):
            found.append(Difference(place, change, text))
        elif not any(one.place.startswith("permissions.") for one in found):
            # The first of several permissions that fit decides, so that their order counts.
            found.append(Difference("policy.permissions", CHANGED, "written in another way"))
    return tuple(dict.fromkeys(found))


def _permissions(old: Policy, new: Policy) -> Iterator[Difference]:
    before, after = (_in_effect(policy) for policy in (old, new))
    for role in sorted({role for role, _ in (*before, *after)}):
        place = f"permissions.{role}"
        for row in sorted(after - before):
            if row[0] == role:
                yield Difference(place, GAINED, row[1])
        for row in sorted(before - after):
            if row[0] == role:
                yield Difference(place, LOST, row[1])


def _in_effect(policy: Policy) -> set[tuple[str, str]]:
    return {(row.role, _told(row)) for row in permission_table(policy)}


def _told(row: PermissionRow) -> str:
    duties = row.obligations
    terms = [row.granularity, str(row.enforcement)]
    if row.purposes:
        terms.append(f"for {' or '.join(row.purposes)}")
    if duties.flood is not None:
        terms.append(f"flooded by {duties.flood} bits")
    return f"may {row.action} {row.object}: {', '.join(terms)}"


def _tables(manifest: Manifest) -> dict[str, Any]:
    """The statement's tables; those in lists that have a name are found by it."""
    statement: Any = statement_of(manifest)
    body = dict(statement["predicate"])
    body["files"] = {entry.name: f"{entry.sha256} ({entry.size} bytes)" for entry in manifest.files}
    body["io"] = {side: _by(ports, "name") for side, ports in body["io"].items()}
    body["flows"] = _by(body["flows"], "output")
    body["releases"] = _by(body["releases"], "output")
    return body


def _by(tables: Sequence[Mapping[str, Any]], field: str) -> dict[str, Any]:
    return {table[field]: table for table in tables}


def _walk(place: str, old: Any, new: Any) -> Iterator[tuple[str, str, str]]:
    if old == new:
        return
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        yield place, CHANGED, f"{_value(old)} -> {_value(new)}"
        return
    for key in sorted({*old, *new}):
        inner = f"{place}.{key}" if place else str(key)
        if key not in old:
            yield inner, GAINED, _value(new[key])
        elif key not in new:
            yield inner, LOST, _value(old[key])
        else:
            yield from _walk(inner, old[key], new[key])


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, sort_keys=True)
