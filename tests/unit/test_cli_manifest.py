"""`hecompile manifest` and `hecompile trust`: sign, verify, show, compare; ask for signatures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hecompile.access.manifest import Port, Signers, superseding
from hecompile.access.manifest_diff import compare_manifests
from hecompile.access.policy import Action, ObjectRef, Permission, Role
from hecompile.access.signing import SigningKey, TrustStore
from hecompile.access.users import sign_users
from tests.unit.cli_calls import Caller
from tests.unit.manifests import KEY, MANIFEST, OTHER, make_users, write


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


class Officer:
    """Somebody with a signing key in a file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.pem, self.pub = folder / f"{name}.pem", folder / f"{name}.pub"
        self.key = SigningKey.load_or_create(self.pem, TrustStore(folder / f"{name}-trust"))
        self.pub.write_bytes(self.key.public_key.pem)


@pytest.fixture
def ann(tmp_path: Path) -> Officer:
    return Officer(tmp_path, "ann")


@pytest.fixture
def bob(tmp_path: Path) -> Officer:
    return Officer(tmp_path, "bob")


def bundle(place: Path, ann: Officer, bob: Officer | None = None) -> Path:
    keyids = tuple(sorted(one.key.keyid for one in (ann, bob) if one is not None))
    signers = Signers(len(keyids), keyids, (ann.key.keyid,))
    manifest = dataclasses.replace(MANIFEST, signers=signers)
    write(place, manifest, ann.key, users=sign_users(make_users(), ann.key))
    return place


@pytest.mark.parametrize("name", ["b", "b.hec"])
def test_two_officers_sign_one_after_the_other(
    tmp_path: Path, call: Caller, ann: Officer, bob: Officer, name: str
) -> None:
    place = bundle(tmp_path / name, ann, bob)
    both = ("--trust", ann.pub, "--trust", bob.pub)
    assert "1 of the 2 signatures" in call("manifest", "verify", place, *both, code=4).err
    seen = call("manifest", "show", place, *both, "--json").document
    assert (seen["signatures_missing"], len(seen["signatures"])) == (1, 1)
    words = ("manifest", "sign", place, "--key", bob.pem, *both)
    assert "nothing was signed" in call(*words, "--digest", "00", code=1).err
    told = call(*words, "--digest", seen["digest"][:16])
    assert "signed" in told.out
    assert "right, by a trusted signer" in told.out
    assert "already" in call(*words, code=1).err
    found = call("manifest", "verify", place, *both, "--json").document
    assert found["verified"] is True
    assert found["signed_by"] == sorted([ann.key.keyid, bob.key.keyid])
    assert (found["threshold"], found["version"], found["files"]) == (2, 1, 4)
    assert found["users"]["version"] == 1


def test_sign_refuses_who_is_no_signer_and_what_is_not_whole(
    tmp_path: Path, call: Caller, ann: Officer, bob: Officer
) -> None:
    place = bundle(tmp_path / "b", ann)
    words = ("manifest", "sign", place, "--trust", ann.pub, "--key")
    assert "not among the manifest's signers" in call(*words, bob.pem, code=1).err
    two = bundle(tmp_path / "two", ann, bob)
    (two / "report.json").write_bytes(b"x")
    before = (two / "manifest.json").read_bytes()
    assert "report.json" in call("manifest", "sign", two, "--key", bob.pem, code=4).err
    assert (two / "manifest.json").read_bytes() == before


def test_verify_names_what_is_wrong(tmp_path: Path, call: Caller, ann: Officer) -> None:
    place = bundle(tmp_path / "b", ann)
    words = ("manifest", "verify", place, "--trust", ann.pub)
    assert "as signed" in call(*words).out
    assert "not trusted here" in call("manifest", "verify", place, code=4).err
    (place / "server" / "program.hir").write_bytes(b"x")
    assert "server/program.hir" in call(*words, code=4).err
    assert "does not exist" in call("manifest", "verify", tmp_path / "none", code=1).err


def test_verify_refuses_an_older_version(tmp_path: Path, call: Caller, ann: Officer) -> None:
    trust = ("--trust", ann.pub)
    first = write(tmp_path / "first", key=ann.key, users=None)
    after = superseding(first)
    second = dataclasses.replace(
        MANIFEST, version=after.version, supersedes=after.supersedes, predicted_error=0.5
    )
    write(tmp_path / "second", second, key=ann.key, users=None)
    call("manifest", "verify", tmp_path / "first", *trust)
    told = call("manifest", "diff", tmp_path / "first", tmp_path / "second", *trust, code=1)
    assert "the second supersedes the first" in told.out
    assert "~ predicted_error: 1e-05 -> 0.5" in told.out
    call("manifest", "verify", tmp_path / "second", *trust)
    told = call("manifest", "verify", tmp_path / "first", *trust, code=4)
    assert "version 2 was seen here" in told.err
    # What was superseded can still be looked at and compared.
    call("manifest", "show", tmp_path / "first", *trust)


