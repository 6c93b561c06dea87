"""The words of a policy: what may be done, to what, about whom, and what keeps others from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hecompile.errors import InputError

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


class Scope(StrEnum):
    """What one answer is about: a single person, or a cohort of several."""

    PERSON = "person"
    COHORT = "cohort"


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
"""How an action is enforced where its permission does not say."""


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
