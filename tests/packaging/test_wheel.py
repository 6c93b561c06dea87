"""Build the source archive and, from it, the wheel; look at what is inside."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.sources import FOLDERS, ROOT, pyproject, shipped, walk

BUILD = (
    "from setuptools import build_meta; import sys; getattr(build_meta, sys.argv[1])(sys.argv[2])"
)
LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "dist", "*.egg-info", "demo-out", "bench-out"
)


def build(what: str, source: Path, target: Path) -> Path:
    """Run one hook of the build backend, without a network, and return the file it made."""
    target.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(target)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, base / "source", symlinks=True, ignore=LEFT_OUT)
    return build("build_sdist", base / "source", base / "out")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(base, filter="data")
    (source,) = base.iterdir()
    return build("build_wheel", source, base / "out")


def wheel_path(path: str) -> str:
    """Where a file of the repository lands in the wheel."""
    top, _, rest = path.partition("/")
    package = next(name for name, folder in FOLDERS.items() if folder == top)
    return f"{package.replace('.', '/')}/{rest}"


def test_wheel_holds_every_module_as_a_regular_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        modules = {info.filename: info for info in archive.infolist()}
    expected = {wheel_path(path) for path in shipped()}
    assert expected == {name for name in modules if name.endswith(".py")}
    for name in expected:
        assert (modules[name].external_attr >> 16) & 0o170000 in (0, 0o100000), f"{name} is a link"


def test_wheel_holds_the_data_and_the_type_marker(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "hecompile/py.typed",
        "hecompile/demo_policy.toml",
        "hecompile/demo_users.toml",
    } <= names
    data = ROOT / "models" / "data"
    if data.is_dir():
        files = {file.relative_to(ROOT).as_posix() for file in walk(data)}
        assert {wheel_path(file) for file in files} <= names


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
        assert tops == {"hecompile", f"hecompile-{_version(wheel)}.dist-info"}
        points = archive.read(f"hecompile-{_version(wheel)}.dist-info/entry_points.txt").decode()
        licence = f"hecompile-{_version(wheel)}.dist-info/licenses/LICENSE"
        assert licence in archive.namelist()
    assert "hecompile = hecompile.cli:main" in points
    assert "hecompile-evaluator = hecompile.cli.parties_cli:evaluator" in points
    assert "builtin = hecompile.passes" in points


def test_sdist_holds_each_file_once(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2]: archive.getmember(name) for name in archive.getnames()}
    assert not [
        name for name in members if name.startswith(("hecompile/passes", "hecompile/models"))
    ]
    assert not [name for name, member in members.items() if member.issym() or member.islnk()]
    for name in (*shipped(), "LICENSE", "Makefile", "constraints.txt", "tests/conftest.py"):
        assert name in members, f"the source archive lacks {name}"


def test_extras_keep_the_plain_install_light() -> None:
    plain = " ".join(pyproject()["project"]["dependencies"])
    assert "torch" not in plain
    assert "onnxruntime" not in plain


def _version(wheel: Path) -> str:
    return wheel.name.split("-")[1]