def test_show_tells_all_that_is_signed(tmp_path: Path, call: Caller, ann: Officer) -> None:
    place = bundle(tmp_path / "b", ann)
    text = call("manifest", "show", place, "--trust", ann.pub).out
    for words in ("ecg", "1x96", "34 to spare", "steps 1, 8", "server/program.hir", "SEAL 4.3",
                  "owner", "raw values", "yes: 1 of 1 signatures", "version 1"):  # fmt: skip
        assert words in text
    text = call("manifest", "show", place).out
    assert "by a key that is not trusted here" in text
    assert "no: 0 of 1 signatures" in text


def test_show_does_not_let_a_strangers_manifest_steer_the_terminal(
    tmp_path: Path, call: Caller
) -> None:
    manifest = dataclasses.replace(MANIFEST, program="ecg\x1b[2J\u202egood")
    write(tmp_path / "b", manifest, OTHER, users=None)
    for words in (("show",), ("diff", tmp_path / "b")):
        text = call("manifest", *words, tmp_path / "b").out
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_diff_of_the_same_and_of_strangers(tmp_path: Path, call: Caller, ann: Officer) -> None:
    place = bundle(tmp_path / "b", ann)
    same = call("manifest", "diff", place, place, "--trust", ann.pub, "--json").document
    assert same["differences"] == []
    write(tmp_path / "other", dataclasses.replace(MANIFEST, lineage="f" * 32), OTHER, users=None)
    told = call("manifest", "diff", place, tmp_path / "other", "--trust", ann.pub, code=1)
    assert "different lines" in told.out
    assert f"warning: {tmp_path / 'other'} is not to be believed yet" in told.err


def test_permissions_gained_and_lost_are_told_by_role_inheritance_included() -> None:
    policy = MANIFEST.policy
    more = Permission("nurse", (Action.RECEIVE,), (ObjectRef.output("y"),))
    changed = dataclasses.replace(
        policy,
        roles=(*policy.roles, Role("nurse"), Role("head nurse", ("nurse",))),
        permissions=(*policy.permissions[1:], more),
    )
    found = compare_manifests(MANIFEST, dataclasses.replace(MANIFEST, policy=changed))
    told = {(one.place, one.change, one.text.split(":")[0]) for one in found}
    assert ("permissions.head nurse", "gained", "may receive output") in told
    assert ("permissions.nurse", "gained", "may receive output") in told
    assert ("permissions.owner", "lost", "may encrypt input") in told
    assert ("policy.roles.nurse", "gained", "{}") in told


def test_every_change_of_a_manifest_is_told() -> None:
    policy = dataclasses.replace(
        MANIFEST.policy, permissions=tuple(reversed(MANIFEST.policy.permissions))
    )
    ports = dataclasses.replace(MANIFEST.io, inputs=(Port("x", (1, 96), 2, 400_000, 2),))
    for changes, place in (
        ({"policy": policy}, "policy.permissions"),
        ({"io": ports}, "io.inputs.x.ciphertexts"),
        ({"galois_steps": (1,)}, "galois_steps"),
        ({"flows": (dataclasses.replace(MANIFEST.flows[0], labels=("a",)),)}, "flows.y.labels"),
        ({"signers": Signers(1, (KEY.keyid,))}, "signers.keyids"),
        ({"not_after": "2030-01-01T00:00:00Z"}, "not_after"),
        ({"created": "2030-01-01T00:00:00Z"}, "created"),
        ({"version": 2, "supersedes": "0" * 64}, "supersedes"),
        ({"parameters": {**MANIFEST.parameters, "scale_bits": 20}}, "parameters.scale_bits"),
    ):
        new = dataclasses.replace(MANIFEST, **changes)
        assert place in {one.place for one in compare_manifests(MANIFEST, new)}
        assert new.digest != MANIFEST.digest
    assert compare_manifests(MANIFEST, dataclasses.replace(MANIFEST)) == ()


