"""The secret key in folders of client and evaluator: found wherever it hides."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hecompile.errors import IntegrityError
from hecompile.runtime.keycard import KeyCard, Role
from hecompile.runtime.keys import write_keys
from hecompile.runtime.secret_search import check_handed_over
from tests.encrypted.runtime_programs import SMALL

HANDED = (Role.PUBLIC, Role.EVALUATION)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a small ring: nothing is computed with them."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HECOMPILE_HOME", str(folder / "home"))
        write_keys(folder / "keys", SMALL, (1,), "a" * 64)
    return folder / "keys"


def inside(keys: Path) -> None:
    shutil.copytree(keys.parent / "secret", keys / "a" / "sub")


def loose(keys: Path) -> None:
    shutil.copy(keys.parent / "secret" / "secret.key", keys / "Secret.KEY")


def card_alone(keys: Path) -> None:
    (keys / "kept").mkdir()
    shutil.copy(keys.parent / "secret" / KeyCard.FILE, keys / "kept" / KeyCard.FILE)


def linked(keys: Path) -> None:
    (keys / "link").symlink_to(keys.parent / "secret")


def around(keys: Path) -> None:
    shutil.copy(keys.parent / "secret" / "secret.key", keys.with_name("secret.key"))


def renamed_sibling(keys: Path) -> None:
    shutil.copytree(keys.parent / "secret", keys.with_name("other"))


@pytest.mark.parametrize("role", HANDED)
@pytest.mark.parametrize("attack", [inside, loose, card_alone, linked, around, renamed_sibling])
def test_the_secret_key_is_found_wherever_it_hides(
    made: Path, tmp_path: Path, attack: Callable[[Path], None], role: Role
) -> None:
    shutil.copytree(made / role.value, tmp_path / "given" / role.value)
    shutil.copytree(made / "secret", tmp_path / "given" / "secret")
    place = tmp_path / "given" / role.value
    attack(place)
    shutil.move(tmp_path / "given" / "secret", tmp_path / "elsewhere")
    if attack is linked:
        (place / "link").unlink()
        (place / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="the secret key lies in"):
        check_handed_over(place, role)
    shutil.rmtree(tmp_path / "given")
    shutil.copytree(made / role.value, place)
    check_handed_over(place, role)
    check_handed_over(place.parent, role)


def test_a_folder_too_full_to_look_through_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "public"
    place.mkdir()
    monkeypatch.setattr("hecompile.runtime.secret_search.MAX_ENTRIES", 50)
    for number in range(60):
        if number == 40:
            check_handed_over(place, Role.PUBLIC)
        (place / str(number)).touch()
    with pytest.raises(IntegrityError, match="too many to see"):
        check_handed_over(place, Role.PUBLIC)


def test_the_search_ends_where_links_go_in_circles(made: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(made / "public", tmp_path / "given" / "public"))
    (place / "again").symlink_to(place)
    check_handed_over(place, Role.PUBLIC)
