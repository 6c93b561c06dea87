"""The packaging map: what pyproject.toml lists is what the folders hold, imported once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.sources import FOLDERS, ROOT, module_of, pyproject, walk

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
import hecompile, hecompile.passes
for info in pkgutil.walk_packages(hecompile.passes.__path__, "hecompile.passes."):
    importlib.import_module(info.name)
import hecompile.models
files = {name: module.__file__ for name, module in sys.modules.items()
         if name.partition(".")[0] in ("hecompile", "passes", "models")}
print(json.dumps(files))
"""


def test_packages_listed_are_the_packages_found() -> None:
    found = {
        module_of(file.relative_to(ROOT).as_posix())
        for folder in FOLDERS.values()
        for file in walk(ROOT / folder)
        if file.name == "__init__.py"
    }
    assert sorted(pyproject()["tool"]["setuptools"]["packages"]) == sorted(found)


def test_every_folder_with_modules_is_a_package() -> None:
    bare = {
        file.parent.relative_to(ROOT).as_posix()
        for folder in FOLDERS.values()
        for file in walk(ROOT / folder)
        if file.suffix == ".py" and not (file.parent / "__init__.py").exists()
    }
    assert not bare, "these folders hold modules but no __init__.py"


def test_package_map_names_the_top_folders() -> None:
    assert pyproject()["tool"]["setuptools"]["package-dir"] == FOLDERS


def test_links_point_to_the_top_folders() -> None:
    for name in ("passes", "models"):
        link = ROOT / "hecompile" / name
        assert link.is_symlink(), f"hecompile/{name} is not a symbolic link"
        assert link.readlink() == Path("..") / name


@pytest.mark.parametrize("where", ["elsewhere", "root"])
def test_folders_are_imported_once_from_the_top(where: str, tmp_path: Path) -> None:
    # Elsewhere the installed map decides; in the root, Python finds the folder and its links.
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING],
        cwd=ROOT if where == "root" else tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files: dict[str, str] = json.loads(done.stdout)
    assert Path(files["hecompile.passes"]).resolve() == ROOT / "passes" / "__init__.py"
    assert Path(files["hecompile.models"]).resolve() == ROOT / "models" / "__init__.py"
    real = [Path(file).resolve() for file in files.values()]
    assert len(real) == len(set(real)), "a file was imported under two names"


def test_every_constraint_is_one_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for line in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
    names = [line.partition("==")[0].lower().replace("_", "-") for line in pins]
    assert names == sorted(set(names)), "sort the pins, each name once"


def test_every_declared_requirement_is_pinned() -> None:
    project = pyproject()["project"]
    declared = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        declared += extra
    names = {re.split(r"[\[<>=! ]", text)[0].lower() for text in declared} - {"hecompile"}
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    assert not {name for name in names if f"\n{name}==" not in text}
