"""Rules S2 and S4: duties that exclude each other, and who never holds a key."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecompile.access.policy import (
    KEY_SECRET,
    PROGRAM,
    Action,
    Constraint,
    KeyRule,
    ObjectRef,
    Permission,
    Policy,
    Role,
)
from hecompile.access.policy_io import parse_policy
from hecompile.access.proof import check_assignments
from hecompile.access.proof_separation import check_separation
from hecompile.access.proof_subjects import subjects_of
from hecompile.errors import InputError
from tests.unit.proof_cases import POLICY, check, grant, inherit, line, refuse, users_of

STATIC = f'{POLICY}\n[[constraints]]\nkind = "static"\nroles = ["sender", "reader"]\n'
DYNAMIC = STATIC.replace('"static"', '"dynamic"')
THREE = STATIC.replace('["sender", "reader"]', '["sender", "reader", "vault"]\nmost = 2')
KEYS = f'{POLICY}\n[keys.secret]\nholders = ["vault"]\nnever = ["reader"]\n'


def test_separated_duties_pass() -> None:
    for text in (STATIC, DYNAMIC, THREE, KEYS):
        check(text, ann="sender", bob="reader", eve="cloud", kim="vault")


@pytest.mark.parametrize(
    ("action", "obj", "rule"),
    [
        ("hold", "key:secret", "S4"),
        ("register", "key:secret", "S4"),
        ("rotate", "key:secret", "S4"),
        ("decrypt", "output:y", "S2"),
        ("decrypt", "input:*", "S2"),
        ("refresh", "program", "S2"),
        ("encrypt", "model", "S2"),
    ],
)
def test_evaluator_reaches_no_key_and_no_value(action: str, obj: str, rule: str) -> None:
    refuse(
        grant("cloud", action, obj),
        f"rule {rule} ",
        "role 'cloud' may evaluate program (cloud)",
        f"may also {action} {obj} (cloud)",
        "separate roles and users",
    )


def test_evaluator_may_hold_the_keys_that_it_needs() -> None:
    check(grant("cloud", "hold", "key:evaluation"))
    check(grant("cloud", "hold", "key:public"))


def test_evaluator_reaches_nothing_through_inheritance() -> None:
    middle = inherit("middle", "vault")
    text = inherit("boss", "cloud", "middle", text=middle)
    refuse(
        text,
        f"{line(text, '[roles.boss]')}: rule S4",
        "role 'boss' may evaluate program (boss -> cloud)",
        "hold key:secret (boss -> middle -> vault)",
    )
    refuse(
        inherit("boss", "cloud", "reader"),
        "rule S2",
        "declassify output:y (boss -> reader)",
    )


def test_evaluator_reaches_nothing_through_a_users_roles() -> None:
    refuse(POLICY, "S2", "user 'eve' may evaluate program (cloud)", "(reader)", eve="cloud reader")
    refuse(POLICY, "S4", "user 'eve' may evaluate", "hold key:secret (vault)", eve="cloud vault")


@pytest.mark.parametrize("kind", [STATIC, DYNAMIC])
def test_excluded_roles_that_inherit_each_other_are_refused(kind: str) -> None:
    text = kind.replace(
        '[roles.reader]\ninherits = ["staff"]', '[roles.reader]\ninherits = ["mid"]'
    )
    text = inherit("mid", "sender", text=text)
    refuse(
        text,
        "p.toml, line 9: rule S2",
        "role 'reader' amounts to 2 of the roles sender, reader",
        "reader -> mid -> sender",
        "constraint allows 1; remove one of the inheritances, or raise 'most'",
    )


def test_static_ones_bind_every_role_and_user_and_dynamic_ones_a_session() -> None:
    refuse(
        inherit("boss", "sender", "reader", text=STATIC),
        "role 'boss'",
        "boss -> sender and boss -> reader",
    )
    refuse(inherit("boss", "sender", "reader", text=DYNAMIC), "role 'boss'", "dynamic constraint")
    refuse(
        STATIC, "S2", "user 'ann' amounts to 2", "take one of the roles away", ann="sender reader"
    )
    check(DYNAMIC, ann="sender reader")


def test_users_are_counted_with_what_their_roles_inherit() -> None:
    text = inherit("chief", "reader", text=STATIC)
    refuse(text, "user 'ann'", "sender and chief -> reader", ann="sender chief")


def test_more_than_one_role_may_be_allowed() -> None:
    check(THREE, ann="sender reader", bob="reader vault")
    refuse(THREE, "amounts to 3", "allows 2", ann="sender reader vault")


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (Constraint("static", ("a", "b"), 2), "excludes nothing"),
        (Constraint("static", ("a", "b"), 0), "excludes nothing"),
        (Constraint("dynamic", ("a", "a")), "excludes nothing"),
        (Constraint("static", ()), "excludes nothing"),
        (Constraint("lax", ("a", "b")), "neither 'static' nor 'dynamic'"),
    ],
)
def test_constraints_that_exclude_nothing_are_refused(constraint: Constraint, words: str) -> None:
    policy = Policy((Role("a"), Role("b")), (), constraints=(constraint,))
    with pytest.raises(InputError, match=f"S2.*{words}"):
        check_separation(policy, subjects_of(policy))


def test_only_the_holders_of_a_key_hold_it() -> None:
    for action in ("hold", "register", "rotate"):
        text = grant("sender", action, "key:secret", KEYS)
        refuse(text, "S4", f"role 'sender' may {action} key:secret (sender)", "[keys.secret]")
    text = inherit("chief", "vault", text=KEYS)
    refuse(
        text,
        f"{line(text, '[roles.chief]')}: rule S4",
        "role 'chief' may hold key:secret (chief -> vault)",
        "the holders of [keys.secret] are vault; add role 'chief' to them",
    )
    check(inherit("chief", "vault", text=KEYS.replace('["vault"]', '["vault", "chief"]')))
    check(KEYS, ann="vault sender")


def test_roles_that_must_never_hold_a_key_get_it_by_no_path() -> None:
    never = KEYS.replace('holders = ["vault"]\n', "")
    refuse(
        grant("reader", "hold", "key:secret", never),
        "rule S4",
        "role 'reader' may hold key:secret (reader) and is 'reader' (reader)",
        "[keys.secret] never lets hold it",
    )
    refuse(
        inherit("boss", "reader", "vault", text=never),
        "hold key:secret (boss -> vault) and is 'reader' (boss -> reader)",
    )
    refuse(KEYS, "S4", "user 'ann' may hold key:secret (vault) and is 'reader'", ann="reader vault")


def test_a_rule_for_one_key_says_nothing_of_another() -> None:
    text = KEYS.replace("[keys.secret]", "[keys.evaluation]").replace('holders = ["vault"]\n', "")
    check(text, ann="reader vault")
    refuse(grant("reader", "hold", "key:evaluation", text), "[keys.evaluation] never lets hold it")
    check(grant("reader", "register", "key:evaluation", text))


def test_assignments_are_held_against_the_policy_without_a_program() -> None:
    policy = parse_policy(STATIC)
    check_assignments(policy, users_of(policy, ann="sender", eve="cloud"))
    for roles, words in (("sender reader", "S2"), ("cloud vault", "S4"), ("boss", "not defined")):
        with pytest.raises(InputError, match=words):
            check_assignments(policy, users_of(policy, ann=roles))


NAMES = tuple("abcde")
GRANTED = (
    (Action.EVALUATE, PROGRAM),
    (Action.REFRESH, PROGRAM),
    (Action.HOLD, KEY_SECRET),
    (Action.REGISTER, KEY_SECRET),
    (Action.DECRYPT, ObjectRef.output("y")),
    (Action.SUBMIT, ObjectRef.input("x")),
)
some = st.sets(st.sampled_from(NAMES), max_size=2)


def broken(
    held: frozenset[str],
    edges: list[tuple[str, str]],
    rights: list[tuple[str, int]],
    excluded: frozenset[str],
    never: set[str],
    holders: set[str],
) -> bool:
    """The oracle: the closure by repeated union, then plain set algebra."""
    reached = set(held)
    for _ in NAMES:
        reached |= {parent for child, parent in edges if child in reached}
    had = {
        f"{action} {obj}" for name, i in rights if name in reached for action, obj in [GRANTED[i]]
    }
    key = bool(had & {"hold key:secret", "register key:secret"})
    values = key or bool(had & {"refresh program", "decrypt output:y"})
    lone = next(iter(held)) if len(held) == 1 else None
    return (
        len(reached & excluded) > 1
        or ("evaluate program" in had and values)
        or (key and bool(never & reached))
        or (key and bool(holders) and lone is not None and lone not in holders)
    )


@given(
    st.lists(st.sampled_from(list(itertools.combinations(NAMES, 2))), max_size=4),
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, len(GRANTED) - 1)), max_size=4),
    st.sets(st.sampled_from(NAMES), min_size=2, max_size=2).map(frozenset),
    some,
    some,
    st.lists(st.frozensets(st.sampled_from(NAMES), max_size=2), max_size=2),
)
def test_duties_are_separated_as_sets_of_roles_say(
    edges: list[tuple[str, str]],
    rights: list[tuple[str, int]],
    excluded: frozenset[str],
    never: set[str],
    holders: set[str],
    held: list[frozenset[str]],
) -> None:
    holders -= never
    parents = {name: tuple(p for child, p in edges if child == name) for name in NAMES}
    permissions = [
        Permission(name, (action,), (obj,)) for name, i in rights for action, obj in [GRANTED[i]]
    ]
    policy = Policy(
        tuple(Role(name, parents[name]) for name in NAMES),
        tuple(permissions),
        constraints=(Constraint("static", tuple(sorted(excluded))),),
        keys=(KeyRule("secret", tuple(sorted(holders)), tuple(sorted(never))),),
    )
    people = {f"u{i}": " ".join(sorted(roles)) for i, roles in enumerate(held)}
    knowing = [frozenset(name) for name in NAMES] + held
    expected = any(broken(one, edges, rights, excluded, never, holders) for one in knowing)
    try:
        check_separation(policy, subjects_of(policy, users_of(policy, **people)))
    except InputError:
        found = True
    else:
        found = False
    assert found is expected
