"""Rule S1: every object exists, every input and output is spoken for; and roles make sense."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from hecompile.access.documents import suggestion
from hecompile.access.policy import (
    ANY_NAME,
    APPLIES_TO,
    MODEL,
    Action,
    Grant,
    Kind,
    ObjectRef,
    Policy,
    grants,
)
from hecompile.access.proof_subjects import ProgramFacts, Rule, at, listed, violation
from hecompile.access.users import Users
from hecompile.errors import InputError


def check_roles(policy: Policy, users: Users | None = None) -> None:
    """Roles are defined once, those that are named exist, and none inherits itself.

    Raises:
        InputError: Names the role, where it stands and the remedy.
    """
    known = [role.name for role in policy.roles]
    if repeated := next((name for name in known if known.count(name) > 1), None):
        raise InputError(f"role '{repeated}' is defined twice; keep one")
    for role in policy.roles:
        _check_names(role.inherits, known, role.where, f"'inherits' of role '{role.name}'")
    for permission in policy.permissions:
        _check_names((permission.role,), known, permission.where, "a permission")
    for constraint in policy.constraints:
        _check_names(constraint.roles, known, constraint.where, "a constraint")
    for rule in policy.keys:
        for field, names in (("holders", rule.holders), ("never", rule.never)):
            _check_names(names, known, rule.where, f"'{field}' of [keys.{rule.name}]")
    for user in users.users if users is not None else ():
        _check_names(user.roles, known, user.where, f"user '{user.name}'")
    _check_cycles(policy)


def check_objects(policy: Policy, facts: ProgramFacts) -> None:
    """Rule S1, and permissions without an effect are refused.

    Raises:
        InputError: Names the object, where it stands and the remedy.
    """
    _check_existence(policy, facts)
    _check_effects(policy)
    _check_coverage(policy, facts)


def check_needs(policy: Policy, facts: ProgramFacts) -> None:
    """Somebody may do what the program needs: refresh, and encrypt weights that are encrypted.

    Raises:
        InputError: Nobody may, or the policy has the weights of a plain model encrypted.
    """
    granted = _all_grants(policy)
    if facts.encrypted_model is False:
        for permission in policy.permissions:
            if MODEL in permission.objects and Action.ENCRYPT in permission.actions:
                raise InputError(
                    f"{at(permission.where)}nothing of object '{MODEL}' is encrypted, for the "
                    "program's weights are plain; compile with --encrypt-model, or remove the "
                    "object"
                )
    elif facts.encrypted_model and not any(
        grant.action is Action.ENCRYPT and grant.object == MODEL for grant in granted
    ):
        raise InputError(
            "the program's weights are encrypted, but no role may encrypt them; give the model "
            f"owner's role the action 'encrypt' on '{MODEL}'"
        )
    if facts.refreshes and not any(grant.action is Action.REFRESH for grant in granted):
        raise InputError(
            f"the program needs {facts.refreshes} refresh{'es' if facts.refreshes > 1 else ''}, "
            "but no role may refresh; give the key holder's role the action 'refresh' on 'program'"
        )


def _all_grants(policy: Policy) -> list[Grant]:
    return list(grants(policy, [role.name for role in policy.roles]))


def _check_names(names: Iterable[str], known: Collection[str], where: str, holder: str) -> None:
    for name in names:
        if name not in known:
            raise InputError(
                f"{at(where)}{holder} names role '{name}', which is not defined"
                f"{suggestion(name, known)}; add [roles.{name}] to the policy or correct the name"
            )


def _check_cycles(policy: Policy) -> None:
    parents = {role.name: role.inherits for role in policy.roles}
    where = {role.name: role.where for role in policy.roles}
    finished: set[str] = set()
    for start in parents:
        # An explicit stack: a long chain of roles must not meet Python's recursion limit.
        path: list[str] = []
        stack: list[tuple[str, bool]] = [(start, True)]
        while stack:
            name, entering = stack.pop()
            if not entering:
                finished.add(path.pop())
            elif name in path:
                cycle = " -> ".join([*path[path.index(name) :], name])
                raise InputError(
                    f"{at(where[name])}roles inherit in a circle: {cycle}; remove one of the links"
                )
            elif name not in finished:
                path.append(name)
                stack.append((name, False))
                stack += [(parent, True) for parent in parents[name]]


def _check_existence(policy: Policy, facts: ProgramFacts) -> None:
    names: dict[Kind, Sequence[str]] = {Kind.INPUT: facts.inputs, Kind.OUTPUT: facts.outputs}
    for kind, found in names.items():
        if ANY_NAME in found:
            raise violation(
                Rule.S1,
                "",
                f"the program has an {kind} named '{ANY_NAME}', which stands for all; rename it",
            )
    named = [
        (obj, f"role '{permission.role}' names object", permission.where)
        for permission in policy.permissions
        for obj in permission.objects
    ]
    named += [(obj, "'unused' lists object", "") for obj in policy.unused]
    for obj, who, where in named:
        existing = names.get(obj.kind)
        if existing is None or obj.is_wildcard or obj.name in existing:
            continue
        raise violation(
            Rule.S1,
            where,
            f"{who} '{obj}', which does not exist in the program"
            f"{suggestion(obj.name, existing, f'{obj.kind}:')}; its {obj.kind}s are "
            f"{listed(existing)}: correct the name or remove the object",
        )


def _check_effects(policy: Policy) -> None:
    for permission in policy.permissions:
        kinds = {obj.kind for obj in permission.objects}
        for action in permission.actions:
            if not APPLIES_TO[action] & kinds:
                fitting = " and ".join(sorted(f"'{kind}' objects" for kind in APPLIES_TO[action]))
                raise InputError(
                    f"{at(permission.where)}action '{action}' applies to none of the permission's "
                    f"objects; it applies to {fitting}"
                )
        for obj in permission.objects:
            if not any(obj.kind in APPLIES_TO[action] for action in permission.actions):
                actions = [action for action in Action if obj.kind in APPLIES_TO[action]]
                raise InputError(
                    f"{at(permission.where)}no action of the permission applies to object "
                    f"'{obj}'; use one of {listed(actions)}, or remove the object"
                )


def _check_coverage(policy: Policy, facts: ProgramFacts) -> None:
    granted = _all_grants(policy)
    ports = [*map(ObjectRef.input, facts.inputs), *map(ObjectRef.output, facts.outputs)]
    for obj in policy.unused:
        if obj.kind not in (Kind.INPUT, Kind.OUTPUT) or obj.is_wildcard:
            raise violation(
                Rule.S1, "", f"'unused' lists '{obj}'; name single inputs and outputs only"
            )
    for port in ports:
        grant = next((grant for grant in granted if grant.object.covers(port)), None)
        if grant is None and port not in policy.unused:
            raise violation(
                Rule.S1,
                "",
                f"nobody has a permission on {port}; grant it to a role, or state that it is not "
                f'used: unused = ["{port}"] at the top of the policy',
            )
        if grant is not None and port in policy.unused:
            raise violation(
                Rule.S1,
                grant.permission.where,
                f"role '{grant.permission.role}' may {grant.action} {grant.object}, but 'unused' "
                f"lists {port}; name the objects one by one or take it off the list",
            )
