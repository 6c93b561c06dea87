"""The audit command meets files that are no log, and logs that were."""

from __future__ import annotations

from pathlib import Path

import pytest

from hecompile.access.audit import AuditLog
from tests.unit.cli_calls import Caller


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.mark.parametrize("command", ["verify", "show"])
@pytest.mark.parametrize(
    "content", [b"format = 2\n[roles.x]\n", b'{"payload": "x"}\n', b"\x00\xff" * 99, b"\n\n"]
)
def test_what_is_no_log_is_called_none(
    command: str, content: bytes, tmp_path: Path, call: Caller
) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(content)
    told = call("audit", command, path, code=4).err
    assert f"{path} is no audit log: its first line is no entry" in told
    assert "line 1" not in told


def test_a_damaged_first_line_is_told_as_damage(tmp_path: Path, call: Caller) -> None:
    path = tmp_path / "log"
    AuditLog(path).append(
        user="anna", roles=(), action="decrypt", obj="output:y", allowed=False,
        rule="unknown user", manifest_digest="ab" * 32,
    )  # fmt: skip
    assert "1 decision" in call("audit", "verify", path).out
    path.write_bytes(path.read_bytes().replace(b"anna", b"zara"))
    assert "line 1 of audit log" in call("audit", "verify", path, code=4).err


def test_a_missing_log_is_a_missing_file(tmp_path: Path, call: Caller) -> None:
    assert "cannot read" in call("audit", "verify", tmp_path / "none", code=1).err


def test_help_tells_a_grant_from_a_release(call: Caller) -> None:
    assert '"release N of M"' in " ".join(call("audit", "show", "--help").out.split())
