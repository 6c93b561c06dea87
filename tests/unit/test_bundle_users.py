"""The users document of a bundle: signed by who may, for its policy, never rolled back."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hecompile.access.manifest import Signers, superseding
from hecompile.access.policy import KEY_SECRET, Action, Permission, Role
from hecompile.access.signing import (
    TrustedKeys,
    parse_envelope,
    sign,
)
from hecompile.access.terms import Constraint
from hecompile.access.users import USERS_PAYLOAD_TYPE, UserEntry, sign_users
from hecompile.bundle.review import add_signature
from hecompile.bundle.store import (
    BundleFiles,
    export_bundle,
    install_users,
    open_bundle_files,
)
from hecompile.errors import InputError, IntegrityError
from tests.unit.manifests import (
    BOTH,
    FILES,
    KEY,
    MANIFEST,
    OTHER,
    THIRD,
    TRUSTED,
    TWO,
    TWO_OF_TWO,
    USERS,
    USERS_BY_TWO,
    make_users,
    refuse,
    resign,
    write,
)


@pytest.fixture(params=["demo", "demo.hec"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return tmp_path / str(request.param)


def install(path: Path, signed: bytes) -> BundleFiles:
    install_users(path, signed)
    return open_bundle_files(path, TRUSTED)


def test_users_are_exchanged_alone_and_never_rolled_back(place: Path) -> None:
    write(place)
    assert open_bundle_files(place, TRUSTED).users == make_users()
    newer = make_users(version=2, users=(UserEntry("ann", ("owner",)),))
    opened = install(place, sign_users(newer, KEY))
    assert opened.users == newer
    assert {name: opened.read(name) for name in FILES} == FILES
    install_users(place, USERS)
    refuse(place, "the users document has version 1, but version 2 was seen here")
    install_users(place, sign_users(make_users(version=2), KEY))
    refuse(place, "another users document of version 2")


def test_a_bundle_without_users_opens_and_lets_nobody_in(place: Path) -> None:
    write(place, users=None)
    assert open_bundle_files(place, TRUSTED).users is None


def test_users_of_another_policy_are_refused(tmp_path: Path) -> None:
    policy = dataclasses.replace(MANIFEST.policy, envelope_seconds=60)
    write(tmp_path / "demo", users=sign_users(make_users(policy), KEY))
    refuse(tmp_path / "demo", "for the policy")


def test_unsigned_users_and_such_signed_by_others_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write(folder, users=sign_users(make_users(), OTHER))
    refuse(folder, "not trusted here")
    refuse(folder, "not trusted here", BOTH)
    payload = parse_envelope(USERS, "users.json", USERS_PAYLOAD_TYPE).payload
    for data in (payload, b"{}", b"", sign(payload, KEY), USERS.replace(KEY.keyid.encode(), b"")):
        (folder / "users.json").write_bytes(data)
        refuse(folder, r"users\.json")
    with pytest.raises(IntegrityError, match="not a signed document"):
        install_users(folder, payload)


def test_a_manifest_is_no_users_document_and_the_other_way_round(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write(folder)
    manifest = (folder / "manifest.json").read_bytes()
    (folder / "users.json").write_bytes(manifest)
    refuse(folder, r"users\.json is not a signed document")
    (folder / "manifest.json").write_bytes(USERS)
    refuse(folder, r"manifest\.json of bundle .* is not a signed document")


def test_several_signers_sign_users_too(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write(folder, TWO, users=USERS)
    add_signature(folder, OTHER, BOTH)
    refuse(folder, "users.json has 1 of the 2 signatures", BOTH)
    # The one in the bundle lacks a signature; given beside it, the whole one counts.
    assert open_bundle_files(folder, BOTH, users=USERS_BY_TWO).users == make_users()
    install_users(folder, USERS_BY_TWO)
    assert open_bundle_files(folder, BOTH).users == make_users()


def test_a_delegate_signs_users_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    signers = dataclasses.replace(TWO_OF_TWO, users=(THIRD.keyid,))
    write(
        folder,
        dataclasses.replace(MANIFEST, signers=signers),
        users=sign_users(make_users(), THIRD),
    )
    add_signature(folder, OTHER, BOTH)
    refuse(folder, "which is not trusted here", BOTH)
    trusted = TrustedKeys(BOTH, 2, delegates=[THIRD.public_key])
    assert open_bundle_files(folder, trusted).users == make_users()
    install_users(folder, USERS_BY_TWO)
    refuse(folder, "which is not trusted here", trusted)
    resign(folder, THIRD)
    refuse(folder, r"manifest\.json .* not trusted here", trusted)


def test_users_are_valid_in_their_time_alone(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write(folder, users=sign_users(make_users(not_after="2025-03-01T00:00:00Z"), KEY))
    refuse(folder, r"users document \(version 1\) expired at 2025-03-01")
    open_bundle_files(folder, TRUSTED, now=datetime(2025, 2, 1, tzinfo=UTC))
    later = make_users(version=2, not_before="2999-01-01T00:00:00Z")
    install_users(folder, sign_users(later, KEY))
    refuse(folder, r"users document \(version 2\) is valid from 2999")


@pytest.mark.parametrize(
    "entry", [UserEntry("eve", ("owner", "evaluator")), UserEntry("eve", ("surgeon",))]
)
def test_users_whose_roles_do_not_go_together_are_refused(tmp_path: Path, entry: UserEntry) -> None:
    write(tmp_path / "demo", users=sign_users(make_users(users=(entry,)), KEY))
    refuse(tmp_path / "demo", "users.json cannot be enforced: .*'eve'")


def test_separation_of_duties_binds_users_through_inheritance(tmp_path: Path) -> None:
    policy = dataclasses.replace(
        MANIFEST.policy,
        roles=(*MANIFEST.policy.roles, Role("auditor"), Role("chief", ("auditor",))),
        permissions=(
            *MANIFEST.policy.permissions,
            Permission("auditor", (Action.REGISTER,), (KEY_SECRET,)),
        ),
        constraints=(Constraint("static", ("owner", "auditor")),),
    )
    entry = UserEntry("eve", ("owner", "chief"))
    users = sign_users(make_users(policy, users=(entry,)), KEY)
    write(tmp_path / "demo", dataclasses.replace(MANIFEST, policy=policy), users=users)
    refuse(tmp_path / "demo", "chief -> auditor")


def test_a_newer_users_document_may_be_given_beside_the_bundle(place: Path) -> None:
    write(place, users=sign_users(make_users(version=2), KEY))
    newer = make_users(version=3, users=(UserEntry("ann", ("owner",)),))
    opened = open_bundle_files(place, TRUSTED, users=sign_users(newer, KEY))
    assert opened.users == newer
    refuse(place, "version 2, but version 3 was seen here")
    refuse(place, "version 1, but the bundle's has 2", users=USERS)
    refuse(place, "not trusted here", users=sign_users(make_users(version=4), OTHER))
    refuse(place, "larger than", users=b" " * (9 << 20))


def test_two_hospitals_may_have_the_same_policy(tmp_path: Path) -> None:
    write(tmp_path / "one")
    other = dataclasses.replace(MANIFEST, lineage="f" * 32)
    theirs = make_users(users=(UserEntry("zoe", ("owner",)),))
    write(tmp_path / "other", other, OTHER, users=sign_users(theirs, OTHER))
    assert open_bundle_files(tmp_path / "one", BOTH).users == make_users()
    assert open_bundle_files(tmp_path / "other", BOTH).users == theirs


def test_a_revoked_user_does_not_come_back_when_the_signers_of_users_change(
    tmp_path: Path,
) -> None:
    signers = Signers(1, (KEY.keyid,), (KEY.keyid,))
    first = write(tmp_path / "first", dataclasses.replace(MANIFEST, signers=signers))
    revoked = make_users(version=5, users=(UserEntry("cloud", ("evaluator",)),))
    open_bundle_files(tmp_path / "first", BOTH, users=sign_users(revoked, KEY))
    refuse(tmp_path / "first", "version 1, but version 5 was seen here", BOTH)
    after = superseding(first)
    more = Signers(1, (KEY.keyid,), tuple(sorted((KEY.keyid, OTHER.keyid))))
    second = dataclasses.replace(
        first, files=(), version=after.version, supersedes=after.supersedes, signers=more
    )
    write(tmp_path / "second", second)
    refuse(tmp_path / "second", "version 1, but version 5 was seen here", BOTH)
    opened = open_bundle_files(tmp_path / "second", BOTH, users=sign_users(revoked, OTHER))
    assert opened.users == revoked


def test_a_copy_has_the_users_document_that_was_believed(place: Path, tmp_path: Path) -> None:
    write(place)
    newer = sign_users(make_users(version=2), KEY)
    export_bundle(open_bundle_files(place, TRUSTED, users=newer), tmp_path / "copy")
    assert open_bundle_files(tmp_path / "copy", TRUSTED).users == make_users(version=2)


def test_users_are_put_into_bundles_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(InputError, match="not a bundle"):
        install_users(tmp_path / "notes", USERS)
    assert list((tmp_path / "notes").iterdir()) == []


def test_an_interrupted_exchange_leaves_the_old_users(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place)

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            install_users(place, sign_users(make_users(version=2), KEY))
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    assert open_bundle_files(place, TRUSTED).users == make_users()
