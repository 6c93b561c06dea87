"""What a machine remembers: newest manifests and users, used nonces and roles, releases per key.

One SQLite file of the user's own. Each change is one transaction that holds the write lock from
its first read on, and that is on the disk before the method returns. Whoever deletes the file
makes the machine forget; what it must not forget lies with the key as well (`access.ledger`).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from hecompile.access.database import Database as Database
from hecompile.access.succession import Line, check_successor, check_version
from hecompile.errors import IntegrityError
from hecompile.files import config_home, private_folder

STATE_FILE: Final = "state.db"
MAX_NONCE: Final = 128
_VERSION: Final = 2
_SCHEMA: Final = (
    "CREATE TABLE manifests (lineage TEXT PRIMARY KEY, version INTEGER NOT NULL,"
    " digest TEXT NOT NULL, threshold INTEGER NOT NULL, keyids TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE users (line TEXT PRIMARY KEY, version INTEGER NOT NULL,"
    " digest TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE nonces (manifest TEXT NOT NULL, nonce TEXT NOT NULL, expires REAL NOT NULL,"
    " PRIMARY KEY (manifest, nonce)) WITHOUT ROWID",
    "CREATE INDEX nonces_by_expiry ON nonces (expires)",
    "CREATE TABLE forgotten (manifest TEXT PRIMARY KEY, upto REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE roles (policy TEXT NOT NULL, user TEXT NOT NULL, session TEXT NOT NULL,"
    " role TEXT NOT NULL, PRIMARY KEY (policy, user, session, role)) WITHOUT ROWID",
    "CREATE TABLE floors (key_id TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version={_VERSION}",
)


class State:
    """What this machine must not unlearn, in `state.db` of the user's settings folder."""

    _APPLICATION: Final = 0x48434D53

    def __init__(self, path: str | Path | None = None) -> None:
        """Use the file at `path`, by default the user's own; it is made at the first change."""
        self.path = Path(path) if path is not None else config_home() / STATE_FILE
        self._database = Database(self.path, "the state file", self._APPLICATION, _SCHEMA)

    def line(self, lineage: str) -> Line | None:
        """The newest manifest of a line that was seen on this machine, or None.

        Raises:
            InputError: The state file cannot be used.
        """
        if not os.path.lexists(self.path):
            return None
        with self._reading() as change:
            return _line(change, lineage)

    def admit_manifest(
        self, lineage: str, line: Line, supersedes: str, signed_by: Sequence[str]
    ) -> None:
        """Take a manifest as seen, if it may follow the one that was seen before.

        Args:
            lineage: What all versions of one manifest share.
            line: What it says of itself.
            supersedes: Digest of the manifest that it takes the place of; empty for the first.
            signed_by: Distinct keys by which it bears signatures that were checked.

        Raises:
            IntegrityError: A newer version was seen here, or another of the same version; or it
                does not follow the one seen, or lacks signatures by that one's signers.
            InputError: The state file cannot be used.
        """
        with self._changing() as change:
            seen = _line(change, lineage)
            if seen == line:
                return
            if seen is not None:
                check_successor(seen, line, supersedes, signed_by)
            change.execute(
                "REPLACE INTO manifests VALUES (?, ?, ?, ?, ?)",
                (lineage, line.version, line.digest, line.threshold, json.dumps(line.keyids)),
            )

    def admit_users(self, line: str, version: int, digest: str) -> None:
        """Take a users document as seen; one that is older than what was seen is refused.

        Args:
            line: What all versions of it share, whoever signs them.
            version: Its version, 1 or more.
            digest: SHA-256 of the document.

        Raises:
            IntegrityError: A newer version was seen here, or another of the same version.
            InputError: The state file cannot be used.
        """
        with self._changing() as change:
            found = change.execute(
                "SELECT version, digest FROM users WHERE line = ?", (line,)
            ).fetchone()
            if found == (version, digest):
                return
            if found is not None:
                check_version("users document", found[0], version)
            change.execute("REPLACE INTO users VALUES (?, ?, ?)", (line, version, digest))

    def use_nonce(
        self, manifest: str, nonce: str, expires: float, now: float | None = None
    ) -> None:
        """Use a nonce up; it cannot be used again as long as what bears it is valid.

        Args:
            manifest: Digest of the manifest under which it was made.
            nonce: The nonce.
            expires: When what bears it expires, in seconds since 1970.
            now: The time; None for the clock's.

        Raises:
            IntegrityError: It was used before, or has expired.
            InputError: The state file cannot be used.
        """
        self.use_nonces(manifest, [(nonce, expires)], now)

    def use_nonces(
        self, manifest: str, nonces: Sequence[tuple[str, float]], now: float | None = None
    ) -> None:
        """Use several nonces up, all of them or none.

        Args:
            manifest: Digest of the manifest under which they were made.
            nonces: Each nonce, and when what bears it expires, in seconds since 1970.
            now: The time; None for the clock's.

        Raises:
            IntegrityError: One was used before or twice here, or has expired.
            InputError: The state file cannot be used.
        """
        time_ = time.time() if now is None else now
        if not all(0 < len(nonce) <= MAX_NONCE for nonce, _ in nonces):
            raise IntegrityError("a nonce is empty or too long; have the message sent anew")
        with self._changing() as change:
            (upto,) = change.execute(
                "SELECT coalesce(max(upto), 0) FROM forgotten WHERE manifest = ?", (manifest,)
            ).fetchone()
            for nonce, expires in nonces:
                _check_expiry(expires, time_, upto)
                added = change.execute(
                    "INSERT OR IGNORE INTO nonces VALUES (?, ?, ?)", (manifest, nonce, expires)
                )
                if added.rowcount != 1:
                    raise IntegrityError(
                        "this message was received before (its nonce was used); have it sent anew"
                    )
            _forget_expired(change, time_)

    def roles_used(self, policy: str, user: str, session: str) -> frozenset[str]:
        """The roles that a user has used in a session under the policy of that digest.

        Raises:
            InputError: The state file cannot be used.
        """
        if not os.path.lexists(self.path):
            return frozenset()
        with self._reading() as change:
            return _roles(change, policy, user, session)

    def use_role(
        self, policy: str, user: str, session: str, known: frozenset[str], role: str
    ) -> bool:
        """Note a role that a user acts in, unless others than the `known` ones were used meanwhile.

        Raises:
            InputError: The state file cannot be used.
        """
        with self._changing() as change:
            if _roles(change, policy, user, session) != known:
                return False
            change.execute("INSERT INTO roles VALUES (?, ?, ?, ?)", (policy, user, session, role))
            return True

    def floor(self, key_id: str) -> int:
        """How many releases under a key this machine knows of.

        Raises:
            InputError: The state file cannot be used.
        """
        if not os.path.lexists(self.path):
            return 0
        with self._reading() as change:
            row = change.execute("SELECT count FROM floors WHERE key_id = ?", (key_id,)).fetchone()
        return int(row[0]) if row is not None else 0

    def raise_floor(self, key_id: str, count: int) -> None:
        """Note that `count` releases were made under a key; a lower number changes nothing.

        Raises:
            InputError: The state file cannot be used.
        """
        with self._changing() as change:
            change.execute(
                "INSERT INTO floors VALUES (?, ?) ON CONFLICT (key_id) DO UPDATE SET"
                " count = max(count, excluded.count)",
                (key_id, count),
            )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        if not os.path.lexists(self.path):
            private_folder(self.path.parent)
        if not os.path.lexists(self.path) or self.path.stat().st_size == 0:
            self._database.create()
        with self._reading() as change:
            yield change

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._database.transaction() as change:
            (version,) = change.execute("PRAGMA user_version").fetchone()
            if version != _VERSION:
                raise IntegrityError(
                    f"the state file {self.path} was made by another version of hecompile (format "
                    f"{version}, not {_VERSION}); use that version, or move the file away, so that "
                    "this machine forgets the manifests and messages that it saw"
                )
            yield change


