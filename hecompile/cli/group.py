"""The top-level command, and how it finds the module of each of the others."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import click

from hecompile import __version__
from hecompile.cli.guard import stopped_by

COMMANDS = {
    "demo": ("demo", "Train, compile and run a CNN-LSTM on encrypted heartbeats."),
    "train": ("train", "Train a model and export what the compiler takes."),
    "compile": ("compile", "Compile an ONNX model into an encrypted program."),
    "calibrate": ("calibrate", "Measure what this machine takes, for the compiler's plans."),
    "inspect": ("inspect", "Show what a bundle promises, costs and grants."),
    "run": ("run", "Play all parties of a bundle on some samples, each in its own process."),
    "keygen": ("keygen", "Make the three key folders of a bundle."),
    "register": ("register", "Sign public and evaluation keys as who hands them out."),
    "export": ("export", "Copy a bundle for those who must not see the model."),
    "encrypt-model": ("encrypt_model", "Encrypt the weights (model owner)."),
    "encrypt": ("encrypt", "Encrypt samples (client)."),
    "evaluate": ("evaluate", "Compute on encrypted samples (evaluator)."),
    "refresh": ("refresh", "Answer a refresh request (key holder)."),
    "decrypt": ("decrypt", "Decrypt results (key holder)."),
    "policy": ("policy", "Check a policy, or explain what it grants."),
    "identity": (
        "identity",
        "Make or show the key that a user, or a signer of bundles, signs with.",
    ),
    "users": ("users", "Say which user has which role, signed."),
    "manifest": ("manifest", "Sign, verify, show or compare manifests."),
    "trust": ("trust", "Accept bundles that a key has signed."),
    "audit": ("audit", "Check, show or sign the log of access decisions."),
    "opt": ("opt", "Run passes on a program in text form."),
    "passes": ("passes", "List the passes, or describe one."),
}
"""Name of each command, its module in this package, and what it does."""


class LazyGroup(click.Group):
    """A group that imports a command's module when that command is called."""

    def __init__(self, names: Sequence[str] = tuple(COMMANDS), **settings: Any) -> None:
        """Offer the commands of these names, in this order."""
        super().__init__(**settings)
        self._names = tuple(names)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of use."""
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._names:
            return None
        module = importlib.import_module(f"hecompile.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self._names])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; suggest the nearest name for an unknown one."""
        name = args[0]
        if name not in self._names and not name.startswith("-"):
            near = get_close_matches(name, self._names, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"there is no command '{name}'{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an interruption is told by our own sentence, not by click's."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise stopped_by(error) from error


HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


@click.group(cls=LazyGroup, context_settings=HELP_OPTIONS)
@click.version_option(__version__, prog_name="hecompile")
def hecompile() -> None:
    """Compile neural networks into homomorphically encrypted programs, and run them.

    Exit codes: 0 done, 1 the input or the program is at fault, 2 usage, 3 access denied,
    4 integrity or signature.
    """
