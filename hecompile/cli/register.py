"""`hecompile register`: the signature of whoever hands keys out."""

from __future__ import annotations

from pathlib import Path

import click

from hecompile.cli import console
from hecompile.cli.options import PATH, Access, access_options, json_option


@click.command("register")
@click.argument("keys", type=PATH)
@click.option(
    "--bundle", type=PATH, required=True, metavar="BUNDLE", help="The bundle the keys are for."
)
@access_options
@json_option
def command(keys: Path, bundle: Path, access: Access, as_json: bool) -> None:
    """Register the public and the evaluation keys in KEYS, a folder of either or of both.

    Where the policy lets a role register or rotate a key, clients and evaluators take the key only
    with the signature of such a user beside that of the key holder, who signed it in
    `hecompile keygen`. This checks the holder's signature and adds that of USER to key.sig.
    """
    from hecompile.access.key_cards import KeyInspector
    from hecompile.runtime.registration import register_keys

    door = access.door(bundle)
    guard = access.guard(door)
    done = register_keys(keys, guard, KeyInspector(door.manifest, door.users))
    rows = [
        {"folder": one.where, "key": str(one.object), "key_id": one.key_id} for one in done.keys
    ]
    text = "\n".join(f"registered {one.where}: {one.object} {one.key_id}" for one in done.keys)
    console.result({"user": done.user, "registered": rows}, text, as_json)
