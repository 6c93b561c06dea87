"""The example that CONTRIBUTING.md prints is true: the pass runs, the golden file holds."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.packaging.sources import ROOT

RUN = """
import sys
from pathlib import Path
from hecompile.passbase import load_file
from tests.golden.cases import Case
load_file(Path(sys.argv[1]))
sys.stdout.write(Case(Path(sys.argv[2])).outcome())
"""


def example(language: str) -> str:
    """The one block of a language in CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return textwrap.dedent(block)


def test_example_pass_gives_the_example_golden_file(tmp_path: Path) -> None:
    source = tmp_path / "cancel_negations.py"
    source.write_text(example("python"), encoding="utf-8")
    golden = tmp_path / "cancel-negations" / "fires_on_a_pair.hir"
    golden.parent.mkdir()
    golden.write_text(example("text"), encoding="utf-8")
    # In a process of its own, for the pass would stay registered.
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(source), str(golden)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == golden.read_text(encoding="utf-8").partition("// -----\n")[2]
