"""The commands policy, identity and users."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cedarpy
import pytest

from hecompile.access.cedar import cedar_request
from hecompile.access.decide import Request
from hecompile.access.identity import load_identity
from hecompile.access.labels import Flow
from hecompile.access.manifest import Signers
from hecompile.access.objects import AUDIT, Action
from hecompile.access.policy_io import parse_policy
from hecompile.access.signing import SigningKey, TrustStore
from hecompile.access.users import parse_users, sign_users
from hecompile.files import config_home
from tests.unit.cli_calls import Caller, save_mlp, weights
from tests.unit.manifests import MANIFEST, write
from tests.unit.policies_for_tests import CLINIC, STAFF

WARD = """\
format = 2
[roles.owner]
[roles.deputy]
inherits = ["owner"]
[roles.cloud]
[roles.auditor]
[[permissions]]
role = "owner"
actions = ["encrypt", "submit", "receive", "decrypt", "hold"]
objects = ["input:x", "output:y", "key:secret"]
[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]
[[permissions]]
role = "auditor"
actions = ["read"]
objects = ["audit"]
"""

WARD_USERS = """\
format = 1
version = 1
[users]
dora = ["deputy"]
cloud = ["cloud"]
axel = ["auditor"]
"""


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.fixture
def clinic(tmp_path: Path) -> tuple[Path, Path]:
    """Files of a policy and of its users."""
    paths = tmp_path / "clinic.toml", tmp_path / "staff.toml"
    for path, text in zip(paths, (CLINIC, STAFF), strict=True):
        path.write_text(text)
    return paths


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle without users, signed with this user's own key."""
    key = SigningKey.load_or_create()
    manifest = dataclasses.replace(MANIFEST, policy=parse_policy(WARD))
    write(tmp_path / "b", manifest, key, users=None)
    return tmp_path / "b"


def ward(tmp_path: Path, text: str = WARD_USERS) -> Path:
    path = tmp_path / "users.toml"
    path.write_text(text)
    return path


def test_explain_a_grant(clinic: tuple[Path, Path], call: Caller) -> None:
    policy, users = clinic
    words = ("policy", "explain", policy, "anna", "declassify", "output:y", "--users", users)
    found = call(*words, "--purpose", "care")
    assert found.out.splitlines() == [
        "'anna' may declassify output:y about one person for 'care'",
        "  rule: permission 1: doctor -> clinician -> viewer may declassify output:y",
        "  inheritance: doctor -> clinician -> viewer",
        "  sees: label (64 a key)",
        "  enforced: gateway: who holds the key, or serves the request, refuses others",
        "  obligation: flood with noise of 30 statistical bits",
        "  obligation: tell the label alone",
        "  obligation: count it: 64 releases a key",
    ]
    document = call(*words, "--purpose", "care", "--json").document
    assert document["allowed"] is True
    assert document["path"] == ["doctor", "clinician", "viewer"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("anna", "declassify", "output:y"), ["for purpose care", "ask with --purpose care"]),
        (("ben", "declassify", "output:z"), ["for scope 'cohort'", "ask with --scope cohort"]),
        (("tina", "declassify", "output:y", "--purpose", "care"),
         ["'tina' has not that role", "give 'tina' in the users document the role 'viewer'"]),
        (("tian", "encrypt", "input:x"),
         ["rule: unknown user", "put user 'tian' into the users document (did you mean 'tina'?) "
          "with the role 'technician'"]),
        (("tina", "encrypt", "input:xx"),
         ["rule: no permission", "no role may encrypt input:xx", ": add a permission"]),
        (("tina", "encrypt", "input:X"), ["no role may encrypt input:X"]),
        (("anna", "declassify", "output:y", "--purpose", "caer"),
         ["it is for purpose care", "'caer' is not a purpose of this policy (did you mean 'care'?)",
          "its purposes are care, research", "ask with --purpose care"]),
        (("tina", "decrypt", "output:y"),
         ["rule: no permission", "no role may decrypt output:y: add a permission"]),
        (("tina", "encrypt", "output:y"), ["'encrypt' is for input and model"]),
        (("tina", "encrypt", "input:*"), ["name one object"]),
        (("cloud", "hold", "key:secret"),
         ["have a user with the role 'custodian' do it", "'cloud' may not have it: ", "S2"]),
    ],
)  # fmt: skip
def test_explain_a_denial(
    words: tuple[str, ...], told: list[str], clinic: tuple[Path, Path], call: Caller
) -> None:
    policy, users = clinic
    found = call("policy", "explain", policy, *words, "--users", users)
    assert " may not " in found.out.splitlines()[0]
    for part in told:
        assert part in found.out
    # Asking what would be is no request: nothing is logged.
    assert not (config_home() / "audit").exists()


