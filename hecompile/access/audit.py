"""The audit log: one JSON line per decision, each bound to the line before by SHA-256.

A line says who asked for what and what was decided, never a value. A changed, removed or added
line breaks the chain from there on. Lines cut off at the end leave a valid shorter chain: compare
the head that `verify_audit` returns with one that was noted elsewhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hecompile.access.records import canonical_json, parse_json
from hecompile.errors import InputError, IntegrityError
from hecompile.files import (
    cannot_read,
    cannot_write,
    config_home,
    private_folder,
    sha256_bytes,
)

FIRST_PREVIOUS = "0" * 64
MAX_LINE_BYTES = 64 << 10
_MAX_TEXT = 256
_FIELDS = frozenset(
    {
        "time",
        "user",
        "roles",
        "action",
        "object",
        "decision",
        "rule",
        "manifest",
        "previous",
        "digest",
    }
)


@dataclass(frozen=True)
class AuditSummary:
    """A verified log: how many entries it has and the digest of the last one."""

    entries: int
    head: str


def default_audit_path() -> Path:
    """The user's own log, for all programs: every entry names its manifest."""
    return config_home() / "audit" / "decisions.jsonl"


class AuditLog:
    """Appends to one log file; safe between threads and processes on one machine."""

    def __init__(self, path: str | Path | None = None) -> None:
        """Use the log at `path`, by default the user's own; it is made at the first entry."""
        self.path = Path(path) if path is not None else default_audit_path()

    def append(
        self,
        *,
        user: str,
        roles: Sequence[str],
        action: str,
        obj: str,
        allowed: bool,
        rule: str,
        manifest_digest: str,
    ) -> str:
        """Add one entry and wait until it is on the disk.

        Texts above 256 characters are cut: an attacker chooses the user name.

        Returns:
            The digest of the new entry, 64 hexadecimal digits.

        Raises:
            InputError: The file cannot be written.
            IntegrityError: Its last line is damaged, so that nothing may follow it.
        """
        with self._locked() as descriptor:
            entry: dict[str, object] = {
                "time": datetime.now(UTC).isoformat(timespec="microseconds"),
                "user": user[:_MAX_TEXT],
                "roles": [role[:_MAX_TEXT] for role in roles],
                "action": action,
                "object": obj[:_MAX_TEXT],
                "decision": "allow" if allowed else "deny",
                "rule": rule[:_MAX_TEXT],
                "manifest": manifest_digest,
                "previous": self._head(descriptor),
            }
            digest = sha256_bytes(canonical_json(entry))
            line = canonical_json({**entry, "digest": digest}) + b"\n"
            self._write(descriptor, line)
            return digest

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        private_folder(self.path.parent)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"audit log {self.path} is not a file; name another path")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not os.path.samestat(os.fstat(descriptor), self._named()):
                raise InputError(f"audit log {self.path} was replaced meanwhile; try again")
            yield descriptor
        finally:
            os.close(descriptor)

    def _named(self) -> os.stat_result:
        try:
            return self.path.lstat()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _head(self, descriptor: int) -> str:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return FIRST_PREVIOUS
        tail = os.pread(descriptor, MAX_LINE_BYTES, max(0, size - MAX_LINE_BYTES))
        lines = tail.split(b"\n")
        if lines[-1] or len(lines) < 2:
            raise IntegrityError(
                f"audit log {self.path} ends in a damaged entry; keep the file as evidence under "
                "another name, and a new log will be started"
            )
        return _check_line(lines[-2], None, f"the last line of audit log {self.path}")

    def _write(self, descriptor: int, line: bytes) -> None:
        size = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(0, "the disk took only a part of the entry")
            os.fsync(descriptor)
        except OSError as error:
            # A torn entry would block every later one.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise cannot_write(self.path, error) from error


def verify_audit(path: str | Path) -> AuditSummary:
    """Check every line of a log.

    Returns:
        The number of entries and the digest of the last (64 zeros for an empty log).

    Raises:
        InputError: The file cannot be read.
        IntegrityError: Names the first line that does not fit.
    """
    head = FIRST_PREVIOUS
    number = 0
    try:
        with Path(path).open("rb") as stream:
            # A shared lock keeps an append in progress from looking like damage.
            fcntl.flock(stream.fileno(), fcntl.LOCK_SH)
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                where = f"line {number} of audit log {path}"
                if not line.endswith(b"\n"):
                    raise IntegrityError(f"{where} is incomplete; the log was cut or damaged there")
                head = _check_line(line[:-1], head, where)
    except OSError as error:
        raise cannot_read(Path(path), error) from error
    return AuditSummary(number, head)


def _check_line(line: bytes, previous: str | None, where: str) -> str:
    changed = IntegrityError(
        f"{where} was changed or damaged; do not rely on the log from there on"
    )
    try:
        entry = parse_json(line, where, MAX_LINE_BYTES)
    except IntegrityError:
        raise changed from None
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise changed
    digest = entry["digest"]
    body = {key: value for key, value in entry.items() if key != "digest"}
    if canonical_json(entry) != line or digest != sha256_bytes(canonical_json(body)):
        raise changed
    if previous is not None and entry["previous"] != previous:
        raise IntegrityError(
            f"{where} does not follow the line before it: lines were removed, added or reordered"
        )
    return str(digest)
