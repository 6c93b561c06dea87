"""How often values were released under a key, kept with the key and counted before they leave.

The ledger is a file in the secret key's folder. A release is on the disk before its value is given
away, so that a crash in between loses the value and not the count; of two that race for the last
unit one is refused. A ledger that was put back from an older copy, or copies of one that are used
side by side, are found out where the machine's state (`access.state`) knows a higher count: a lock
beside it is held from the look at that count until it is raised. Whoever restores both the folder
and that state, or takes the folder to a machine that has never used it, is not found out: rotate
the key then.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hecompile.access.state import Database, State
from hecompile.errors import AccessDeniedError, InputError, IntegrityError
from hecompile.files import cannot_write, private_folder

LEDGER_FILE: Final = "releases.db"
ROUNDING: Final = 1e-9
"""Relative excess over a privacy budget that sums of doubles may show."""

_LOCK_FILE: Final = "releases.lock"
_VERSION: Final = 2
_SCHEMA: Final = (
    "CREATE TABLE owner (key_id TEXT NOT NULL)",
    "CREATE TABLE spent (rule TEXT NOT NULL, output TEXT NOT NULL, units INTEGER NOT NULL,"
    " rho REAL NOT NULL, session TEXT NOT NULL, PRIMARY KEY (rule, output)) WITHOUT ROWID",
    f"PRAGMA user_version={_VERSION}",
)


@dataclass(frozen=True)
class Charge:
    """What one release costs, and the limits that it must stay within.

    Attributes:
        output: Name of the output.
        rule: Which permission grants it, one name for it by whatever path of inheritance; its
            budget is counted over all outputs.
        limit: Most releases under this permission and key.
        units: Releases that this one counts for: one a row, or one a cohort.
        rho: Privacy loss of a differentially private release (zero-concentrated), else 0.
        total_rho: Most privacy loss of all releases under the key; None where `rho` is 0.
        key_limit: Most releases under the key, of all permissions; None for no limit of its own.
    """

    output: str
    rule: str
    limit: int
    units: int = 1
    rho: float = 0.0
    total_rho: float | None = None
    key_limit: int | None = None


@dataclass(frozen=True)
class Spent:
    """What was spent under a key: number of releases, and their privacy loss (rho) together."""

    releases: int
    rho: float


class _UndoneError(Exception):
    """Ends a transaction whose changes are not to stay."""


class ReleaseLedger:
    """Counts releases under one key; safe between threads and processes on one machine."""

    _APPLICATION: Final = 0x4843524C

    def __init__(self, folder: str | Path, key_id: str, state: State | None = None) -> None:
        """Use the ledger in the folder of a secret key.

        Args:
            folder: The folder.
            key_id: The key's identifier.
            state: The machine's state, which finds out a ledger that was put back; None for a key
                that ends with this process.
        """
        self.path = Path(folder) / LEDGER_FILE
        self.key_id = key_id
        self._state = state
        self._database = Database(self.path, "the release ledger", self._APPLICATION, _SCHEMA)

    def create(self) -> None:
        """Make an empty ledger for a new key.

        Raises:
            InputError: One is there already, or it cannot be written.
        """
        if self.path.exists():
            raise InputError(f"{self.path} exists already; make new keys in a new folder")
        self._database.create()
        with self._database.transaction() as change:
            change.execute("INSERT INTO owner VALUES (?)", (self.key_id,))

    def spend(
        self,
        output: str,
        permission_rule: str,
        limit: int,
        units: int = 1,
        rho: float = 0.0,
        total_rho: float | None = None,
        session: str = "",
    ) -> int:
        """Count one release; see `spend_all`."""
        charge = Charge(output, permission_rule, limit, units, rho, total_rho)
        return self.spend_all((charge,), session)[0]

    def foresee(self, charges: Sequence[Charge]) -> None:
        """Refuse what `spend_all` would refuse at this moment; nothing is counted.

        Raises:
            HecompileError: As `spend_all`.
        """
        known = self._state.floor(self.key_id) if self._state is not None else 0
        with contextlib.suppress(_UndoneError), self._database.transaction() as change:
            self._check(change, known)
            for charge in charges:
                self._spend_one(change, charge, "")
            raise _UndoneError

    def spend_all(self, charges: Sequence[Charge], session: str = "") -> tuple[int, ...]:
        """Count releases, all of them or none; they are on the disk when this returns.

        Args:
            charges: What is released.
            session: The evaluation that it is of, for the record.

        Returns:
            For each, the number of its last unit under its permission, from 1.

        Raises:
            AccessDeniedError: A budget does not allow it.
            IntegrityError: The ledger is damaged, another key's, or an older copy.
            InputError: The ledger is missing or cannot be written.
        """
        if self._state is None:
            return self._spend(charges, session, 0)[0]
        # Copies of one ledger have each a lock of their own: this one is the machine's.
        with _machine_lock(self._state.path.with_name(_LOCK_FILE)):
            known = self._state.floor(self.key_id)
            numbers, count = self._spend(charges, session, known)
            self._state.raise_floor(self.key_id, count)
        return numbers

    def spent(self, output: str | None = None) -> Spent:
        """What was spent so far, on one output or on all.

        Raises:
            IntegrityError: The ledger is damaged, another key's, or an older copy.
            InputError: The ledger is missing.
        """
        known = self._state.floor(self.key_id) if self._state is not None else 0
        with self._database.transaction() as change:
            self._check(change, known)
            return _total(change, output)

    def _spend(
        self, charges: Sequence[Charge], session: str, known: int
    ) -> tuple[tuple[int, ...], int]:
        """The numbers of the charges, and how many releases were made under the key with them."""
        with self._database.transaction() as change:
            self._check(change, known)
            numbers = tuple(self._spend_one(change, charge, session) for charge in charges)
            return numbers, _total(change).releases

    def _check(self, change: sqlite3.Connection, known: int) -> None:
        (version,) = change.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            raise IntegrityError(
                f"the release ledger {self.path} was made by another version of hecompile (format"
                f" {version}, not {_VERSION}); use that version, or make new keys with hecompile"
                " keygen"
            )
        owners = change.execute("SELECT key_id FROM owner").fetchall()
        if owners != [(self.key_id,)]:
            raise IntegrityError(
                f"the release ledger {self.path} is another key's; put the right one back, or make"
                " new keys with hecompile keygen"
            )
        found = _total(change)
        if found.releases < known:
            raise IntegrityError(
                f"the release ledger {self.path} counts {found.releases} releases, but {known} were"
                " made on this machine: an older copy was put back; restore the newest one, or make"
                " new keys with hecompile keygen"
            )

    def _spend_one(self, change: sqlite3.Connection, charge: Charge, session: str) -> int:
        if charge.units < 1 or charge.limit < 0 or not 0.0 <= charge.rho < math.inf:
            raise InputError(
                f"a release of output '{charge.output}' cannot count for {charge.units} units and"
                f" a privacy loss of {charge.rho}"
            )
        (used,) = change.execute(
            "SELECT coalesce(sum(units), 0) FROM spent WHERE rule = ?", (charge.rule,)
        ).fetchone()
        total = _total(change)
        _allow(charge, "the permission's budget", used, charge.limit)
        if charge.key_limit is not None:
            _allow(charge, "the key's budget", total.releases, charge.key_limit)
        if charge.rho:
            most = charge.total_rho if charge.total_rho is not None else 0.0
            if total.rho + charge.rho > most * (1.0 + ROUNDING):
                raise AccessDeniedError(
                    f"Access Denied: releasing output '{charge.output}' would spend a privacy loss"
                    f" of rho = {charge.rho:.4g}, of which {max(0.0, most - total.rho):.4g} of"
                    f" {most:.4g} is left under this key; new keys would not give any back, for"
                    " what is told of the same persons under several keys adds up: ask the data"
                    " protection officer"
                )
        change.execute(
            "INSERT INTO spent VALUES (?, ?, ?, ?, ?) ON CONFLICT (rule, output) DO UPDATE SET"
            " units = units + excluded.units, rho = rho + excluded.rho,"
            " session = excluded.session",
            (charge.rule, charge.output, charge.units, charge.rho, session),
        )
        return int(used) + charge.units


@contextlib.contextmanager
def _machine_lock(path: Path) -> Iterator[None]:
    """Let one process and thread of this machine at a time count releases."""
    private_folder(path.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _total(change: sqlite3.Connection, output: str | None = None) -> Spent:
    where, values = (" WHERE output = ?", (output,)) if output is not None else ("", ())
    releases, rho = change.execute(
        f"SELECT coalesce(sum(units), 0), coalesce(sum(rho), 0.0) FROM spent{where}", values
    ).fetchone()
    return Spent(int(releases), float(rho))


def _allow(charge: Charge, what: str, used: int, limit: int) -> None:
    if used + charge.units > limit:
        raise AccessDeniedError(
            f"Access Denied: {what} allows {limit} releases, {used} were made and"
            f" {charge.units} more of output '{charge.output}' asked for; make new keys with"
            " hecompile keygen"
        )
