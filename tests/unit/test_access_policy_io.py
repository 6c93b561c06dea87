"""Policies of any kind come back from TOML and JSON as they were; other data are refused."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.access.policy import (
    KEY_NAMES,
    Action,
    Constraint,
    DpNoise,
    Enforcement,
    FieldLabels,
    KeyRule,
    ModelLabels,
    ObjectRef,
    Obligations,
    Permission,
    Policy,
    Role,
    Scope,
)
from hecompile.access.policy_io import (
    parse_policy,
    policy_from_json,
    policy_to_json,
    policy_to_toml,
)
from hecompile.access.records import canonical_json, parse_json
from hecompile.errors import InputError

WRONG: list[Any] = [None, -1, 2**64, "", "x", [], {}, [[]], True, 1.5]

names = st.text("abc. -_@+é", min_size=1, max_size=6).filter(lambda name: name == name.strip())
labels = st.lists(
    st.text(string.ascii_letters + "_-0", min_size=1, max_size=4), min_size=1, max_size=3
).map(".".join)
clearances = st.just("*") | labels | labels.map(lambda label: f"{label}.*")
sizes = st.floats(1e-9, 1e9, allow_subnormal=False)
inputs = st.text(min_size=1, max_size=6).filter(lambda name: name != "*").map(ObjectRef.input)
objects = st.one_of(
    st.sampled_from(["program", "audit", "key:secret", "output:*"]).map(ObjectRef.parse), inputs
)


def distinct(items: st.SearchStrategy[Any], least: int = 0, most: int = 3) -> st.SearchStrategy:
    return st.lists(items, min_size=least, max_size=most, unique=True).map(tuple)


noises = st.builds(
    lambda rho, more, lower, width, least: DpNoise(rho, rho + more, lower, lower + width, least),
    sizes,
    sizes,
    st.floats(-1e6, 1e6),
    st.floats(1, 1e6),
    st.integers(2, 2**32),
)
obligations = st.builds(
    Obligations,
    st.none() | st.integers(30, 60),
    st.none() | sizes,
    st.booleans(),
    st.none() | noises,
    st.none() | st.integers(1, 2**32),
)
plain_permissions = st.builds(
    Permission,
    st.text(max_size=5),
    distinct(st.sampled_from(Action), 1),
    distinct(objects, 1),
    st.none() | st.sampled_from(Enforcement),
    purposes=distinct(st.sampled_from(("care", "ré", "q@+")), most=2),
)
releases = st.builds(
    Permission,
    st.text(max_size=5),
    st.just((Action.DECLASSIFY,)),
    distinct(objects, 1, 2),
    scope=st.sampled_from(Scope),
    purposes=distinct(st.sampled_from(("care", "ré", "q@+")), most=2),
    obligations=obligations,
)
constraints = st.builds(
    Constraint, st.sampled_from(("static", "dynamic")), distinct(names, 3, 4), st.integers(1, 2)
)
key_rules = st.builds(
    lambda name, roles, days, count: KeyRule(name, roles[:1], roles[1:], days, count),
    st.sampled_from(KEY_NAMES),
    distinct(names),
    st.none() | st.integers(1, 36525),
    st.none() | st.integers(1, 2**32),
)
field_labels = st.builds(FieldLabels, inputs, st.none(), distinct(labels, 1)) | st.builds(
    FieldLabels, inputs, st.integers(0, 7), st.lists(labels, min_size=1, max_size=3).map(tuple)
)
models = st.builds(ModelLabels, distinct(labels, 1)) | st.builds(
    ModelLabels, distinct(labels, 1), st.just("dp"), sizes, st.none() | st.floats(0, 0.5)
)
policies = st.builds(
    Policy,
    st.lists(
        st.builds(
            Role,
            names,
            distinct(names),
            st.text(max_size=9),
            clearance=distinct(clearances),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda role: role.name,
    ).map(tuple),
    st.lists(plain_permissions | releases, min_size=1, max_size=4).map(tuple),
    distinct(objects, most=2),
    st.lists(constraints, max_size=2).map(tuple),
    st.lists(key_rules, max_size=2, unique_by=lambda rule: rule.name).map(tuple),
    st.lists(field_labels, max_size=2, unique_by=lambda one: one.object).map(tuple),
    st.none() | models,
    st.integers(1, 366 * 86400),
    st.just(("care", "ré", "q@+")),
)


@settings(max_examples=50)
@given(policies)
def test_policies_round_trip_through_toml_and_json(policy: Policy) -> None:
    assert policy_from_json(policy_to_json(policy)) == policy
    assert parse_policy(policy_to_toml(policy)) == policy
    data = canonical_json(policy_to_json(policy))
    again = policy_from_json(parse_json(data, "the policy", 1 << 20))
    assert again == policy
    assert canonical_json(policy_to_json(again)) == data


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(("format", "roles", "permissions", "labels", "model", "a")), inner
    ),
))  # fmt: skip
def test_no_data_break_the_reader(data: object) -> None:
    with pytest.raises(InputError):
        policy_from_json(data)


@settings(max_examples=50)
@given(policies, st.data())
def test_one_wrong_value_anywhere_is_refused_or_read_as_it_stands(
    policy: Policy, data: st.DataObject
) -> None:
    table = policy_to_json(policy)
    place: Any = table
    while isinstance(place, dict | list) and place:
        steps = sorted(place) if isinstance(place, dict) else range(len(place))
        step = data.draw(st.sampled_from(list(steps)))
        inner = place[step]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            wrong: Any = data.draw(
                st.sampled_from([None, -1, 2**64, "", "x", [], {}, [[]], True, 1.5])
            )
            place[step] = wrong
            break
        place = inner
    try:
        found = policy_from_json(table)
    except InputError:
        return
    assert policy_from_json(policy_to_json(found)) == found
