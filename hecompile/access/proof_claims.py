"""Claims of cryptographic enforcement must be true: no other holder of the key gets by them."""

from __future__ import annotations

from collections.abc import Iterable

from hecompile.access.policy import (
    APPLIES_TO,
    KEY_EVALUATION,
    KEY_SECRET,
    Action,
    Enforcement,
    Permission,
    Policy,
)
from hecompile.access.proof_subjects import Subject, at
from hecompile.errors import InputError

_KEY_FOR = {
    Action.DECRYPT: KEY_SECRET,
    Action.REFRESH: KEY_SECRET,
    Action.EVALUATE: KEY_EVALUATION,
}


def check_claims(policy: Policy, subjects: Iterable[Subject]) -> None:
    """A permission may claim cryptographic enforcement only if keys keep everybody else out.

    One key decrypts all that is under it, so each role that holds the key must have the permission
    too.

    Raises:
        InputError: Names the permission, where it stands and the remedy.
    """
    roles = {subject.role: subject for subject in subjects if subject.role}
    for permission in policy.permissions:
        if permission.enforcement is not Enforcement.CRYPTOGRAPHIC:
            continue
        for action in permission.actions:
            if action is not Action.HOLD:
                _check_claim(permission, action, roles)


def _check_claim(permission: Permission, action: Action, roles: dict[str, Subject]) -> None:
    needed = _KEY_FOR.get(action)
    if needed is None:
        raise InputError(
            f"{at(permission.where)}action '{action}' cannot be enforced cryptographically, no "
            "key is needed for it; state 'gateway' or 'client-advisory'"
        )
    holders = [
        role
        for role, subject in roles.items()
        if subject.first(lambda grant: grant.action is Action.HOLD and grant.object == needed)
    ]
    if permission.role not in holders:
        raise InputError(
            f"{at(permission.where)}role '{permission.role}' does not hold {needed}, so its "
            f"'{action}' is not enforced cryptographically; state 'gateway' or let it hold the key"
        )
    for obj in permission.objects:
        if obj.kind not in APPLIES_TO[action]:
            continue
        for holder in holders:
            if not any(
                grant.action is action and grant.object.covers(obj)
                for grant in roles[holder].grants
            ):
                raise InputError(
                    f"{at(permission.where)}'{action}' on {obj} is not enforced "
                    f"cryptographically: role '{holder}' holds {needed} and may not {action} it; "
                    "state 'gateway'"
                )
