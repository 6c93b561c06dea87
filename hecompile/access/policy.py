"""Roles, permissions and users: the types of an access policy and what a role may do in effect.

A policy grants and never denies: what no permission grants is refused. A role has its own
permissions and those of every role it inherits, directly or through others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hecompile.errors import InputError

POLICY_FORMAT = 1
ANY_NAME = "*"


class Action(StrEnum):
    """What a user may ask for."""

    ENCRYPT = "encrypt"
    SUBMIT = "submit"
    EVALUATE = "evaluate"
    RECEIVE = "receive"
    DECRYPT = "decrypt"
    DECLASSIFY = "declassify"
    HOLD = "hold"
    REGISTER = "register"
    ROTATE = "rotate"
    REFRESH = "refresh"
    READ = "read"
    OWN = "own"


class Enforcement(StrEnum):
    """What keeps a user without a permission from acting all the same.

    `cryptographic`: the user lacks a key. `gateway`: a server or a key holder refuses.
    `client-advisory`: only the user's own client refuses.
    """

    CRYPTOGRAPHIC = "cryptographic"
    GATEWAY = "gateway"
    CLIENT_ADVISORY = "client-advisory"


class Kind(StrEnum):
    """Kinds of objects that a permission names."""

    INPUT = "input"
    OUTPUT = "output"
    PROGRAM = "program"
    MODEL = "model"
    KEY = "key"
    AUDIT = "audit"


KEY_NAMES = ("secret", "public", "evaluation")

APPLIES_TO: dict[Action, frozenset[Kind]] = {
    Action.ENCRYPT: frozenset({Kind.INPUT, Kind.MODEL}),
    Action.SUBMIT: frozenset({Kind.INPUT}),
    Action.EVALUATE: frozenset({Kind.PROGRAM}),
    Action.RECEIVE: frozenset({Kind.INPUT, Kind.OUTPUT}),
    Action.DECRYPT: frozenset({Kind.INPUT, Kind.OUTPUT}),
    Action.DECLASSIFY: frozenset({Kind.OUTPUT}),
    Action.HOLD: frozenset({Kind.KEY}),
    Action.REGISTER: frozenset({Kind.KEY}),
    Action.ROTATE: frozenset({Kind.KEY}),
    Action.REFRESH: frozenset({Kind.PROGRAM}),
    Action.READ: frozenset({Kind.AUDIT}),
    Action.OWN: frozenset({Kind.MODEL}),
}
"""The kinds of objects on which each action means something."""

DEFAULT_ENFORCEMENT: dict[Action, Enforcement] = {
    # Whoever has the public key can encrypt: only the client's own program refuses.
    Action.ENCRYPT: Enforcement.CLIENT_ADVISORY,
    # One key decrypts all that is under it, so a grant of one output is the key holder's word.
    **{
        action: Enforcement.GATEWAY
        for action in Action
        if action not in (Action.ENCRYPT, Action.HOLD)
    },
    Action.HOLD: Enforcement.CRYPTOGRAPHIC,
}
"""How an action is enforced in policy format 1 where its permission does not say."""


@dataclass(frozen=True, order=True)
class ObjectRef:
    """What a permission or a request is about.

    Attributes:
        kind: The kind of object.
        name: Name of the input or output (`*` for all of them, in permissions only), one of
            `secret`, `public`, `evaluation` for a key, empty for the program, the model (its
            weights: to own them is to know them, to encrypt them there must be encrypted ones)
            and the audit log.
    """

    kind: Kind
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse names that the kind does not have.

        Raises:
            InputError: The name does not fit the kind.
        """
        if self.kind in (Kind.INPUT, Kind.OUTPUT):
            if not self.name:
                raise InputError(f"object '{self.kind}:' lacks a name; write {self.kind}:NAME")
        elif self.kind is Kind.KEY:
            if self.name not in KEY_NAMES:
                known = ", ".join(f"key:{name}" for name in KEY_NAMES)
                raise InputError(f"there is no object 'key:{self.name}'; use one of {known}")
        elif self.name:
            raise InputError(f"object '{self.kind}' takes no name; write it without ':{self.name}'")

    @classmethod
    def parse(cls, text: str) -> ObjectRef:
        """Read `input:NAME`, `output:NAME`, `program`, `model`, `key:NAME` or `audit`.

        Raises:
            InputError: The text names no object.
        """
        kind, colon, name = text.partition(":")
        if kind not in tuple(Kind) or (colon and not name):
            raise InputError(
                f"'{text}' names no object; write input:NAME, output:NAME, program, "
                "model, key:secret, key:public, key:evaluation or audit"
            )
        return cls(Kind(kind), name)

    @classmethod
    def input(cls, name: str) -> ObjectRef:
        """The program's input of that name."""
        return cls(Kind.INPUT, name)

    @classmethod
    def output(cls, name: str) -> ObjectRef:
        """The program's output of that name."""
        return cls(Kind.OUTPUT, name)

    @property
    def is_wildcard(self) -> bool:
        """Whether this stands for every input or every output."""
        return self.name == ANY_NAME

    def covers(self, other: ObjectRef) -> bool:
        """Whether a permission on this object grants the same action on `other`."""
        return self.kind is other.kind and (self.is_wildcard or self.name == other.name)

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return f"{self.kind}:{self.name}" if self.name else str(self.kind)


