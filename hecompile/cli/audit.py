"""`hecompile audit`: check, show and sign the log of access decisions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import PATH, json_option, output_option, trust_option
from hecompile.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from hecompile.access.audit import AuditEntry

_HEAD = ("time", "user", "role", "did", "object", "for", "decision", "rule")


_log_argument = click.argument("path", type=PATH, required=False)
_key_option = click.option(
    "--key",
    "keys",
    type=PATH,
    multiple=True,
    metavar="AUDIT.pub",
    help="The audit key that signed the checkpoints; by default this machine's own.",
)


@click.group("audit")
def command() -> None:
    """Work with the log of access decisions; PATH is your own log where it is left out."""


@command.command("verify")
@_log_argument
@_key_option
@click.option(
    "--expect-head",
    metavar="SHA256",
    help="The last entry as noted before: the log must still hold it, and may have gone on.",
)
@json_option
def verify(
    path: Path | None, keys: tuple[Path, ...], expect_head: str | None, as_json: bool
) -> None:
    """Check every entry of the log PATH and every signed checkpoint in it.

    Entries cut off at the end leave a valid log. Note the last entry elsewhere from time to time,
    and give it with --expect-head.
    """
    from hecompile.access.audit import verify_audit
    from hecompile.access.checkpoints import known_audit_keys

    place = _log_at(path)
    expected = expect_head.lower() if expect_head is not None else None
    found = verify_audit(place, known_audit_keys(keys), expected)
    document = {"path": str(place), **asdict(found)}
    text = (
        f"{place}: {console.counted(found.entries, 'decision')}, unbroken\n"
        f"  last entry   {found.head}\n"
        f"  checkpoints  {found.checkpoints}"
        + "".join(f", signed by {keyid}" for keyid in found.keyids)
        + f"\n  unsigned     {console.counted(found.unsigned, 'decision')} after the last one"
    )
    console.result(document, text, as_json)


@command.command("checkpoint")
@_log_argument
@json_option
def checkpoint(path: Path | None, as_json: bool) -> None:
    """Sign the log PATH as it is now; note what is printed on another machine."""
    from hecompile.access.audit import AuditLog

    log = AuditLog(path)
    if not log.path.exists():
        raise UsageError(f"there is no audit log {log.path}; nothing was decided yet")
    head = log.checkpoint()
    console.result({"path": str(log.path), "head": head}, f"{log.path}: signed as {head}", as_json)


@command.command("key")
@output_option("Write the public half there instead of printing it.")
@json_option
def key(output: Path | None, as_json: bool) -> None:
    """Print the public half of the key that signs checkpoints here; it is made at first use."""
    from hecompile.access.checkpoints import audit_key, audit_key_path
    from hecompile.files import atomic_write_bytes

    found = audit_key().public_key
    pem = found.pem.decode("ascii")
    if output is not None:
        atomic_write_bytes(output, found.pem)
    document = {"keyid": found.keyid, "pem": pem, "private": str(audit_key_path())}
    text = f"{output}: audit key {found.keyid}" if output is not None else pem
    console.result(document, text, as_json)


@command.command("show")
@_log_argument
@_key_option
@click.option("--user", metavar="USER", help="Only what this user asked for.")
@click.option("--object", "obj", metavar="OBJECT", help="Only this object: output:logits.")
@click.option("--action", metavar="ACTION", help="Only this action: declassify.")
@click.option("--decision", type=click.Choice(["allow", "deny"]), help="Only what was decided so.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N of these.")
@click.option(
    "--bundle",
    type=PATH,
    metavar="BUNDLE",
    help="Only what concerns this bundle, whose policy must let USER read the audit log.",
)
@click.option("--as", "reader", metavar="USER", help="Who reads; needed with --bundle.")
@trust_option
@json_option
def show(
    path: Path | None,
    keys: tuple[Path, ...],
    user: str | None,
    obj: str | None,
    action: str | None,
    decision: str | None,
    last: int | None,
    bundle: Path | None,
    reader: str | None,
    trust: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Print the decisions in the log PATH, which is checked first.

    An allow says that the policy grants it. What then left is counted in an entry of its own, whose
    rule ends in "release N of M": an allow to declassify that no such entry follows let nothing
    out.
    """
    from hecompile.access.audit import read_audit
    from hecompile.access.checkpoints import known_audit_keys

    if (bundle is None) != (reader is None):
        raise UsageError("--bundle and --as belong together: who reads, by whose policy")
    place = _log_at(path)
    manifest = None
    if bundle is not None and reader is not None:
        manifest = _ask_to_read(bundle, trust, reader, place)
    found = [
        entry
        for entry in read_audit(place, known_audit_keys(keys))
        if (user is None or entry.user == user)
        and (obj is None or entry.object == obj)
        and (action is None or entry.action == action)
        and (decision is None or entry.allowed == (decision == "allow"))
        and (manifest is None or entry.manifest == manifest)
    ][-(last or 0) :]
    document = {"path": str(place), "entries": [asdict(entry) for entry in found]}
    text = console.table([_row(entry) for entry in found], _HEAD, indent="") if found else "none"
    console.result(document, text, as_json)


def _log_at(path: Path | None) -> Path:
    """The log that is meant, unless it begins as none does."""
    from hecompile.access.audit import default_audit_path
    from hecompile.access.audit_lines import MAX_LINE_BYTES

    place = path if path is not None else default_audit_path()
    try:
        with place.open("rb") as stream:
            first = stream.readline(MAX_LINE_BYTES)
    except OSError:
        # Who reads it says so; a log may also begin with the decision who may read it.
        return place
    if first and not (first.startswith(b"{") and b'"previous":' in first):
        raise IntegrityError(
            f"{place} is no audit log: its first line is no entry; name the log, or leave the name "
            f"out for your own ({default_audit_path()})"
        )
    return place


def _ask_to_read(bundle: Path, trust: tuple[Path, ...], reader: str, log: Path) -> str:
    """Ask the policy of a bundle whether `reader` may read the log; return its manifest's digest.

    The answer is taken down in the same log.
    """
    from hecompile.access.policy import AUDIT, Action
    from hecompile.cli.door import open_door

    door = open_door(bundle, trust, log)
    door.guard(reader).acting(((Action.READ, AUDIT),))
    return door.manifest.digest


def _row(entry: AuditEntry) -> tuple[str, ...]:
    cells = (
        entry.time[:19],
        entry.user,
        entry.role or ", ".join(entry.roles),
        entry.action,
        entry.object,
        entry.purpose,
        "allow" if entry.allowed else "DENY",
        entry.rule,
    )
    return tuple(_printable(cell) for cell in cells)


def _printable(text: str) -> str:
    """Whoever asks chooses the user's name: no control character of it reaches the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