def test_explain_refuses_words_that_mean_nothing(clinic: tuple[Path, Path], call: Caller) -> None:
    policy, _ = clinic
    words = ("policy", "explain", policy, "anna")
    assert "did you mean 'decrypt'" in call(*words, "decypt", "output:y", code=2).err
    assert "names no object" in call(*words, "decrypt", "file:y", code=2).err
    found = call(*words, "encrypt", "input:x")
    assert "remedy: sign a users document" in found.out


def test_check_a_policy_and_its_users(
    clinic: tuple[Path, Path], tmp_path: Path, call: Caller
) -> None:
    path = tmp_path / "ward.toml"
    path.write_text(WARD)
    found = call("policy", "check", path, "--users", ward(tmp_path))
    assert "4 roles, 3 permissions hold together" in found.out
    assert "proved: S2, S3 and S4 (roles and users)" in found.out
    assert "proved when it is compiled: S8 (security of the parameters)" in found.out
    assert "roles alone, without --users" in call("policy", "check", path).out
    seeing = ('["evaluate", "decrypt"]', '["program", "output:y"]')
    bad_policy = WARD.replace('["evaluate"]', seeing[0]).replace('["program"]', seeing[1])
    path.write_text(bad_policy)
    found = call("policy", "check", path, code=1)
    assert "S2" in found.err
    assert "role 'cloud'" in found.err
    path.write_text(WARD)
    bad = ward(tmp_path, WARD_USERS.replace('["auditor"]', '["auditor", "cloud", "deputy"]'))
    found = call("policy", "check", path, "--users", bad, code=1)
    assert "user 'axel'" in found.err
    assert "line 6" in found.err


def test_check_against_a_model_and_a_bundle(tmp_path: Path, bundle: Path, call: Caller) -> None:
    path, model = tmp_path / "ward.toml", tmp_path / "m.onnx"
    path.write_text(WARD)
    save_mlp(model, weights(0, 4, 3, 2))
    document = call("policy", "check", path, "--model", model, "--json").document
    assert document["program"] == str(model)
    assert document["proved"][0] == "S1 (names of the program)"
    assert [one[:2] for one in document["proved_when_compiled"]] == ["S5", "S6", "S7", "S8"]
    document = call("policy", "check", path, "--bundle", bundle, "--json").document
    assert [one[:2] for one in document["proved_when_compiled"]] == ["S5", "S6"]
    path.write_text(WARD.replace("input:x", "input:xx"))
    for words in (("--model", model), ("--bundle", bundle)):
        assert "S1" in call("policy", "check", path, *words, code=1).err
    assert (
        "not both"
        in call("policy", "check", path, "--model", model, "--bundle", bundle, code=2).err
    )


