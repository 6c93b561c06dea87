"""Every example runs as a newcomer would run it, and so does the example of the README."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hecompile.cli import main
from tests.unit.cli_calls import save_mlp, weights

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def run(folder: Path, *words: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_mlp(tmp_path / "model.onnx", weights(1, 4, 3, 2))
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.savez(tmp_path / "calibration.npz", x=x)
    np.savez(tmp_path / "samples.npz", x=x[:2])
    return tmp_path


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    for file in EXAMPLES.glob("*.py"):
        assert f'"{file.name}"' in text, f"{file.name} is run by no test"


def test_custom_pass(tmp_path: Path) -> None:
    printed = run(tmp_path, EXAMPLES / "custom_pass.py")
    assert "tensor.neg" not in printed
    assert "tensor.output(%x)" in printed


def test_custom_pass_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["passes", "cancel-negations", "--load", str(EXAMPLES / "custom_pass.py")]) == 0
    assert "Replace" in capsys.readouterr().out


def test_compile_mlp(tmp_path: Path) -> None:
    assert "predicted at most" in run(tmp_path, EXAMPLES / "compile_mlp.py")


def test_compile_gru(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the example's network is written in torch")
    printed = run(tmp_path, EXAMPLES / "compile_gru.py")
    assert "rounds with the key holder" in printed
    assert "predicted at most" in printed


def test_inspect_bundle(model: Path) -> None:
    words = ["compile", "model.onnx", "--calibration", "calibration.npz", "-o", "bundle"]
    run(model, "-m", "hecompile", *words)
    printed = run(model, EXAMPLES / "inspect_bundle.py", "bundle")
    assert "owner may decrypt output:y" in printed


def test_readme_example(model: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 1
    assert blocks[0].count("\n") <= 25
    (model / "example.py").write_text(blocks[0], encoding="utf-8")
    assert "predicted" in run(model, "example.py")
