"""What a manifest promises beside its program: safety, signers, validity, publications."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from hecompile.cli import console

if TYPE_CHECKING:
    from hecompile.access.manifest import Manifest
    from hecompile.access.policy import Obligations


UNDER_THE_KEY: Final = "everything under the key"
"""What a holder of the secret key sees of values, whatever else it may do."""


def access_document(manifest: Manifest) -> dict[str, object]:
    """Safety, signers, validity and publications, as JSON values."""
    return {
        "security": asdict(manifest.security),
        "signers": asdict(manifest.signers),
        "lineage": manifest.lineage,
        "version": manifest.version,
        "supersedes": manifest.supersedes,
        "not_before": manifest.not_before,
        "not_after": manifest.not_after,
        "releases": [plan.to_json() for plan in manifest.releases],
        "flows": [flow.to_json() for flow in manifest.flows],
    }


def access_text(manifest: Manifest) -> str:
    """Safety, signers, validity and publications, for people."""
    return console.table(_facts(manifest), indent="") + _publications(manifest)


def role_table(manifest: Manifest) -> str:
    """Role x object x how finely it is seen, for people; roles that may do nothing are left out.

    Whoever holds the secret key can decrypt whatever ciphertext it gets hold of, so that what its
    permissions say of values bounds nothing.
    """
    from hecompile.access.policy import KEY_SECRET, Kind, permission_table

    cells: dict[str, dict[str, dict[str, None]]] = {}
    columns: dict[str, bool] = {}
    holders: set[str] = set()
    for row in permission_table(manifest.policy):
        column = "keys" if row.object.kind is Kind.KEY else str(row.object)
        columns[column] = row.object.kind in (Kind.INPUT, Kind.OUTPUT, Kind.PROGRAM)
        if row.object == KEY_SECRET:
            holders.add(row.role)
        cells.setdefault(row.role, {}).setdefault(column, {})[row.granularity] = None
    rows = [
        (
            role,
            *(
                UNDER_THE_KEY if role in holders and encrypted else _joined(found.get(column))
                for column, encrypted in columns.items()
            ),
        )
        for role, found in cells.items()
    ]
    return console.table(rows, ("role", *columns))


def _joined(seen: Iterable[str] | None) -> str:
    return "; ".join(seen or ()) or "-"


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    found, signers = manifest.security, manifest.signers
    who = ", ".join(signers.keyids) or "any key that is trusted"
    span = f"from {manifest.not_before or manifest.created} to {manifest.not_after or 'any time'}"
    rows = [
        (
            "security",
            f"{found.bits} bits: {found.modulus_bits} bits of modulus of {found.limit} allowed, "
            f"{found.margin} to spare ({found.table})",
        ),
        ("signed by", f"{signers.threshold} of: {who}"),
        ("valid", f"version {manifest.version}, {span}"),
    ]
    if signers.users:
        rows.insert(2, ("users signed by", ", ".join(signers.users)))
    if manifest.supersedes:
        rows.append(("supersedes", manifest.supersedes))
    return rows


def _publications(manifest: Manifest) -> str:
    """Which outputs are published, by what mechanism, with what noise and how often."""
    from hecompile.access.release_plan import declassifications

    if not manifest.releases:
        return ""
    rows = [
        (
            plan.output,
            permission.role,
            mechanism(permission.obligations),
            str(permission.scope),
            f"{plan.sigma:.2g} ({plan.flood_bits} bits)",
            str(permission.obligations.budget or "none"),
            str(plan.releases),
        )
        for plan in manifest.releases
        for permission in declassifications(manifest.policy, plan.output)
    ]
    head = (
        *("output", "to", "mechanism", "about one", "flooding, standard deviation"),
        *("budget", "all releases of a key"),
    )
    return "published:\n" + console.table(rows, head)


def mechanism(duties: Obligations) -> str:
    """What is done to a value before it is published, beside flooding."""
    if duties.label_only:
        return "label only"
    if duties.dp is not None:
        return (
            f"mean of {duties.dp.least} or more, clipped to [{duties.dp.lower:g}, "
            f"{duties.dp.upper:g}], rho {duties.dp.rho:g} of {duties.dp.total_rho:g}"
        )
    if duties.round is not None:
        return f"rounded to {duties.round:g}"
    return "none"
