"""Damaged bundles are refused, or hold exactly what was signed."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from hecompile.access.signing import SigningKey
from hecompile.bundle.store import BundleFiles, open_bundle_files
from hecompile.cli import main
from hecompile.errors import HecompileError
from tests.differential.damage import damaged_bytes, within
from tests.encrypted.compiled_models import compile_tiny, square_mlp

SECONDS = 10.0
KEY = SigningKey.generate()
TRUSTED = (KEY.public_key,)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same bundle twice, as a folder and as one file, and its signer's key."""
    place = tmp_path_factory.mktemp("bundles")
    compiled = compile_tiny(square_mlp(layers=(4, 3, 2)))
    for name in ("b", "b.hec"):
        compiled.save(place / name, signing_key=KEY)
    (place / "signer.pub").write_bytes(KEY.public_key.pem)
    return place


def contents(files: BundleFiles) -> tuple[object, ...]:
    """All that a bundle says, but for its users."""
    read = {entry.name: files.read(entry.name) for entry in files.manifest.files}
    return files.manifest, tuple(sorted(read.items()))


def harm(place: Path, random: np.random.Generator) -> None:
    """Damage the one file, or a file of the folder; now and then take away, add or exchange."""
    if place.is_file():
        place.write_bytes(damaged_bytes(place.read_bytes(), random))
        return
    files = sorted(path for path in place.rglob("*") if path.is_file())
    one, other = (files[int(random.integers(len(files)))] for _ in range(2))
    match int(random.integers(6)):
        case 0:
            one.unlink()
        case 1:
            shutil.copy(one, one.with_name("more"))
        case 2:
            other.write_bytes(one.read_bytes())
        case _:
            one.write_bytes(damaged_bytes(one.read_bytes(), random))


def outcome(place: Path, signed: tuple[object, ...]) -> str:
    """What becomes of a bundle; an assertion fails if that is not allowed."""
    try:
        opened = open_bundle_files(place, TRUSTED)
        found = contents(opened)
    except HecompileError as error:
        told = str(error)
        assert told
        assert "Traceback" not in told
        assert "\n" not in told, told
        return "refused"
    assert found == signed
    if opened.users is None:
        # The users document was taken away, so that nobody may do anything.
        assert not (place / "users.json").exists()
        return "locked"
    assert {user.name for user in opened.users.users} == {"owner", "cloud"}
    return "as signed"


def check_many(built: Path, name: str, count: int, number: int) -> Counter[str]:
    signed = contents(open_bundle_files(built / name, TRUSTED))
    place = built / f"damaged-{name}"
    found: Counter[str] = Counter()

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32 - 1))
    def check(choice: int) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.unlink(missing_ok=True)
        copy = shutil.copytree if (built / name).is_dir() else shutil.copy
        copy(built / name, place)
        harm(place, np.random.default_rng(choice))
        with within(SECONDS):
            found[outcome(place, signed)] += 1

    check()
    print(dict(found))
    return found


def test_a_changed_byte_in_every_file_of_a_compiled_bundle(built: Path) -> None:
    random = np.random.default_rng(5)
    place = built / "one-byte"
    shutil.copytree(built / "b", place)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    assert len(files) >= 6
    for path in files:
        whole = path.read_bytes()
        for position in (0, len(whole) - 1, *map(int, random.integers(len(whole), size=30))):
            changed = bytearray(whole)
            changed[position] ^= 1 << int(random.integers(8))
            path.write_bytes(changed)
            with pytest.raises(HecompileError, match=path.name):
                open_bundle_files(place, TRUSTED)
        path.write_bytes(whole)
    open_bundle_files(place, TRUSTED)


@pytest.mark.parametrize("name", ["b", "b.hec"])
def test_damaged_bundles(built: Path, name: str) -> None:
    assert check_many(built, name, 400, 0)["refused"] >= 300


@pytest.mark.slow
@pytest.mark.parametrize("name", ["b", "b.hec"])
@pytest.mark.parametrize("number", range(1, 6))
def test_many_damaged_bundles(built: Path, name: str, number: int) -> None:
    check_many(built, name, 4000, number)


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("name", ["b", "b.hec"])
def test_damaged_bundles_by_the_command_line(
    built: Path, name: str, number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / name
    copy = shutil.copytree if (built / name).is_dir() else shutil.copy
    copy(built / name, place)
    harm(place, np.random.default_rng(number))
    code = main(["inspect", str(place), "--trust", str(built / "signer.pub")])
    told = capsys.readouterr().err
    assert code in (0, 1, 4)
    assert "internal error" not in told
    assert (code > 0) == ("error: " in told)