def test_trust_asks_for_several_signatures(
    tmp_path: Path, call: Caller, ann: Officer, bob: Officer, hecompile_home: Path
) -> None:
    place = bundle(tmp_path / "b", ann)
    call("trust", ann.pub)
    call("manifest", "verify", place)
    found = call("trust", bob.pub, "--threshold", 2, "--json").document
    assert (found["keyid"], found["threshold"]) == (bob.key.keyid, 2)
    assert "1 of the 2 signatures" in call("manifest", "verify", place, code=4).err
    listed = call("trust", "--json").document
    assert (listed["threshold"], len(listed["keys"])) == (2, 2)
    for wrong in (0, 17, -1):
        assert "signatures cannot be asked for" in call("trust", "--threshold", wrong, code=1).err
    # A damaged number does not open the door.
    (hecompile_home / "trusted" / "threshold").write_text("none")
    assert "no number of signatures" in call("manifest", "verify", place, code=4).err
    (hecompile_home / "trusted" / "threshold").write_text("1\n")
    (hecompile_home / "trusted" / "threshold").chmod(0o666)
    assert "chmod go-w" in call("manifest", "verify", place, code=4).err


def test_a_key_may_be_trusted_for_users_alone(
    tmp_path: Path, call: Caller, ann: Officer, bob: Officer
) -> None:
    signers = Signers(1, (ann.key.keyid,), (bob.key.keyid,))
    users = sign_users(make_users(), bob.key)
    write(tmp_path / "b", dataclasses.replace(MANIFEST, signers=signers), ann.key, users=users)
    call("trust", ann.pub)
    assert "not trusted here" in call("manifest", "verify", tmp_path / "b", code=4).err
    call("trust", bob.pub, "--users-only")
    call("manifest", "verify", tmp_path / "b")
    assert call("trust", "--json").document["users_only"] == [bob.key.keyid]
    write(tmp_path / "c", dataclasses.replace(MANIFEST, lineage="f" * 32), bob.key, users=None)
    assert "not trusted here" in call("manifest", "verify", tmp_path / "c", code=4).err
    assert "name its file too" in call("trust", "--users-only", code=2).err


def test_two_officers_sign_the_users_document_too(
    tmp_path: Path, call: Caller, ann: Officer, bob: Officer
) -> None:
    keyids = tuple(sorted((ann.key.keyid, bob.key.keyid)))
    manifest = dataclasses.replace(MANIFEST, signers=Signers(2, keyids))
    place, both = tmp_path / "b", ("--trust", ann.pub, "--trust", bob.pub)
    write(place, manifest, ann.key, users=sign_users(make_users(), ann.key))
    call("manifest", "sign", place, "--key", bob.pem, *both)
    told = call("manifest", "verify", place, *both, code=4).err
    assert "users.json has 1 of the 2 signatures" in told
    assert "hecompile users sign" in told
    call("users", "sign", place / "users.json", "--bundle", place, "--key", bob.pem, *both)
    call("manifest", "verify", place, *both)


@pytest.mark.parametrize("extra", [(), ("-o", "out.json")])
def test_users_are_signed_for_a_manifest_that_is_believed_alone(
    tmp_path: Path, call: Caller, ann: Officer, bob: Officer, extra: tuple[str, ...]
) -> None:
    (tmp_path / "users.toml").write_text('format = 1\nversion = 2\n[users]\nowner = ["owner"]\n')
    more = [str(tmp_path / word) if word.endswith(".json") else word for word in extra]

    def sign(place: Path, officer: Officer, code: int) -> str:
        both = ("--trust", ann.pub, "--trust", bob.pub)
        words = ("--bundle", place, "--key", officer.pem, *both, *more)
        return call("users", "sign", tmp_path / "users.toml", *words, code=code).err

    half = bundle(tmp_path / "half", ann, bob)
    assert "1 of the 2 signatures" in sign(half, ann, 4)
    signers = Signers(1, (ann.key.keyid,))
    past = dataclasses.replace(MANIFEST, signers=signers, not_after="2025-06-01T00:00:00Z")
    write(tmp_path / "past", past, ann.key, users=None)
    assert "expired at 2025-06-01" in sign(tmp_path / "past", ann, 4)
    write(tmp_path / "good", dataclasses.replace(MANIFEST, signers=signers), ann.key, users=None)
    assert "may not sign users documents" in sign(tmp_path / "good", bob, 1)
    assert not (tmp_path / "out.json").exists()
    sign(tmp_path / "good", ann, 0)


def test_who_has_no_signing_key_is_told_how_to_make_one(
    tmp_path: Path, call: Caller, ann: Officer, bob: Officer
) -> None:
    place = bundle(tmp_path / "b", ann, bob)
    both = ("--trust", ann.pub, "--trust", bob.pub)
    assert "hecompile identity signer" in call("manifest", "sign", place, *both, code=1).err
