"""The audit log's chain and its lock."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hecompile.access.audit import FIRST_PREVIOUS, AuditLog, default_audit_path, verify_audit
from hecompile.errors import InputError, IntegrityError

DIGEST = "ab" * 32


def append(log: AuditLog, user: str = "alice") -> str:
    return log.append(
        user=user,
        roles=("clinician",),
        action="decrypt",
        obj="output:y",
        allowed=False,
        rule="no permission",
        manifest_digest=DIGEST,
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
    assert set(entries[0]) == {
        "time", "user", "roles", "action", "object", "decision", "rule", "manifest", "previous",
        "digest",
    }  # fmt: skip
    assert entries[0]["time"].endswith("+00:00")
    summary = verify_audit(log.path)
    assert (summary.entries, summary.head) == (3, entries[2]["digest"])
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HECOMPILE_HOME", str(tmp_path))
    assert AuditLog().path == default_audit_path()
    assert default_audit_path().is_relative_to(tmp_path / "audit")


def rechained(lines: list[bytes]) -> list[bytes]:
    entry = json.loads(lines[1])
    entry["decision"] = "allow"
    return [lines[0], json.dumps(entry, sort_keys=True, separators=(",", ":")).encode(), lines[2]]


@pytest.mark.parametrize(
    ("attack", "line"),
    [
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


def write_many(path: Path, name: str) -> None:
    for _ in range(25):
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
    assert verify_audit(path).entries == 100


def test_missing_and_empty_logs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        verify_audit(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    assert verify_audit(tmp_path / "empty").head == FIRST_PREVIOUS
