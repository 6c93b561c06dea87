"""`hecompile identity`: the keys that users, and signers of bundles, sign with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import check_output, json_option, output_option

if TYPE_CHECKING:
    from hecompile.access.identity import Identity


@click.group("identity")
def command() -> None:
    """Make or show the key that a user, or a signer of bundles, signs with."""


@command.command("new")
@click.argument("user")
@json_option
def new(user: str, as_json: bool) -> None:
    """Make an identity for USER on this machine, and print what the security officer needs.

    The private half stays here, readable by you alone. The printed key goes into the users
    document, which who signs it should get from you by a way that nobody can change.
    """
    from hecompile.access.identity import make_identity

    _show(make_identity(user), as_json)


@command.command("show")
@click.argument("user")
@json_option
def show(user: str, as_json: bool) -> None:
    """Print the public key of the identity of USER on this machine."""
    from hecompile.access.identity import load_identity

    _show(load_identity(user), as_json)


@command.command("signer")
@output_option("Write the public half there: others need it to trust what this key signs.")
@json_option
def signer(output: Path | None, as_json: bool) -> None:
    """Show the key that signs manifests and users documents here; make it if there is none.

    The private half stays here, readable by you alone. Hand over the public half by a way that
    nobody can change: 'compile --signer' names with it who may sign a bundle, 'trust' accepts what
    it signed. Here it is trusted from the day it is made.
    """
    from hecompile.access.signing import SigningKey, default_key_path
    from hecompile.files import atomic_write_bytes

    check_output(output)
    found = SigningKey.load_or_create().public_key
    pem = found.pem.decode("ascii")
    if output is not None:
        atomic_write_bytes(output, found.pem)
    document = {"keyid": found.keyid, "pem": pem, "private": str(default_key_path())}
    if output is not None:
        console.result(document, f"{output}: signing key {found.keyid}", as_json)
        return
    console.say(f"signing key {found.keyid}")
    console.result(document, pem, as_json)


def _show(identity: Identity, as_json: bool) -> None:
    document = {"user": identity.user, "key": identity.text, "keyid": identity.keyid}
    console.result(document, identity.text, as_json)
