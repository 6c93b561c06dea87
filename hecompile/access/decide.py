"""Decisions: deny by default, looked up in a table that is built once, and logged before use.

The first permission in the policy's order decides that grants a request's action, object, scope
and purpose through a role that its user has and may still use in the session; its obligations
bind, whatever later permissions say. What no permission grants is denied.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from hecompile.access.audit import AuditLog
from hecompile.access.objects import ANY_NAME, Action, Kind, ObjectRef, Scope
from hecompile.access.policy import Permission, Policy, grants, role_paths
from hecompile.access.terms import DYNAMIC
from hecompile.access.users import Users, check_policy_digest
from hecompile.errors import AccessDeniedError, HecompileError

NO_PERMISSION: Final = "no permission"
NO_USERS: Final = "no users document"
NO_USER: Final = "unknown user"
NOT_ONE_OBJECT: Final = "the request does not name one object"
OTHER_PURPOSE: Final = "no permission for this purpose"
OTHER_SCOPE: Final = "no permission for this scope"
SEPARATED: Final = "roles used in this session exclude it"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes:
        user: Who asks, as given.
        action: What for.
        obj: On what.
        purpose: Why, or empty.
        scope: What one answer is about.
        session: Name of the session, within which separation of duties is kept.
    """

    user: str
    action: Action
    obj: ObjectRef
    purpose: str = ""
    scope: Scope = Scope.PERSON
    session: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one request.

    Attributes:
        allowed: Whether a permission grants it.
        request: What was asked.
        rule: The permission that grants it, or why nothing does.
        role: The user's role through which it is granted; empty if it is not.
        permission: The permission, whose obligations bind; None if it is not granted.
    """

    allowed: bool
    request: Request
    rule: str
    role: str = ""
    permission: Permission | None = None


@dataclass(frozen=True, slots=True)
class _Right:
    """A permission as one of a user's own roles has it, with its place in the policy's order."""

    number: int
    role: str
    rule: str
    permission: Permission


_Key = tuple[Action, ObjectRef, Scope]
_EVERY: Final = {kind: ObjectRef(kind, ANY_NAME) for kind in (Kind.INPUT, Kind.OUTPUT)}


class _Rights:
    """What some roles may do, as a table from action, object and scope.

    Under each key, every purpose that is named there has its own list, and the empty purpose has
    that of all others. A list holds at most one right for each role: the first.
    """

    def __init__(self, policy: Policy, roles: Sequence[str]) -> None:
        found: dict[_Key, list[_Right]] = {}
        for role in dict.fromkeys(roles):
            for grant in grants(policy, (role,)):
                path = " -> ".join(grant.path)
                rule = f"permission {grant.number}: {path} may {grant.action} {grant.object}"
                right = _Right(grant.number, role, rule, grant.permission)
                key = (grant.action, grant.object, grant.permission.scope)
                found.setdefault(key, []).append(right)
        self._table = {key: self._by_purpose(key, found) for key in found}

    @staticmethod
    def _by_purpose(key: _Key, found: dict[_Key, list[_Right]]) -> dict[str, tuple[_Right, ...]]:
        action, obj, scope = key
        rights = list(found[key])
        every = _EVERY.get(obj.kind)
        if every is not None and obj != every:
            # A permission on all objects grants this one too, in its place of the order.
            rights += found.get((action, every, scope), ())
        rights.sort(key=lambda right: right.number)
        purposes = {purpose for right in rights for purpose in right.permission.purposes}
        table = {}
        for purpose in ("", *purposes):
            first: dict[str, _Right] = {}
            for right in rights:
                if right.permission.fits(scope, purpose):
                    first.setdefault(right.role, right)
            table[purpose] = tuple(first.values())
        return table

    def of(self, request: Request) -> tuple[_Right, ...]:
        """The rights that grant a request, in the policy's order, at most one for each role."""
        return self._named(request, request.scope)

    def _named(self, request: Request, scope: Scope) -> tuple[_Right, ...]:
        entry = self._entry(request, scope)
        return entry.get(request.purpose, entry[""]) if entry else ()

    def _entry(self, request: Request, scope: Scope) -> dict[str, tuple[_Right, ...]] | None:
        entry = self._table.get((request.action, request.obj, scope))
        if entry is None and request.obj.kind in _EVERY:
            entry = self._table.get((request.action, _EVERY[request.obj.kind], scope))
        return entry

    def missing(self, request: Request) -> str:
        """Why `of` gives nothing for a request."""
        if self._entry(request, request.scope):
            return OTHER_PURPOSE
        others = (scope for scope in Scope if scope is not request.scope)
        return OTHER_SCOPE if any(self._named(request, one) for one in others) else NO_PERMISSION


