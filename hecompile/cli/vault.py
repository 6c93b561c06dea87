"""Options that say what protects the secret key at rest."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hecompile.cli import console
from hecompile.cli.options import PATH
from hecompile.errors import InputError, UsageError

if TYPE_CHECKING:
    from hecompile.runtime.vault import Vault
    from hecompile.runtime.wrapped import Wrapped


@dataclass(frozen=True)
class VaultChoice:
    """What the options say.

    Attributes:
        passphrase_file: File with the passphrase, or None.
        kms: Command of a key management system, or None.
        prompt: Whether a new passphrase is asked for on the terminal.
    """

    passphrase_file: Path | None
    kms: str | None
    prompt: bool = False

    def making(self) -> Vault:
        """What wraps a new key.

        Raises:
            UsageError: Two ways were named, or there is no terminal to ask on.
        """
        from hecompile.runtime.vault import MachineVault, PassphraseVault

        if self.prompt:
            if self.passphrase_file is not None or self.kms is not None:
                raise UsageError("give one of --passphrase, --passphrase-file and --kms")
            return PassphraseVault(functools.partial(_ask, confirm=True))
        named = self._named()
        if named is not None:
            return named
        vault = MachineVault()
        console.say(
            f"the secret key is encrypted under {vault.path}: that protects copies of the key "
            "folder, not this machine; --passphrase-file or --kms protect more"
        )
        return vault

    def opening(self) -> Vault:
        """What unwraps a key that was made: as named, else whatever it was wrapped with."""
        return self._named() or _Fitting()

    def _named(self) -> Vault | None:
        from hecompile.runtime.vault import KmsVault, PassphraseVault, passphrase_file

        if self.passphrase_file is not None and self.kms is not None:
            raise UsageError("give either --passphrase-file or --kms")
        if self.kms is not None:
            return KmsVault(self.kms)
        if self.passphrase_file is not None:
            return PassphraseVault(passphrase_file(self.passphrase_file))
        return None


class _Fitting:
    """Unwraps by the method that the key names: asks for a passphrase, or takes the machine's."""

    def wrap(self, key: bytes, bound: bytes) -> Wrapped:
        """Wrap under the machine's key."""
        from hecompile.runtime.vault import MachineVault

        return MachineVault().wrap(key, bound)

    def unwrap(self, wrapped: Wrapped, bound: bytes) -> bytes:
        """The data key again."""
        from hecompile.runtime.vault import MachineVault, PassphraseVault
        from hecompile.runtime.wrapped import Method

        if wrapped.method is Method.PASSPHRASE and sys.stdin.isatty():
            return PassphraseVault(_ask).unwrap(wrapped, bound)
        return MachineVault().unwrap(wrapped, bound)


def _ask(confirm: bool = False) -> bytes:
    if not sys.stdin.isatty():
        raise InputError("there is no terminal to ask for a passphrase; give --passphrase-file")
    found: str = click.prompt(
        "Passphrase of the secret key", hide_input=True, confirmation_prompt=confirm, err=True
    )
    return found.encode("utf-8")


def vault_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--passphrase-file` and `--kms`, handed on as one `VaultChoice` named `vault`."""

    @functools.wraps(function)
    def wrapped(
        *args: Any,
        passphrase_file: Path | None,
        kms: str | None,
        prompt: bool = False,
        **more: Any,
    ) -> Any:
        return function(*args, vault=VaultChoice(passphrase_file, kms, prompt), **more)

    with_kms = click.option(
        "--kms",
        metavar="COMMAND",
        help="A command that wraps and unwraps the secret key's data key: called with 'wrap' or"
        " 'unwrap', standard input to standard output.",
    )(wrapped)
    return click.option(
        "--passphrase-file",
        type=PATH,
        metavar="FILE",
        help="A file whose first line protects the secret key.",
    )(with_kms)


def passphrase_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--passphrase`: ask for a new passphrase; goes with `vault_options`."""
    return click.option(
        "--passphrase", "prompt", is_flag=True, help="Ask for a new passphrase on the terminal."
    )(function)
