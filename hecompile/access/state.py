"""What a machine remembers: newest manifests and users, used nonces and roles, releases per key.

One SQLite file of the user's own. Each change is one transaction that holds the write lock from
its first read on, and that is on the disk before the method returns. Whoever deletes the file
makes the machine forget; what it must not forget lies with the key as well (`access.ledger`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hecompile.errors import InputError, IntegrityError
from hecompile.files import cannot_write, config_home, private_folder

STATE_FILE: Final = "state.db"
WAIT_SECONDS: Final = 30.0
MAX_NONCE: Final = 128
_FOREIGN: Final = stat.S_IRWXG | stat.S_IRWXO
_SCHEMA: Final = (
    "CREATE TABLE manifests (lineage TEXT PRIMARY KEY, version INTEGER NOT NULL,"
    " digest TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE users (policy TEXT PRIMARY KEY, version INTEGER NOT NULL,"
    " digest TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE nonces (manifest TEXT NOT NULL, nonce TEXT NOT NULL, expires REAL NOT NULL,"
    " PRIMARY KEY (manifest, nonce)) WITHOUT ROWID",
    "CREATE INDEX nonces_by_expiry ON nonces (expires)",
    "CREATE TABLE forgotten (upto REAL NOT NULL)",
    "CREATE TABLE roles (policy TEXT NOT NULL, user TEXT NOT NULL, session TEXT NOT NULL,"
    " role TEXT NOT NULL, PRIMARY KEY (policy, user, session, role)) WITHOUT ROWID",
    "CREATE TABLE floors (key_id TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID",
)


class Database:
    """A small SQLite file of one user, each use of which is one durable transaction.

    A connection lives no longer than its transaction, so that threads and forked processes may
    use the same object.
    """

    def __init__(self, path: Path, what: str, application: int, schema: tuple[str, ...]) -> None:
        """Name the file; nothing is opened yet.

        Args:
            path: The file.
            what: What it is, for messages.
            application: Number that marks files of this kind.
            schema: Statements that make its tables.
        """
        self.path = path
        self._what = what
        self._application = application
        self._schema = schema

    def create(self) -> None:
        """Make the file with its tables if it is not there, readable by this user alone.

        Raises:
            InputError: It cannot be written.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.close(os.open(self.path, flags, 0o600))
        except OSError as error:
            raise cannot_write(self.path, error) from error
        with self.transaction(fresh=True):
            pass

    @contextlib.contextmanager
    def transaction(self, fresh: bool = False) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; what was changed is on the disk when the block has ended.

        An error inside the block undoes it.

        Args:
            fresh: Make the tables where the file has none yet.

        Raises:
            InputError: The file cannot be read or written, or others hold it for too long.
            IntegrityError: It is damaged, another kind of file, or open to other users.
        """
        self._check_file()
        try:
            with contextlib.closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    self._check_kind(connection, fresh)
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
        except sqlite3.OperationalError as error:
            raise InputError(
                f"{self._what} {self.path} cannot be used: {error}; check that its folder has room"
                " and that no other process holds it"
            ) from error
        except sqlite3.DatabaseError as error:
            raise IntegrityError(
                f"{self._what} {self.path} is damaged ({error}); restore the newest copy of it"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a file that is gone is never made anew unnoticed.
        address = f"{self.path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            address, uri=True, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        # EXTRA is FULL and also syncs the folder: a commit survives a loss of power.
        for setting in ("synchronous=EXTRA", "trusted_schema=OFF", "cell_size_check=ON"):
            connection.execute(f"PRAGMA {setting}")
        return connection

    def _check_file(self) -> None:
        try:
            found = self.path.lstat()
        except OSError as error:
            raise InputError(
                f"{self._what} {self.path} is missing; restore the newest copy of it"
            ) from error
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise IntegrityError(
                f"{self._what} {self.path} is not a file of this user; restore the newest copy"
            )
        if found.st_mode & _FOREIGN:
            raise IntegrityError(
                f"other users may read or change {self._what} {self.path}; run chmod 600 on it"
            )

    def _check_kind(self, connection: sqlite3.Connection, fresh: bool) -> None:
        (found,) = connection.execute("PRAGMA application_id").fetchone()
        if found == self._application:
            return
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not fresh or found or tables:
            raise IntegrityError(f"{self.path} is not {self._what}; restore the newest copy of it")
        for statement in self._schema:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={self._application}")


class State:
    """What this machine must not unlearn, in `state.db` of the user's settings folder."""

    _APPLICATION: Final = 0x48434D53

    def __init__(self, path: str | Path | None = None) -> None:
        """Use the file at `path`, by default the user's own; it is made at the first change."""
        self.path = Path(path) if path is not None else config_home() / STATE_FILE
        self._database = Database(self.path, "the state file", self._APPLICATION, _SCHEMA)

    def admit_manifest(self, lineage: str, version: int, digest: str) -> None:
        """Take a manifest as seen; one that is older than what was seen is refused.

        Args:
            lineage: What all versions of one manifest share.
            version: Its version, 1 or more.
            digest: SHA-256 of its statement.

        Raises:
            IntegrityError: A newer version was seen here, or another of the same version.
            InputError: The state file cannot be used.
        """
        self._admit("manifests", "lineage", lineage, version, digest, "manifest", "bundle")

    def admit_users(self, policy_digest: str, version: int, digest: str) -> None:
        """Take a users document as seen; one that is older than what was seen is refused.

        Args:
            policy_digest: SHA-256 of the policy that it is for.
            version: Its version, 1 or more.
            digest: SHA-256 of the document.

        Raises:
            IntegrityError: A newer version was seen here, or another of the same version.
            InputError: The state file cannot be used.
        """
        self._admit(
            "users", "policy", policy_digest, version, digest, "users document", "users document"
        )

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
        time_ = time.time() if now is None else now
        if not 0 < len(nonce) <= MAX_NONCE:
            raise IntegrityError("a nonce is empty or too long; have the message sent anew")
        with self._changing() as change:
            (upto,) = change.execute("SELECT coalesce(max(upto), 0) FROM forgotten").fetchone()
            # Nonces up to there are no longer known, even if the clock was set back since.
            if not max(time_, upto) < expires:
                raise IntegrityError("this message has expired; have it sent anew")
            added = change.execute(
                "INSERT OR IGNORE INTO nonces VALUES (?, ?, ?)", (manifest, nonce, expires)
            )
            if added.rowcount != 1:
                raise IntegrityError(
                    "this message was received before (its nonce was used); have it sent anew"
                )
            gone = change.execute("DELETE FROM nonces WHERE expires <= ?", (time_,))
            if gone.rowcount:
                change.execute("DELETE FROM forgotten")
                change.execute("INSERT INTO forgotten VALUES (?)", (max(time_, upto),))

    def roles_used(self, policy: str, user: str, session: str) -> frozenset[str]:
        """The roles that a user has used in a session under the policy of that digest.

        Raises:
            InputError: The state file cannot be used.
        """
        if not os.path.lexists(self.path):
            return frozenset()
        with self._database.transaction() as change:
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
        with self._database.transaction() as change:
            found = change.execute("SELECT count FROM floors WHERE key_id = ?", (key_id,))
            row = found.fetchone()
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

    def _admit(
        self, table: str, field: str, name: str, version: int, digest: str, what: str, fresh: str
    ) -> None:
        with self._changing() as change:
            found = change.execute(
                f"SELECT version, digest FROM {table} WHERE {field} = ?", (name,)
            ).fetchone()
            if found == (version, digest):
                return
            if found is not None and found[0] > version:
                raise IntegrityError(
                    f"the {what} has version {version}, but version {found[0]} was seen here"
                    f" before; get the newest {fresh}"
                )
            if found is not None and found[0] == version:
                raise IntegrityError(
                    f"another {what} of version {version} was seen here before; ask its signer"
                    " which one is right"
                )
            change.execute(f"REPLACE INTO {table} VALUES (?, ?, ?)", (name, version, digest))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        if not os.path.lexists(self.path):
            private_folder(self.path.parent)
        if not os.path.lexists(self.path) or self.path.stat().st_size == 0:
            self._database.create()
        with self._database.transaction() as connection:
            yield connection


def _roles(change: sqlite3.Connection, policy: str, user: str, session: str) -> frozenset[str]:
    found = change.execute(
        "SELECT role FROM roles WHERE policy = ? AND user = ? AND session = ?",
        (policy, user, session),
    )
    return frozenset(role for (role,) in found)
