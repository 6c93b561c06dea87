"""The three parties as programs of their own: hecompile-client, -evaluator and -custodian.

Each offers only what its party does, from the same modules as `hecompile`. Client and evaluator
never import what reads a secret key.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from hecompile.cli.guard import guarded

PARTIES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "client": (
        "Encrypt samples, or a model's weights, for a bundle's evaluator.",
        ("encrypt", "encrypt-model", "inspect", "identity", "trust"),
    ),
    "evaluator": (
        "Compute on encrypted samples; no secret key comes near this program.",
        ("evaluate", "inspect", "identity", "trust", "audit"),
    ),
    "custodian": (
        "Hold the secret key: refresh, and decrypt or release for those entitled.",
        ("keygen", "refresh", "decrypt", "inspect", "audit", "identity", "trust", "users"),
    ),
}
"""What each party is for, and its commands in the order of use."""


def client(arguments: Sequence[str] | None = None) -> int:
    """Run one command of hecompile-client; arguments and exit codes as `hecompile.cli.main`."""
    return _run("client", arguments)


def evaluator(arguments: Sequence[str] | None = None) -> int:
    """Run one command of hecompile-evaluator; arguments and exit codes as `hecompile.cli.main`."""
    return _run("evaluator", arguments)


def custodian(arguments: Sequence[str] | None = None) -> int:
    """Run one command of hecompile-custodian; arguments and exit codes as `hecompile.cli.main`."""
    return _run("custodian", arguments)


def _run(party: str, arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)

    def command() -> object:
        import click

        from hecompile import __version__
        from hecompile.cli.group import HELP_OPTIONS, LazyGroup

        what, names = PARTIES[party]
        program = f"hecompile-{party}"
        group = LazyGroup(names, name=program, help=what, context_settings=HELP_OPTIONS)
        click.version_option(__version__, prog_name=program)(group)
        return group.main(words, prog_name=program, standalone_mode=False)

    return guarded(command)
