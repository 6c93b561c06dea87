"""SQLite files of one user: each change is one transaction that is on the disk when it ends."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hecompile.errors import InputError, IntegrityError
from hecompile.files import cannot_write

WAIT_SECONDS: Final = 30.0
_FOREIGN: Final = stat.S_IRWXG | stat.S_IRWXO


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
