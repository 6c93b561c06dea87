"""Identities: kept closed to others, never replaced, told clearly when absent."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hecompile.access.identity import (
    acting_identity,
    generate_identity,
    identity_path,
    load_identity,
    make_identity,
)
from hecompile.access.policy import single_owner_policy
from hecompile.access.users import parse_key_text, single_owner_users
from hecompile.errors import AccessDeniedError, InputError, IntegrityError


def test_an_identity_is_made_kept_and_loaded(hecompile_home: Path) -> None:
    made = make_identity("anna")
    path = hecompile_home / "identities" / "anna.pem"
    assert identity_path("anna") == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    found = load_identity("anna")
    assert (found.user, found.keyid, found.text) == ("anna", made.keyid, made.text)
    assert parse_key_text(found.text) == made.public_bytes
    assert len(made.public_bytes) == 32
    private = path.read_text().splitlines()[1]
    assert private not in repr(made)


def test_another_home(tmp_path: Path) -> None:
    made = make_identity("anna", tmp_path)
    assert load_identity("anna", tmp_path).keyid == made.keyid
    with pytest.raises(InputError, match="is not on this machine"):
        load_identity("anna")


def test_an_identity_is_never_replaced(hecompile_home: Path) -> None:
    made = make_identity("anna")
    with pytest.raises(InputError, match=r"has an identity already .* is not replaced"):
        make_identity("anna")
    assert load_identity("anna").keyid == made.keyid
    assert list((hecompile_home / "identities").iterdir()) == [identity_path("anna")]


def test_a_missing_identity_names_the_remedy() -> None:
    with pytest.raises(InputError, match="hecompile identity new anna"):
        load_identity("anna")


@pytest.mark.parametrize(
    "user", ["", " anna", "../anna", "a/b", "a\\b", ".anna", "..", "a\0b", "a\nb", "x" * 129]
)
def test_names_that_lead_elsewhere_are_refused(user: str, hecompile_home: Path) -> None:
    for act in (identity_path, load_identity, make_identity):
        with pytest.raises(InputError, match="cannot name an identity"):
            act(user)
    assert not list(hecompile_home.rglob("*.pem"))


def test_a_name_too_long_for_the_disk_has_no_identity() -> None:
    name = "é" * 128
    with pytest.raises(InputError):
        load_identity(name)


def test_files_that_others_may_read_and_other_keys_are_refused() -> None:
    make_identity("anna")
    path = identity_path("anna")
    path.chmod(0o640)
    with pytest.raises(IntegrityError, match="chmod 600"):
        load_identity("anna")
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(InputError, match="is not an unencrypted private key"):
        load_identity("anna")


def test_nothing_half_written_stays_where_it_cannot_be_written(hecompile_home: Path) -> None:
    folder = hecompile_home / "identities"
    folder.write_text("in the way")
    with pytest.raises(InputError):
        make_identity("anna")
    assert list(hecompile_home.iterdir()) == [folder]


def test_whoever_makes_an_identity_of_a_users_name_is_not_that_user(tmp_path: Path) -> None:
    policy = single_owner_policy(["x"], ["y"])
    owner = make_identity("owner", tmp_path)
    users = single_owner_users(policy, {"owner": owner.public_bytes})
    assert acting_identity("owner", users, tmp_path).keyid == owner.keyid
    # Another machine, another key, the same name.
    make_identity("owner")
    with pytest.raises(AccessDeniedError, match="another key for user 'owner'"):
        acting_identity("owner", users)
    make_identity("cloud")
    with pytest.raises(AccessDeniedError, match=r"no key for user 'cloud'.*identity show cloud"):
        acting_identity("cloud", users)
    with pytest.raises(AccessDeniedError, match="'owner' is not on this machine"):
        acting_identity("owner", users, tmp_path / "third")
    identity_path("owner", tmp_path).chmod(0o644)
    with pytest.raises(AccessDeniedError, match="chmod 600"):
        acting_identity("owner", users, tmp_path)
    make_identity("eve")
    with pytest.raises(AccessDeniedError, match="'eve' is not in the users document"):
        acting_identity("eve", users)
    with pytest.raises(AccessDeniedError, match="'owner' is not in the users document"):
        acting_identity("owner", None, tmp_path)


def test_generated_identities_differ() -> None:
    assert generate_identity("a").keyid != generate_identity("a").keyid
