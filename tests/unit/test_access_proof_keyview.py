"""Rule S3: nobody sees ciphertexts and raw values under a key that it does not hold."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.access.policy import (
    APPLIES_TO,
    AUDIT,
    KEY_EVALUATION,
    KEY_SECRET,
    MODEL,
    PROGRAM,
    Action,
    DpNoise,
    ObjectRef,
    Obligations,
    Permission,
    Policy,
    Role,
)
from hecompile.access.proof_keyview import check_key_views
from hecompile.access.proof_subjects import subjects_of
from hecompile.access.users import UserEntry, Users
from hecompile.errors import InputError
from tests.unit.proof_cases import (
    KEY_RECOVERY_POLICY,
    POLICY,
    change,
    check,
    grant,
    inherit,
    line,
    refuse,
)

RAW = grant("reader", "decrypt", "output:y")
REMEDY = "declassify with flood, budget and one of round, label_only and dp"


def test_the_policy_under_which_a_key_is_recovered_is_refused() -> None:
    refuse(
        KEY_RECOVERY_POLICY,
        "p.toml, line 3: rule S3 (key-view separation)",
        "role 'clinician' may decrypt input:* (clinician) without holding the secret key",
        "the secret key can be computed from the two",
        REMEDY,
    )


def test_flooded_values_with_ciphertexts_pass() -> None:
    check(POLICY, ann="sender reader")
    check(grant("reader", "receive", "output:y"))


@pytest.mark.parametrize("obj", ["output:y", "output:*", "input:x"])
@pytest.mark.parametrize("role", ["reader", "sender", "staff"])
def test_whoever_decrypts_has_the_ciphertext_and_must_hold_the_key(role: str, obj: str) -> None:
    """No other right is needed: the command is handed the ciphertext by whoever runs it."""
    text = grant(role, "decrypt", obj)
    refuse(text, "rule S3", f"may decrypt {obj} (", "without holding", f"'{role}' {REMEDY}")
    refuse(text, "rule S3", ann=role)
    refuse(grant(role, "hold", "key:evaluation", text), "rule S3")
    # To have handed the key out is not to hold it: the holder is to be named.
    refuse(grant(role, "register", "key:secret", text), "rule S3")
    held = grant(role, "hold", "key:secret", text)
    check(held)
    check(held, ann=f"{role} vault")


UNFLOODED = change("flood = 30, ", "")


@pytest.mark.parametrize(
    ("action", "obj"),
    [
        ("encrypt", "input:x"),
        ("encrypt", "model"),
        ("submit", "input:x"),
        ("receive", "output:y"),
        ("receive", "input:*"),
        ("refresh", "program"),
    ],
)
def test_every_way_to_a_ciphertext_counts(action: str, obj: str) -> None:
    text = grant("reader", action, obj, UNFLOODED)
    refuse(text, "rule S3", "role 'reader'", f"may {action} {obj}", REMEDY)
    check(grant("reader", action, obj))


@pytest.mark.parametrize(
    "missing", ["flood = 30, ", "round = 0.05, ", ", budget = 64"]
)  # fmt: skip
def test_what_is_declassified_without_one_of_the_three_is_raw(missing: str) -> None:
    text = grant("reader", "receive", "output:y", change(missing, ""))
    refuse(text, "rule S3", "may declassify output:y (reader)", REMEDY)


def test_inheritance_brings_the_two_views_together() -> None:
    text = inherit("chief", "middle", "reader", text=inherit("middle", "sender", text=UNFLOODED))
    refuse(
        text,
        f"{line(text, '[roles.chief]')}: rule S3",
        "role 'chief' may encrypt input:x (chief -> middle -> sender)",
        "declassify output:y (chief -> reader)",
        "let role 'reader' declassify",
    )
    refuse(inherit("chief", "reader", text=RAW), "may decrypt output:y (chief -> reader)")


def test_separate_sessions_and_purposes_do_not_part_what_one_user_knows() -> None:
    text = change("format = 2\n", 'format = 2\npurposes = ["care"]\n', UNFLOODED)
    text = text.replace('objects = ["input:x"]', 'objects = ["input:x"]\npurpose = ["care"]')
    text += '\n[[constraints]]\nkind = "dynamic"\nroles = ["sender", "reader"]\n'
    refuse(text, "rule S3", "user 'ann'", "(sender)", "(reader)", ann="sender reader")


NAMES = tuple("abcd")
OBJECTS = (
    ObjectRef.input("x"),
    ObjectRef.input("*"),
    ObjectRef.output("y"),
    PROGRAM,
    MODEL,
    KEY_SECRET,
    KEY_EVALUATION,
    AUDIT,
)
NOISE = DpNoise(0.1, 1.0, -1.0, 1.0, 16)

links = st.lists(st.sampled_from(list(itertools.combinations(NAMES, 2))), max_size=6)
obligations = st.builds(
    Obligations,
    flood=st.sampled_from([None, 29, 30, 40]),
    round=st.sampled_from([None, 0.1]),
    label_only=st.booleans(),
    dp=st.sampled_from([None, NOISE]),
    budget=st.sampled_from([None, 5]),
)
sound = st.just(Obligations(flood=30, label_only=True, budget=5))
pairs = [(action, obj) for action in Action for obj in OBJECTS if obj.kind in APPLIES_TO[action]]
single = st.sampled_from(pairs).map(lambda pair: ((pair[0],), (pair[1],)))
mixed = st.tuples(
    st.lists(st.sampled_from(Action), min_size=1, max_size=2).map(tuple),
    st.lists(st.sampled_from(OBJECTS), min_size=1, max_size=2).map(tuple),
)
permissions = st.lists(
    st.builds(
        lambda role, terms, duties: Permission(role, terms[0], terms[1], obligations=duties),
        st.sampled_from(NAMES),
        single | mixed,
        obligations | sound,
    ),
    min_size=2,
    max_size=8,
)
assignments = st.lists(st.sets(st.sampled_from(NAMES), max_size=3), max_size=3)


def sees_both(
    held: frozenset[str], edges: list[tuple[str, str]], granted: list[Permission]
) -> bool:
    """The oracle: reachability by repeated union over explicit sets, then plain set algebra."""
    reached = set(held)
    for _ in NAMES:
        reached |= {parent for child, parent in edges if child in reached}
    ciphertexts, raw, key = set(), set(), False
    for one in granted:
        if one.role not in reached:
            continue
        for action, obj in itertools.product(one.actions, one.objects):
            kind = str(obj.kind)
            if obj.kind not in APPLIES_TO[action]:
                continue
            pair = f"{action}/{kind}"
            if pair in (
                "encrypt/input", "encrypt/model", "submit/input", "receive/input",
                "receive/output", "refresh/program", "evaluate/program",
            ):  # fmt: skip
                ciphertexts.add(pair)
            terms = one.obligations
            coarse = terms.round is not None or terms.label_only or terms.dp is not None
            hidden = (terms.flood or 0) >= 30 and coarse and terms.budget is not None
            if pair in ("decrypt/input", "decrypt/output"):
                # Whoever decrypts a ciphertext has it.
                ciphertexts.add(pair)
                raw.add(pair)
            if pair == "declassify/output" and not hidden:
                raw.add(pair)
            key = key or (pair == "hold/key" and obj.name == "secret")
    return bool(ciphertexts) and bool(raw) and not key


@settings(max_examples=200)
@given(links, permissions, assignments)
def test_no_policy_that_passes_lets_anybody_see_both(
    edges: list[tuple[str, str]], granted: list[Permission], held: list[set[str]]
) -> None:
    parents = {name: tuple(p for child, p in edges if child == name) for name in NAMES}
    policy = Policy(tuple(Role(name, parents[name]) for name in NAMES), tuple(granted))
    people = tuple(UserEntry(f"u{i}", tuple(sorted(roles))) for i, roles in enumerate(held))
    users = Users(policy.digest, 1, "", "", people)
    knowing = [frozenset({name}) for name in NAMES] + [frozenset(roles) for roles in held]
    expected = any(sees_both(roles, edges, granted) for roles in knowing)
    try:
        check_key_views(subjects_of(policy, users))
    except InputError:
        found = True
    else:
        found = False
    assert found is expected
