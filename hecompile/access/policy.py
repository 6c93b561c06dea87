"""Roles and permissions: the types of an access policy and what a role may do in effect.

A policy grants and never denies: what no permission grants is refused. A role has its own
permissions and those of every role it inherits, directly or through others. Who has which role is
told elsewhere, in a document of its own (`hecompile.access.users`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hecompile.access.objects import (
    ANY_NAME,
    APPLIES_TO,
    AUDIT,
    DEFAULT_ENFORCEMENT,
    KEY_EVALUATION,
    KEY_NAMES,
    KEY_PUBLIC,
    KEY_SECRET,
    MODEL,
    PROGRAM,
    Action,
    Enforcement,
    Kind,
    ObjectRef,
    Scope,
)
from hecompile.access.policy_json import (
    DEFAULT_ENVELOPE_SECONDS,
    POLICY_FORMAT,
    policy_to_json,
)
from hecompile.access.records import canonical_json
from hecompile.access.terms import (
    NO_OBLIGATIONS,
    Constraint,
    DpNoise,
    FieldLabels,
    KeyRule,
    ModelLabels,
    Obligations,
)
from hecompile.files import sha256_bytes

__all__ = [
    "ANY_NAME",
    "APPLIES_TO",
    "AUDIT",
    "DEFAULT_ENFORCEMENT",
    "DEFAULT_ENVELOPE_SECONDS",
    "KEY_EVALUATION",
    "KEY_NAMES",
    "KEY_PUBLIC",
    "KEY_SECRET",
    "MODEL",
    "NO_OBLIGATIONS",
    "POLICY_FORMAT",
    "PROGRAM",
    "Action",
    "Constraint",
    "DpNoise",
    "Enforcement",
    "FieldLabels",
    "Grant",
    "KeyRule",
    "Kind",
    "ModelLabels",
    "ObjectRef",
    "Obligations",
    "Permission",
    "PermissionRow",
    "Policy",
    "Role",
    "Scope",
    "grants",
    "permission_table",
    "role_paths",
    "single_owner_policy",
]


@dataclass(frozen=True)
class Role:
    """A named set of permissions.

    Attributes:
        name: The role's name.
        inherits: Roles whose permissions and clearances this one has too.
        description: One line for people.
        where: File and line, for messages; no part of the role's identity.
        clearance: Labels that the role may see: dotted names, `vitals.*` for what begins with
            `vitals.`, `*` for everything.
    """

    name: str
    inherits: tuple[str, ...] = ()
    description: str = ""
    where: str = field(default="", compare=False)
    clearance: tuple[str, ...] = ()


@dataclass(frozen=True)
class Permission:
    """One role may do every one of some actions on every one of some objects they apply to.

    Attributes:
        role: Name of the role.
        actions: What it may do.
        objects: On what.
        enforcement: How it is enforced; None takes `DEFAULT_ENFORCEMENT` of each action.
        scope: What one answer may be about.
        purposes: Purposes of which a request must name one; empty for any purpose or none.
        obligations: What is done to a value that is declassified; other actions have none.
        where: File and line, for messages; no part of the permission's identity.
    """

    role: str
    actions: tuple[Action, ...]
    objects: tuple[ObjectRef, ...]
    enforcement: Enforcement | None = None
    scope: Scope = Scope.PERSON
    purposes: tuple[str, ...] = ()
    obligations: Obligations = NO_OBLIGATIONS
    where: str = field(default="", compare=False)

    @property
    def is_cohort(self) -> bool:
        """Whether an answer is about several persons."""
        return self.scope is Scope.COHORT

    def enforcement_of(self, action: Action) -> Enforcement:
        """How `action` is enforced under this permission."""
        return self.enforcement or DEFAULT_ENFORCEMENT[action]

    def fits(self, scope: Scope, purpose: str) -> bool:
        """Whether it may serve a request of this scope and purpose."""
        return self.scope is scope and (not self.purposes or purpose in self.purposes)


@dataclass(frozen=True)
class Policy:
    """What each role may do; deny by default.

    Attributes:
        roles: The roles, by name; kept sorted, as their order means nothing.
        permissions: What each role may do; of several that grant a request the first decides.
        unused: Inputs and outputs that nobody may touch, stated so that none is forgotten.
        constraints: Roles that exclude each other.
        keys: Who may hold each key; kept sorted by the key's name.
        labels: What the inputs are about; kept sorted by input.
        model: What the weights were trained on, or None where that is not stated.
        envelope_seconds: How long what a party sends stays valid.
        purposes: The purposes that permissions may name.
    """

    roles: tuple[Role, ...]
    permissions: tuple[Permission, ...]
    unused: tuple[ObjectRef, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    keys: tuple[KeyRule, ...] = ()
    labels: tuple[FieldLabels, ...] = ()
    model: ModelLabels | None = None
    envelope_seconds: int = DEFAULT_ENVELOPE_SECONDS
    purposes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Sort what has no order, so that equal policies compare equal and print alike."""
        object.__setattr__(self, "roles", tuple(sorted(self.roles, key=lambda role: role.name)))
        object.__setattr__(self, "keys", tuple(sorted(self.keys, key=lambda rule: rule.name)))
        object.__setattr__(
            self, "labels", tuple(sorted(self.labels, key=lambda one: str(one.object)))
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the policy's canonical JSON, 64 hexadecimal digits."""
        return sha256_bytes(canonical_json(policy_to_json(self)))

    def role(self, name: str) -> Role | None:
        """The role of that name, or None."""
        return next((role for role in self.roles if role.name == name), None)

    def key_rule(self, name: str) -> KeyRule | None:
        """The rule for `secret`, `public` or `evaluation`, or None."""
        return next((rule for rule in self.keys if rule.name == name), None)


@dataclass(frozen=True)
class Grant:
    """One action on one object that a set of roles has in effect.

    Attributes:
        path: Roles from the one that was asked about to the one the permission names.
        number: Position of the permission in the policy, from 1.
        action: The action.
        object: The object, which may be a wildcard.
        permission: The permission that grants it.
    """

    path: tuple[str, ...]
    number: int
    action: Action
    object: ObjectRef
    permission: Permission

    @property
    def enforcement(self) -> Enforcement:
        """How it is enforced."""
        return self.permission.enforcement_of(self.action)


def role_paths(policy: Policy, roles: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Every role that `roles` amount to, each with a shortest path of inheritance to it.

    Unknown roles are passed over and cycles end, so that the result is right for any policy.

    Returns:
        Role name to path; the path starts with one of `roles` and ends with the name.
    """
    known = {role.name: role for role in policy.roles}
    paths: dict[str, tuple[str, ...]] = {name: (name,) for name in roles if name in known}
    queue = list(paths)
    for name in queue:
        for parent in known[name].inherits:
            if parent in known and parent not in paths:
                paths[parent] = (*paths[name], parent)
                queue.append(parent)
    return paths


def grants(policy: Policy, roles: Iterable[str]) -> Iterator[Grant]:
    """What `roles` may do in effect, inheritance included, in the policy's order.

    A permission's actions and objects multiply; pairs without a meaning (`APPLIES_TO`) grant
    nothing.
    """
    paths = role_paths(policy, roles)
    for number, permission in enumerate(policy.permissions, start=1):
        path = paths.get(permission.role)
        if path is None:
            continue
        for action in permission.actions:
            for obj in permission.objects:
                if obj.kind in APPLIES_TO[action]:
                    yield Grant(path, number, action, obj, permission)


@dataclass(frozen=True)
class PermissionRow:
    """One line of the printed table: what a role may do, and from which role it has that.

    Attributes:
        role: The role.
        action: What it may do.
        object: On what.
        enforcement: How that is enforced.
        inherited_from: The role whose permission it is, or None for its own.
        scope: What one answer may be about.
        purposes: Purposes of which one must be named; empty for any.
        obligations: What is done to a value that is declassified.
    """

    role: str
    action: Action
    object: ObjectRef
    enforcement: Enforcement
    inherited_from: str | None
    scope: Scope = Scope.PERSON
    purposes: tuple[str, ...] = ()
    obligations: Obligations = NO_OBLIGATIONS

    @property
    def granularity(self) -> str:
        """How finely the role sees the object, for people."""
        return granularity(self.action, self.object, self.scope, self.obligations)


def granularity(action: Action, obj: ObjectRef, scope: Scope, obligations: Obligations) -> str:
    """How finely somebody sees an object who may do `action` on it, for people."""
    if action is Action.DECLASSIFY:
        return _released(scope, obligations)
    if action in (Action.HOLD, Action.REGISTER, Action.ROTATE):
        return f"{obj.name} key"
    shown = {
        Action.ENCRYPT: "own values",
        Action.SUBMIT: "ciphertext",
        Action.EVALUATE: "ciphertext",
        Action.RECEIVE: "ciphertext",
        Action.DECRYPT: "raw values",
        Action.REFRESH: "masked values",
        Action.READ: "log entries",
        Action.OWN: "weights",
    }
    return "weights" if obj.kind is Kind.MODEL else shown[action]


def _released(scope: Scope, obligations: Obligations) -> str:
    what = "cohort mean" if scope is Scope.COHORT else "values"
    if obligations.label_only:
        what = "label"
    elif obligations.round is not None:
        what += f" rounded to {obligations.round:g}"
    if obligations.dp is not None:
        what += f" with rho {obligations.dp.rho:g}"
    if obligations.budget is not None:
        what += f" ({obligations.budget} a key)"
    return what


def permission_table(policy: Policy) -> tuple[PermissionRow, ...]:
    """Everything that each role may do in effect, for printing.

    Returns:
        Rows in the order of roles and permissions, each role x action x object x terms once.
    """
    rows: dict[tuple[object, ...], PermissionRow] = {}
    for role in policy.roles:
        for grant in grants(policy, (role.name,)):
            source = grant.path[-1] if len(grant.path) > 1 else None
            terms = grant.permission
            row = PermissionRow(
                role.name,
                grant.action,
                grant.object,
                grant.enforcement,
                source,
                terms.scope,
                terms.purposes,
                terms.obligations,
            )
            key = dataclasses.astuple(dataclasses.replace(row, inherited_from=None))
            if key not in rows or source is None:
                rows[key] = row
    return tuple(rows.values())


def single_owner_policy(
    inputs: Sequence[str], outputs: Sequence[str], *, encrypted_model: bool = False
) -> Policy:
    """The built-in policy: one owner of data and keys, one evaluator that sees neither.

    Args:
        inputs: Names of the program's inputs.
        outputs: Names of the program's outputs.
        encrypted_model: Whether the program's weights are encrypted; the owner encrypts them.

    Returns:
        Roles `owner` and `evaluator`; `single_owner_users` names a user for each.
    """
    entries = tuple(ObjectRef.input(name) for name in inputs)
    results = tuple(ObjectRef.output(name) for name in outputs)
    keys = (KEY_SECRET, KEY_PUBLIC, KEY_EVALUATION)
    permissions: tuple[Permission, ...] = (
        Permission("owner", (Action.ENCRYPT, Action.SUBMIT), entries),
        Permission("owner", (Action.RECEIVE, Action.DECRYPT), results),
        Permission("owner", (Action.HOLD,), keys),
        Permission("owner", (Action.REGISTER,), (KEY_PUBLIC, KEY_EVALUATION)),
        Permission("owner", (Action.REFRESH,), (PROGRAM,)),
        Permission("owner", (Action.READ,), (AUDIT,)),
        Permission("evaluator", (Action.EVALUATE,), (PROGRAM,)),
    )
    if encrypted_model:
        permissions += (Permission("owner", (Action.ENCRYPT,), (MODEL,)),)
    roles = (
        Role("owner", description="Owns the data and the keys, and reads the results"),
        Role("evaluator", description="Computes on ciphertexts, sees no value and no secret key"),
    )
    return Policy(roles, permissions)
