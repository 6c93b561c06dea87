"""Refreshes without masks are for key holders who own the model."""

from __future__ import annotations

import pytest

from hecompile.access.policy import MODEL, Action, single_owner_policy
from hecompile.access.policy_io import parse_policy
from hecompile.access.proof import ProgramFacts, check_policy
from hecompile.access.unmasked import check_unmasked
from hecompile.access.users import parse_users, single_owner_users
from hecompile.errors import InputError

POLICY = """
format = 2
[roles.clinic]
[roles.vault]
[roles.vendor]
[roles.cloud]
[[permissions]]
role = "clinic"
actions = ["encrypt", "receive"]
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
"""

USERS = """
format = 1
version = 1
[users]
hospital = ["vault"]
cloud = ["cloud"]
"""


def check(text: str, staff: str = USERS, unmasked: bool = True) -> None:
    policy = parse_policy(text, "p.toml")
    facts = ProgramFacts(("x",), ("y",), refreshes=3, mask_bits=0 if unmasked else 30)
    check_policy(policy, facts, parse_users(staff, policy, "u.toml"))


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
    check(POLICY, USERS.replace('hospital = ["vault"]', 'hospital = ["vault", "vendor"]'))


def test_one_who_does_not_own_it_is_enough_to_refuse() -> None:
    staff = USERS.replace('hospital = ["vault"]', 'hospital = ["vault", "vendor"]\nann = ["vault"]')
    with pytest.raises(InputError, match="user 'ann' may hold key:secret"):
        check(POLICY, staff)
    refreshes = POLICY.replace("[roles.vault]", '[roles.vault]\ninherits = ["vendor"]').replace(
        'actions = ["encrypt", "receive"]\nobjects = ["input:x", "output:y"]',
        'actions = ["encrypt", "receive", "refresh"]\nobjects = ["input:x", "output:y", "program"]',
    )
    with pytest.raises(InputError, match="role 'clinic' may refresh program"):
        check_unmasked(parse_policy(refreshes))


def test_without_users_every_role_must_own_it() -> None:
    policy = parse_policy(POLICY)
    with pytest.raises(InputError, match="role 'vault' may hold key:secret"):
        check_unmasked(policy)
    check_unmasked(policy, parse_users(USERS.replace('["vault"]', '["vault", "vendor"]'), policy))


def test_whoever_encrypts_the_weights_owns_them() -> None:
    facts = ProgramFacts(("x",), ("y",), refreshes=1, mask_bits=0)
    owner = single_owner_policy(["x"], ["y"], encrypted_model=True)
    check_policy(owner, facts, single_owner_users(owner))
    plain = single_owner_policy(["x"], ["y"])
    with pytest.raises(InputError, match=r"user 'owner' .* does not own the model"):
        check_policy(plain, facts, single_owner_users(plain))


def test_owning_plain_weights_is_no_claim_that_they_are_encrypted() -> None:
    check(POLICY, unmasked=False)
    policy = parse_policy(POLICY)
    assert any(
        MODEL in permission.objects and Action.OWN in permission.actions
        for permission in policy.permissions
    )
    with pytest.raises(InputError, match="'own' cannot be enforced cryptographically"):
        check(POLICY.replace('objects = ["model"]', 'objects = ["model"]\nenforcement = '
                             '"cryptographic"'), unmasked=False)  # fmt: skip
