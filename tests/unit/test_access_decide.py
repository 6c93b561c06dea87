"""Decisions and the gate: deny by default, the first permission binds, logged first."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hecompile.access.audit import AuditLog, verify_audit
from hecompile.access.decide import (
    NO_PERMISSION,
    NO_USER,
    NO_USERS,
    NOT_ONE_OBJECT,
    OTHER_PURPOSE,
    OTHER_SCOPE,
    SEPARATED,
    Gate,
    PolicyIndex,
    Request,
    RoleMemory,
    ShortMemory,
)
from hecompile.access.policy import (
    APPLIES_TO,
    AUDIT,
    KEY_EVALUATION,
    KEY_SECRET,
    PROGRAM,
    Action,
    Constraint,
    ObjectRef,
    Permission,
    Policy,
    Role,
    Scope,
    role_paths,
    single_owner_policy,
)
from hecompile.access.state import State
from hecompile.access.users import UserEntry, Users, single_owner_users
from hecompile.errors import AccessDeniedError, IntegrityError
from tests.unit.policies_for_tests import clinic

DIGEST = "0" * 64
X = ObjectRef.input("x")
Y = ObjectRef.output("y")
ENCRYPT, RELEASE = Action.ENCRYPT, Action.DECLASSIFY


def users_of(policy: Policy, **roles: tuple[str, ...]) -> Users:
    entries = tuple(UserEntry(name, given) for name, given in roles.items())
    return Users(policy.digest, 1, "", "", entries)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (Request("tina", ENCRYPT, X), "permission 4: technician may encrypt input:x"),
        (Request("tina", ENCRYPT, Y), NO_PERMISSION),
        (Request("tina", ENCRYPT, ObjectRef.input("*")), NOT_ONE_OBJECT),
        (Request("tina", Action.HOLD, KEY_SECRET), NO_PERMISSION),
        (Request("Tina", ENCRYPT, X), NO_USER),
        (Request("", ENCRYPT, X), NO_USER),
        (Request("eve", ENCRYPT, X), NO_PERMISSION),
        (Request("vault", Action.HOLD, KEY_SECRET), "permission 6: custodian may hold key:secret"),
        (Request("vault", Action.HOLD, KEY_EVALUATION), NO_PERMISSION),
        (Request("anna", RELEASE, Y), OTHER_PURPOSE),
        (Request("anna", RELEASE, Y, "research"), OTHER_PURPOSE),
        (Request("anna", RELEASE, Y, "care", Scope.COHORT), OTHER_SCOPE),
        (Request("ben", RELEASE, ObjectRef.output("new"), "any", Scope.COHORT),
         "permission 3: researcher may declassify output:*"),
        (Request("ben", RELEASE, ObjectRef.output("new")), OTHER_SCOPE),
    ],
)  # fmt: skip
def test_decisions(request_: Request, answer: str) -> None:
    policy, users = clinic()
    decision = PolicyIndex(policy, users).decide(request_)
    assert decision.rule == answer
    assert decision.allowed is answer.startswith("permission")
    assert (decision.permission is not None) is decision.allowed
    assert bool(decision.role) is decision.allowed
    assert decision.request is request_


def test_the_first_permission_of_the_policy_binds_with_its_obligations() -> None:
    policy, users = clinic()
    index = PolicyIndex(policy, users)
    for user in ("anna", "carl"):
        decision = index.decide(Request(user, RELEASE, Y, "care"))
        # A doctor is a viewer too, and the viewer's permission stands first: label only.
        assert decision.permission is policy.permissions[0]
        assert decision.permission.obligations.label_only
    assert decision.rule == "permission 1: viewer may declassify output:y"
    turned = Policy(policy.roles, policy.permissions[1::-1])
    index = PolicyIndex(turned, users_of(turned, anna=("doctor",)))
    decision = index.decide(Request("anna", RELEASE, Y, "care"))
    assert decision.permission is not None
    assert decision.permission.obligations.round == 0.05


def test_wildcards_keep_their_place_in_the_order() -> None:
    every = Permission("a", (RELEASE,), (ObjectRef.output("*"),))
    single = Permission("a", (RELEASE,), (Y,), purposes=("p",))
    for permissions in ((every, single), (single, every)):
        policy = Policy((Role("a"),), permissions)
        index = PolicyIndex(policy, users_of(policy, u=("a",)))
        assert index.decide(Request("u", RELEASE, Y, "p")).permission is permissions[0]
        assert index.decide(Request("u", RELEASE, Y, "q")).permission is every


def test_index_agrees_with_a_plain_reading_of_the_policy() -> None:
    policy, users = clinic()
    index = PolicyIndex(policy, users)
    things = [X, Y, ObjectRef.input("w"), PROGRAM, AUDIT, KEY_SECRET, KEY_EVALUATION]
    asked = itertools.product(users.users, Action, things, ("", "care"), Scope)
    for user, action, obj, purpose, scope in asked:
        closure = role_paths(policy, user.roles)
        fitting = [
            permission
            for permission in policy.permissions
            if permission.role in closure
            and action in permission.actions
            and obj.kind in APPLIES_TO[action]
            and any(granted.covers(obj) for granted in permission.objects)
            and permission.scope is scope
            and (not permission.purposes or purpose in permission.purposes)
        ]
        decision = index.decide(Request(user.name, action, obj, purpose, scope))
        assert decision.permission is (fitting[0] if fitting else None)


def test_dynamic_separation_holds_over_inheritance() -> None:
    policy, users = clinic()
    index = PolicyIndex(policy, users)
    care = Request("ben", RELEASE, Y, "care")
    study = Request("ben", RELEASE, Y, "", Scope.COHORT)
    assert index.decide(care).allowed
    assert index.decide(study).allowed
    # A doctor acts as a clinician, which excludes the researcher.
    assert index.decide(study, frozenset({"doctor"})).rule == SEPARATED
    assert index.decide(care, frozenset({"researcher"})).rule == SEPARATED
    assert index.decide(care, frozenset({"doctor"})).allowed


def test_a_role_that_may_still_be_used_is_preferred_to_one_that_may_not() -> None:
    shared = Permission("base", (ENCRYPT,), (X,))
    roles = (Role("base"), Role("a", ("base",)), Role("b", ("base",)))
    policy = Policy(roles, (shared,), constraints=(Constraint("dynamic", ("a", "b")),))
    index = PolicyIndex(policy, users_of(policy, u=("a", "b")))
    assert index.decide(Request("u", ENCRYPT, X)).role == "a"
    decision = index.decide(Request("u", ENCRYPT, X), frozenset({"b"}))
    assert decision.role == "b"
    assert decision.rule == "permission 1: b -> base may encrypt input:x"


def test_a_role_that_excludes_itself_is_never_used() -> None:
    roles = (Role("a"), Role("b", ("a",)))
    policy = Policy(
        roles,
        (Permission("b", (ENCRYPT,), (X,)),),
        constraints=(Constraint("dynamic", ("a", "b")),),
    )
    index = PolicyIndex(policy, users_of(policy, u=("b",)))
    assert index.decide(Request("u", ENCRYPT, X)).rule == SEPARATED


def test_single_owner_policy_decides() -> None:
    policy = single_owner_policy(["x"], ["y"])
    index = PolicyIndex(policy, single_owner_users(policy))
    assert index.decide(Request("owner", Action.DECRYPT, Y)).allowed
    assert index.decide(Request("cloud", Action.EVALUATE, PROGRAM)).allowed
    assert not index.decide(Request("cloud", Action.DECRYPT, Y)).allowed
    assert not index.decide(Request("owner", Action.EVALUATE, PROGRAM)).allowed


def test_users_of_another_policy_and_no_users_grant_nothing() -> None:
    policy, users = clinic()
    with pytest.raises(IntegrityError, match="is for the policy"):
        PolicyIndex(Policy(policy.roles, policy.permissions), users)
    assert PolicyIndex(policy, None).decide(Request("tina", ENCRYPT, X)).rule == NO_USERS
    nobody = users_of(policy)
    assert PolicyIndex(policy, nobody).decide(Request("tina", ENCRYPT, X)).rule == NO_USER


def test_a_decision_takes_less_than_20_microseconds() -> None:
    depth, count = 10, 1000
    roles = tuple(Role(f"r{i}", (f"r{i + 1}",) if i < depth else ()) for i in range(depth + 1))
    permissions = tuple(
        Permission(
            f"r{i % (depth + 1)}",
            (RELEASE,),
            (ObjectRef.output(f"y{i // 2}"), ObjectRef.output("*") if i % 50 == 0 else Y),
            purposes=(f"p{i}",),
        )
        for i in range(count)
    )
    constraint = Constraint("dynamic", ("r3", "other"))
    policy = Policy((*roles, Role("other")), permissions, constraints=(constraint,))
    index = PolicyIndex(policy, users_of(policy, anna=("r0",)))
    asked = [
        Request("anna", RELEASE, ObjectRef.output("y499"), "p999"),
        Request("anna", RELEASE, ObjectRef.output("unknown"), "p950"),
        Request("anna", RELEASE, Y, "p997"),
        Request("anna", RELEASE, Y, "unknown"),
    ]
    assert [index.decide(one).allowed for one in asked] == [True, True, True, False]
    for one in asked:
        times = []
        for _ in range(10_000):
            start = time.perf_counter_ns()
            index.decide(one, frozenset({"r0"}))
            times.append(time.perf_counter_ns() - start)
        median = statistics.median(times) / 1000
        print(f"a decision takes {median:.1f} us ({index.decide(one).rule})")
        assert median < 20


def test_gate_logs_before_it_answers(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log.jsonl")
    gate = Gate(PolicyIndex(*clinic()), log, DIGEST)
    assert gate.require("tina", ENCRYPT, X).allowed
    with pytest.raises(AccessDeniedError) as caught:
        gate.require("tina", Action.DECRYPT, Y, purpose="care", session="s1")
    assert str(caught.value) == "Access Denied: user 'tina' may not decrypt output:y"
    assert caught.value.exit_code == 3
    lines = log.path.read_text().splitlines()
    assert '"decision":"allow"' in lines[0]
    assert '"roles":["technician"]' in lines[0]
    assert '"role":"technician"' in lines[0]
    assert '"decision":"deny"' in lines[1]
    assert '"purpose":"care"' in lines[1]
    assert '"session":"s1"' in lines[1]
    assert verify_audit(log.path).entries == 2


def test_a_state_file_separates_duties_between_commands(tmp_path: Path) -> None:
    def command() -> Gate:
        log = AuditLog(tmp_path / "log")
        return Gate(PolicyIndex(*clinic()), log, DIGEST, State(tmp_path / "state.db"))

    command().require("ben", RELEASE, Y, purpose="care")
    with pytest.raises(AccessDeniedError):
        command().require("ben", RELEASE, Y, scope=Scope.COHORT)
    # A session of another name, which a service gives to those who log in, begins anew.
    command().require("ben", RELEASE, Y, scope=Scope.COHORT, session="study")
    assert command().used("ben", "study") == {"researcher"}


@pytest.mark.parametrize("memory", [ShortMemory, State])
def test_a_role_is_not_taken_where_another_was_meanwhile(
    memory: Callable[[], RoleMemory],
) -> None:
    found = memory()
    assert found.use_role("p", "ben", "s", frozenset(), "doctor")
    assert not found.use_role("p", "ben", "s", frozenset(), "researcher")
    assert found.roles_used("p", "ben", "s") == {"doctor"}
    assert found.use_role("p", "ben", "s", frozenset({"doctor"}), "nurse")
    assert found.roles_used("p", "ben", "s") == {"doctor", "nurse"}
    assert found.roles_used("q", "ben", "s") == frozenset()


def test_gate_remembers_roles_within_a_session(tmp_path: Path) -> None:
    gate = Gate(PolicyIndex(*clinic()), AuditLog(tmp_path / "log"), DIGEST)
    gate.require("ben", RELEASE, Y, purpose="care", session="round")
    assert gate.used("ben", "round") == {"doctor"}
    with pytest.raises(AccessDeniedError):
        gate.require("ben", RELEASE, Y, scope=Scope.COHORT, session="round")
    # What was denied is not used; another session, or another user, begins anew.
    assert gate.used("ben", "round") == {"doctor"}
    gate.require("ben", RELEASE, Y, scope=Scope.COHORT, session="study")
    assert gate.used("ben", "study") == {"researcher"}
    assert gate.used("anna", "round") == frozenset()


def test_two_requests_at_a_time_do_not_get_round_separation(tmp_path: Path) -> None:
    gate = Gate(PolicyIndex(*clinic()), AuditLog(tmp_path / "log"), DIGEST)
    granted: list[str] = []

    def ask(purpose: str, scope: Scope, session: str) -> None:
        try:
            found = gate.require("ben", RELEASE, Y, purpose=purpose, scope=scope, session=session)
        except AccessDeniedError:
            return
        granted.append(found.request.session)

    for number in range(10):
        session = f"s{number}"
        threads = [
            threading.Thread(target=ask, args=("care", Scope.PERSON, session)),
            threading.Thread(target=ask, args=("", Scope.COHORT, session)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(granted) == sorted(f"s{number}" for number in range(10))


def test_without_users_the_gate_says_why(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log")
    with pytest.raises(AccessDeniedError, match="the bundle has no users document"):
        Gate(PolicyIndex(clinic()[0], None), log, DIGEST).require("tina", ENCRYPT, X)
    assert verify_audit(log.path).entries == 1


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
    gate = Gate(PolicyIndex(*clinic()), AuditLog(path), DIGEST)
    with pytest.raises(AccessDeniedError, match=r"^Access Denied: user 'tina' .*cannot be logged"):
        gate.require("tina", ENCRYPT, X)
    # Taken before it was logged, so that it stays taken: to fail closed is to remember too much.
    assert gate.used("tina") == {"technician"}


def test_hostile_user_names_stay_on_one_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "log.jsonl")
    name = 'x\n{"decision":"allow"}\udcff' + "y" * 100_000
    with pytest.raises(AccessDeniedError) as caught:
        Gate(PolicyIndex(*clinic()), log, DIGEST).require(name, ENCRYPT, X, purpose=name)
    assert "\n" not in str(caught.value)
    assert verify_audit(log.path).entries == 1
    assert log.path.stat().st_size < 4096
