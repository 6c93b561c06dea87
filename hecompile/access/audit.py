"""The audit log: one JSON line per decision, each bound to the line before by SHA-256.

A line says who asked for what, as whom, what for, what was decided and by which rule; digests of
what travelled, never a value. A changed, removed or added line breaks the chain from there on, and
signed checkpoints (`hecompile.access.checkpoints`) keep others from computing a new one. Lines cut
off at the end leave a valid shorter log: note the head that `verify_audit` returns elsewhere, and
ask later whether the log still holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hecompile.access import checkpoints
from hecompile.access.audit_lines import (
    CHECKPOINT,
    DECISION,
    FIRST_PREVIOUS,
    MAX_LINE_BYTES,
    body_of,
    parse_line,
    spell,
)
from hecompile.access.records import canonical_json
from hecompile.access.signing import PublicKey
from hecompile.errors import InputError, IntegrityError
from hecompile.files import (
    cannot_read,
    cannot_write,
    config_home,
    private_folder,
    sha256_bytes,
)

MAX_DIGESTS = 256
_MAX_TEXT = 256
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class AuditEntry:
    """One decision, as the log has it.

    Attributes:
        number: Of the line in the log, from 1.
        time: When, RFC 3339 in UTC, by the machine's clock.
        user: Who asked, as given.
        roles: The roles given to the user.
        role: The role by which it was granted; empty where it was denied.
        action: What for.
        object: On what.
        purpose: The purpose stated; empty where none was.
        session: The session stated; empty where none was.
        allowed: What was decided.
        rule: The permission that grants it, or why nothing does.
        manifest: SHA-256 of the manifest whose policy decided.
        digests: SHA-256 of what travelled: envelopes, requests, answers.
        digest: SHA-256 of this line.
    """

    number: int
    time: str
    user: str
    roles: tuple[str, ...]
    role: str
    action: str
    object: str
    purpose: str
    session: str
    allowed: bool
    rule: str
    manifest: str
    digests: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class AuditSummary:
    """A verified log.

    Attributes:
        entries: Decisions in it.
        head: Digest of the last line, 64 zeros for an empty log.
        checkpoints: Signed checkpoints in it.
        unsigned: Decisions that follow the last checkpoint: no signature covers them yet.
        keyids: Identifiers of the audit keys that signed.
    """

    entries: int
    head: str
    checkpoints: int
    unsigned: int
    keyids: tuple[str, ...]


def default_audit_path() -> Path:
    """The user's own log, for all programs: every entry names its manifest."""
    return config_home() / "audit" / "decisions.jsonl"


class AuditLog:
    """Appends to one log file; safe between threads and processes on one machine."""

    def __init__(self, path: str | Path | None = None, key: str | Path | None = None) -> None:
        """Use the log at `path` and the audit key at `key`, by default the user's own.

        Both are made when they are first needed.
        """
        self.path = Path(path) if path is not None else default_audit_path()
        self._key = key

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
        role: str = "",
        purpose: str = "",
        session: str = "",
        digests: Sequence[str] = (),
    ) -> str:
        """Add one entry, with the checkpoint that is due after it, and wait for the disk.

        Texts above 256 characters are cut: an attacker chooses the user's name. More than 256
        digests are taken down as one: the SHA-256 of the JSON list of them all, without spaces.

        Returns:
            The digest of the new entry, 64 hexadecimal digits.

        Raises:
            InputError: The file or the audit key cannot be read or written, or `digests` holds
                anything but SHA-256 digests.
            IntegrityError: The last line is damaged, so that nothing may follow it.
        """
        if not all(_DIGEST.fullmatch(text) for text in digests):
            raise InputError("an audit entry takes SHA-256 digests and no values")
        if len(digests) > MAX_DIGESTS:
            digests = [sha256_bytes(canonical_json(list(digests)))]
        fields = {
            "user": user[:_MAX_TEXT],
            "roles": [name[:_MAX_TEXT] for name in roles],
            "role": role[:_MAX_TEXT],
            "action": action[:_MAX_TEXT],
            "object": obj[:_MAX_TEXT],
            "purpose": purpose[:_MAX_TEXT],
            "session": session[:_MAX_TEXT],
            "decision": "allow" if allowed else "deny",
            "rule": rule[:_MAX_TEXT],
            "manifest": manifest_digest[:_MAX_TEXT],
            "digests": list(digests),
        }
        with self._locked() as descriptor:
            number, head = self._last(descriptor)
            line, digest = spell(body_of(DECISION, number + 1, head, fields))
            if (number + 1) % checkpoints.INTERVAL == 0:
                line += self._checkpoint(number + 2, digest)[0]
            self._write(descriptor, line)
            return digest

    def checkpoint(self) -> str:
        """Add a signed checkpoint now, so that a signature covers every line so far.

        Returns:
            The digest of the checkpoint, 64 hexadecimal digits.

        Raises:
            InputError: The file or the audit key cannot be read or written, or the log is empty.
            IntegrityError: The last line is damaged.
        """
        with self._locked() as descriptor:
            number, head = self._last(descriptor)
            if not number:
                raise InputError(f"audit log {self.path} has no entry yet")
            line, digest = self._checkpoint(number + 1, head)
            self._write(descriptor, line)
            return digest

    def _checkpoint(self, number: int, previous: str) -> tuple[bytes, str]:
        key = checkpoints.audit_key(self._key)
        body = body_of(CHECKPOINT, number, previous, {"key": key.keyid})
        signature = checkpoints.sign_checkpoint(body, key)
        return spell({**body, "signature": signature})

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

    def _last(self, descriptor: int) -> tuple[int, str]:
        """Number and digest of the last line."""
        size = os.fstat(descriptor).st_size
        if size == 0:
            return 0, FIRST_PREVIOUS
        tail = os.pread(descriptor, MAX_LINE_BYTES, max(0, size - MAX_LINE_BYTES))
        lines = tail.split(b"\n")
        if lines[-1] or len(lines) < 2:
            raise IntegrityError(
                f"audit log {self.path} ends in a damaged entry; keep the file as evidence under "
                "another name, and a new log will be started"
            )
        entry = parse_line(lines[-2], f"the last line of audit log {self.path}")
        return entry["number"], entry["digest"]

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