def _line(change: sqlite3.Connection, lineage: str) -> Line | None:
    row = change.execute(
        "SELECT version, digest, threshold, keyids FROM manifests WHERE lineage = ?", (lineage,)
    ).fetchone()
    if row is None:
        return None
    version, digest, threshold, keyids = row
    return Line(version, digest, threshold, tuple(json.loads(keyids)))


def _check_expiry(expires: float, now: float, upto: float) -> None:
    """Refuse what has expired, and what might have been seen before it was forgotten."""
    if not now < expires:
        raise IntegrityError("this message has expired; have it sent anew")
    if not upto < expires:
        raise IntegrityError(
            f"this message expires at {_told(expires)}, but by this machine's clock messages that "
            f"expire as late as {_told(upto)} had expired before; set the clock right, and have "
            "the message sent anew, to expire later than that"
        )


def _told(seconds: float) -> str:
    """A time for messages, in UTC."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g}"


def _forget_expired(change: sqlite3.Connection, now: float) -> None:
    """Drop expired nonces, and note up to which expiry nonces may be unknown from then on.

    That is the latest expiry among those dropped, not the time: a clock that was ahead for a
    moment does not outlaw what expires later than they did.
    """
    gone = change.execute(
        "SELECT manifest, max(expires) FROM nonces WHERE expires <= ? GROUP BY manifest", (now,)
    ).fetchall()
    change.executemany(
        "INSERT INTO forgotten VALUES (?, ?) ON CONFLICT (manifest) DO UPDATE SET"
        " upto = max(upto, excluded.upto)",
        gone,
    )
    if gone:
        change.execute("DELETE FROM nonces WHERE expires <= ?", (now,))


def _roles(change: sqlite3.Connection, policy: str, user: str, session: str) -> frozenset[str]:
    found = change.execute(
        "SELECT role FROM roles WHERE policy = ? AND user = ? AND session = ?",
        (policy, user, session),
    )
    return frozenset(role for (role,) in found)
