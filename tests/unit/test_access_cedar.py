"""Our evaluator against Cedar's, on random policies and requests."""

from __future__ import annotations

import json
import random
import re

import cedarpy
import pytest

from hecompile.access.cedar import cedar_entities, cedar_policies, cedar_request, export_cedar
from hecompile.access.decide import PolicyIndex, Request
from hecompile.access.policy import (
    APPLIES_TO,
    AUDIT,
    KEY_PUBLIC,
    KEY_SECRET,
    MODEL,
    PROGRAM,
    Action,
    ObjectRef,
    Obligations,
    Permission,
    Policy,
    Role,
    Scope,
    role_paths,
)
from hecompile.access.users import UserEntry, Users
from hecompile.errors import IntegrityError

REQUESTS = 10
"""Requests of each random policy."""

ROLES = ("admin", "doctor", "nurse", 'a "quoted" role', "it's", "über\n", "r6", "r7")
PURPOSES = ("care", "research", 'bil"ling')
OBJECTS = (
    ObjectRef.input("x"),
    ObjectRef.input("w é"),
    ObjectRef.input("*"),
    ObjectRef.output("y"),
    ObjectRef.output('z"'),
    ObjectRef.output("*"),
    PROGRAM,
    MODEL,
    AUDIT,
    KEY_SECRET,
    KEY_PUBLIC,
)


def some(rng: random.Random, items: tuple[str, ...], most: int) -> tuple[str, ...]:
    return tuple(rng.sample(items, rng.randint(0, min(most, len(items)))))


def random_policy(rng: random.Random) -> tuple[Policy, Users]:
    """Up to eight roles in any acyclic graph, with permissions, wildcards, purposes and scopes."""
    names = tuple(rng.sample(ROLES, rng.randint(1, len(ROLES))))
    roles = tuple(Role(name, some(rng, names[:place], 3)) for place, name in enumerate(names))
    permissions = tuple(
        Permission(
            rng.choice((*names, *names, "ghost")),
            tuple(rng.sample(tuple(Action), rng.randint(1, 4))),
            tuple(rng.sample(OBJECTS, rng.randint(1, 4))),
            scope=rng.choice((Scope.PERSON, Scope.PERSON, Scope.COHORT)),
            purposes=some(rng, PURPOSES, 2) if rng.random() < 0.4 else (),
            obligations=Obligations(flood=30) if rng.random() < 0.2 else Obligations(),
        )
        for _ in range(rng.randint(1, 8))
    )
    policy = Policy(roles, permissions)
    entries = tuple(
        UserEntry(name, some(rng, (*names, "ghost"), 3)) for name in ("anna", "bob", 'c"\\')
    )
    return policy, Users(policy.digest, 1, "", "", entries)


def random_request(rng: random.Random, policy: Policy, users: Users) -> Request:
    """Often near to a permission, so that both answers are frequent."""
    user = rng.choice(("anna", "bob", 'c"\\', "stranger"))
    action, obj = rng.choice(tuple(Action)), rng.choice(OBJECTS)
    purpose, scope = rng.choice(("", *PURPOSES, "other")), rng.choice(tuple(Scope))
    if rng.random() < 0.8:
        near = rng.choice(policy.permissions)
        able = [one.name for one in users.users if near.role in role_paths(policy, one.roles)]
        user = rng.choice(able or [user])
        pairs = [
            (action, obj)
            for action in near.actions
            for obj in near.objects
            if obj.kind in APPLIES_TO[action]
        ]
        action, obj = rng.choice(pairs or [(action, obj)])
        scope = near.scope if rng.random() < 0.8 else scope
        purpose = rng.choice(near.purposes) if near.purposes and rng.random() < 0.7 else purpose
        if obj.is_wildcard and rng.random() < 0.9:
            obj = ObjectRef(obj.kind, rng.choice(("x", "y", "new")))
    return Request(user, action, obj, purpose, scope)


def permission_of(reasons: list[str], policies: str) -> set[int]:
    """Numbers of the permissions that Cedar gives as its reasons."""
    ids = re.findall(r'@id\("([^"]*)"\)', policies)
    named = [ids[int(reason.removeprefix("policy"))] for reason in reasons]
    return {int(name.removeprefix("permission ").split(".")[0]) for name in named}


def compare(policies: int, seed: int) -> tuple[int, int]:
    """Decide as Cedar does, and by the first permission of those that Cedar names.

    Returns:
        How many requests were compared, and how many of them were granted.
    """
    rng = random.Random(seed)
    granted = 0
    for _ in range(policies):
        policy, users = random_policy(rng)
        index = PolicyIndex(policy, users)
        requests = [random_request(rng, policy, users) for _ in range(REQUESTS)]
        text = cedar_policies(policy)
        answers = cedarpy.is_authorized_batch(
            [cedar_request(request) for request in requests], text, cedar_entities(policy, users)
        )
        for request, answer in zip(requests, answers, strict=True):
            assert not answer.diagnostics.errors
            decision = index.decide(request)
            assert decision.allowed == answer.allowed, (policy, users, request)
            if decision.allowed:
                granted += 1
                reasons = permission_of(answer.diagnostics.reasons, text)
                assert decision.permission is policy.permissions[min(reasons) - 1]
    return policies * REQUESTS, granted


def test_decides_as_cedar_does() -> None:
    compared, granted = compare(policies=1000, seed=1)
    print(f"compared with Cedar: {compared} requests, {granted} granted")
    assert compared == 10_000
    # Neither answer is rare, so that agreement means something.
    assert compared * 0.2 < granted < compared * 0.8


@pytest.mark.slow
def test_decides_as_cedar_does_under_ten_thousand_policies() -> None:
    compared, granted = compare(policies=10_000, seed=2)
    print(f"compared with Cedar: {compared} requests of 10000 policies, {granted} granted")
    assert compared * 0.2 < granted < compared * 0.8


def test_the_export_is_one_document_with_obligations() -> None:
    permission = Permission(
        "doctor",
        (Action.DECLASSIFY,),
        (ObjectRef.output("y"), ObjectRef.output("*")),
        purposes=("care",),
        obligations=Obligations(flood=30, round=0.05, budget=64),
    )
    policy = Policy((Role("doctor"),), (permission,), purposes=("care",))
    users = Users(policy.digest, 1, "", "", (UserEntry("anna", ("doctor",)),))
    document = json.loads(export_cedar(policy, users))
    assert '"obligations"' not in document["policies"]
    assert '@id("permission 1.2")' in document["policies"]
    assert "flood" in document["policies"]
    answer = cedarpy.is_authorized(
        cedar_request(Request("anna", Action.DECLASSIFY, ObjectRef.output("y"), "care")),
        document["policies"],
        document["entities"],
    )
    assert answer.allowed
    with pytest.raises(IntegrityError, match="is for the policy"):
        export_cedar(Policy((Role("nurse"),), (permission,)), users)


def test_without_users_nobody_may_do_anything() -> None:
    policy = Policy((Role("doctor"),), (Permission("doctor", (Action.READ,), (AUDIT,)),))
    assert [entity["uid"] for entity in cedar_entities(policy, None)] == [
        {"type": "Role", "id": "doctor"}
    ]
    request = Request("anna", Action.READ, AUDIT)
    assert not PolicyIndex(policy, None).decide(request).allowed
    answer = cedarpy.is_authorized(cedar_request(request), cedar_policies(policy), [])
    assert not answer.allowed
