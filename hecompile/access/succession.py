"""What a manifest must have to take the place of the one that a machine saw before.

As in The Update Framework, where a new root is signed by as many of the old root's keys as that
asked for (Samuel, Mathewson, Cappos and Dingledine, "Survivable key compromise in software update
systems", CCS 2010): a signer alone cannot lower the threshold of a line, nor bring in others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hecompile.errors import IntegrityError

MAX_JUMP: Final = 1000
"""Most versions by which a manifest may be ahead of the one seen before."""


@dataclass(frozen=True)
class Line:
    """What a machine remembers of the newest manifest of a line.

    Attributes:
        version: Its version.
        digest: SHA-256 of its statement.
        threshold: How many of its signers must sign whatever takes its place.
        keyids: Its signers.
    """

    version: int
    digest: str
    threshold: int
    keyids: tuple[str, ...]

    def owed(self, signed_by: Sequence[str]) -> int:
        """How many signatures by its signers are missing on what is to take its place."""
        return max(0, self.threshold - len({*signed_by} & {*self.keyids}))


def check_version(what: str, seen: int, version: int) -> None:
    """Refuse a document that is not newer than the one seen, which is another.

    Raises:
        IntegrityError: Naming the two versions.
    """
    if version < seen:
        raise IntegrityError(
            f"the {what} has version {version}, but version {seen} was seen here before; get the "
            "newest one"
        )
    if version == seen:
        raise IntegrityError(
            f"another {what} of version {version} was seen here before; ask its signer which one "
            "is right"
        )


def check_successor(seen: Line, new: Line, supersedes: str, signed_by: Sequence[str]) -> None:
    """Refuse what may not take the place of the manifest seen.

    Where versions between the two were missed, `supersedes` names one that is not known here; the
    signatures by the old signers are asked for all the same.

    Args:
        seen: The newest manifest seen of the line.
        new: Another one of the line.
        supersedes: Digest of the manifest that it says it takes the place of.
        signed_by: Keys by which it bears signatures that were checked.

    Raises:
        IntegrityError: It is not newer or too far ahead, follows another manifest, or lacks
            signatures by the signers of the one seen.
    """
    check_version("manifest", seen.version, new.version)
    if new.version - seen.version > MAX_JUMP:
        raise IntegrityError(
            f"the manifest has version {new.version}, more than {MAX_JUMP} ahead of version "
            f"{seen.version} seen here before; ask its signers for one between them"
        )
    if new.version == seen.version + 1 and supersedes != seen.digest:
        raise IntegrityError(
            f"the manifest of version {new.version} supersedes {supersedes[:16]}, but version "
            f"{seen.version} seen here before is {seen.digest[:16]}: the line was forked; ask its "
            "signers which one is right"
        )
    if owed := seen.owed(signed_by):
        raise IntegrityError(
            f"the manifest of version {new.version} has {seen.threshold - owed} of the "
            f"{seen.threshold} signatures by signers of version {seen.version}, seen here before, "
            "that it needs to take its place; have them sign it with hecompile manifest sign: "
            f"{', '.join(seen.keyids)}"
        )
