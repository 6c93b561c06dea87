"""`hecompile trust`: accept bundles that a key has signed."""

from __future__ import annotations

from pathlib import Path

import click

from hecompile.cli import console
from hecompile.cli.options import PATH, json_option


@click.command("trust")
@click.argument("key", type=PATH, required=False)
@json_option
def command(key: Path | None, as_json: bool) -> None:
    """Trust the public key KEY.pub from now on; without KEY, list the keys trusted.

    A bundle is opened only if a trusted key signed it. Removing the printed file withdraws trust.
    """
    from hecompile.access.signing import PublicKey, TrustStore

    store = TrustStore()
    if key is not None:
        found = PublicKey.load(key)
        path = store.add(found)
        document = {"keyid": found.keyid, "path": str(path)}
        console.result(document, f"trusted: key {found.keyid} ({path})", as_json)
        return
    known = [found.keyid for found in store.load()]
    text = "\n".join(known) or "no key is trusted yet"
    console.result({"keys": known, "folder": str(store.folder)}, text, as_json)
