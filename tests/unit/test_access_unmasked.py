"""Refreshes without masks are for key holders who own the model."""

from __future__ import annotations

import pytest

from hecompile.access.policy import MODEL, Action, single_owner_policy
from hecompile.access.policy_checks import check_policy
from hecompile.access.policy_io import parse_policy
from hecompile.errors import InputError

POLICY = """
format = 1
[roles.clinic]
[roles.vault]
[roles.vendor]
[roles.cloud]
[[permissions]]
role = "clinic"
actions = ["encrypt", "decrypt"]
objects = ["input:x", "output:y"]
[[permissions]]
role = "vault"
actions = ["hold", "refresh"]
objects = ["key:secret", "program"]
[[permissions]]
role = "vendor"
actions = ["own"]
objects = ["model"]
[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]
[users]
hospital = ["vault"]
cloud = ["cloud"]
"""


def check(text: str, unmasked: bool = True, encrypted: bool | None = None) -> None:
    policy = parse_policy(text, "p.toml")
    check_policy(policy, ["x"], ["y"], refreshes=3, encrypted_model=encrypted, unmasked=unmasked)


def test_a_key_holder_who_does_not_own_the_model_gets_masked_values() -> None:
    check(POLICY, unmasked=False)
    with pytest.raises(InputError) as caught:
        check(POLICY)
    told = str(caught.value)
    assert "user 'hospital' may hold key:secret (vault) and does not own the model" in told
    assert "grant role 'vault' the action 'own' on 'model'" in told
    assert "--mask-bits of 20 or more" in told


def test_owning_the_model_is_by_role_inheritance_or_user() -> None:
    check(POLICY.replace('["hold", "refresh"]', '["hold", "refresh", "own"]').replace(
        '["key:secret", "program"]', '["key:secret", "program", "model"]'))  # fmt: skip
    check(POLICY.replace("[roles.vault]", '[roles.vault]\ninherits = ["vendor"]'))
    check(POLICY.replace('hospital = ["vault"]', 'hospital = ["vault", "vendor"]'))


def test_one_who_does_not_own_it_is_enough_to_refuse() -> None:
    text = POLICY.replace('hospital = ["vault"]', 'hospital = ["vault", "vendor"]\nann = ["vault"]')
    with pytest.raises(InputError, match="user 'ann' may hold key:secret"):
        check(text)
    refreshes = POLICY.replace("[roles.vault]", '[roles.vault]\ninherits = ["vendor"]').replace(
        'actions = ["encrypt", "decrypt"]\nobjects = ["input:x", "output:y"]',
        'actions = ["encrypt", "decrypt", "refresh"]\nobjects = ["input:x", "output:y", "program"]',
    )
    with pytest.raises(InputError, match="role 'clinic' may refresh program"):
        check(refreshes)


def test_whoever_encrypts_the_weights_owns_them() -> None:
    owner = single_owner_policy(["x"], ["y"], encrypted_model=True)
    check_policy(owner, ["x"], ["y"], refreshes=1, encrypted_model=True, unmasked=True)
    plain = single_owner_policy(["x"], ["y"])
    with pytest.raises(InputError, match=r"user 'owner' .* does not own the model"):
        check_policy(plain, ["x"], ["y"], refreshes=1, unmasked=True)


def test_owning_plain_weights_is_no_claim_that_they_are_encrypted() -> None:
    check(POLICY, unmasked=False, encrypted=False)
    policy = parse_policy(POLICY)
    assert any(
        MODEL in permission.objects and Action.OWN in permission.actions
        for permission in policy.permissions
    )
    with pytest.raises(InputError, match="'own' cannot be enforced cryptographically"):
        check(POLICY.replace('objects = ["model"]', 'objects = ["model"]\nenforcement = '
                             '"cryptographic"'), unmasked=False)  # fmt: skip