class PolicyIndex:
    """What every user may do in effect, as a table; a decision is one or two lookups in it."""

    def __init__(self, policy: Policy, users: Users | None) -> None:
        """Work out each user's rights, inheritance included; without users nobody has any.

        Raises:
            IntegrityError: The users document is for another policy.
        """
        if users is not None:
            check_policy_digest(policy, users)
        self.policy = policy
        self.users = users
        self._exclusive = [
            (frozenset(one.roles), one.most) for one in policy.constraints if one.kind == DYNAMIC
        ]
        self._closures: dict[str, frozenset[str]] = {}
        self._roles = {user.name: user.roles for user in users.users} if users else {}
        shared: dict[tuple[str, ...], _Rights] = {}
        for roles in self._roles.values():
            if roles not in shared:
                shared[roles] = _Rights(policy, roles)
        self._rights = {user: shared[roles] for user, roles in self._roles.items()}

    @property
    def separates(self) -> bool:
        """Whether roles used in a session can exclude others."""
        return bool(self._exclusive)

    def roles_of(self, user: str) -> tuple[str, ...]:
        """The roles given to a user; none if the user is unknown."""
        return self._roles.get(user, ())

    def decide(self, request: Request, used: frozenset[str] = frozenset()) -> Decision:
        """Whether a request is granted.

        Args:
            request: What is asked.
            used: Roles of the user's own through which it has acted in this session.
        """
        rights = self._rights.get(request.user)
        if rights is None:
            return Decision(False, request, NO_USERS if self.users is None else NO_USER)
        if request.obj.is_wildcard:
            return Decision(False, request, NOT_ONE_OBJECT)
        found = rights.of(request)
        for right in found:
            if not self._exclusive or self._compatible(used, right.role):
                return Decision(True, request, right.rule, right.role, right.permission)
        return Decision(False, request, SEPARATED if found else rights.missing(request))

    def _compatible(self, used: Iterable[str], role: str) -> bool:
        """Whether dynamic separation lets a role be used beside those used before.

        To act in a role is to act in every role that it inherits, too.
        """
        active = self._closure(role).union(*map(self._closure, used))
        return all(len(active & roles) <= most for roles, most in self._exclusive)

    def _closure(self, role: str) -> frozenset[str]:
        if role not in self._closures:
            self._closures[role] = frozenset(role_paths(self.policy, (role,)))
        return self._closures[role]


class RoleMemory(Protocol):
    """Which roles each user has used in each session, under one policy or several."""

    def roles_used(self, policy: str, user: str, session: str) -> frozenset[str]:
        """The roles that a user has used in a session under the policy of that digest."""

    def use_role(
        self, policy: str, user: str, session: str, known: frozenset[str], role: str
    ) -> bool:
        """Note a role, unless others than the `known` ones were used meanwhile."""


