"""Who may import what: the direction rules of the architecture."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.sources import Import, imports, module_of, pyproject, shipped, within

# The side that runs bundles: folders and files, without what only the compiler needs.
RUNTIME = re.compile(
    r"hecompile/(__init__\.py|(runtime|bundle|access|ir)/.*|(preprocess|errors|files)(\.py|/.*))"
)
COMPILER_ONLY = {"hecompile/ir/graph.py"}
RUNTIME_MAY_IMPORT = {"numpy", "tenseal", "cryptography", "securesystemslib", "hecompile"}
# An extra of custodians whose policies ask for differential privacy: imported where it is used.
RUNTIME_EXTRA = {"opendp"}
BLOCKED = ("torch", "onnx", "onnxruntime", "onnxscript", "networkx", "opendp")

# A package, and the only files that may import it.
CONFINED = {
    "onnx": r"hecompile/frontend/",
    "torch": r"models/",
    "onnxscript": r"models/",
    "networkx": r"hecompile/ir/graph\.py",
    "opendp": r"hecompile/access/privacy\.py",
    "hecompile.passes": r"passes/",
    # The commands that train and demonstrate are the compiler's users, not its parts.
    "hecompile.models": r"models/|hecompile/cli(\.py|/)|hecompile/demo",
}
IMPORT_BLOCKED = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is not installed where bundles run", name=name)

BLOCKED = sys.argv[1].split(",")
sys.meta_path.insert(0, Blocker())
for name in sys.argv[2:]:
    importlib.import_module(name)
print(sorted({name.partition(".")[0] for name in sys.modules} & set(BLOCKED)))
"""


def runtime_files() -> list[str]:
    return [path for path in shipped() if RUNTIME.fullmatch(path) and path not in COMPILER_ONLY]


def listed(offenders: list[Import]) -> str:
    return "\n".join(["", *map(str, offenders)])


@pytest.mark.parametrize("package", CONFINED)
def test_package_is_imported_only_where_it_may_be(package: str) -> None:
    allowed = re.compile(CONFINED[package])
    offenders = [i for i in imports() if within(i.module, package) and not allowed.match(i.path)]
    assert not offenders, listed(offenders)


def test_commands_start_without_importing_models() -> None:
    offenders = [
        found
        for found in imports()
        if within(found.module, "hecompile.models")
        and found.path.startswith("hecompile/")
        and not found.deferred
    ]
    assert not offenders, listed(offenders)


def test_top_folders_are_never_imported_by_their_bare_names() -> None:
    offenders = [found for found in imports() if found.top in ("passes", "models", "tests")]
    assert not offenders, listed(offenders)


def test_runtime_side_imports_only_what_a_hospital_installs() -> None:
    files = set(runtime_files())
    allowed = RUNTIME_MAY_IMPORT | sys.stdlib_module_names
    offenders = [
        i
        for i in imports()
        if i.path in files and i.top not in allowed and not (i.top in RUNTIME_EXTRA and i.deferred)
    ]
    assert not offenders, listed(offenders)


def test_runtime_side_runs_without_the_compilers_packages(tmp_path: Path) -> None:
    modules = [module_of(path) for path in runtime_files()]
    assert "hecompile.errors" in modules
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_BLOCKED, ",".join(BLOCKED), *modules],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_imported_package_is_declared() -> None:
    project = pyproject()["project"]
    plain = {re.split(r"[\[<>=! ]", text)[0] for text in project["dependencies"]}
    train = {"torch", "onnxscript"}
    # Used where they are installed; asked for by name where they are not.
    optional = {"onnxruntime", *RUNTIME_EXTRA}
    offenders = [
        found
        for found in imports()
        if found.top not in plain | {"hecompile", "__future__"} | sys.stdlib_module_names
        and not (found.top in train and found.path.startswith("models/"))
        and not (found.top in optional and found.deferred)
    ]
    assert not offenders, listed(offenders)
