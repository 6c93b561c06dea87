"""Which keys a machine has seen of each bundle: an older one is not taken for the newest again."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from hecompile.access.state import Database, State
from hecompile.errors import IntegrityError
from hecompile.files import config_home, private_folder

KEYS_FILE: Final = "keys.db"
_SCHEMA: Final = (
    "CREATE TABLE keys (lineage TEXT NOT NULL, name TEXT NOT NULL, key_id TEXT NOT NULL,"
    " created TEXT NOT NULL, PRIMARY KEY (lineage, name)) WITHOUT ROWID",
)


@dataclass(frozen=True)
class SeenKey:
    """The newest key of a kind that was seen.

    Attributes:
        key_id: SHA-256 of the public key that it belongs to.
        created: When it was made.
    """

    key_id: str
    created: datetime


class KeyState:
    """What this machine must not unlearn of keys, in `keys.db` of the user's settings folder."""

    _APPLICATION: Final = 0x48434D4B

    def __init__(self, path: str | Path | None = None) -> None:
        """Use the file at `path`, by default the user's own; it is made at the first change."""
        self.path = Path(path) if path is not None else config_home() / KEYS_FILE
        self._database = Database(self.path, "the file of known keys", self._APPLICATION, _SCHEMA)

    @classmethod
    def beside(cls, state: State) -> Self:
        """That of the machine or party which remembers manifests and messages in `state`."""
        return cls(state.path.with_name(KEYS_FILE))

    def newest(self, lineage: str, name: str) -> SeenKey | None:
        """The newest key seen; None where there was none.

        Args:
            lineage: What all versions of the bundle's manifest share.
            name: Which key: `public` or `evaluation`.

        Raises:
            InputError: The file cannot be used.
            IntegrityError: It is damaged, or open to other users.
        """
        if not os.path.lexists(self.path):
            return None
        with self._database.transaction() as change:
            return _newest(change, lineage, name)

    def admit_key(
        self, lineage: str, name: str, created: datetime, key_id: str, may_replace: bool
    ) -> None:
        """Take a key as seen.

        Args:
            lineage: What all versions of the bundle's manifest share.
            name: Which key: `public` or `evaluation`.
            created: When it was made, with its zone.
            key_id: SHA-256 of the public key that it belongs to.
            may_replace: Whether another key than the one seen last is taken.

        Raises:
            IntegrityError: A newer key was seen here, or another that this may not replace.
            InputError: The file cannot be used.
        """
        with self._changing() as change:
            seen = _newest(change, lineage, name)
            if seen == SeenKey(key_id, created):
                return
            if seen is not None and created <= seen.created:
                raise IntegrityError(
                    f"they were made at {created.isoformat()}, but some made at "
                    f"{seen.created.isoformat()} were seen here before: they were rolled back; get "
                    "the newest keys, made with a clock that is right"
                )
            if seen is not None and seen.key_id != key_id and not may_replace:
                raise IntegrityError(
                    "other keys were seen here before, and nobody signed these who may "
                    f"rotate key:{name}; have them registered by such a user (hecompile register)"
                )
            change.execute(
                "REPLACE INTO keys VALUES (?, ?, ?, ?)",
                (lineage, name, key_id, created.astimezone(UTC).isoformat()),
            )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        if not os.path.lexists(self.path):
            private_folder(self.path.parent)
        if not os.path.lexists(self.path) or self.path.stat().st_size == 0:
            self._database.create()
        with self._database.transaction() as connection:
            yield connection


def _newest(change: sqlite3.Connection, lineage: str, name: str) -> SeenKey | None:
    row = change.execute(
        "SELECT key_id, created FROM keys WHERE lineage = ? AND name = ?", (lineage, name)
    ).fetchone()
    return None if row is None else SeenKey(row[0], datetime.fromisoformat(row[1]))
