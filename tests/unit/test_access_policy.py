"""Reading, printing and checking policies."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecompile.access.policy import (
    APPLIES_TO,
    DEFAULT_ENFORCEMENT,
    KEY_SECRET,
    Action,
    Enforcement,
    Kind,
    ObjectRef,
    Permission,
    Policy,
    Role,
    User,
    permission_table,
    role_paths,
    single_owner_policy,
)
from hecompile.access.policy_checks import check_policy, policy_warnings, work_warnings
from hecompile.access.policy_io import (
    parse_policy,
    policy_from_json,
    policy_to_json,
    policy_to_toml,
    read_policy,
)
from hecompile.errors import InputError

HOSPITAL = """\
format = 1
unused = ["output:z"]

[roles.viewer]
description = "Sees results"
[roles.clinician]
inherits = ["viewer"]
[roles.cloud]
[roles.custodian]

[[permissions]]
role = "viewer"
actions = ["receive"]
objects = ["output:y"]

[[permissions]]
role = "clinician"
actions = ["encrypt", "decrypt"]
objects = ["input:x", "output:y"]

[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]

[[permissions]]
role = "custodian"
actions = ["hold"]
objects = ["key:secret"]

[users]
alice = ["clinician"]
cloud = ["cloud"]
"""


def check(text: str, refreshes: int = 0) -> None:
    check_policy(parse_policy(text, "p.toml"), ["x"], ["y", "z"], refreshes=refreshes)


def refuse(text: str, *words: str, refreshes: int = 0) -> None:
    with pytest.raises(InputError) as caught:
        check(text, refreshes)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def change(old: str, new: str) -> str:
    assert old in HOSPITAL
    return HOSPITAL.replace(old, new, 1)


def test_hospital_policy_passes_and_reads() -> None:
    check(HOSPITAL)
    policy = parse_policy(HOSPITAL)
    assert policy.role("clinician") == Role("clinician", ("viewer",))
    assert policy.user("alice") == User("alice", ("clinician",))
    assert policy.permissions[1].actions == (Action.ENCRYPT, Action.DECRYPT)
    assert policy.unused == (ObjectRef.output("z"),)
    assert policy.role("nobody") is None
    assert policy.user("nobody") is None


def test_every_action_has_objects_and_an_enforcement() -> None:
    assert set(APPLIES_TO) == set(Action) == set(DEFAULT_ENFORCEMENT)
    assert DEFAULT_ENFORCEMENT[Action.DECRYPT] is Enforcement.GATEWAY
    assert DEFAULT_ENFORCEMENT[Action.HOLD] is Enforcement.CRYPTOGRAPHIC


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (change("description", "descripton"), ["p.toml, line 5", "descripton"]),
        (change('role = "cloud"', 'role = "cloud"\nobject = "x"'), ["line 23", "'object'"]),
        (change("format = 1", "format = 1\nfoo = 2"), ["line 2", "'foo'"]),
        (change("[users]", "[user]"), ["line 31", "'user'"]),
        (change("format = 1\n", ""), ["p.toml", "lacks the key 'format'"]),
        (change("format = 1", "format = 2"), ["line 1", "upgrade"]),
        (change("format = 1", "format = true"), ["whole number"]),
        (change('["evaluate"]', '["evaluat"]'), ["line 23", "did you mean 'evaluate'?"]),
        (change('["evaluate"]', "[3]"), ["permissions.3.actions", "texts"]),
        (change('["evaluate"]', "[]"), ["grants nothing"]),
        (change('"key:secret"', '"key:*"'), ["line 29", "'key:*'"]),
        (change('"key:secret"', '"key"'), ["line 29"]),
        (change('"program"', '"program:a"'), ["line 24", "takes no name"]),
        (change('"program"', '"file:a"'), ["line 24", "names no object"]),
        (change('objects = ["program"]', 'objects = ["program"]\nenforcement = "maybe"'),
         ["line 25", "unknown enforcement 'maybe'"]),
        (change("alice = ", '" alice" = '), ["line 32", "not a usable name"]),
        (change("alice = ", '"a\\u0007" = '), ["not a usable name"]),
        ("format = 1", ["no roles"]),
        ("format = 1\n[roles.a]", ["no permissions"]),
        ("format = = 1", ["not valid TOML", "line 1"]),
        ("roles = 3\nformat = 1\n[[permissions]]", ["permissions.1 lacks"]),
    ],
)  # fmt: skip
def test_malformed_policies_name_file_and_line(text: str, words: list[str]) -> None:
    refuse(text, *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (change('["viewer"]', '["vewer"]'), ["line 6", "'vewer'", "did you mean 'viewer'?"]),
        (change('role = "viewer"', 'role = "vip"'), ["line 11", "role 'vip'", "[roles.vip]"]),
        (change('alice = ["clinician"]', 'alice = ["boss"]'), ["line 32", "user 'alice'"]),
        (HOSPITAL.replace('unused = ["output:z"]\n', "") + 'unused = ["output:z"]\n',
         ["top of the file"]),
        (change("[roles.viewer]\n", '[roles.viewer]\ninherits = ["clinician"]\n'),
         ["circle: clinician -> viewer -> clinician"]),
        (change("[roles.cloud]\n", '[roles.cloud]\ninherits = ["cloud"]\n'), ["cloud -> cloud"]),
        (change('"output:y"', '"output:yy"'), ["line 11", "'output:yy'", "its outputs are y, z"]),
        (change('"input:x"', '"input:y"'), ["'input:y' does not exist"]),
        (change('["output:z"]', '["output:q"]'), ["'output:q' does not exist"]),
        (change('["output:z"]', '["program"]'), ["single inputs and outputs"]),
        (change('unused = ["output:z"]\n', ""), ["nobody has a permission on output:z", "unused"]),
        (change('"output:y"', '"output:*"'), ["output:*", "'unused' lists output:z"]),
        (change('["evaluate"]', '["evaluate", "encrypt"]'), ["'encrypt' applies to none"]),
        (change('["program"]', '["program", "audit"]'), ["object 'audit'", "use one of read"]),
    ],
)  # fmt: skip
def test_policies_at_odds_with_the_program(text: str, words: list[str]) -> None:
    refuse(text, *words)


def grant(role: str, action: str, obj: str) -> str:
    text = f'\n[[permissions]]\nrole = "{role}"\nactions = ["{action}"]\nobjects = ["{obj}"]\n'
    return HOSPITAL.replace("\n[users]", f"{text}\n[users]")


@pytest.mark.parametrize(
    ("action", "obj"),
    [
        ("hold", "key:secret"),
        ("register", "key:secret"),
        ("rotate", "key:secret"),
        ("decrypt", "output:y"),
        ("decrypt", "input:*"),
        ("declassify", "output:y"),
        ("refresh", "program"),
    ],
)
def test_evaluator_reaches_no_value(action: str, obj: str) -> None:
    refuse(grant("cloud", action, obj), "role 'cloud' may evaluate", f"{action} {obj}")


def test_evaluator_reaches_no_value_through_inheritance() -> None:
    inner = change("[roles.cloud]\n", '[roles.middle]\ninherits = ["custodian"]\n[roles.cloud]\n')
    text = inner.replace("[roles.cloud]\n", '[roles.cloud]\ninherits = ["middle"]\n')
    refuse(text, "role 'cloud'", "cloud -> middle -> custodian", "line 10")
    inherits_both = change(
        "[roles.custodian]\n",
        '[roles.custodian]\n[roles.boss]\ninherits = ["cloud", "clinician"]\n',
    )
    refuse(inherits_both, "role 'boss'", "boss -> cloud", "boss -> clinician")


def test_evaluator_reaches_no_value_through_a_users_roles() -> None:
    text = change('cloud = ["cloud"]', 'mallory = ["cloud", "clinician"]')
    refuse(text, "user 'mallory' may evaluate (cloud)", "decrypt", "(clinician)", "line 33")


def test_evaluator_may_hold_the_keys_it_needs() -> None:
    check(grant("cloud", "hold", "key:evaluation"))
    check(grant("cloud", "hold", "key:public"))


def test_refreshes_need_somebody_who_may() -> None:
    refuse(HOSPITAL, "17 refreshes", "'refresh' on 'program'", refreshes=17)
    check(grant("custodian", "refresh", "program"), refreshes=17)


def test_cryptographic_claims_must_be_true() -> None:
    claim = 'objects = ["input:x", "output:y"]\n'
    text = change(claim, f'{claim}enforcement = "cryptographic"\n')
    refuse(text, "'encrypt' cannot be enforced cryptographically")
    text = text.replace('"encrypt", "decrypt"', '"decrypt"')
    refuse(text, "'clinician' does not hold key:secret")
    held = text.replace(
        "\n[users]",
        """
