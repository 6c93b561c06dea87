"""Why a request is granted or denied, and what would have to be granted."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from hecompile.access.decide import Decision, PolicyIndex, Request
from hecompile.access.documents import suggestion
from hecompile.access.objects import APPLIES_TO, Enforcement
from hecompile.access.policy import Permission, Policy, granularity, role_paths
from hecompile.access.users import UserEntry, Users, check_users
from hecompile.errors import InputError

_ENFORCED_BY = {
    Enforcement.CRYPTOGRAPHIC: "cryptographic: without the key it cannot be done",
    Enforcement.GATEWAY: "gateway: who holds the key, or serves the request, refuses others",
    Enforcement.CLIENT_ADVISORY: "client-advisory: only the user's own program refuses",
}


@dataclass(frozen=True)
class Explanation:
    """A decision with its reasons.

    Attributes:
        decision: The decision.
        path: Roles from the user's own to the one that the permission names; empty if denied.
        enforced_by: What keeps others from it; empty if denied.
        granularity: How finely the object is seen; empty if denied.
        obligations: What is done to the value before it leaves, in order.
        nearest: What comes nearest to granting it, if denied.
        remedy: What would have to be granted, if denied.
    """

    decision: Decision
    path: tuple[str, ...] = ()
    enforced_by: str = ""
    granularity: str = ""
    obligations: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()
    remedy: str = ""


def explain(
    policy: Policy, users: Users | None, request: Request, used: frozenset[str] = frozenset()
) -> Explanation:
    """Decide a request and say why.

    Args:
        policy: The policy.
        users: Who has which role; None where there is no users document.
        request: What is asked.
        used: Roles that the user has used in this session.

    Raises:
        IntegrityError: The users document is for another policy.
    """
    decision = PolicyIndex(policy, users).decide(request, used)
    permission = decision.permission
    if permission is None:
        return _denied(policy, users, decision)
    obj, scope = request.obj, request.scope
    return Explanation(
        decision,
        path=role_paths(policy, (decision.role,))[permission.role],
        enforced_by=_ENFORCED_BY[permission.enforcement_of(request.action)],
        granularity=granularity(request.action, obj, scope, permission.obligations),
        obligations=obligations_told(permission),
    )


def obligations_told(permission: Permission) -> tuple[str, ...]:
    """What is done to a value that is declassified by a permission, in order, for people."""
    duties = permission.obligations
    told = []
    if duties.flood is not None:
        told.append(f"flood with noise of {duties.flood} statistical bits")
    if duties.dp is not None:
        noise = duties.dp
        told.append(
            f"clip to [{noise.lower:g}, {noise.upper:g}] and add differentially private noise, "
            f"rho {noise.rho:g} of {noise.total_rho:g}, for {noise.least} persons or more"
        )
    if duties.round is not None:
        told.append(f"round to {duties.round:g}")
    if duties.label_only:
        told.append("tell the label alone")
    if duties.budget is not None:
        told.append(f"count it: {duties.budget} releases a key")
    return tuple(told)


def _denied(policy: Policy, users: Users | None, decision: Decision) -> Explanation:
    asked = decision.request
    covering = [
        (number, permission)
        for number, permission in enumerate(policy.permissions, start=1)
        if asked.action in permission.actions
        and asked.obj.kind in APPLIES_TO[asked.action]
        and any(obj.covers(asked.obj) for obj in permission.objects)
    ]
    user = users.user(asked.user) if users is not None else None
    paths = role_paths(policy, user.roles) if user is not None else {}
    nearest = [_told(number, one, asked, paths) for number, one in covering]
    remedy = _purpose_unknown(policy, asked.purpose) + _remedy(policy, users, asked, covering)
    return Explanation(decision, nearest=tuple(nearest), remedy=remedy)


def _purpose_unknown(policy: Policy, purpose: str) -> str:
    """That the policy knows no such purpose; empty if it does, or none was stated."""
    if not purpose or purpose in policy.purposes:
        return ""
    known = ", ".join(policy.purposes)
    told = f"its purposes are {known}" if known else "it names none"
    return (
        f"'{purpose}' is not a purpose of this policy{suggestion(purpose, policy.purposes)}, "
        f"{told}; "
    )


def _told(
    number: int, permission: Permission, asked: Request, paths: dict[str, tuple[str, ...]]
) -> str:
    where = f" ({permission.where})" if permission.where else f" (permission {number})"
    lacks = []
    if permission.role not in paths:
        lacks.append(f"'{asked.user}' has not that role")
    if permission.scope is not asked.scope:
        lacks.append(f"it is for scope '{permission.scope}'")
    if permission.purposes and asked.purpose not in permission.purposes:
        lacks.append(f"it is for purpose {' or '.join(permission.purposes)}")
    if not lacks:
        lacks.append("another role that was used in the session excludes it")
    return f"role '{permission.role}' may{where}, but {' and '.join(lacks)}"


def _remedy(
    policy: Policy,
    users: Users | None,
    asked: Request,
    covering: list[tuple[int, Permission]],
) -> str:
    if users is None:
        return "sign a users document (hecompile users sign): without one nobody may do anything"
    if asked.obj.is_wildcard:
        return "name one object"
    if asked.obj.kind not in APPLIES_TO[asked.action]:
        fitting = " and ".join(sorted(APPLIES_TO[asked.action]))
        return f"ask for another object: '{asked.action}' is for {fitting}"
    user = users.user(asked.user)
    known = [one.name for one in users.users]
    if user is None:
        near = suggestion(asked.user, known)
        who = f"put user '{asked.user}' into the users document{near} with"
    else:
        who = f"give '{asked.user}' in the users document"
    fitting_now = [one for _, one in covering if one.fits(asked.scope, asked.purpose)]
    paths = role_paths(policy, user.roles) if user is not None else {}
    own = [one for _, one in covering if one.role in paths]
    if any(one.role in paths for one in fitting_now):
        return "begin another session: roles used in this one exclude it"
    if own:
        return _ask_otherwise(own[0], asked)
    if covering:
        role = (fitting_now or [covering[0][1]])[0].role
        if reason := _forbidden(policy, users, user, role):
            other = f"have a user with the role '{role}' do it"
            return f"{other}: '{asked.user}' may not have it: {reason}"
        return f"{who} the role '{role}', or one that inherits it"
    return (
        f"no role may {asked.action} {asked.obj}{_near_object(policy, asked)}: add a permission "
        "with that action and object to the policy"
    )


def _near_object(policy: Policy, asked: Request) -> str:
    """An object of the policy that is spelt much like one that it does not name."""
    named = {str(obj): obj for one in policy.permissions for obj in one.objects}
    named |= {str(obj): obj for obj in policy.unused}
    if str(asked.obj) in named:
        return ""
    near = [obj.name for obj in named.values() if obj.kind is asked.obj.kind]
    return suggestion(asked.obj.name, near, f"{asked.obj.kind}:")


def _forbidden(policy: Policy, users: Users, user: UserEntry | None, role: str) -> str:
    """Why a user may not be given a further role; empty if it may."""
    if user is None or role not in {one.name for one in policy.roles}:
        return ""
    others = tuple(one for one in users.users if one.name != user.name)
    changed = replace(user, roles=(*user.roles, role), where="")
    try:
        check_users(policy, replace(users, users=(*others, changed)))
    except InputError as error:
        return str(error)
    return ""


def _ask_otherwise(permission: Permission, asked: Request) -> str:
    words = []
    if permission.scope is not asked.scope:
        words.append(f"--scope {permission.scope}")
    if permission.purposes and asked.purpose not in permission.purposes:
        words.append(f"--purpose {_shell(permission.purposes[0])}")
    return f"ask with {' '.join(words)}, if that is what it is for"


def _shell(word: str) -> str:
    return word if re.fullmatch(r"[\w-]+", word) else repr(word)
