"""Signed checkpoints: what they catch that the chain alone does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hecompile.access.audit import AuditLog, verify_audit
from hecompile.access.audit_lines import FIRST_PREVIOUS, spell
from hecompile.access.checkpoints import (
    INTERVAL,
    audit_key,
    audit_key_path,
    known_audit_keys,
    sign_checkpoint,
)
from hecompile.access.signing import SigningKey, TrustStore
from hecompile.errors import InputError, IntegrityError
from tests.unit.cli_calls import Caller

MANIFEST = "ab" * 32


def append(log: AuditLog, user: str = "alice", allowed: bool = False) -> str:
    return log.append(
        user=user,
        roles=("doctor",),
        action="declassify",
        obj="output:y",
        allowed=allowed,
        rule="no permission",
        manifest_digest=MANIFEST,
    )


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    """As many entries as are signed, and five more."""
    log = AuditLog(tmp_path / "log.jsonl")
    for _ in range(INTERVAL + 5):
        append(log)
    return log


def rewritten(lines: list[bytes], change: Callable[[list[dict[str, object]]], None]) -> bytes:
    """A log whose entries were changed and whose chain was computed anew, without the key."""
    entries = [json.loads(line) for line in lines]
    change(entries)
    previous, found = FIRST_PREVIOUS, b""
    for number, entry in enumerate(entries, start=1):
        entry.pop("digest", None)
        line, previous = spell({**entry, "number": number, "previous": previous})
        found += line
    return found


def test_a_checkpoint_follows_every_64th_line(log: AuditLog) -> None:
    kinds = [json.loads(line)["kind"] for line in log.path.read_text().splitlines()]
    assert kinds == ["decision"] * 64 + ["checkpoint"] + ["decision"] * 5
    summary = verify_audit(log.path, known_audit_keys())
    assert (summary.entries, summary.checkpoints, summary.unsigned) == (69, 1, 5)
    assert summary.keyids == (audit_key().keyid,)


def test_a_checkpoint_can_be_asked_for(log: AuditLog) -> None:
    head = log.checkpoint()
    summary = verify_audit(log.path, known_audit_keys())
    assert (summary.checkpoints, summary.unsigned, summary.head) == (2, 0, head)
    with pytest.raises(InputError, match="no entry yet"):
        AuditLog(log.path.with_name("empty.jsonl")).checkpoint()


def test_the_audit_key_is_private_and_signs_nothing_else(log: AuditLog) -> None:
    assert audit_key_path().stat().st_mode & 0o777 == 0o600
    assert TrustStore().load() == ()


def drop_checkpoint(entries: list[dict[str, object]]) -> None:
    del entries[64]


def change_decision(entries: list[dict[str, object]]) -> None:
    entries[3]["decision"] = "allow"


def drop_before(entries: list[dict[str, object]]) -> None:
    del entries[3]


def sign_with_another_key(entries: list[dict[str, object]]) -> None:
    body = {k: v for k, v in entries[64].items() if k not in ("digest", "signature")}
    entries[64]["signature"] = sign_checkpoint(body, SigningKey.generate())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop_checkpoint, "line 65 .* lacks the signed checkpoint"),
        (change_decision, "line 65 .* does not match its signature"),
        (drop_before, "line 65 .* lacks|line 64 .* does not match"),
        (sign_with_another_key, "line 65 .* does not match its signature"),
    ],
)
def test_a_chain_computed_anew_lacks_the_signature(
    log: AuditLog, change: Callable[[list[dict[str, object]]], None], told: str
) -> None:
    log.path.write_bytes(rewritten(log.path.read_bytes().splitlines(), change))
    with pytest.raises(IntegrityError, match=told):
        verify_audit(log.path, known_audit_keys())


def test_another_audit_key_is_not_believed(log: AuditLog, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not known here"):
        verify_audit(log.path, (SigningKey.generate().public_key,))
    with pytest.raises(InputError, match="not known here"):
        verify_audit(log.path)


def test_a_log_cut_before_its_checkpoint_shows(log: AuditLog) -> None:
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:64]))
    with pytest.raises(IntegrityError, match=r"the end of .* lacks the signed checkpoint"):
        verify_audit(log.path, known_audit_keys())


def test_a_noted_head_shows_what_was_cut(log: AuditLog) -> None:
    keys = known_audit_keys()
    noted = verify_audit(log.path, keys).head
    append(log)
    assert verify_audit(log.path, keys, noted).entries == 70
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:-2]))
    assert verify_audit(log.path, keys).entries == 68
    with pytest.raises(IntegrityError, match="cut off"):
        verify_audit(log.path, keys, noted)
    assert verify_audit(log.path, keys, FIRST_PREVIOUS).entries == 68


def test_an_entry_whose_checkpoint_cannot_be_signed_is_not_written(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log.jsonl")
    for _ in range(INTERVAL - 1):
        append(log)
    audit_key_path().write_text("no key")
    audit_key_path().chmod(0o600)
    with pytest.raises(InputError, match="not an unencrypted private key"):
        append(log)
    assert verify_audit(log.path).entries == INTERVAL - 1
    audit_key_path().unlink()
    append(log)
    assert verify_audit(log.path, known_audit_keys()).checkpoints == 1


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


def test_the_commands(call: Caller, log: AuditLog, tmp_path: Path) -> None:
    append(log, "eve\x1b[2J", allowed=True)
    public = tmp_path / "audit.pub"
    keyid = call("audit", "key", "-o", public, "--json").document["keyid"]
    assert call("audit", "key").out.startswith("-----BEGIN PUBLIC KEY-----")
    head = call("audit", "checkpoint", log.path, "--json").document["head"]
    words = ("audit", "verify", log.path, "--key", public)
    document = call(*words, "--expect-head", head, "--json").document
    assert (document["entries"], document["checkpoints"], document["unsigned"]) == (70, 2, 0)
    assert document["keyids"] == [keyid]
    assert "70 decisions, unbroken" in call(*words).out
    assert "cut off" in call(*words, "--expect-head", "0" * 63 + "1", code=4).err
    shown = call("audit", "show", log.path, "--decision", "allow").out
    assert "eve?[2J" in shown
    assert "\x1b" not in shown
    assert "alice" not in shown
    entries = call("audit", "show", log.path, "--user", "alice", "--last", 2, "--json").document
    assert [entry["number"] for entry in entries["entries"]] == [69, 70]
    assert call("audit", "show", log.path, "--object", "input:x").out == "none\n"
    assert "belong together" in call("audit", "show", log.path, "--as", "ada", code=2).err
    call("audit", "checkpoint", tmp_path / "none", code=2)