[[permissions]]
role = "clinician"
actions = ["hold"]
objects = ["key:secret"]

[users]""",
    )
    refuse(held, "role 'custodian' holds key:secret and may not decrypt it")
    check(held.replace("[roles.custodian]\n", '[roles.custodian]\ninherits = ["clinician"]\n'))


def test_names_that_stand_for_all_are_refused() -> None:
    with pytest.raises(InputError, match="rename it"):
        check_policy(parse_policy(HOSPITAL), ["*"], ["y", "z"])


def test_repeated_roles_and_users_are_refused() -> None:
    policy = single_owner_policy(["x"], ["y"])
    with pytest.raises(InputError, match="role 'owner' is defined twice"):
        check_policy(
            dataclasses.replace(policy, roles=(*policy.roles, Role("owner"))), ["x"], ["y"]
        )
    with pytest.raises(InputError, match="user 'cloud' is defined twice"):
        check_policy(
            dataclasses.replace(policy, users=(*policy.users, User("cloud", ()))), ["x"], ["y"]
        )


def test_long_chains_of_roles_do_not_meet_a_recursion_limit() -> None:
    roles = tuple(Role(f"r{i}", (f"r{i + 1}",) if i < 1999 else ()) for i in range(2000))
    assert len(role_paths(Policy(roles, (), ()), ["r0"])["r1999"]) == 2000
    permission = Permission("r1999", (Action.ENCRYPT,), (ObjectRef.input("x"),))
    start = dataclasses.replace(roles[-1], inherits=("r0",))
    with pytest.raises(InputError, match="circle"):
        check_policy(Policy((*roles[:-1], start), (permission,), ()), ["x"], [])


def test_closure_ends_on_cycles_and_passes_over_unknown_roles() -> None:
    roles = (Role("a", ("b", "ghost")), Role("b", ("a",)))
    paths = role_paths(Policy(roles, (), ()), ["a", "ghost"])
    assert paths == {"a": ("a",), "b": ("a", "b")}


def test_seeing_ciphertexts_and_decrypted_values_without_the_key_is_warned_of() -> None:
    [warning] = policy_warnings(parse_policy(HOSPITAL))
    assert warning.startswith(
        "user 'alice' may receive output:y (clinician -> viewer) and decrypt output:y (clinician)"
        " without holding the secret key"
    )
    assert "grant 'hold' on key:secret to role 'clinician'" in warning
    [warning] = policy_warnings(parse_policy(change('inherits = ["viewer"]', "")))
    assert "may encrypt input:x (clinician) and decrypt" in warning
    unassigned = change('alice = ["clinician"]', "")
    [warning] = policy_warnings(parse_policy(unassigned))
    assert warning.startswith("role 'clinician' may")


@pytest.mark.parametrize(
    "text",
    [
        change('alice = ["clinician"]', 'alice = ["clinician", "custodian"]'),
        change('inherits = ["viewer"]', 'inherits = ["viewer", "custodian"]'),
        change('"encrypt", "decrypt"', '"encrypt"').replace('"input:x", "output:y"', '"input:x"'),
    ],
)
def test_who_holds_the_key_or_decrypts_nothing_is_not_warned_of(text: str) -> None:
    assert policy_warnings(parse_policy(text)) == ()
    assert policy_warnings(single_owner_policy(["x"], ["y"])) == ()


@pytest.mark.parametrize(
    ("text", "step"),
    [
        (change('alice = ["clinician"]', 'alice = ["viewer"]'), "encrypt input:x"),
        (change('alice = ["clinician"]', 'alice = ["viewer"]'), "decrypt output:y"),
        (change('cloud = ["cloud"]', "cloud = []"), "evaluate program"),
        (HOSPITAL, "hold key:secret"),
        (HOSPITAL, "refresh program"),
    ],
)
def test_steps_that_no_user_may_take_are_warned_of(text: str, step: str) -> None:
    found = work_warnings(parse_policy(text), ["x"], ["y", "z"], refreshes=1)
    assert [one for one in found if one.startswith(f"no user may {step}: ")]
    assert not [one for one in found if "output:z" in one]


def test_all_inputs_are_encrypted_by_one_user() -> None:
    text = change('"input:x", "output:y"', '"input:x", "output:y", "key:secret"')
    text = text.replace('["encrypt", "decrypt"]', '["encrypt", "decrypt", "hold"]')
    assert work_warnings(parse_policy(text), ["x"], ["y"]) == ()
    other = '[[permissions]]\nrole = "custodian"\nactions = ["encrypt"]\nobjects = ["input:a"]\n'
    text = text.replace("[users]", f'{other}[users]\nbob = ["custodian"]')
    [warning] = work_warnings(parse_policy(text), ["x", "a"], ["y"])
    assert warning.startswith("no user may encrypt all of input:x, input:a")


def test_misspelt_objects_are_proposed_with_their_kind() -> None:
    with pytest.raises(InputError, match="did you mean 'input:vitals'"):
        check_policy(parse_policy(HOSPITAL.replace("input:x", "input:vital")), ["vitals"], ["y"])


def test_single_owner_policy_separates_owner_and_evaluator() -> None:
    policy = single_owner_policy(["x", "age"], ["y"])
    check_policy(policy, ["x", "age"], ["y"], refreshes=17)
    rows = permission_table(policy)
    evaluator = [(row.action, row.object.kind) for row in rows if row.role == "evaluator"]
    assert evaluator == [(Action.EVALUATE, Kind.PROGRAM)]
    assert any(row.object == KEY_SECRET and row.role == "owner" for row in rows)
    assert not any(row.action is Action.EVALUATE for row in rows if row.role == "owner")


def test_table_shows_inherited_rights_and_their_source() -> None:
    rows = permission_table(parse_policy(HOSPITAL))
    shown = {(row.role, str(row.action), str(row.object)): row for row in rows}
    assert shown[("clinician", "receive", "output:y")].inherited_from == "viewer"
    assert shown[("viewer", "receive", "output:y")].inherited_from is None
    # A pair without a meaning is no right.
    assert ("clinician", "encrypt", "output:y") not in shown


def test_policy_files(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(HOSPITAL)
    assert read_policy(path) == parse_policy(HOSPITAL)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        read_policy(path)
    with pytest.raises(InputError, match="cannot read"):
        read_policy(tmp_path / "none.toml")


role_names = st.text('abc. -é"\\', min_size=1, max_size=6).filter(lambda name: name == name.strip())
objects = st.one_of(
    st.sampled_from(["program", "audit", "key:secret", "key:public"]).map(ObjectRef.parse),
    st.text(min_size=1, max_size=6).map(ObjectRef.input),
)
roles = st.lists(
    st.builds(Role, role_names, st.lists(role_names, max_size=2).map(tuple), st.text(max_size=9)),
    min_size=1,
    unique_by=lambda role: role.name,
).map(tuple)
permissions = st.lists(
    st.builds(
        Permission,
        st.text(max_size=5),
        st.lists(st.sampled_from(Action), min_size=1, max_size=3).map(tuple),
        st.lists(objects, min_size=1, max_size=3).map(tuple),
        st.none() | st.sampled_from(Enforcement),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
users = st.lists(
    st.builds(User, role_names, st.lists(role_names, max_size=2).map(tuple)),
    unique_by=lambda user: user.name,
).map(tuple)


@given(st.builds(Policy, roles, permissions, users, st.lists(objects, max_size=2).map(tuple)))
def test_policies_round_trip_through_toml_and_json(policy: Policy) -> None:
    assert policy_from_json(policy_to_json(policy)) == policy
    assert parse_policy(policy_to_toml(policy)) == policy
