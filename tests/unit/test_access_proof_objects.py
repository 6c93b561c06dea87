"""Rule S1, and roles that make sense."""

from __future__ import annotations

import dataclasses

import pytest

from hecompile.access.policy import Action, ObjectRef, Permission, Policy, Role, single_owner_policy
from hecompile.access.proof import ProgramFacts, check_policy
from hecompile.errors import InputError
from tests.unit.proof_cases import FACTS, POLICY, change, check, grant, refuse

Z_TOO = ProgramFacts(("x",), ("y", "z"))
UNUSED = change("format = 2\n", 'format = 2\nunused = ["output:z"]\n')


def test_a_policy_that_speaks_for_every_object_passes() -> None:
    check(POLICY)
    check(POLICY, ann="sender reader")
    check(UNUSED, Z_TOO)
    check(change('"output:y"', '"output:*"'), Z_TOO)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (change('"output:y"', '"output:yy"'), ["line 21 (permission 2)", "S1", "role 'reader'",
         "'output:yy'", "did you mean 'output:y'?", "its outputs are y, z"]),
        (change('"input:x"', '"input:y"'), ["S1", "'input:y', which does not exist"]),
        (change('["output:z"]', '["output:q"]', UNUSED), ["S1", "'output:q', which does not"]),
        (change('["output:z"]', '["program"]', UNUSED), ["S1", "single inputs and outputs"]),
        (POLICY, ["S1", "nobody has a permission on output:z", 'unused = ["output:z"]']),
        (change('"output:y"', '"output:*"', UNUSED),
         ["line 22", "S1", "role 'reader' may declassify output:*", "'unused' lists output:z"]),
        (change('["evaluate"]', '["evaluate", "encrypt"]'), ["'encrypt' applies to none"]),
        (change('["program"]', '["program", "audit"]'), ["object 'audit'", "use one of read"]),
    ],
)  # fmt: skip
def test_policies_at_odds_with_the_program(text: str, words: list[str]) -> None:
    refuse(text, *words, facts=Z_TOO)


def test_an_unused_object_that_an_inherited_permission_grants_is_refused() -> None:
    text = grant("staff", "receive", "output:z", UNUSED)
    refuse(text, "S1", "role 'staff' may receive output:z", "take it off the list", facts=Z_TOO)


def test_names_that_stand_for_all_are_refused() -> None:
    refuse(POLICY, "S1", "rename it", facts=ProgramFacts(("*",), ("y",)))


def test_misspelt_objects_are_proposed_with_their_kind() -> None:
    text = change("input:x", "input:vital")
    refuse(text, "did you mean 'input:vitals'", facts=ProgramFacts(("vitals",), ("y",)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (change('["staff"]', '["stav"]'),
         ["p.toml, line 6", "'inherits' of role 'sender'", "did you mean 'staff'?"]),
        (change('role = "cloud"', 'role = "vip"'), ["role 'vip'", "[roles.vip]"]),
        (change("[roles.staff]\n", '[roles.staff]\ninherits = ["sender"]\n'),
         ["circle: staff -> sender -> staff"]),
        (change("[roles.cloud]\n", '[roles.cloud]\ninherits = ["cloud"]\n'), ["cloud -> cloud"]),
        (f'{POLICY}\n[[constraints]]\nkind = "static"\nroles = ["cloud", "valt"]\n',
         ["a constraint names role 'valt'", "did you mean 'vault'?"]),
        (f'{POLICY}\n[keys.secret]\nholders = ["vaults"]\n', ["'holders' of [keys.secret]"]),
        (f'{POLICY}\n[keys.secret]\nnever = ["clouds"]\n', ["'never' of [keys.secret]"]),
    ],
)  # fmt: skip
def test_roles_that_are_named_exist_and_form_no_circle(text: str, words: list[str]) -> None:
    refuse(text, *words)


def test_users_with_unknown_roles_are_refused() -> None:
    refuse(POLICY, "user 'ann' names role 'boss', which is not defined", ann="boss")


def test_repeated_roles_are_refused() -> None:
    policy = single_owner_policy(["x"], ["y"])
    twice = dataclasses.replace(policy, roles=(*policy.roles, Role("owner")))
    with pytest.raises(InputError, match="role 'owner' is defined twice"):
        check_policy(twice, FACTS)


def test_long_chains_of_roles_do_not_meet_a_recursion_limit() -> None:
    roles = tuple(Role(f"r{i}", (f"r{(i + 1) % 2000}",)) for i in range(2000))
    permission = Permission("r1999", (Action.ENCRYPT,), (ObjectRef.input("x"),))
    with pytest.raises(InputError, match="circle"):
        check_policy(Policy(roles, (permission,)), ProgramFacts(("x",), ()))


def test_refreshes_need_somebody_who_may() -> None:
    refreshing = dataclasses.replace(FACTS, refreshes=17)
    check(POLICY, refreshing)
    text = change('"hold", "refresh"', '"hold"')
    text = change('"key:secret", "program"', '"key:secret"', text)
    refuse(text, "17 refreshes", "'refresh' on 'program'", facts=refreshing)
    refuse(text, "1 refresh,", facts=dataclasses.replace(FACTS, refreshes=1))


def test_refreshes_with_bare_masks_need_a_key_holder_who_owns_the_model() -> None:
    bare = dataclasses.replace(FACTS, refreshes=1, mask_bits=19)
    refuse(POLICY, "role 'vault'", "does not own the model", facts=bare)
    check(POLICY, dataclasses.replace(bare, mask_bits=20))
    check(grant("vault", "own", "model"), bare)


def test_the_built_in_policy_passes() -> None:
    policy = single_owner_policy(["x", "age"], ["y"])
    check_policy(policy, ProgramFacts(("x", "age"), ("y",), refreshes=17, mask_bits=30))
