"""No byte of a bundle can be changed, exchanged, added or left out; SEAL never sees one."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tenseal.sealapi as seal

from hecompile.bundle.store import open_bundle_files
from hecompile.errors import HecompileError, IntegrityError
from tests.unit.manifests import FILES, TRUSTED, write

SMALL = 8192
SAMPLED = 400
NAMES = (*FILES, "manifest.json", "users.json")
LOADERS = ("Ciphertext", "Plaintext", "PublicKey", "SecretKey", "RelinKeys", "GaloisKeys")


@pytest.fixture(autouse=True)
def sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reaches SEAL fails the test."""

    def touched(*_args: object) -> None:
        raise AssertionError("SEAL was called")

    for name in LOADERS:
        monkeypatch.setattr(getattr(seal, name), "load", touched)
    monkeypatch.setattr(seal, "SEALContext", touched)


def positions(length: int, small: int = SMALL) -> Iterator[int]:
    """Every position of a small file, random ones of a larger one, and both ends."""
    if length <= small:
        yield from range(length)
        return
    yield from (0, length - 1)
    yield from map(int, np.random.default_rng(7).integers(length, size=SAMPLED))


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(path: Path) -> str:
    with pytest.raises(HecompileError) as caught:
        open_bundle_files(path, TRUSTED)
    told = str(caught.value)
    assert "\n" not in told
    return told


@pytest.mark.parametrize("name", NAMES)
def test_every_changed_byte_of_every_file_is_refused(
    tmp_path: Path, hecompile_home: Path, name: str
) -> None:
    folder = tmp_path / "demo"
    write(folder)
    whole = (folder / name).read_bytes()
    for position in positions(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << (position % 8)
        (folder / name).write_bytes(changed)
        assert name in refused(folder)
    for other in (whole + b"\n", whole[:-1] if whole else b"x", b""):
        if other != whole:
            (folder / name).write_bytes(other)
            refused(folder)
    assert list(hecompile_home.iterdir()) == []
    (folder / name).write_bytes(whole)
    open_bundle_files(folder, TRUSTED)


def test_a_changed_byte_of_the_one_file_is_refused_or_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "demo.hec"
    write(path)
    whole = path.read_bytes()
    signed = open_bundle_files(path, TRUSTED)
    refusals = 0
    for position in positions(len(whole), 0):
        changed = bytearray(whole)
        changed[position] ^= 1 << (position % 8)
        path.write_bytes(changed)
        try:
            opened = open_bundle_files(path, TRUSTED)
        except HecompileError:
            refusals += 1
            continue
        # Zip states some facts of an entry twice, and only one of the two is read.
        assert opened.opening == signed.opening
        assert {name: opened.read(name) for name in FILES} == FILES
    assert refusals > SAMPLED / 2


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("second", NAMES)
def test_exchanged_files_are_refused(tmp_path: Path, first: str, second: str) -> None:
    folder = tmp_path / "demo"
    write(folder)
    contents = everything(folder)
    if contents[first] == contents[second]:
        return
    (folder / first).write_bytes(contents[second])
    (folder / second).write_bytes(contents[first])
    refused(folder)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / "demo")
    (tmp_path / "demo" / name).unlink()
    refused(tmp_path / "demo")
    write(tmp_path / "demo.hec")
    with zipfile.ZipFile(tmp_path / "demo.hec") as old:
        kept = [(info, old.read(info)) for info in old.infolist() if info.filename != name]
    with zipfile.ZipFile(tmp_path / "demo.hec", "w") as new:
        for info, data in kept:
            new.writestr(info, data, info.compress_type)
    refused(tmp_path / "demo.hec")


def test_nothing_is_written_where_a_bundle_is_refused(tmp_path: Path, hecompile_home: Path) -> None:
    for name in ("demo", "demo.hec"):
        write(tmp_path / name)
    (tmp_path / "demo" / "server" / "program.hir").write_bytes(b"")
    (tmp_path / "demo.hec").write_bytes((tmp_path / "demo.hec").read_bytes()[:-1])
    before = everything(tmp_path)
    for name in ("demo", "demo.hec"):
        with pytest.raises(IntegrityError):
            open_bundle_files(tmp_path / name, TRUSTED)
    assert everything(tmp_path) == before
    assert list(hecompile_home.iterdir()) == []


def test_parts_of_two_bundles_do_not_mix(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write(folder)
    shutil.copytree(folder, tmp_path / "mixed")
    (tmp_path / "mixed" / "server" / "constants.npz").write_bytes(b"others'")
    assert "constants.npz" in refused(tmp_path / "mixed")
