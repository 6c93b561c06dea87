"""Bundles with and without the part of the model's owner."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from hecompile.access.policy import single_owner_policy
from hecompile.access.users import sign_users
from hecompile.bundle.store import BundleFiles, export_bundle, open_bundle_files, write_bundle
from hecompile.errors import InputError, IntegrityError
from tests.unit.manifests import FILES, KEY, MANIFEST, TRUSTED, make_users

OWNED = {**FILES, "owner/constants.npz": b"weights " * 9}
POLICY = single_owner_policy(["x"], ["y"], encrypted_model=True)
USERS = sign_users(make_users(POLICY), KEY)


@pytest.fixture(params=["whole", "whole.hec"])
def whole(tmp_path: Path, request: pytest.FixtureRequest) -> BundleFiles:
    path = tmp_path / str(request.param)
    write_bundle(path, OWNED, dataclasses.replace(MANIFEST, policy=POLICY), KEY, users=USERS)
    return open_bundle_files(path, TRUSTED)


@pytest.mark.parametrize("name", ["copy", "copy.hec"])
def test_a_copy_lacks_the_owners_part_and_is_the_same_bundle(
    whole: BundleFiles, tmp_path: Path, name: str
) -> None:
    assert export_bundle(whole, tmp_path / name) == ["owner/constants.npz"]
    copy = open_bundle_files(tmp_path / name, TRUSTED)
    assert copy.manifest == whole.manifest
    assert copy.manifest.digest == whole.manifest.digest
    assert copy.users == whole.users is not None
    assert {n: copy.read(n) for n in FILES} == FILES
    assert whole.read("owner/constants.npz") == OWNED["owner/constants.npz"]
    with pytest.raises(InputError, match="exported without its owner's part"):
        copy.read("owner/constants.npz")
    if not name.endswith(".hec"):
        assert not (tmp_path / name / "owner").exists()


def test_a_copy_of_a_copy_and_of_a_plain_bundle(whole: BundleFiles, tmp_path: Path) -> None:
    export_bundle(whole, tmp_path / "first")
    again = export_bundle(open_bundle_files(tmp_path / "first", TRUSTED), tmp_path / "second")
    assert again == ["owner/constants.npz"]
    other = dataclasses.replace(MANIFEST, lineage="f" * 32)
    write_bundle(tmp_path / "plain", FILES, other, KEY)
    assert export_bundle(open_bundle_files(tmp_path / "plain", TRUSTED), tmp_path / "third") == []


def test_only_the_whole_part_may_be_missing(tmp_path: Path) -> None:
    files = {**OWNED, "owner/second": b"2"}
    write_bundle(tmp_path / "b", files, dataclasses.replace(MANIFEST, policy=POLICY), KEY)
    (tmp_path / "b" / "owner" / "second").unlink()
    with pytest.raises(IntegrityError, match="lacks file owner/second"):
        open_bundle_files(tmp_path / "b", TRUSTED)
    shutil.rmtree(tmp_path / "b" / "owner")
    open_bundle_files(tmp_path / "b", TRUSTED)
    (tmp_path / "b" / "client" / "spec.json").unlink()
    (tmp_path / "b" / "client").rmdir()
    with pytest.raises(IntegrityError, match=r"lacks file client/spec\.json"):
        open_bundle_files(tmp_path / "b", TRUSTED)


def test_a_forged_owners_part_is_refused(whole: BundleFiles, tmp_path: Path) -> None:
    export_bundle(whole, tmp_path / "copy")
    (tmp_path / "copy" / "owner").mkdir()
    (tmp_path / "copy" / "owner" / "constants.npz").write_bytes(b"others! " * 9)
    with pytest.raises(IntegrityError, match="was changed"):
        open_bundle_files(tmp_path / "copy", TRUSTED)


def test_a_taken_place_is_kept(whole: BundleFiles, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="exists already"):
        export_bundle(whole, tmp_path / "taken")
