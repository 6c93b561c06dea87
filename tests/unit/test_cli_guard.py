from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from hecompile import errors
from hecompile.cli import console, group, passes
from hecompile.cli.group import COMMANDS
from tests.unit.cli_calls import Caller


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


def raising(error: BaseException) -> Callable[..., None]:
    def command(**_options: object) -> None:
        raise error

    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(name: str, call: Caller) -> None:
    command = group.hecompile.get_command(None, name)  # type: ignore[arg-type]
    below = list(command.commands) if isinstance(command, click.Group) else []
    for words in [[name, sub] for sub in below] or [[name]]:
        assert "--json" in call(*words, "--help").out
    assert name in call("--help").out


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (errors.InputError("x is bad"), 1, "error: x is bad\n"),
        (errors.UsageError("no"), 2, "error: no\n"),
        (errors.AccessDeniedError("Access Denied: user 'u' may not"), 3, "Access Denied: user"),
        (errors.IntegrityError("changed"), 4, "error: changed\n"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written\n"),
        (ValueError("odd\nthing"), 1, "internal error: ValueError: odd thing; "),
        (MemoryError(), 1, "error: the memory is full"),
        (PermissionError(13, "Permission denied", "f"), 1, "error: f: Permission denied\n"),
    ],
)
def test_each_error_has_its_code_and_one_line(
    error: BaseException, code: int, told: str, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes.command, "callback", raising(error))
    found = call("passes", code=code)
    assert found.err.startswith(told)
    assert found.err.count("\n") == 1
    assert not found.out


def test_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HECOMPILE_TRACEBACK", "1")
    done = subprocess.run(
        [sys.executable, "-m", "hecompile", "opt", "missing.hir"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_stdout_is_told_in_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hecompile", "passes"],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


def test_tasks_that_differ_in_a_number_are_one(capsys: pytest.CaptureFixture[str]) -> None:
    show = console.Progress()
    for number in range(1, 4):
        show(f"evaluating sample group {number} of 3", 1, 2)
    assert capsys.readouterr().err == "evaluating sample group 1 of 3 ...\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pases"], "did you mean 'passes'?"),
        (["run"], "Missing argument 'BUNDLE'"),
        (["passes", "--nonsense"], "--nonsense"),
        (["compile", "m.onnx", "--calibration", "c.npz", "-o", "b", "--refresh", "x"], "'x'"),
        (["compile", "m.onnx", "--calibration", "c.npz", "-o", "b", "--batch", "two"], "'two'"),
    ],
)
def test_usage_errors_are_one_line_with_a_hint(words: list[str], told: str, call: Caller) -> None:
    found = call(*words, code=2)
    assert found.err.startswith("error: ")
    assert told in found.err
    assert "--help'" in found.err
    assert found.err.count("\n") == 1


def test_no_command_shows_the_help_on_stderr(call: Caller) -> None:
    found = call(code=2)
    assert "Commands:" in found.err
    assert not found.out


def test_sigterm_unwinds_and_says_so(monkeypatch: pytest.MonkeyPatch, call: Caller) -> None:
    cleaned = []

    def command(**_options: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned.append(True)

    monkeypatch.setattr(passes.command, "callback", command)
    assert call("passes", code=143).err == "terminated; nothing was written\n"
    assert cleaned


def test_unknown_names_are_not_imported() -> None:
    assert group.hecompile.get_command(None, "os") is None  # type: ignore[arg-type]


def test_run_side_commands_import_no_compiler_packages(tmp_path: Path) -> None:
    side = ("keygen", "encrypt", "evaluate", "refresh", "decrypt", "run", "inspect", "trust")
    code = (
        "import sys, json\n"
        "from hecompile.cli import main\n"
        f"for name in {side!r}: main([name, 'nothing', '--input', 'x', '-o', 'y'])\n"
        "import hecompile.runtime.parties\n"
        "print(json.dumps([m for m in sys.modules if m.partition('.')[0] in "
        "('torch', 'onnx', 'onnxruntime', 'networkx')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, json\n"
        "from hecompile.cli import main\n"
        "main(['--help'])\n"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"torch", "onnx", "networkx", "numpy", "tenseal", "cryptography"}
