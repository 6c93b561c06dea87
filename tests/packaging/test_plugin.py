"""Passes from other distributions: installed is enough; one that cannot be imported is an error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent / "plugin"
APPLY = """
from hecompile.ir.parser import parse
from hecompile.ir.printer import print_program
from hecompile.passbase import Context
from hecompile.pipeline import parse_pipeline
program = parse('''
program "double" batch=1 {
  %x = tensor.input() {label = "x", dims = [1, 4]} : tensor<1x4, secret>
  %a = tensor.neg(%x) : tensor<1x4, secret>
  %b = tensor.neg(%a) : tensor<1x4, secret>
  tensor.output(%b) {label = "y"}
}
''')
print(print_program(parse_pipeline("drop-double-negation").run(program, Context())))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the plug-in was installed as its user would install it."""
    base = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, base / "source", ignore=shutil.ignore_patterns("__pycache__"))
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    subprocess.run(
        [sys.executable, "-m", "pip", *words, str(base / "site"), str(base / "source")], check=True
    )
    return base / "site"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder with an installed plug-in whose import fails."""
    metadata = tmp_path / "site" / "broken-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[hecompile.passes]\ncracked = broken_passes\n")
    (tmp_path / "site" / "broken_passes.py").write_text("import a_module_that_nobody_has\n")
    return tmp_path / "site"


def python(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with one more folder of installed packages, from a folder of no interest."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_installed_pass_runs_in_a_pipeline(installed: Path) -> None:
    done = python(installed, "-c", APPLY)
    assert done.returncode == 0, done.stderr
    assert "tensor.output(%x)" in done.stdout


def test_installed_pass_is_listed(installed: Path) -> None:
    done = python(installed, "-m", "hecompile", "passes")
    assert done.returncode == 0, done.stderr
    assert "drop-double-negation" in done.stdout


def test_installed_pass_is_described_by_its_contract(installed: Path) -> None:
    done = python(installed, "-m", "hecompile", "passes", "drop-double-negation")
    assert done.returncode == 0, done.stderr
    assert "Replace `-(-x)` by `x`." in done.stdout


def test_plugin_that_cannot_be_imported_is_an_error(broken: Path) -> None:
    done = python(broken, "-m", "hecompile", "passes")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "the plug-in 'cracked' (broken_passes) cannot be imported" in done.stderr
    assert "a_module_that_nobody_has" in done.stderr
    assert "Traceback" not in done.stderr
