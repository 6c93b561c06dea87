"""Rules of the house that the linters cannot state."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from hecompile.passbase import registered_passes
from tests.packaging.sources import ROOT, imports, shipped, walk

MOST_LINES = 400
TEXT = {".py", ".md", ".toml", ".txt", ".in", ".hir", ".cfg", ".yml", ""}
# Written so that the pattern does not match its own text.
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:work|root|Users|home/\w+|mnt|opt)/")


def repository_texts() -> Iterator[tuple[str, str]]:
    """Every text file of the repository: its path relative to the root, and its text."""
    folders = ("hecompile", "passes", "models", "tests", "examples", "docs", ".ci")
    files = [file for file in sorted(ROOT.iterdir()) if file.is_file()]
    files += [
        file for folder in folders if (ROOT / folder).is_dir() for file in walk(ROOT / folder)
    ]
    for file in files:
        if file.suffix in TEXT and not file.name.startswith(".coverage"):
            yield file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")


def test_no_python_file_is_too_long_to_hold_in_mind() -> None:
    lengths = {path: text.count("\n") for path, text in repository_texts() if path.endswith(".py")}
    assert not {path: lines for path, lines in lengths.items() if lines > MOST_LINES}


def test_no_path_of_one_machine() -> None:
    offenders = [
        f"{path}:{number}: {line.strip()}"
        for path, text in repository_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not offenders, "\n".join(["", *offenders])


def test_no_assert_in_shipped_code() -> None:
    # Python -O removes an assert: a check of the compiler must raise.
    assert not _found(ast.Assert)


def test_no_shipped_code_runs_text_or_unpickles() -> None:
    offenders = []
    for path, tree in shipped().items():
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="eval" | "exec")):
                    offenders.append(f"{path}:{node.lineno} runs text")
                case ast.keyword(arg="allow_pickle", value=value):
                    if not (isinstance(value, ast.Constant) and value.value is False):
                        offenders.append(f"{path}:{value.lineno} allows pickles")
    unsafe = {"pickle", "marshal", "shelve", "dill", "joblib", "yaml"}
    offenders += [str(found) for found in imports() if found.top in unsafe]
    assert not offenders, "\n".join(["", *offenders])


def test_no_shipped_code_swallows_every_error() -> None:
    offenders = []
    for path, tree in shipped().items():
        for node in ast.walk(tree):
            match node:
                case ast.ExceptHandler(
                    type=None | ast.Name(id="Exception" | "BaseException"), body=[ast.Pass()]
                ):
                    offenders.append(f"{path}:{node.lineno}")
    assert not offenders, "\n".join(["", *offenders])


def test_every_decision_record_is_numbered_and_titled() -> None:
    for file in sorted((ROOT / "docs" / "decisions").iterdir()):
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", file.name), file.name
        assert file.read_text(encoding="utf-8").startswith("# "), f"{file.name} has no title"


def _found(kind: type[ast.stmt]) -> list[str]:
    return [
        f"{path}:{node.lineno}"
        for path, tree in shipped().items()
        for node in ast.walk(tree)
        if isinstance(node, kind)
    ]


def test_the_machine_path_rule_finds_one(tmp_path: Path) -> None:
    assert MACHINE_PATH.search(f'open("{"/ro" + "ot/"}file")')
    assert not MACHINE_PATH.search("/proc/self/fd/3")
    assert not MACHINE_PATH.search("../shared")


def test_each_file_in_passes_registers_one_pass_of_its_name() -> None:
    found = {
        name: Path(inspect.getfile(cls)).stem
        for name, cls in registered_passes().items()
        if cls.__module__.startswith("hecompile.passes.")
    }
    files = {path.stem for path in (ROOT / "passes").glob("*.py")} - {"__init__"}
    assert {name.replace("-", "_") for name in found} == files
    assert all(name.replace("-", "_") == stem for name, stem in found.items())
