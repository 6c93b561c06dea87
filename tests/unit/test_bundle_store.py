"""Bundles: written whole, opened only if every byte is as signed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from hecompile.access.manifest import Signers
from hecompile.access.manifest_json import PREDICATE_PREFIX
from hecompile.access.records import canonical_json
from hecompile.access.signing import sign, verify_signed
from hecompile.bundle import store
from hecompile.bundle.store import (
    NotABundleError,
    check_destination,
    open_bundle_files,
    write_bundle,
)
from hecompile.errors import HecompileError, InputError, IntegrityError
from tests.unit.manifests import FILES, KEY, MANIFEST, OTHER, TRUSTED, resign, write


@pytest.fixture(params=["demo", "demo.hec"])
def bundle(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / str(request.param)
    write(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "demo"
    write(path)
    return path


def refuse(path: Path, *words: str, error: type[HecompileError] = IntegrityError) -> None:
    with pytest.raises(error) as caught:
        open_bundle_files(path, TRUSTED)
    message = str(caught.value).replace(str(path), "BUNDLE")
    assert "\n" not in message
    for word in words:
        assert word in message


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_round_trip(bundle: Path) -> None:
    opened = open_bundle_files(bundle, TRUSTED)
    assert {name: opened.read(name) for name in FILES} == FILES
    assert [entry.name for entry in opened.manifest.files] == sorted(FILES)
    assert opened.manifest.signers.keyids == (KEY.keyid,)
    signers = MANIFEST.signers
    assert dataclasses.replace(opened.manifest, files=(), signers=signers) == MANIFEST
    assert opened.users is not None
    assert [user.name for user in opened.users.users] == ["cloud", "owner"]
    assert names(bundle.parent) == [bundle.name]
    with pytest.raises(InputError, match="no file server/none"):
        opened.read("server/none")


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.hec", tmp_path / "b.hec"
    manifest = write_bundle(first, FILES, MANIFEST, KEY)
    again = write_bundle(second, dict(reversed(FILES.items())), MANIFEST, KEY)
    assert first.read_bytes() == second.read_bytes()
    assert manifest.digest == again.digest


def test_a_removed_file(folder: Path) -> None:
    for name in FILES:
        whole = (folder / name).read_bytes()
        (folder / name).unlink()
        refuse(folder)
        (folder / name).write_bytes(whole)
    (folder / "server" / "program.hir").unlink()
    refuse(folder, "lacks file server/program.hir")
    (folder / "manifest.json").unlink()
    refuse(folder, "not a bundle", "manifest.json", error=NotABundleError)


@pytest.mark.parametrize(
    "extra", ["extra.txt", "server/sitecustomize.py", ".hidden", "server/__pycache__/a.pyc"]
)
def test_an_extra_file(folder: Path, extra: str) -> None:
    (folder / extra).parent.mkdir(exist_ok=True)
    (folder / extra).write_text("import os")
    refuse(folder, extra)


def test_an_extra_empty_folder(folder: Path) -> None:
    (folder / "server" / "more").mkdir()
    refuse(folder, "server/more")


@pytest.mark.parametrize("name", ["report.json", "server", "manifest.json"])
def test_links_are_refused_even_to_equal_content(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    refuse(folder, "symbolic link", name)


def test_special_files_are_refused(folder: Path) -> None:
    (folder / "report.json").unlink()
    os.mkfifo(folder / "report.json")
    refuse(folder, "report.json", "not a plain file")


def test_a_folder_in_the_place_of_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()
    (folder / "manifest.json" / "x").write_text("")
    refuse(folder, error=NotABundleError)


def test_a_forged_manifest_signed_with_an_unknown_key(folder: Path) -> None:
    signers = Signers(1, (OTHER.keyid,))
    resign(folder, OTHER, program="evil", signers=signers)
    refuse(folder, OTHER.keyid, "not trusted", "--trust PUBLIC_KEY.pem")
    (folder / "users.json").unlink()
    assert open_bundle_files(folder, (OTHER.public_key,)).manifest.program == "evil"


def test_no_trusted_key_opens_nothing(bundle: Path) -> None:
    with pytest.raises(IntegrityError, match="not trusted"):
        open_bundle_files(bundle, ())


def test_a_manifest_of_another_bundle(folder: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(MANIFEST, lineage="f" * 32)
    write_bundle(tmp_path / "other", {"a": b"a"}, other, KEY)
    shutil.copy(tmp_path / "other" / "manifest.json", folder)
    refuse(folder)


@pytest.mark.parametrize(("number", "remedy"), [(1, "compile"), (3, "upgrade hecompile")])
def test_another_format(folder: Path, number: int, remedy: str) -> None:
    statement = json.loads(verify_signed((folder / "manifest.json").read_bytes(), TRUSTED).payload)
    statement["predicate"]["format"] = number
    statement["predicateType"] = f"{PREDICATE_PREFIX}{number}"
    (folder / "manifest.json").write_bytes(sign(canonical_json(statement), KEY))
    refuse(folder, "bundle BUNDLE", f"format {number}", remedy)


def test_a_file_changed_after_opening_is_not_returned(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_CACHE_BYTES", 100)
    opened = open_bundle_files(bundle, TRUSTED)
    assert opened.read("client/spec.json") == FILES["client/spec.json"]
    changed = {name: data[::-1] for name, data in FILES.items()}
    changed["server/constants.npz"] += b"more"
    write_bundle(bundle, changed, MANIFEST, KEY, overwrite=True)
    assert opened.read("client/spec.json") == FILES["client/spec.json"]
    for name in ("server/program.hir", "server/constants.npz"):
        with pytest.raises(IntegrityError, match=name):
            opened.read(name)
    shutil.rmtree(bundle) if bundle.is_dir() else bundle.unlink()
    with pytest.raises(IntegrityError, match=r"server/program\.hir"):
        opened.read("server/program.hir")


def test_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.hec").write_text("hello")
    (tmp_path / "nothing.hec").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "zip.hec", "w"):
        pass
    for name in ("none", "empty", "text.hec", "nothing.hec", "zip.hec"):
        refuse(tmp_path / name, "BUNDLE", error=NotABundleError)
    assert issubclass(NotABundleError, InputError)


def test_an_existing_bundle_is_replaced_only_on_request(bundle: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        write_bundle(bundle, {"a": b"a"}, MANIFEST, KEY)
    other = dataclasses.replace(MANIFEST, lineage="f" * 32)
    write_bundle(bundle, {"a": b"a"}, other, OTHER, overwrite=True)
    assert open_bundle_files(bundle, (OTHER.public_key,)).read("a") == b"a"
    assert names(bundle.parent) == [bundle.name]


@pytest.mark.parametrize("what", ["folder", "file", "link", "foreign manifest", "notes", "form"])
def test_nothing_but_a_bundle_is_ever_overwritten(tmp_path: Path, what: str) -> None:
    path = tmp_path / "out"
    write(tmp_path / "real")
    if what == "folder":
        path.mkdir()
    elif what == "file":
        path.write_text("my thesis")
    elif what == "link":
        path.symlink_to(tmp_path / "real")
    elif what == "foreign manifest":
        path.mkdir()
        (path / "manifest.json").write_text('{"name": "my web page"}')
    elif what == "notes":
        shutil.copytree(tmp_path / "real", path)
        (path / "notes.txt").write_text("mine")
    else:
        path = tmp_path / "out.hec"
        shutil.copytree(tmp_path / "real", path)
    for refused in (check_destination, lambda *args: write(args[0])):
        with pytest.raises(InputError):
            refused(path, True)
    with pytest.raises(InputError):
        write_bundle(path, FILES, MANIFEST, KEY, overwrite=True)
    assert os.path.lexists(path)
    open_bundle_files(tmp_path / "real", TRUSTED)


@pytest.mark.parametrize("name", ["demo", "demo.hec"])
def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / name)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["demo", "demo.hec"])
def test_an_interrupted_replacement_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(tmp_path / name)

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_bundle(tmp_path / name, {"a": b"a"}, MANIFEST, KEY, overwrite=True)
    assert open_bundle_files(tmp_path / name, TRUSTED).read("report.json") == b""
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["../evil", "/evil", "manifest.json", "a/.b"])
def test_writing_odd_names_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot hold"):
        write_bundle(tmp_path / "demo", {name: b""}, MANIFEST, KEY)
    assert names(tmp_path) == []


def test_a_manifest_that_could_not_be_opened_is_not_written(tmp_path: Path) -> None:
    manifest = dataclasses.replace(MANIFEST, galois_steps=(3, 1))
    with pytest.raises(IntegrityError, match="galois_steps"):
        write_bundle(tmp_path / "demo", FILES, manifest, KEY)
    with pytest.raises(IntegrityError, match="once"):
        write_bundle(tmp_path / "demo", {"a": b"", "A": b""}, MANIFEST, KEY)
    assert names(tmp_path) == []


def test_a_missing_parent_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        check_destination(tmp_path / "none" / "demo")


def test_files_are_readable_by_others_as_usual(folder: Path) -> None:
    assert (folder / "manifest.json").stat().st_mode & 0o400
    assert not (folder / "manifest.json").stat().st_mode & 0o022