def test_check_holds_the_training_labels_against_clearances(tmp_path: Path, call: Caller) -> None:
    path = tmp_path / "ward.toml"
    trained = f'{WARD}[model]\nlabels = ["genomic.training"]\n'
    path.write_text(trained)
    told = call("policy", "check", path, code=1).err
    assert "S5" in told
    assert "role 'deputy' may decrypt output:y (deputy -> owner)" in told
    assert "does not cover genomic.training" in told
    path.write_text(trained.replace("[roles.owner]", '[roles.owner]\nclearance = ["genomic.*"]'))
    assert call("policy", "check", path).code == 0
    path.write_text(f'{trained}guarantee = "dp"\nepsilon = 3.0\ndelta = 1e-6\n')
    assert "nothing here can check that claim" in call("policy", "check", path).err


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ('not_after = "2020-01-01T00:00:00Z"', "expired at 2020-01-01T00:00:00Z"),
        ('not_before = "2999-01-01T00:00:00Z"', "valid from 2999-01-01T00:00:00Z on"),
    ],
)
def test_check_warns_of_users_out_of_their_time(
    times: str, told: str, tmp_path: Path, call: Caller
) -> None:
    path = tmp_path / "ward.toml"
    path.write_text(WARD)
    users = ward(tmp_path, WARD_USERS.replace("[users]", f"{times}\n[users]"))
    found = call("policy", "check", path, "--users", users)
    assert f"warning: the users document (version 1) {told}" in found.err.replace(
        "is valid", "valid"
    )


def test_explain_knows_the_names_of_a_bundles_program(bundle: Path, call: Caller) -> None:
    found = call("policy", "explain", bundle, "dora", "decrypt", "output:yy", code=2)
    assert "the program has no output 'yy' (did you mean" in found.err


def test_export_is_what_cedar_reads(
    clinic: tuple[Path, Path], tmp_path: Path, call: Caller
) -> None:
    policy, users = clinic
    words = ("policy", "export", "--cedar", policy, "--users", users)
    document = call(*words, "--json").document
    folder = tmp_path / "cedar"
    call(*words, "-o", folder)
    assert (folder / "policies.cedar").read_text() == document["policies"]
    assert json.loads((folder / "entities.json").read_text()) == document["entities"]
    request = Request("axel", Action.READ, AUDIT)
    answer = cedarpy.is_authorized(
        cedar_request(request), document["policies"], document["entities"]
    )
    assert not answer.allowed
    assert "forbid" in call(*words).out


def test_users_are_signed_into_a_bundle(tmp_path: Path, bundle: Path, call: Caller) -> None:
    assert "nobody may do anything" in call("users", "show", bundle, code=1).err
    key = call("identity", "new", "dora").out.strip()
    text = WARD_USERS.replace('["deputy"]', f'{{roles = ["deputy"], key = "{key}"}}')
    found = call("users", "sign", ward(tmp_path, text), "--bundle", bundle)
    assert "signed version 1" in found.out
    assert "user 'cloud' has no key" in found.err
    assert "hecompile identity new cloud" in found.err
    shown = call("users", "show", bundle, "--json").document
    assert shown["users"]["dora"]["key"] == key
    assert "no key" in call("users", "show", bundle).out
    explained = call("policy", "explain", bundle, "dora", "decrypt", "output:y")
    assert "inheritance: deputy -> owner" in explained.out


def test_users_of_this_machine_get_its_keys_if_that_is_asked_for(
    tmp_path: Path, bundle: Path, call: Caller
) -> None:
    words = ("users", "sign", ward(tmp_path), "--bundle", bundle)
    # Without it they stay without keys, and are told by name.
    told = call(*words, "-o", tmp_path / "none.json").err
    assert {name for name in ("dora", "axel", "cloud") if f"user '{name}' has no key" in told} == {
        "dora",
        "axel",
        "cloud",
    }
    assert "--local-keys" in told
    assert not (config_home() / "identities").exists()
    call("identity", "new", "axel")
    told = call(*words, "--local-keys").err
    assert "made identity keys on this machine for " in told
    assert "axel" not in told
    assert "has no key" not in told
    shown = call("users", "show", bundle, "--json").document["users"]
    for name, entry in shown.items():
        assert entry["key"] == load_identity(name).text
    again = ("users", "sign", bundle / "users.json", "--bundle", bundle, "--local-keys")
    assert "is signed, so no key is put into it" in call(*again, code=2).err


