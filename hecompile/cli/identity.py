"""`hecompile identity`: the key that a user signs with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import json_option

if TYPE_CHECKING:
    from hecompile.access.identity import Identity


@click.group("identity")
def command() -> None:
    """Make or show the key that a user signs with."""


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


def _show(identity: Identity, as_json: bool) -> None:
    document = {"user": identity.user, "key": identity.text, "keyid": identity.keyid}
    console.result(document, identity.text, as_json)