def verify_audit(
    path: str | Path, keys: Sequence[PublicKey] = (), expected: str | None = None
) -> AuditSummary:
    """Check every line of a log, and the signature of every checkpoint.

    Args:
        path: The log.
        keys: The audit keys believed; a log with checkpoints needs them.
        expected: Digest of a line that was noted before; None for none.

    Raises:
        InputError: The file cannot be read, or a checkpoint's key is not among `keys`.
        IntegrityError: Names the first line that does not fit, or says that the line noted before
            is gone.
    """
    entries = number = signed = unsigned = 0
    head = FIRST_PREVIOUS
    keyids: dict[str, None] = {}
    met = expected == FIRST_PREVIOUS
    for line in _verified_lines(path, keys):
        number, head = line["number"], line["digest"]
        met = met or head == expected
        if line["kind"] == CHECKPOINT:
            signed, unsigned = signed + 1, 0
            keyids[line["key"]] = None
        else:
            entries, unsigned = entries + 1, unsigned + 1
    if expected is not None and not met:
        raise IntegrityError(
            f"audit log {path} holds no entry {expected} in its {number} lines: it was cut off "
            "before it or replaced; compare it with a copy"
        )
    return AuditSummary(entries, head, signed, unsigned, tuple(keyids))


def read_audit(path: str | Path, keys: Sequence[PublicKey] = ()) -> tuple[AuditEntry, ...]:
    """All decisions of a log, checked as `verify_audit` does.

    Raises:
        InputError: The file cannot be read, or a checkpoint's key is not among `keys`.
        IntegrityError: Names the first line that does not fit.
    """
    return tuple(
        AuditEntry(
            allowed=line["decision"] == "allow",
            roles=tuple(line["roles"]),
            digests=tuple(line["digests"]),
            **{name: line[name] for name in _PLAIN_FIELDS},
        )
        for line in _verified_lines(path, keys)
        if line["kind"] == DECISION
    )


_PLAIN_FIELDS = (
    *("number", "time", "user", "role", "action", "object", "purpose", "session"),
    *("rule", "manifest", "digest"),
)


def _verified_lines(path: str | Path, keys: Sequence[PublicKey]) -> Iterator[dict[str, Any]]:
    """The lines of a log in order, each checked against the one before."""
    head, number, due = FIRST_PREVIOUS, 0, False
    try:
        with Path(path).open("rb") as stream:
            # A shared lock keeps an append in progress from looking like damage.
            fcntl.flock(stream.fileno(), fcntl.LOCK_SH)
            while line := stream.readline(MAX_LINE_BYTES + 1):
                where = f"line {number + 1} of audit log {path}"
                if not line.endswith(b"\n"):
                    raise IntegrityError(f"{where} is incomplete; the log was cut or damaged there")
                entry = parse_line(line[:-1], where)
                is_checkpoint = entry["kind"] == CHECKPOINT
                if entry["previous"] != head or entry["number"] != number + 1:
                    raise IntegrityError(
                        f"{where} does not follow the line before it: lines were removed, added or "
                        "reordered"
                    )
                if due and not is_checkpoint:
                    raise _checkpoint_missing(where)
                if is_checkpoint:
                    _check_signature(entry, keys, where)
                head, number = entry["digest"], entry["number"]
                due = not is_checkpoint and number % checkpoints.INTERVAL == 0
                yield entry
    except OSError as error:
        raise cannot_read(Path(path), error) from error
    if due:
        raise _checkpoint_missing(f"the end of audit log {path}")


def _checkpoint_missing(where: str) -> IntegrityError:
    return IntegrityError(
        f"{where} lacks the signed checkpoint that belongs there: the log was cut"
    )


def _check_signature(entry: dict[str, Any], keys: Sequence[PublicKey], where: str) -> None:
    key = checkpoints.find_key(entry["key"], keys, where)
    body = {name: entry[name] for name in entry if name not in ("digest", "signature")}
    if not checkpoints.matches(body, entry["signature"], key):
        raise IntegrityError(f"{where} does not match its signature by audit key {key.keyid}")