def test_an_older_or_equal_version_does_not_replace(
    tmp_path: Path, bundle: Path, call: Caller
) -> None:
    two = WARD_USERS.replace("version = 1", "version = 2")
    call("users", "sign", ward(tmp_path, two), "--bundle", bundle)
    before = (bundle / "users.json").read_bytes()
    for text in (WARD_USERS, two.replace("axel", "alex")):
        found = call("users", "sign", ward(tmp_path, text), "--bundle", bundle, code=4)
        assert "version" in found.err
    assert (bundle / "users.json").read_bytes() == before
    newer = ward(tmp_path, WARD_USERS.replace("version = 1", "version = 3"))
    out = tmp_path / "three.json"
    call("users", "sign", newer, "--bundle", bundle, "-o", out)
    assert (bundle / "users.json").read_bytes() == before
    assert call("users", "show", bundle, "--users", out, "--json").document["version"] == 3


def test_an_expired_document_is_refused_and_can_be_replaced(
    tmp_path: Path, bundle: Path, call: Caller
) -> None:
    expired = WARD_USERS.replace("[users]", 'not_after = "2001-01-01T00:00:00Z"\n[users]')
    found = call("users", "sign", ward(tmp_path, expired), "--bundle", bundle, code=4)
    assert "expired" in found.err
    assert not (bundle / "users.json").exists()
    users = parse_users(expired, parse_policy(WARD))
    (bundle / "users.json").write_bytes(sign_users(users, SigningKey.load_or_create()))
    assert "expired" in call("users", "show", bundle, code=4).err
    newer = ward(tmp_path, WARD_USERS.replace("version = 1", "version = 2"))
    call("users", "sign", newer, "--bundle", bundle)
    assert call("users", "show", bundle, "--json").document["version"] == 2


def test_users_that_the_policy_refuses_are_not_signed(
    tmp_path: Path, bundle: Path, call: Caller
) -> None:
    bad = ward(tmp_path, WARD_USERS.replace('["cloud"]', '["cloud", "deputy"]'))
    found = call("users", "sign", bad, "--bundle", bundle, code=1)
    assert "user 'cloud'" in found.err
    assert "deputy -> owner" in found.err
    assert not (bundle / "users.json").exists()


def test_a_stranger_cannot_sign_users(tmp_path: Path, bundle: Path, call: Caller) -> None:
    stranger = tmp_path / "stranger.pem"
    SigningKey.load_or_create(stranger, TrustStore(tmp_path / "elsewhere"))
    words = ("users", "sign", ward(tmp_path), "--bundle", bundle, "--key", stranger)
    assert "may not sign users documents" in call(*words, code=1).err
    assert not (bundle / "users.json").exists()


def test_two_must_sign(tmp_path: Path, call: Caller) -> None:
    first = SigningKey.load_or_create()
    second_path = tmp_path / "second.pem"
    second = SigningKey.load_or_create(second_path)
    manifest = dataclasses.replace(
        MANIFEST,
        policy=parse_policy(WARD),
        flows=(Flow("y", ()),),
        signers=Signers(2, tuple(sorted((first.keyid, second.keyid)))),
    )
    bundle = tmp_path / "b"
    write(bundle, manifest, first, users=None)
    words = ("--bundle", bundle)
    assert "manifest sign" in call("users", "sign", ward(tmp_path), *words, code=4).err
    call("manifest", "sign", bundle, "--key", second_path)
    assert "1 of 2 signatures" in call("users", "sign", ward(tmp_path), *words, code=1).err
    half, whole = tmp_path / "half.json", tmp_path / "whole.json"
    assert "1 signature more" in call("users", "sign", ward(tmp_path), *words, "-o", half).out
    assert "signed with key" in call("users", "sign", half, *words, "-o", half, code=1).err
    call("users", "sign", half, *words, "--key", second_path, "-o", whole)
    call("users", "sign", half, *words, "--key", second_path)
    assert (bundle / "users.json").read_bytes() == whole.read_bytes()
    assert call("users", "show", bundle).code == 0
