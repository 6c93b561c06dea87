"""The audit log's chain, its lock, and what it does where it cannot be written."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hecompile.access.audit import (
    MAX_DIGESTS,
    AuditLog,
    default_audit_path,
    read_audit,
    verify_audit,
)
from hecompile.access.audit_lines import FIRST_PREVIOUS, spell
from hecompile.access.checkpoints import known_audit_keys
from hecompile.access.decide import Gate, PolicyIndex
from hecompile.access.policy import Action, ObjectRef, single_owner_policy
from hecompile.access.users import single_owner_users
from hecompile.errors import AccessDeniedError, InputError, IntegrityError

DIGEST = "ab" * 32


def append(log: AuditLog, user: str = "alice", digests: Sequence[str] = ()) -> str:
    return log.append(
        user=user,
        roles=("clinician",),
        action="decrypt",
        obj="output:y",
        allowed=False,
        rule="no permission",
        manifest_digest=DIGEST,
        purpose="care",
        session="s1",
        digests=digests,
    )


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    log = AuditLog(tmp_path / "audit" / "log.jsonl")
    for user in ("alice", "bob", "carol"):
        append(log, user)
    return log


def test_entries_say_who_what_and_why_in_a_chain(log: AuditLog) -> None:
    entries = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [entry["user"] for entry in entries] == ["alice", "bob", "carol"]
    assert entries[0]["previous"] == FIRST_PREVIOUS
    assert entries[1]["previous"] == entries[0]["digest"]
    assert [entry["number"] for entry in entries] == [1, 2, 3]
    assert set(entries[0]) == {
        "kind", "number", "time", "user", "roles", "role", "action", "object", "purpose", "session",
        "decision", "rule", "manifest", "digests", "previous", "digest",
    }  # fmt: skip
    assert entries[0]["time"].endswith("+00:00")
    summary = verify_audit(log.path)
    assert (summary.entries, summary.head) == (3, entries[2]["digest"])
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_entries_are_read_back(log: AuditLog) -> None:
    log.append(
        user="dora",
        roles=("doctor", "researcher"),
        role="doctor",
        action="declassify",
        obj="output:y",
        allowed=True,
        rule="permission 2",
        manifest_digest=DIGEST,
        digests=["cd" * 32],
    )
    first, *_, last = read_audit(log.path)
    assert (first.user, first.purpose, first.session, first.allowed) == (
        "alice",
        "care",
        "s1",
        False,
    )
    assert (last.number, last.role, last.roles) == (4, "doctor", ("doctor", "researcher"))
    assert (last.allowed, last.digests, last.digest) == (
        True,
        ("cd" * 32,),
        verify_audit(log.path).head,
    )


@pytest.mark.parametrize("digests", [["0.25"], ["AB" * 32], ["ab" * 32, "1"]])
def test_only_digests_are_taken_as_digests(log: AuditLog, digests: list[str]) -> None:
    with pytest.raises(InputError, match="digests and no values"):
        append(log, digests=digests)
    assert verify_audit(log.path).entries == 3


def test_many_digests_are_taken_down_as_one(log: AuditLog) -> None:
    many = [f"{i:064x}" for i in range(MAX_DIGESTS + 1)]
    append(log, digests=many[1:])
    append(log, digests=many)
    *_, few, last = read_audit(log.path)
    assert list(few.digests) == many[1:]
    listed = json.dumps(many, separators=(",", ":")).encode()
    assert last.digests == (hashlib.sha256(listed).hexdigest(),)


def test_long_names_are_cut_and_too_many_roles_refused(log: AuditLog) -> None:
    append(log, "\U0001f600" * 10_000)
    assert len(read_audit(log.path)[-1].user) == 256
    with pytest.raises(InputError, match="too many roles"):
        log.append(
            user="a", roles=["r" * 256] * 1000, action="read", obj="audit", allowed=False, rule="",
            manifest_digest=DIGEST,
        )  # fmt: skip
    append(log)
    assert verify_audit(log.path).entries == 5


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HECOMPILE_HOME", str(tmp_path))
    assert AuditLog().path == default_audit_path()
    assert default_audit_path().is_relative_to(tmp_path / "audit")


def rechained(lines: list[bytes]) -> list[bytes]:
    entry = json.loads(lines[1])
    entry["decision"] = "allow"
    return [lines[0], json.dumps(entry, sort_keys=True, separators=(",", ":")).encode(), lines[2]]


def forged(lines: list[bytes], **changes: object) -> list[bytes]:
    """The last line with other fields and a digest that fits."""
    entry = {**json.loads(lines[-1]), **changes}
    del entry["digest"]
    return [*lines[:-1], spell(entry)[0].rstrip(b"\n")]


@pytest.mark.parametrize(
    ("attack", "line"),
    [
        (lambda lines: forged(lines, roles=5), 3),
        (lambda lines: forged(lines, roles=["a", 5]), 3),
        (lambda lines: forged(lines, user=None), 3),
        (lambda lines: forged(lines, number=True), 3),
        (lambda lines: forged(lines, number=4), 3),
        (lambda lines: forged(lines, kind="checkpoint"), 3),
        (lambda lines: forged(lines, kind=["decision"]), 3),
        (lambda lines: forged(lines, value=0.25), 3),
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[1], lines[0], lines[2]], 1),
        (lambda lines: [lines[0], lines[0], *lines[1:]], 2),
        (lambda lines: [lines[0], lines[1].replace(b"bob", b"eve"), lines[2]], 2),
        (lambda lines: [lines[0], lines[1] + b" ", lines[2]], 2),
        (lambda lines: [lines[0], b"", *lines[1:]], 2),
        (lambda lines: [*lines, b"{}"], 4),
        (lambda lines: [*lines, b"[" * 50_000], 4),
        (lambda lines: [*lines, b"\xff"], 4),
        (rechained, 2),
    ],
)
def test_tampering_is_found_at_its_line(
    log: AuditLog, attack: Callable[[list[bytes]], list[bytes]], line: int
) -> None:
    lines = log.path.read_bytes().splitlines()
    log.path.write_bytes(b"\n".join(attack(lines)) + b"\n")
    with pytest.raises(IntegrityError, match=f"line {line} of audit log"):
        verify_audit(log.path)


def test_every_changed_byte_is_found(log: AuditLog) -> None:
    whole = log.path.read_bytes()
    for position in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[position] ^= 1
        log.path.write_bytes(changed)
        with pytest.raises(IntegrityError):
            verify_audit(log.path)


def test_a_cut_log_has_another_head(log: AuditLog) -> None:
    head = verify_audit(log.path).head
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:2]))
    assert verify_audit(log.path).head != head
    log.path.write_bytes(b"".join(lines)[:-5])
    with pytest.raises(IntegrityError, match=r"line 3 .* incomplete"):
        verify_audit(log.path)


def test_nothing_follows_a_damaged_end(log: AuditLog) -> None:
    damaged = log.path.read_bytes()[:-5]
    log.path.write_bytes(damaged)
    with pytest.raises(IntegrityError, match="damaged entry"):
        append(log)
    assert log.path.read_bytes() == damaged


def test_an_entry_that_does_not_reach_the_disk_is_taken_back(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = log.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        append(log)
    assert log.path.read_bytes() == whole


def in_child(work: Callable[[], None]) -> int:
    """Exit code of a forked process that does `work`; 7 where the log refused."""

    def run() -> None:
        try:
            work()
        except InputError:
            os._exit(7)

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_refuses_and_leaves_no_torn_entry(log: AuditLog, room: int) -> None:
    whole = log.path.read_bytes()

    def limited() -> None:
        most = len(whole) + room
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        append(log)

    assert in_child(limited) == 7
    assert log.path.read_bytes() == whole
    append(log)
    assert verify_audit(log.path).entries == 4


def test_the_gate_denies_what_cannot_be_logged(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log.jsonl")
    policy = single_owner_policy(["x"], ["y"])
    gate = Gate(PolicyIndex(policy, single_owner_users(policy)), log, DIGEST)
    wanted = ("owner", Action.DECRYPT, ObjectRef.output("y"))
    assert gate.require(*wanted, digests=["cd" * 32]).allowed

    def with_a_full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        try:
            gate.require(*wanted)
        except AccessDeniedError as error:
            os._exit(3 if "cannot be logged" in str(error) else 4)

    assert in_child(with_a_full_disk) == 3
    [entry] = read_audit(log.path)
    assert (entry.role, entry.digests, entry.allowed) == ("owner", ("cd" * 32,), True)


def test_a_folder_that_cannot_be_written_refuses() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o555)

        def as_another() -> None:
            if os.geteuid() == 0:
                os.setuid(65534)
            append(AuditLog(folder / "log.jsonl"))

        assert in_child(as_another) == 7
        assert list(folder.iterdir()) == []
        folder.chmod(0o700)


def test_a_link_in_place_of_the_log_is_refused(log: AuditLog, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    log.path.rename(other)
    log.path.symlink_to(other)
    whole = other.read_bytes()
    with pytest.raises(InputError, match="cannot write"):
        append(log)
    assert other.read_bytes() == whole


def test_something_else_in_place_of_the_log_is_refused(log: AuditLog) -> None:
    log.path.unlink()
    os.mkfifo(log.path)
    with pytest.raises(InputError, match="not a file"):
        append(log)


@pytest.mark.parametrize("remove", [False, True])
def test_a_log_that_is_replaced_while_an_append_waits_is_refused(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch, remove: bool
) -> None:
    def replaced(descriptor: int, operation: int) -> None:
        log.path.unlink()
        if not remove:
            log.path.write_bytes(b"")

    monkeypatch.setattr(fcntl, "flock", replaced)
    with pytest.raises(InputError, match=r"replaced meanwhile|cannot write"):
        append(log)
    assert not log.path.exists() or log.path.read_bytes() == b""


def write_many(path: Path, name: str) -> None:
    for _ in range(50):
        append(AuditLog(path), name)


def test_concurrent_appends_keep_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(path, f"user{i}")) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    summary = verify_audit(path, known_audit_keys())
    assert (summary.entries, summary.checkpoints, len(summary.keyids)) == (200, 3, 1)
    entries = read_audit(path, known_audit_keys())
    assert {user: sum(e.user == user for e in entries) for user in {e.user for e in entries}} == {
        f"user{i}": 50 for i in range(4)
    }


def test_missing_and_empty_logs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        verify_audit(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    assert verify_audit(tmp_path / "empty").head == FIRST_PREVIOUS
