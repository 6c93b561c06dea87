"""Decisions and the gate: deny by default, logged first."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from hecompile.access.audit import AuditLog, verify_audit
from hecompile.access.decide import Gate, PolicyIndex, decide
from hecompile.access.policy import (
    APPLIES_TO,
    AUDIT,
    KEY_EVALUATION,
    KEY_SECRET,
    PROGRAM,
    Action,
    ObjectRef,
    Permission,
    Policy,
    Role,
    User,
    role_paths,
    single_owner_policy,
)
from hecompile.errors import AccessDeniedError

DIGEST = "0" * 64
X = ObjectRef.input("x")
Y = ObjectRef.output("y")
POLICY = Policy(
    (Role("viewer"), Role("clinician", ("viewer",))),
    (
        Permission("viewer", (Action.RECEIVE,), (ObjectRef.output("*"),)),
        Permission("clinician", (Action.ENCRYPT, Action.DECRYPT), (X, Y)),
    ),
    (User("alice", ("clinician",)), User("bob", ("viewer",)), User("eve", ())),
)


@pytest.mark.parametrize(
    ("user", "action", "obj", "allowed"),
    [
        ("alice", Action.ENCRYPT, X, True),
        ("alice", Action.RECEIVE, Y, True),
        ("alice", Action.RECEIVE, ObjectRef.output("other"), True),
        ("alice", Action.RECEIVE, X, False),
        ("alice", Action.DECRYPT, ObjectRef.output("other"), False),
        ("alice", Action.ENCRYPT, Y, False),
        ("alice", Action.HOLD, KEY_SECRET, False),
        ("bob", Action.RECEIVE, Y, True),
        ("bob", Action.DECRYPT, Y, False),
        ("bob", Action.RECEIVE, ObjectRef.output("*"), False),
        ("eve", Action.RECEIVE, Y, False),
        ("mallory", Action.RECEIVE, Y, False),
        ("Alice", Action.ENCRYPT, X, False),
        ("", Action.ENCRYPT, X, False),
    ],
)
def test_decisions(user: str, action: Action, obj: ObjectRef, allowed: bool) -> None:
    decision = decide(POLICY, user, action, obj)
    assert decision.allowed is allowed
    assert (decision.user, decision.action, decision.object) == (user, action, obj)
    assert decision.rule


def test_rule_names_the_permission_and_the_path() -> None:
    rule = decide(POLICY, "alice", Action.RECEIVE, Y).rule
    assert rule == "permission 1: clinician -> viewer may receive output:*"
    assert decide(POLICY, "mallory", Action.RECEIVE, Y).rule == "unknown user"


def test_index_agrees_with_a_plain_reading_of_the_policy() -> None:
    index = PolicyIndex(POLICY)
    things = [X, Y, ObjectRef.input("w"), PROGRAM, AUDIT, KEY_SECRET, KEY_EVALUATION]
    for user, action, obj in itertools.product(POLICY.users, Action, things):
        closure = role_paths(POLICY, user.roles)
        expected = any(
            permission.role in closure
            and action in permission.actions
            and obj.kind in APPLIES_TO[action]
            and any(granted.covers(obj) for granted in permission.objects)
            for permission in POLICY.permissions
        )
        assert index.decide(user.name, action, obj).allowed is expected


def test_single_owner_policy_decides() -> None:
    index = PolicyIndex(single_owner_policy(["x"], ["y"]))
    assert index.decide("owner", Action.DECRYPT, Y).allowed
    assert index.decide("cloud", Action.EVALUATE, PROGRAM).allowed
    assert not index.decide("cloud", Action.DECRYPT, Y).allowed
    assert not index.decide("owner", Action.EVALUATE, PROGRAM).allowed


def test_a_decision_is_quick() -> None:
    index = PolicyIndex(POLICY)
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(2000):
            index.decide("alice", Action.RECEIVE, Y)
        best = min(best, (time.perf_counter() - start) / 2000)
    assert best < 20e-6


def test_gate_logs_before_it_answers(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log.jsonl")
    gate = Gate(PolicyIndex(POLICY), log, DIGEST)
    assert gate.require("alice", Action.ENCRYPT, X).allowed
    with pytest.raises(AccessDeniedError) as caught:
        gate.require("bob", Action.DECRYPT, Y)
    assert str(caught.value) == "Access Denied: user 'bob' may not decrypt output:y"
    assert caught.value.exit_code == 3
    lines = log.path.read_text().splitlines()
    assert '"decision":"allow"' in lines[0]
    assert '"roles":["clinician"]' in lines[0]
    assert '"decision":"deny"' in lines[1]
    assert verify_audit(log.path).entries == 2


@pytest.mark.parametrize("obstacle", ["folder", "file as folder", "link", "full disk", "damaged"])
def test_gate_denies_what_it_cannot_log(tmp_path: Path, obstacle: str) -> None:
    path = tmp_path / "log"
    if obstacle == "folder":
        path.mkdir()
    elif obstacle == "file as folder":
        path.write_text("")
        path = path / "log"
    elif obstacle == "link":
        (tmp_path / "victim").write_text("keep")
        path.symlink_to(tmp_path / "victim")
    elif obstacle == "full disk":
        path = Path("/dev/full")
    else:
        path.write_text("half an ent")
    with pytest.raises(AccessDeniedError, match=r"^Access Denied: user 'alice' .*cannot be logged"):
        Gate(PolicyIndex(POLICY), AuditLog(path), DIGEST).require("alice", Action.ENCRYPT, X)


def test_hostile_user_names_stay_on_one_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log.jsonl")
    name = 'x\n{"decision":"allow"}\udcff' + "y" * 100_000
    with pytest.raises(AccessDeniedError) as caught:
        Gate(PolicyIndex(POLICY), log, DIGEST).require(name, Action.ENCRYPT, X)
    assert "\n" not in str(caught.value)
    assert verify_audit(log.path).entries == 1
    assert log.path.stat().st_size < 4096
