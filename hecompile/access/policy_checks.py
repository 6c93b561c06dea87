"""Checks of a policy against the program it governs, made at compile time and again on loading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hecompile.access.policy import (
    APPLIES_TO,
    KEY_EVALUATION,
    KEY_SECRET,
    MODEL,
    PROGRAM,
    Action,
    Enforcement,
    Grant,
    Kind,
    ObjectRef,
    Permission,
    Policy,
    grants,
)
from hecompile.access.policy_io import suggestion
from hecompile.access.unmasked import check_unmasked, subjects
from hecompile.errors import InputError

_SHOWS_VALUES = frozenset({Action.DECRYPT, Action.DECLASSIFY, Action.REFRESH})
_SHOWS_CIPHERTEXTS = frozenset({Action.ENCRYPT, Action.SUBMIT, Action.RECEIVE, Action.REFRESH})
_DECRYPTS_OUTPUT = (Action.DECRYPT, Kind.OUTPUT)
_KEY_FOR = {
    Action.DECRYPT: KEY_SECRET,
    Action.REFRESH: KEY_SECRET,
    Action.EVALUATE: KEY_EVALUATION,
}


def check_policy(
    policy: Policy,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    refreshes: int = 0,
    encrypted_model: bool | None = None,
    unmasked: bool = False,
) -> None:
    """Hold a policy against a program; deny-by-default needs every gap to be stated.

    Checked: role names, inheritance without a cycle, every object exists, no permission without
    effect, every input and output granted to somebody or listed as unused, somebody may refresh
    or encrypt the model if the program needs it, claims of cryptographic enforcement are true,
    and whoever may evaluate holds no secret key, sees no value and has no weights to encrypt, over
    the closure of inheritance and over each user's roles.

    Args:
        policy: The policy.
        inputs: Names of the program's inputs.
        outputs: Names of the program's outputs.
        refreshes: How many refreshes one evaluation needs.
        encrypted_model: Whether the program's weights are encrypted; None where that is not known
            yet.
        unmasked: Whether refreshes have no masks, which whoever opens them must own the model for.

    Raises:
        InputError: Names the offender, where it stands and the remedy.
    """
    _check_role_names(policy)
    _check_cycles(policy)
    _check_objects(policy, inputs, outputs)
    _check_effects(policy)
    _check_model(policy, encrypted_model)
    _check_coverage(policy, inputs, outputs)
    _check_separation(policy)
    _check_cryptographic_claims(policy)
    if unmasked:
        check_unmasked(policy)
    if refreshes and not any(grant.action is Action.REFRESH for grant in _all_grants(policy)):
        raise InputError(
            f"the program needs {refreshes} refresh{'es' if refreshes > 1 else ''}, but no role "
            "may refresh; give the key holder's role the action 'refresh' on 'program'"
        )


def policy_warnings(policy: Policy) -> tuple[str, ...]:
    """What a policy allows that leads to the secret key by way of decrypted values.

    Ciphertexts together with their decrypted CKKS values give the key away (Li and Micciancio,
    "On the Security of Homomorphic Encryption on Approximate Numbers", Eurocrypt 2021). Warned of
    is each user, and each role that no user has, who may see a ciphertext and decrypt an output
    without holding the key, over the closure of inheritance.

    Returns:
        One sentence for each, with the remedy; none if all who see both hold the key.
    """
    found = [
        _key_view_warning(who, list(grants(policy, roles))) for who, _, roles in subjects(policy)
    ]
    return tuple(warning for warning in found if warning is not None)


def work_warnings(
    policy: Policy,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    refreshes: int = 0,
    encrypted_model: bool = False,
) -> tuple[str, ...]:
    """What nobody can do under a policy, so that the program cannot be used as it should be.

    A role without a user is no fault, so this warns and does not refuse.

    Args:
        policy: The policy, checked by `check_policy`.
        inputs: Names of the program's inputs, all of which one user encrypts.
        outputs: Names of the program's outputs; those listed as unused are passed over.
        refreshes: How many refreshes one evaluation needs.
        encrypted_model: Whether the program's weights are encrypted.

    Returns:
        One sentence for each step that no user may take, with the remedy.
    """
    entries = [(Action.ENCRYPT, ObjectRef.input(name)) for name in inputs]
    results = [(Action.DECRYPT, ObjectRef.output(name)) for name in outputs]
    single = [*entries, (Action.EVALUATE, PROGRAM), (Action.HOLD, KEY_SECRET)]
    single += [(Action.REFRESH, PROGRAM)] if refreshes else []
    single += [(Action.ENCRYPT, MODEL)] if encrypted_model else []
    single += [want for want in results if want[1] not in policy.unused]
    by_user = [list(grants(policy, user.roles)) for user in policy.users]
    found = [
        f"no user may {action} {obj}: give a user in [users] a role with '{action}' on {obj}"
        for action, obj in single
        if not any(_may(granted, action, obj) for granted in by_user)
    ]
    together = any(all(_may(granted, *want) for want in entries) for granted in by_user)
    if not found and not together:
        told = ", ".join(str(obj) for _, obj in entries)
        found.append(
            f"no user may encrypt all of {told}, which one user encrypts together: give a user in "
            "[users] roles with 'encrypt' on each"
        )
    return tuple(found)


def _may(granted: Iterable[Grant], action: Action, obj: ObjectRef) -> bool:
    return any(grant.action is action and grant.object.covers(obj) for grant in granted)


def _key_view_warning(who: str, granted: list[Grant]) -> str | None:
    sees = next((grant for grant in granted if grant.action in _SHOWS_CIPHERTEXTS), None)
    decrypts = next((g for g in granted if (g.action, g.object.kind) == _DECRYPTS_OUTPUT), None)
    holds = any((g.action, g.object) == (Action.HOLD, KEY_SECRET) for g in granted)
    if sees is None or decrypts is None or holds:
        return None
    return (
        f"{who} may {sees.action} {sees.object} ({_path(sees)}) and decrypt {decrypts.object} "
        f"({_path(decrypts)}) without holding the secret key, which can be computed from "
        f"ciphertexts and their decrypted values: grant 'hold' on key:secret to role "
        f"'{decrypts.path[-1]}' as well, or leave decrypting to who holds the key and pass on "
        "labels, not raw values"
    )


def _all_grants(policy: Policy) -> Iterable[Grant]:
    return grants(policy, [role.name for role in policy.roles])


def _check_role_names(policy: Policy) -> None:
    known = [role.name for role in policy.roles]

    def check(name: str, where: str, holder: str) -> None:
        if name not in known:
            hint = suggestion(name, known)
            if ":" in name:
                hint = " (a key below [users] names a user: put `unused` at the top of the file)"
            raise InputError(
                f"{_at(where)}{holder} names role '{name}', which is not defined{hint}; "
                f"add [roles.{name}] or correct the name"
            )

    for what, names in (("role", known), ("user", [user.name for user in policy.users])):
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"{what} '{repeated}' is defined twice; keep one")
    for role in policy.roles:
        for parent in role.inherits:
            check(parent, role.where, f"'inherits' of role '{role.name}'")
    for permission in policy.permissions:
        check(permission.role, permission.where, "a permission")
    for user in policy.users:
        for name in user.roles:
            check(name, user.where, f"user '{user.name}'")


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
                    f"{_at(where[name])}roles inherit in a circle: {cycle}; remove one of the links"
                )
            elif name not in finished:
                path.append(name)
                stack.append((name, False))
                stack += [(parent, True) for parent in parents[name]]


def _check_objects(policy: Policy, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    names = {Kind.INPUT: inputs, Kind.OUTPUT: outputs}
    for kind, found in names.items():
        if "*" in found:
            raise InputError(
                f"the program has an {kind} named '*', which stands for all; rename it"
            )
    named = [
        (obj, permission.where) for permission in policy.permissions for obj in permission.objects
    ]
    for obj, where in [*named, *((obj, "") for obj in policy.unused)]:
        existing = names.get(obj.kind)
        if existing is None or obj.is_wildcard or obj.name in existing:
            continue
        raise InputError(
            f"{_at(where)}object '{obj}' does not exist in the program"
            f"{suggestion(obj.name, existing, f'{obj.kind}:')}; its {obj.kind}s are "
            f"{', '.join(existing) or 'none'}"
        )


def _check_model(policy: Policy, encrypted: bool | None) -> None:
    """Somebody encrypts the weights where they are encrypted, and nobody elsewhere."""
    for permission in policy.permissions:
        named = MODEL in permission.objects and Action.ENCRYPT in permission.actions
        if named and encrypted is False:
            raise InputError(
                f"{_at(permission.where)}nothing of object '{MODEL}' is encrypted, for the "
                "program's weights are plain; compile with --encrypt-model, or remove the object"
            )
    if encrypted and not any(_encrypts_model(grant) for grant in _all_grants(policy)):
        raise InputError(
            "the program's weights are encrypted, but no role may encrypt them; give the model "
            f"owner's role the action 'encrypt' on '{MODEL}'"
        )


def _encrypts_model(grant: Grant) -> bool:
    return grant.action is Action.ENCRYPT and grant.object == MODEL


def _check_effects(policy: Policy) -> None:
    for permission in policy.permissions:
        kinds = {obj.kind for obj in permission.objects}
        for action in permission.actions:
            if not APPLIES_TO[action] & kinds:
                raise InputError(
                    f"{_at(permission.where)}action '{action}' applies to none of the permission's "
                    f"objects; it applies to {_kinds(APPLIES_TO[action])}"
                )
        for obj in permission.objects:
            if not any(obj.kind in APPLIES_TO[action] for action in permission.actions):
                fitting = [action for action in Action if obj.kind in APPLIES_TO[action]]
                raise InputError(
                    f"{_at(permission.where)}no action of the permission applies to object "
                    f"'{obj}'; use one of {', '.join(fitting)}, or remove the object"
                )


def _check_coverage(policy: Policy, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    granted = list(_all_grants(policy))
    ports = [*map(ObjectRef.input, inputs), *map(ObjectRef.output, outputs)]
    for obj in policy.unused:
        if obj.kind not in (Kind.INPUT, Kind.OUTPUT) or obj.is_wildcard:
            raise InputError(f"'unused' lists '{obj}'; it takes single inputs and outputs only")
    for port in ports:
        grant = next((grant for grant in granted if grant.object.covers(port)), None)
        if grant is None and port not in policy.unused:
            raise InputError(
                f"nobody has a permission on {port}; grant it to a role, or state that it is not "
                f'used: unused = ["{port}"] at the top of the policy'
            )
        if grant is not None and port in policy.unused:
            permission = policy.permissions[grant.number - 1]
            raise InputError(
                f"{_at(permission.where)}role '{permission.role}' may {grant.action} "
                f"{grant.object}, but 'unused' lists {port}; name the objects one by one or "
                "take it off the list"
            )


def _check_separation(policy: Policy) -> None:
    """Whoever may evaluate has no way to a value or a hidden weight: rules S2 and S4."""
    subjects: list[tuple[str, str, tuple[str, ...]]] = [
        (f"role '{role.name}'", role.where, (role.name,)) for role in policy.roles
    ]
    subjects += [(f"user '{user.name}'", user.where, user.roles) for user in policy.users]
    for who, where, roles in subjects:
        granted = list(grants(policy, roles))
        evaluates = next((grant for grant in granted if grant.action is Action.EVALUATE), None)
        sees = next((grant for grant in granted if _gives_values(grant)), None)
        if evaluates is not None and sees is not None:
            raise InputError(
                f"{_at(where)}{who} may evaluate ({_path(evaluates)}) and may also {sees.action} "
                f"{sees.object} ({_path(sees)}); who evaluates must not reach the secret key or a "
                "decrypted value, nor weights that are hidden from it: give the two to "
                "separate roles and users"
            )


def _gives_values(grant: Grant) -> bool:
    # Registering or rotating a secret key means having made it, so it counts as holding it.
    shown = grant.action in _SHOWS_VALUES or _encrypts_model(grant)
    return shown or grant.object == KEY_SECRET


def _check_cryptographic_claims(policy: Policy) -> None:
    """A permission may claim cryptographic enforcement only if no other key holder gets by it."""
    effective = {role.name: list(grants(policy, (role.name,))) for role in policy.roles}
    for permission in policy.permissions:
        if permission.enforcement is not Enforcement.CRYPTOGRAPHIC:
            continue
        for action in permission.actions:
            if action is not Action.HOLD:
                _check_claim(permission, action, effective)


def _check_claim(permission: Permission, action: Action, effective: dict[str, list[Grant]]) -> None:
    needed = _KEY_FOR.get(action)
    if needed is None:
        raise InputError(
            f"{_at(permission.where)}action '{action}' cannot be enforced cryptographically, no "
            "key is needed for it; state 'gateway' or 'client-advisory'"
        )
    holders = [
        role
        for role, granted in effective.items()
        if any(grant.action is Action.HOLD and grant.object == needed for grant in granted)
    ]
    if permission.role not in holders:
        raise InputError(
            f"{_at(permission.where)}role '{permission.role}' does not hold {needed}, so its "
            f"'{action}' is not enforced cryptographically; state 'gateway' or let it hold the key"
        )
    for obj in permission.objects:
        if obj.kind not in APPLIES_TO[action]:
            continue
        for holder in holders:
            if not any(
                grant.action is action and grant.object.covers(obj) for grant in effective[holder]
            ):
                raise InputError(
                    f"{_at(permission.where)}'{action}' on {obj} is not enforced "
                    f"cryptographically: role '{holder}' holds {needed} and may not {action} it; "
                    "state 'gateway'"
                )


def _at(where: str) -> str:
    return f"{where}: " if where else ""


def _path(grant: Grant) -> str:
    return " -> ".join(grant.path)


def _kinds(kinds: frozenset[Kind]) -> str:
    return " and ".join(sorted(f"'{kind}' objects" for kind in kinds))
