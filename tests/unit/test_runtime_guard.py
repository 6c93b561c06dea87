"""Who asks, and what the gate is asked in their name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hecompile.access.audit import AuditLog
from hecompile.access.identity import generate_identity, identity_path, make_identity
from hecompile.access.objects import Action, Scope
from hecompile.access.policy import single_owner_policy
from hecompile.access.users import UserEntry, Users, single_owner_users
from hecompile.bundle.local_users import with_local_keys
from hecompile.errors import AccessDeniedError, IntegrityError, UsageError
from hecompile.runtime.acting import UNPROVEN
from hecompile.runtime.guard import OpenGuard, PolicyGuard, say_nothing
from hecompile.runtime.wants import EVALUATION, HOLDING, labels_of
from tests.unit.manifests import MANIFEST
from tests.unit.policies_for_tests import clinic

POLICY, USERS = clinic()
CLINIC = dataclasses.replace(MANIFEST, policy=POLICY)


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "log.jsonl")


def here(users: Users) -> Users:
    """The users with the keys of identities on this machine."""
    return with_local_keys(users, say_nothing)


def guard(log: AuditLog, user: str | None = None, **more: Any) -> PolicyGuard:
    return PolicyGuard(CLINIC, here(USERS), log, user, **more)


def entries(log: AuditLog) -> list[tuple[str, str, str]]:
    """User, action and decision of every entry."""
    if not log.path.exists():
        return []
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    return [(one["user"], one["action"], one["decision"]) for one in lines if "action" in one]


def test_a_release_brings_the_permission_whose_obligations_bind(log: AuditLog) -> None:
    [decision] = guard(log, "anna", purpose="care").declassify(["y"])
    assert decision.permission is POLICY.permissions[0]
    assert labels_of([decision]) == ("y",)
    [decision] = guard(log, "ben").declassify(["y"], Scope.COHORT)
    assert decision.permission is POLICY.permissions[2]
    assert entries(log) == [("anna", "declassify", "allow"), ("ben", "declassify", "allow")]


@pytest.mark.parametrize(
    ("user", "purpose", "scope"),
    [
        ("anna", "", Scope.PERSON),
        ("anna", "research", Scope.PERSON),
        ("anna", "care", Scope.COHORT),
        ("tina", "care", Scope.PERSON),
        ("nobody", "care", Scope.PERSON),
    ],
)
def test_a_release_for_another_purpose_scope_or_user_is_denied_and_logged_once(
    user: str, purpose: str, scope: Scope, log: AuditLog
) -> None:
    asking = guard(log, user, purpose=purpose)
    for some in (False, True):
        with pytest.raises(AccessDeniedError, match="Access Denied"):
            asking.declassify(["y"], scope, some=some)
    assert entries(log) == [(user, "declassify", "deny")] * 2


def test_raw_values_are_another_right_than_releases(log: AuditLog) -> None:
    with pytest.raises(AccessDeniedError, match="may not decrypt output:y"):
        guard(log, "anna", purpose="care").decrypt(["y"])
    policy = single_owner_policy(["x"], ["y"])
    owner = PolicyGuard(MANIFEST, here(single_owner_users(policy)), log, "owner")
    assert owner.decrypt(["y"]) == ("y",)
    with pytest.raises(AccessDeniedError, match="may not declassify output:y"):
        owner.declassify(["y"])


def test_sessions_separate_duties_across_the_steps_of_one_guard(log: AuditLog) -> None:
    asking = guard(log, "ben", purpose="care", session="s")
    asking.declassify(["y"])
    with pytest.raises(AccessDeniedError):
        asking.declassify(["y"], Scope.COHORT, some=True)
    # Who acts for the same user later goes through the same gate.
    with pytest.raises(AccessDeniedError):
        asking.of("ben").declassify(["y"], Scope.COHORT)


def test_the_only_one_who_may_is_taken_if_its_identity_is_here(log: AuditLog) -> None:
    told: list[str] = []
    guard(log, tell=told.append).encrypt(["x"])
    assert entries(log) == [("tina", "encrypt", "allow")]
    assert told == ["acting as 'tina', the only user who may encrypt input:x"]
    asking = guard(log)
    identity_path("tina").unlink()
    with pytest.raises(
        AccessDeniedError, match=r"'tina' may not encrypt input:x here: .* is not on"
    ):
        asking.encrypt(["x"])
    assert entries(log)[1:] == [("tina", "encrypt", "deny")]


@pytest.mark.parametrize("user", ["vault", None])
@pytest.mark.parametrize("way", ["other", "none", "open", "broken"])
def test_whoever_cannot_show_to_be_the_user_is_denied_once_and_never_allowed(
    way: str, user: str | None, log: AuditLog
) -> None:
    asking = guard(log, user, session="s")
    path = identity_path("vault")
    if way in ("other", "none"):
        path.unlink()
    if way == "other":
        make_identity("vault")
    elif way == "open":
        path.chmod(0o644)
    elif way == "broken":
        path.write_text("no key")
    ways: list[Callable[[], object]] = [
        asking.refresh,
        asking.act_for,
        lambda: asking.acting(HOLDING),
        lambda: asking.of("vault").run(),
        lambda: asking.of("vault").decrypt(["y"], some=True),
        lambda: asking.of("vault").declassify(["y"]),
    ]
    if user is None:
        # With nobody named, only the right to refresh belongs to one user alone.
        ways = ways[:1]
    for count, attempt in enumerate(ways, start=1):
        with pytest.raises(AccessDeniedError, match=r"'vault' may not .* here: ") as caught:
            attempt()
        assert caught.value.exit_code == 3
        assert len(entries(log)) == count
    assert {(who, decision) for who, _, decision in entries(log)} == {("vault", "deny")}
    last = json.loads(log.path.read_text().splitlines()[-1])
    assert (last["rule"], last["session"], last["roles"]) == (UNPROVEN, "s", ["custodian"])


def test_a_user_without_a_key_cannot_act(log: AuditLog) -> None:
    make_identity("cloud")
    with pytest.raises(AccessDeniedError, match=r"the users document has no key for user 'cloud'"):
        PolicyGuard(CLINIC, USERS, log, "cloud").acting(EVALUATION)
    assert entries(log) == [("cloud", "evaluate", "deny")]


def test_who_acts_gets_the_identity_to_sign_with(log: AuditLog) -> None:
    asking = guard(log)
    identity = asking.acting(EVALUATION)
    assert (identity.user, identity.keyid) == ("cloud", here(USERS).user("cloud").keyid)  # type: ignore[union-attr]
    assert asking.of("cloud").identity.keyid == identity.keyid
    with pytest.raises(AccessDeniedError):
        guard(log, "anna").acting(EVALUATION)


def test_a_refusal_that_cannot_be_logged_is_one_too(log: AuditLog) -> None:
    asking = guard(log, "cloud")
    identity_path("cloud").unlink()
    log.path.mkdir()
    with pytest.raises(AccessDeniedError, match=r"is not on this machine.*cannot be logged"):
        asking.evaluate()


def test_of_several_who_may_one_must_be_named(log: AuditLog) -> None:
    with pytest.raises(UsageError, match=r"--as USER .*: anna, ben, carl"):
        guard(log, purpose="care").declassify(["y"])
    # An identity here is no reason to prefer one who may.
    with pytest.raises(UsageError, match="none of the users"):
        guard(log).decrypt(["y"])
    assert entries(log) == []


def test_without_users_nobody_acts(log: AuditLog) -> None:
    with pytest.raises(AccessDeniedError, match="no users document"):
        PolicyGuard(CLINIC, None, log).evaluate()
    with pytest.raises(AccessDeniedError, match="no users document"):
        PolicyGuard(CLINIC, None, log, "cloud").evaluate()
    with pytest.raises(IntegrityError, match="is for the policy"):
        PolicyGuard(MANIFEST, USERS, log, "cloud")


def test_who_reads_the_secret_key_must_use_it_for_something(log: AuditLog) -> None:
    assert guard(log, "anna", purpose="care").act_for().user == "anna"
    assert guard(log, "ben").act_for(Scope.COHORT).user == "ben"
    assert guard(log, "vault").act_for().user == "vault"
    for user in ("anna", "tina", "cloud"):
        with pytest.raises(AccessDeniedError):
            guard(log, user).act_for()
    told = [action for _, action, _ in entries(log)]
    assert told[:3] == ["declassify", "declassify", "refresh"]


def test_a_run_asks_for_every_step_and_says_how_each_output_is_opened(log: AuditLog) -> None:
    policy = single_owner_policy(["x"], ["y"])
    users = here(single_owner_users(policy))
    [decision] = PolicyGuard(MANIFEST, users, log, "owner").run()
    assert decision.request.action is Action.DECRYPT
    assert [(user, action) for user, action, _ in entries(log)] == [
        ("owner", "encrypt"),
        ("owner", "decrypt"),
        ("owner", "hold"),
        ("cloud", "evaluate"),
    ]


def test_a_run_releases_what_may_not_be_decrypted(log: AuditLog) -> None:
    both = dataclasses.replace(
        USERS,
        users=tuple(
            dataclasses.replace(one, roles=(*one.roles, "technician"))
            if one.name == "anna"
            else one
            for one in here(USERS).users
        ),
    )
    asking = PolicyGuard(CLINIC, both, log, "anna", purpose="care")
    [decision] = asking.run()
    assert decision.request.action is Action.DECLASSIFY
    assert decision.permission is POLICY.permissions[0]
    assert ("vault", "hold", "allow") in entries(log)
    with pytest.raises(AccessDeniedError, match="declassify output:y"):
        PolicyGuard(CLINIC, both, log, "anna").run()
    with pytest.raises(AccessDeniedError, match="'tina' may not hold"):
        asking.run(key_holder="tina")
    with pytest.raises(UsageError, match="no output 'z'"):
        asking.run(["z"])


def test_who_plays_a_further_party_is_rather_one_with_an_identity_here(log: AuditLog) -> None:
    policy = single_owner_policy(["x"], ["y"])
    users = here(single_owner_users(policy))
    make_identity("alps")
    more = dataclasses.replace(
        users,
        users=(*users.users, UserEntry("alps", ("evaluator",), generate_identity("").public_bytes)),
    )
    assert next(one.name for one in more.users if "evaluator" in one.roles) == "alps"
    # Its name alone is here: that does not make it a candidate, nor could it be taken.
    asking = PolicyGuard(MANIFEST, more, log, "owner")
    asking.run()
    assert ("cloud", "evaluate", "allow") in entries(log)
    with pytest.raises(AccessDeniedError, match="'alps' may not evaluate program here"):
        asking.run(evaluator="alps")
    assert [one for one in entries(log) if one[0] == "alps"] == [("alps", "evaluate", "deny")]


def test_an_open_guard_releases_nothing() -> None:
    assert OpenGuard().decrypt(["y"]) == ("y",)
    with pytest.raises(UsageError, match="how y is to be released"):
        OpenGuard().declassify(["y"])