PROGRAM = ObjectRef(Kind.PROGRAM)
MODEL = ObjectRef(Kind.MODEL)
AUDIT = ObjectRef(Kind.AUDIT)
KEY_SECRET = ObjectRef(Kind.KEY, "secret")
KEY_PUBLIC = ObjectRef(Kind.KEY, "public")
KEY_EVALUATION = ObjectRef(Kind.KEY, "evaluation")


@dataclass(frozen=True)
class Role:
    """A named set of permissions.

    Attributes:
        name: The role's name.
        inherits: Roles whose permissions this one has too.
        description: One line for people.
        where: File and line, for messages; no part of the role's identity.
    """

    name: str
    inherits: tuple[str, ...] = ()
    description: str = ""
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Permission:
    """One role may do every one of some actions on every one of some objects they apply to.

    Attributes:
        role: Name of the role.
        actions: What it may do.
        objects: On what.
        enforcement: How it is enforced; None takes `DEFAULT_ENFORCEMENT` of each action.
        where: File and line, for messages; no part of the permission's identity.
    """

    role: str
    actions: tuple[Action, ...]
    objects: tuple[ObjectRef, ...]
    enforcement: Enforcement | None = None
    where: str = field(default="", compare=False)

    def enforcement_of(self, action: Action) -> Enforcement:
        """How `action` is enforced under this permission."""
        return self.enforcement or DEFAULT_ENFORCEMENT[action]


@dataclass(frozen=True)
class User:
    """A user and the roles given to it; `where` is file and line, for messages."""

    name: str
    roles: tuple[str, ...]
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Policy:
    """Who may do what; deny by default.

    Attributes:
        roles: The roles, by name; kept sorted, as their order means nothing.
        permissions: What each role may do.
        users: The users, by name; kept sorted too.
        unused: Inputs and outputs that nobody may touch, stated so that none is forgotten.
    """

    roles: tuple[Role, ...]
    permissions: tuple[Permission, ...]
    users: tuple[User, ...]
    unused: tuple[ObjectRef, ...] = ()

    def __post_init__(self) -> None:
        """Sort roles and users, so that equal policies compare equal and print alike."""
        object.__setattr__(self, "roles", tuple(sorted(self.roles, key=lambda role: role.name)))
        object.__setattr__(self, "users", tuple(sorted(self.users, key=lambda user: user.name)))

    def role(self, name: str) -> Role | None:
        """The role of that name, or None."""
        return next((role for role in self.roles if role.name == name), None)

    def user(self, name: str) -> User | None:
        """The user of that name, or None."""
        return next((user for user in self.users if user.name == name), None)


@dataclass(frozen=True)
class Grant:
    """One action on one object that a set of roles has in effect.

    Attributes:
        path: Roles from the one that was asked about to the one the permission names.
        number: Position of the permission in the policy, from 1.
        action: The action.
        object: The object, which may be a wildcard.
        enforcement: How it is enforced.
    """

    path: tuple[str, ...]
    number: int
    action: Action
    object: ObjectRef
    enforcement: Enforcement


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
                    yield Grant(path, number, action, obj, permission.enforcement_of(action))


@dataclass(frozen=True)
class PermissionRow:
    """One line of the printed table: what a role may do, and from which role it has that."""

    role: str
    action: Action
    object: ObjectRef
    enforcement: Enforcement
    inherited_from: str | None


def permission_table(policy: Policy) -> tuple[PermissionRow, ...]:
    """Everything that each role may do in effect, for printing.

    Returns:
        Rows in the order of roles and permissions, each role x action x object once.
    """
    rows: dict[tuple[str, Action, ObjectRef, Enforcement], PermissionRow] = {}
    for role in policy.roles:
        for grant in grants(policy, (role.name,)):
            source = grant.path[-1] if len(grant.path) > 1 else None
            key = (role.name, grant.action, grant.object, grant.enforcement)
            if key not in rows or source is None:
                rows[key] = PermissionRow(*key, inherited_from=source)
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
        Roles `owner` (user `owner`) and `evaluator` (user `cloud`).
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
    users = (User("owner", ("owner",)), User("cloud", ("evaluator",)))
    return Policy(roles, permissions, users)
