"""Who may encrypt the weights of a program, where they are encrypted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hecompile.access.decide import PolicyIndex, Request
from hecompile.access.manifest import FileDigest
from hecompile.access.policy import MODEL, Action, ObjectRef, Policy, single_owner_policy
from hecompile.access.policy_io import parse_policy
from hecompile.access.proof import ProgramFacts, check_policy, work_warnings
from hecompile.access.users import single_owner_users
from hecompile.errors import InputError
from tests.unit.manifests import MANIFEST
from tests.unit.proof_cases import change, check, grant, inherit, refuse, users_of

POLICY = """
format = 2
[roles.clinic]
[roles.vendor]
[roles.cloud]
[[permissions]]
role = "clinic"
actions = ["encrypt", "submit", "decrypt", "hold"]
objects = ["input:x", "output:y", "key:secret"]
[[permissions]]
role = "vendor"
actions = ["encrypt"]
objects = ["model"]
[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]
"""
PEOPLE = {"ann": "clinic", "vic": "vendor", "eve": "cloud"}
HIDDEN, PLAIN, UNKNOWN = (ProgramFacts(("x",), ("y",), encrypted_model=one) for one in
                          (True, False, None))  # fmt: skip


def may_encrypt(policy: Policy, **people: str) -> set[str]:
    index = PolicyIndex(policy, users_of(policy, **people))
    return {one for one in people if index.decide(Request(one, Action.ENCRYPT, MODEL)).allowed}


def test_the_model_is_an_object_that_is_encrypted() -> None:
    check(POLICY, HIDDEN, **PEOPLE)
    check(POLICY, UNKNOWN, **PEOPLE)
    assert ObjectRef.parse("model") == MODEL
    assert may_encrypt(parse_policy(POLICY), **PEOPLE) == {"vic"}
    with pytest.raises(InputError, match="takes no name"):
        ObjectRef.parse("model:x")


def test_nothing_but_encryption_applies_to_it() -> None:
    text = change('["encrypt"]\nobjects', '["decrypt"]\nobjects', POLICY)
    refuse(text, "'decrypt' applies to none", facts=HIDDEN)


def test_plain_weights_are_no_object() -> None:
    refuse(POLICY, "line 10", "nothing of object 'model'", "--encrypt-model", facts=PLAIN)


def test_somebody_must_encrypt_hidden_weights() -> None:
    old = '["encrypt"]\nobjects = ["model"]'
    text = change(old, '["read"]\nobjects = ["audit"]', POLICY)
    check(text, PLAIN)
    refuse(text, "no role may encrypt them", facts=HIDDEN)


def test_who_evaluates_has_no_weights_to_encrypt() -> None:
    refuse(
        grant("cloud", "encrypt", "model", POLICY),
        "rule S2",
        "'cloud' may evaluate program (cloud) and may also encrypt model (cloud)",
        facts=HIDDEN,
    )
    text = inherit("boss", "vendor", "cloud", text=POLICY)
    refuse(text, "rule S2", "'boss' may evaluate", "boss -> vendor", facts=HIDDEN)
    mixed = {**PEOPLE, "vic": "vendor cloud"}
    refuse(POLICY, "user 'vic' may evaluate", "encrypt model", facts=HIDDEN, **mixed)


def test_who_encrypts_the_weights_sees_ciphertexts_and_so_no_raw_values() -> None:
    text = grant("vendor", "declassify", "output:y", POLICY)
    refuse(text, "rule S3", "role 'vendor' may encrypt model (vendor)", facts=HIDDEN)


def test_users_who_are_missing_are_told() -> None:
    policy = parse_policy(POLICY)
    users = users_of(policy, ann="clinic", vic="cloud")
    assert "encrypt model" in " ".join(work_warnings(policy, users, HIDDEN))
    assert "model" not in " ".join(work_warnings(policy, users, PLAIN))


@pytest.mark.parametrize("encrypted", [True, False])
def test_the_built_in_policy_lets_the_owner_encrypt_the_model_where_there_is_one(
    encrypted: bool,
) -> None:
    policy = single_owner_policy(["x"], ["y"], encrypted_model=encrypted)
    check_policy(policy, HIDDEN if encrypted else PLAIN, single_owner_users(policy))
    allowed = may_encrypt(policy, owner="owner", cloud="evaluator")
    assert allowed == ({"owner"} if encrypted else set())


def test_digests_tell_manifests_with_an_owners_part() -> None:
    assert not MANIFEST.encrypted_model
    file = FileDigest("owner/constants.npz", "0" * 64, 1)
    assert replace(MANIFEST, files=(file,)).encrypted_model
    assert not replace(MANIFEST, files=(FileDigest("owners", "0" * 64, 1),)).encrypted_model
