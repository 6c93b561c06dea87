"""Decisions: deny by default, looked up in a table that is built once, and logged before use."""

from __future__ import annotations

from dataclasses import dataclass

from hecompile.access.audit import AuditLog
from hecompile.access.policy import Action, ObjectRef, Policy, grants
from hecompile.errors import AccessDeniedError, HecompileError

NO_PERMISSION = "no permission"
NO_USER = "unknown user"
NOT_ONE_OBJECT = "the request does not name one object"


@dataclass(frozen=True)
class Decision:
    """The answer to one request.

    Attributes:
        allowed: Whether a permission grants it.
        user: Who asked, as given.
        action: What for.
        object: On what.
        rule: The permission that grants it, or why nothing does.
    """

    allowed: bool
    user: str
    action: Action
    object: ObjectRef
    rule: str


class PolicyIndex:
    """What every user may do in effect, as a table; a decision is one or two lookups in it."""

    def __init__(self, policy: Policy) -> None:
        """Work out each user's rights, inheritance included."""
        self.policy = policy
        self._rules: dict[str, dict[tuple[Action, ObjectRef], str]] = {}
        self._roles: dict[str, tuple[str, ...]] = {}
        for user in policy.users:
            rules: dict[tuple[Action, ObjectRef], str] = {}
            for grant in grants(policy, user.roles):
                rule = f"permission {grant.number}: {' -> '.join(grant.path)} may {grant.action} "
                rules.setdefault((grant.action, grant.object), f"{rule}{grant.object}")
            self._rules[user.name] = rules
            self._roles[user.name] = user.roles

    def roles_of(self, user: str) -> tuple[str, ...]:
        """The roles given to a user; none if the user is unknown."""
        return self._roles.get(user, ())

    def decide(self, user: str, action: Action, obj: ObjectRef) -> Decision:
        """Whether `user` may do `action` on the one object `obj`."""
        rules = self._rules.get(user)
        if rules is None:
            return Decision(False, user, action, obj, NO_USER)
        if obj.is_wildcard:
            return Decision(False, user, action, obj, NOT_ONE_OBJECT)
        rule = rules.get((action, obj))
        if rule is None and obj.name:
            rule = self._any_name(rules, action, obj)
        if rule is None:
            return Decision(False, user, action, obj, NO_PERMISSION)
        return Decision(True, user, action, obj, rule)

    @staticmethod
    def _any_name(
        rules: dict[tuple[Action, ObjectRef], str], action: Action, obj: ObjectRef
    ) -> str | None:
        for wildcard in _WILDCARDS:
            if wildcard.covers(obj):
                return rules.get((action, wildcard))
        return None


_WILDCARDS = (ObjectRef.input("*"), ObjectRef.output("*"))


def decide(policy: Policy | PolicyIndex, user: str, action: Action, obj: ObjectRef) -> Decision:
    """Whether `user` may do `action` on `obj`; give a `PolicyIndex` where many are asked."""
    index = policy if isinstance(policy, PolicyIndex) else PolicyIndex(policy)
    return index.decide(user, action, obj)


class Gate:
    """Lets a request pass only if the policy grants it and the audit log has taken it down.

    Ask it before any data are read or any object is looked up.
    """

    def __init__(self, index: PolicyIndex, log: AuditLog, manifest_digest: str) -> None:
        """Guard the program whose manifest has the SHA-256 `manifest_digest`."""
        self._index = index
        self._log = log
        self._manifest_digest = manifest_digest

    def require(self, user: str, action: Action, obj: ObjectRef) -> Decision:
        """Decide, log, then return the granted decision.

        Raises:
            AccessDeniedError: No permission grants it, or the decision cannot be logged.
        """
        decision = self._index.decide(user, action, obj)
        refusal = f"Access Denied: user {user!r} may not {action} {obj}"
        try:
            self._log.append(
                user=user,
                roles=self._index.roles_of(user),
                action=str(action),
                obj=str(obj),
                allowed=decision.allowed,
                rule=decision.rule,
                manifest_digest=self._manifest_digest,
            )
        except (OSError, HecompileError) as error:
            raise AccessDeniedError(
                f"{refusal}, because the decision cannot be logged: {error}"
            ) from error
        if not decision.allowed:
            raise AccessDeniedError(refusal)
        return decision