class ShortMemory:
    """Remembers for as long as it lives, and no process but this one."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str, str], frozenset[str]] = {}
        self._lock = threading.Lock()

    def roles_used(self, policy: str, user: str, session: str) -> frozenset[str]:
        """See `RoleMemory`."""
        return self._used.get((policy, user, session), frozenset())

    def use_role(
        self, policy: str, user: str, session: str, known: frozenset[str], role: str
    ) -> bool:
        """See `RoleMemory`."""
        with self._lock:
            if self.roles_used(policy, user, session) != known:
                return False
            self._used[policy, user, session] = known | {role}
            return True


class Gate:
    """Lets a request pass only if the policy grants it and the audit log has taken it down.

    Ask it before any data are read or any object is looked up. Roles that exclude each other are
    kept apart within a session: the one that a request names, or else the day (UTC).
    """

    def __init__(
        self,
        index: PolicyIndex,
        log: AuditLog,
        manifest_digest: str,
        memory: RoleMemory | None = None,
    ) -> None:
        """Guard a program.

        Args:
            index: Decides.
            log: Takes decisions down.
            manifest_digest: SHA-256 of the program's manifest.
            memory: Of roles used; None for one that ends with this gate.
        """
        self._index = index
        self._log = log
        self._manifest_digest = manifest_digest
        self._memory = memory if memory is not None else ShortMemory()

    def used(self, user: str, session: str = "") -> frozenset[str]:
        """The roles that a user has used in a session, as far as any exclude each other."""
        if not self._index.separates:
            return frozenset()
        return self._memory.roles_used(self._index.policy.digest, user, _span(session))

    def _decided(self, request: Request) -> Decision:
        """Decide, and have a granted role remembered before anybody can rely on it."""
        while True:
            used = self.used(request.user, request.session)
            decision = self._index.decide(request, used)
            if not decision.allowed or not self._index.separates or decision.role in used:
                return decision
            policy, span = self._index.policy.digest, _span(request.session)
            # Two requests of one user at a time must not each find the other's role unused.
            if self._memory.use_role(policy, request.user, span, used, decision.role):
                return decision

    def require(
        self,
        user: str,
        action: Action,
        obj: ObjectRef,
        *,
        purpose: str = "",
        scope: Scope = Scope.PERSON,
        session: str = "",
        digests: Sequence[str] = (),
    ) -> Decision:
        """Decide, log, then return the granted decision.

        Args:
            user: Who asks.
            action: What for.
            obj: On what.
            purpose: Why, or empty.
            scope: What one answer is about.
            session: Within which separation of duties is kept.
            digests: SHA-256 of the messages that the request is about, for the log.

        Raises:
            AccessDeniedError: No permission grants it, or the decision cannot be logged.
        """
        request = Request(user, action, obj, purpose, scope, session)
        decision = self._decided(request)
        take_down(
            self._log,
            decision,
            self._index.roles_of(user),
            self._manifest_digest,
            digests,
            f"{_refusal(decision)}, because the decision cannot be logged",
        )
        if not decision.allowed:
            raise AccessDeniedError(_refusal(decision))
        return decision


def take_down(
    log: AuditLog,
    decision: Decision,
    roles: Sequence[str],
    manifest_digest: str,
    digests: Sequence[str],
    told: str,
) -> None:
    """Put a decision into the audit log.

    Args:
        log: The log.
        decision: What was decided.
        roles: The roles given to the user.
        manifest_digest: SHA-256 of the manifest whose policy was asked.
        digests: SHA-256 of the messages that the request is about.
        told: What the refusal says if that cannot be written; the reason is put behind it.

    Raises:
        AccessDeniedError: The log cannot be written.
    """
    request = decision.request
    try:
        log.append(
            user=request.user,
            roles=roles,
            role=decision.role,
            action=str(request.action),
            obj=str(request.obj),
            purpose=request.purpose,
            session=request.session,
            allowed=decision.allowed,
            rule=decision.rule,
            manifest_digest=manifest_digest,
            digests=digests,
        )
    except (OSError, HecompileError) as error:
        raise AccessDeniedError(f"{told}: {error}") from error


def _span(session: str) -> str:
    """The session that a request belongs to: the one it names, or the day."""
    return session or datetime.now(UTC).date().isoformat()


def _refusal(decision: Decision) -> str:
    asked = decision.request
    told = f"Access Denied: user {asked.user!r} may not {asked.action} {asked.obj}"
    if decision.rule == NO_USERS:
        return f"{told}: the bundle has no users document, so nobody may do anything"
    return told
