"""Rules S2 and S4: duties that exclude each other, and who must never hold a key.

Constraints on roles are those of Sandhu, Ferraiolo and Kuhn, "The NIST Model for Role-Based Access
Control", RBAC 2000: static ones bind what one may be, over the closure of inheritance, dynamic
ones what one may act as in a session.
"""

from __future__ import annotations

from collections.abc import Iterable

from hecompile.access.policy import KEY_SECRET, MODEL, Action, Grant, KeyRule, Kind, Policy
from hecompile.access.proof_subjects import (
    Rule,
    Subject,
    holds_secret_key,
    listed,
    means,
    violation,
)
from hecompile.access.terms import DYNAMIC, STATIC, Constraint

_SHOWS_VALUES = frozenset({Action.DECRYPT, Action.DECLASSIFY, Action.REFRESH})


def check_separation(policy: Policy, subjects: Iterable[Subject]) -> None:
    """Rules S2 and S4 for every role and every user, inheritance included.

    Args:
        policy: A policy whose roles have been checked.
        subjects: Its roles, and its users where they are known.

    Raises:
        InputError: Names who breaks a rule, by which paths, where it stands and the remedy.
    """
    for constraint in policy.constraints:
        _check_form(policy, constraint)
    for key_rule in policy.keys:
        _check_key_rule_form(key_rule)
    for subject in subjects:
        for constraint in policy.constraints:
            _check_constraint(subject, constraint)
        _check_evaluator(subject)
        for key_rule in policy.keys:
            _check_key_rule(subject, key_rule)


def _check_form(policy: Policy, constraint: Constraint) -> None:
    roles = constraint.roles
    told = f"the {constraint.kind} separation of {listed(roles)}"
    if constraint.kind not in (STATIC, DYNAMIC):
        raise violation(
            Rule.S2, constraint.where, f"{told} is neither '{STATIC}' nor '{DYNAMIC}'; write one"
        )
    if len(set(roles)) != len(roles) or not 1 <= constraint.most < len(roles):
        raise violation(
            Rule.S2,
            constraint.where,
            f"{told} with most = {constraint.most} excludes nothing; name different roles, more "
            "than 'most' of them",
        )


def _check_constraint(subject: Subject, constraint: Constraint) -> None:
    """No more than `most` of the roles, for a user or for any role over its closure.

    A user may have them all if the constraint is dynamic, and use a few in each session. A role
    may not: whoever acts in it acts in all that it inherits, so nobody ever could.
    """
    if constraint.kind == DYNAMIC and not subject.role:
        return
    had = [role for role in constraint.roles if role in subject.paths]
    if len(had) <= constraint.most:
        return
    paths = " and ".join(subject.has_path(role) for role in had)
    fix = "remove one of the inheritances" if subject.role else "take one of the roles away"
    raise violation(
        Rule.S2,
        subject.where or constraint.where,
        f"{subject.title} amounts to {len(had)} of the roles {listed(constraint.roles)} ({paths}), "
        f"of which the {constraint.kind} constraint allows {constraint.most}; {fix}, or raise "
        "'most'",
    )


def _check_evaluator(subject: Subject) -> None:
    """Whoever may evaluate has no way to the key, to a value, or to a hidden weight."""
    evaluates = subject.first(lambda grant: grant.action is Action.EVALUATE)
    if evaluates is None:
        return
    holds = subject.first(holds_secret_key)
    if holds is not None:
        raise violation(
            Rule.S4,
            subject.where,
            f"{subject.title} may {means(evaluates)} and may also {means(holds)}; who evaluates "
            "must never have the secret key: give the two to separate roles and users",
        )
    sees = subject.first(_gives_values)
    if sees is not None:
        raise violation(
            Rule.S2,
            subject.where,
            f"{subject.title} may {means(evaluates)} and may also {means(sees)}; who evaluates "
            "must not reach a decrypted value, nor weights that are hidden from it: give the two "
            "to separate roles and users",
        )


def _gives_values(grant: Grant) -> bool:
    hidden = grant.action is Action.ENCRYPT and grant.object == MODEL
    return grant.action in _SHOWS_VALUES or hidden


def _check_key_rule_form(rule: KeyRule) -> None:
    both = [role for role in rule.holders if role in rule.never]
    if both:
        raise violation(
            Rule.S4,
            rule.where,
            f"[keys.{rule.name}] lists role '{both[0]}' in both 'holders' and 'never'; keep one",
        )
    if rule.name != KEY_SECRET.name and (rule.rotate_days, rule.rotate_releases) != (None, None):
        raise violation(
            Rule.S4,
            rule.where,
            f"[keys.{rule.name}] has the key replaced after some days or releases, which nothing "
            "enforces: all keys of a bundle are made together; state rotate_days and "
            "rotate_releases in [keys.secret]",
        )


def _check_key_rule(subject: Subject, rule: KeyRule) -> None:
    held = subject.first(lambda grant: _holds(grant, rule.name))
    if held is None:
        return
    barred = next((role for role in rule.never if role in subject.paths), None)
    if barred is not None:
        raise violation(
            Rule.S4,
            subject.where or rule.where,
            f"{subject.title} may {means(held)} and is '{barred}' ({subject.has_path(barred)}), "
            f"which [keys.{rule.name}] never lets hold it; take one of the two away, or take the "
            "role off 'never'",
        )
    # Whatever a user holds it has from a role, and each role is looked at for itself.
    if rule.holders and subject.role and subject.role not in rule.holders:
        raise violation(
            Rule.S4,
            subject.where or rule.where,
            f"{subject.title} may {means(held)}, but the holders of [keys.{rule.name}] are "
            f"{listed(rule.holders)}; add role '{subject.role}' to them, or take the permission "
            "or the inheritance away",
        )


def _holds(grant: Grant, key: str) -> bool:
    if grant.object.kind is not Kind.KEY or grant.object.name != key:
        return False
    return grant.action is Action.HOLD or holds_secret_key(grant)
