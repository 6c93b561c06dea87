"""`hecompile audit verify`: check the log of access decisions."""

from __future__ import annotations

from pathlib import Path

import click

from hecompile.cli import console
from hecompile.cli.options import PATH, json_option


@click.group("audit")
def command() -> None:
    """Work with the log of access decisions."""


@command.command("verify")
@click.argument("path", type=PATH, required=False)
@click.option("--head", metavar="SHA256", help="The digest of the last entry, noted elsewhere.")
@json_option
def verify(path: Path | None, head: str | None, as_json: bool) -> None:
    """Check every entry of the log PATH (by default your own) and print the last one's digest.

    Entries cut off at the end leave a valid log: compare the digest with one noted before (--head).
    """
    from hecompile.access.audit import default_audit_path, verify_audit
    from hecompile.errors import IntegrityError

    place = path if path is not None else default_audit_path()
    found = verify_audit(place)
    if head is not None and found.head != head.lower():
        raise IntegrityError(
            f"audit log {place} ends in entry {found.head}, not {head}: it was cut or continued; "
            "compare it with a copy"
        )
    document = {"path": str(place), "entries": found.entries, "head": found.head}
    text = f"{place}: {found.entries} entries, unbroken; the last is {found.head}"
    console.result(document, text, as_json)
