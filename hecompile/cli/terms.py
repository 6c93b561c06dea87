"""Options of `hecompile compile` that say for how long a manifest holds and who signs it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hecompile.cli.options import PATH
from hecompile.errors import UsageError

if TYPE_CHECKING:
    from hecompile.bundle.assemble import Terms


@dataclass(frozen=True)
class TermsOptions:
    """What was given.

    Attributes:
        not_before: First second of the manifest's validity, RFC 3339 in UTC; empty for ever since.
        not_after: Last second of it; empty for ever.
        threshold: How many must sign.
        signers: Public keys of those who may sign the manifest; none for all that are trusted.
        users_signers: Public keys of those who may sign users documents.
        supersedes: The bundle that the new one takes the place of.
    """

    not_before: str
    not_after: str
    threshold: int
    signers: tuple[Path, ...]
    users_signers: tuple[Path, ...]
    supersedes: Path | None

    def read(self, own: Path | None) -> Terms:
        """Check what was given and read the files that it names.

        Args:
            own: The key that will sign; None for the user's own, which may not be made yet.

        Raises:
            UsageError: A time is none, or there are fewer signers than must sign, or whoever
                compiles is not among them.
            InputError: A key or the bundle cannot be read.
            IntegrityError: The bundle was changed, or is not trusted here.
        """
        from hecompile.access.manifest import Signers, superseding
        from hecompile.access.signing import SigningKey
        from hecompile.access.times import read_time
        from hecompile.access.trust import PublicKey, TrustStore
        from hecompile.bundle.assemble import Terms
        from hecompile.bundle.opening import manifest_to_supersede

        for name, text in (("--not-before", self.not_before), ("--not-after", self.not_after)):
            if text and read_time(text) is None:
                raise UsageError(f"{name} is a time such as 2026-01-31T12:00:00Z, not '{text}'")
        ends = read_time(self.not_after) if self.not_after else None
        if ends is not None and ends <= datetime.now(UTC):
            raise UsageError(f"--not-after {self.not_after} is past; nobody could open the bundle")
        if self.not_before and self.not_after and self.not_before >= self.not_after:
            raise UsageError("--not-after is not after --not-before; exchange them")
        keys = sorted({PublicKey.load(path).keyid for path in self.signers})
        signing = SigningKey.load_or_create(own).keyid if keys else ""
        if signing not in keys and keys:
            raise UsageError(
                f"the key that signs, {signing[:16]}..., is not among the --signer keys; name its "
                "public half too, or sign with the key of a signer (--sign-key)"
            )
        if self.threshold > 1 and len(keys) < self.threshold:
            raise UsageError(
                f"--threshold {self.threshold} needs as many different --signer keys, not "
                f"{len(keys)}; name the public key of each who may sign"
            )
        users = sorted({PublicKey.load(path).keyid for path in self.users_signers})
        old = None
        if self.supersedes is not None:
            old = manifest_to_supersede(self.supersedes, TrustStore().load())
        return Terms(
            Signers(self.threshold, tuple(keys), tuple(users)),
            None if old is None else superseding(old),
            self.not_before,
            self.not_after,
        )


def terms_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--not-before` and so on, handed on as one `TermsOptions` named `terms`."""

    @functools.wraps(function)
    def wrapped(
        *args: Any,
        not_before: str,
        not_after: str,
        threshold: int,
        signers: tuple[Path, ...],
        users_signers: tuple[Path, ...],
        supersedes: Path | None,
        **more: Any,
    ) -> Any:
        given = TermsOptions(not_before, not_after, threshold, signers, users_signers, supersedes)
        return function(*args, terms=given, **more)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


_OPTIONS = (
    click.option(
        "--not-before", default="", metavar="TIME", help="From when on the manifest holds (UTC)."
    ),
    click.option("--not-after", default="", metavar="TIME", help="Until when it holds (UTC)."),
    click.option(
        "--threshold",
        type=click.IntRange(1, 16),
        default=1,
        show_default=True,
        help="How many must sign the manifest before the bundle can be opened.",
    ),
    click.option(
        "--signer",
        "signers",
        type=PATH,
        multiple=True,
        metavar="KEY.pub",
        help="Who may sign it; may be repeated. By default the key that signs.",
    ),
    click.option(
        "--users-signer",
        "users_signers",
        type=PATH,
        multiple=True,
        metavar="KEY.pub",
        help="Who may sign users documents; may be repeated. By default who signs the manifest.",
    ),
    click.option(
        "--supersedes",
        type=PATH,
        metavar="BUNDLE",
        help="The bundle that this one takes the place of: its next version.",
    ),
)
