"""Who may encrypt the weights of a program, where they are encrypted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hecompile.access.decide import PolicyIndex
from hecompile.access.manifest import FileDigest
from hecompile.access.policy import MODEL, Action, ObjectRef, single_owner_policy
from hecompile.access.policy_checks import check_policy, work_warnings
from hecompile.access.policy_io import parse_policy
from hecompile.errors import InputError
from tests.unit.test_bundle_store import MANIFEST

POLICY = """
format = 1
[roles.clinic]
[roles.vendor]
[roles.cloud]
[[permissions]]
role = "clinic"
actions = ["encrypt", "decrypt", "hold"]
objects = ["input:x", "output:y", "key:secret"]
[[permissions]]
role = "vendor"
actions = ["encrypt"]
objects = ["model"]
[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]
[users]
ann = ["clinic"]
vic = ["vendor"]
"""


def check(text: str, encrypted: bool | None) -> None:
    check_policy(parse_policy(text, "p.toml"), ["x"], ["y"], encrypted_model=encrypted)


def test_the_model_is_an_object_that_is_encrypted() -> None:
    check(POLICY, True)
    check(POLICY, None)
    assert ObjectRef.parse("model") == MODEL
    index = PolicyIndex(parse_policy(POLICY))
    assert index.decide("vic", Action.ENCRYPT, MODEL).allowed
    assert not index.decide("ann", Action.ENCRYPT, MODEL).allowed
    with pytest.raises(InputError, match="takes no name"):
        ObjectRef.parse("model:x")


def test_nothing_but_encryption_applies_to_it() -> None:
    with pytest.raises(InputError, match="'decrypt' applies to none"):
        check(POLICY.replace('["encrypt"]\nobjects', '["decrypt"]\nobjects'), True)


def test_plain_weights_are_no_object() -> None:
    with pytest.raises(InputError, match=r"line 1\d.*'model' is encrypted.*--encrypt-model"):
        check(POLICY, False)


def test_somebody_must_encrypt_hidden_weights() -> None:
    text = POLICY.replace('["encrypt"]\nobjects = ["model"]', '["read"]\nobjects = ["audit"]')
    check(text, False)
    with pytest.raises(InputError, match="no role may encrypt them"):
        check(text, True)


def test_who_evaluates_has_no_weights_to_encrypt() -> None:
    old = '["evaluate"]\nobjects = ["program"]'
    new = '["evaluate", "encrypt"]\nobjects = ["program", "model"]'
    with pytest.raises(InputError, match=r"'cloud' may evaluate .* also encrypt model"):
        check(POLICY.replace(old, new), True)
    with pytest.raises(InputError, match=r"user 'vic' may evaluate .* also encrypt model"):
        check(POLICY.replace('vic = ["vendor"]', 'vic = ["vendor", "cloud"]'), True)


def test_users_who_are_missing_are_told() -> None:
    policy = parse_policy(POLICY.replace('vic = ["vendor"]', 'vic = ["cloud"]'))
    assert "encrypt model" in " ".join(work_warnings(policy, ["x"], ["y"], encrypted_model=True))
    assert "model" not in " ".join(work_warnings(policy, ["x"], ["y"]))


def test_the_built_in_policy_lets_the_owner_encrypt_the_model_where_there_is_one() -> None:
    for encrypted in (True, False):
        policy = single_owner_policy(["x"], ["y"], encrypted_model=encrypted)
        check_policy(policy, ["x"], ["y"], encrypted_model=encrypted)
        allowed = PolicyIndex(policy).decide("owner", Action.ENCRYPT, MODEL).allowed
        assert allowed is encrypted
        assert not PolicyIndex(policy).decide("cloud", Action.ENCRYPT, MODEL).allowed


def test_digests_tell_manifests_with_an_owners_part() -> None:
    assert not MANIFEST.encrypted_model
    file = FileDigest("owner/constants.npz", "0" * 64, 1)
    assert replace(MANIFEST, files=(file,)).encrypted_model
    assert not replace(MANIFEST, files=(FileDigest("owners", "0" * 64, 1),)).encrypted_model
