"""`hecompile trust`: whose signatures are accepted here, and how many it takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import PATH, json_option
from hecompile.errors import UsageError

if TYPE_CHECKING:
    from hecompile.access.trust import TrustStore


@click.command("trust")
@click.argument("key", type=PATH, required=False)
@click.option(
    "--threshold",
    type=int,
    metavar="K",
    help="From now on, open a bundle only if K trusted keys signed its manifest.",
)
@click.option(
    "--users-only",
    is_flag=True,
    help="Trust KEY for users documents alone, where a manifest names it for them.",
)
@json_option
def command(key: Path | None, threshold: int | None, users_only: bool, as_json: bool) -> None:
    """Trust the public key KEY.pub from now on; without KEY, list the keys trusted.

    A bundle is opened only if trusted keys signed it, as many as its manifest and this machine ask
    for. Removing the printed file withdraws trust.
    """
    from hecompile.access.trust import PublicKey, TrustStore, check_threshold

    if users_only and key is None:
        raise UsageError("--users-only is about a key; name its file too")
    if threshold is not None:
        check_threshold(threshold)
    store = TrustStore()
    document: dict[str, object] = {}
    told = []
    if key is not None:
        found = PublicKey.load(key)
        path = store.add(found, users_only=users_only)
        document |= {"keyid": found.keyid, "path": str(path), "users_only": users_only}
        told.append(
            f"trusted{' for users documents' if users_only else ''}: key {found.keyid} ({path})"
        )
    if threshold is not None:
        path = store.require(threshold)
        document |= {"threshold": threshold, "threshold_path": str(path)}
        told.append(f"signatures that a manifest needs here: {threshold} ({path})")
    if told:
        console.result(document, "\n".join(told), as_json)
    else:
        _list(store, as_json)


def _list(store: TrustStore, as_json: bool) -> None:
    trusted = store.load()
    known = [found.keyid for found in trusted]
    delegates = [found.keyid for found in trusted.delegates]
    lines = [*known, *(f"{keyid} (users documents alone)" for keyid in delegates)]
    if trusted.threshold > 1:
        lines.append(f"signatures that a manifest needs here: {trusted.threshold}")
    document = {
        "keys": known,
        "users_only": delegates,
        "threshold": trusted.threshold,
        "folder": str(store.folder),
    }
    console.result(document, "\n".join(lines) or "no key is trusted yet", as_json)
