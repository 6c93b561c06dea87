"""Who asks, and whether the policy lets them: asked before any data is touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hecompile.access.decide import Gate, PolicyIndex
from hecompile.access.policy import KEY_SECRET, PROGRAM, Action, ObjectRef
from hecompile.errors import UsageError


class Guard(Protocol):
    """Raises `AccessDeniedError` where something may not be done."""

    def encrypt(self, labels: Sequence[str]) -> None:
        """Before samples of these inputs are looked at."""

    def evaluate(self) -> None:
        """Before a program runs on an input."""

    def refresh(self) -> None:
        """Before the ciphertexts of a refresh request are decrypted."""

    def decrypt(self, labels: Sequence[str]) -> None:
        """Before these outputs are decrypted."""

    def hold(self) -> None:
        """Before keys are made."""


class OpenGuard:
    """Lets everything pass: for programs that have no policy, such as one not saved yet."""

    def encrypt(self, labels: Sequence[str]) -> None:
        """Let pass."""

    def evaluate(self) -> None:
        """Let pass."""

    def refresh(self) -> None:
        """Let pass."""

    def decrypt(self, labels: Sequence[str]) -> None:
        """Let pass."""

    def hold(self) -> None:
        """Let pass."""


class PolicyGuard:
    """Asks a gate, which logs each decision.

    Attributes:
        user: Who asks; None for the only user whom the policy allows what is asked.
    """

    def __init__(self, gate: Gate, index: PolicyIndex, user: str | None = None) -> None:
        """Ask `gate`, whose policy is `index`, in the name of `user`."""
        self.user = user
        self._gate = gate
        self._index = index

    def encrypt(self, labels: Sequence[str]) -> None:
        """Before samples of these inputs are looked at."""
        self._require(Action.ENCRYPT, [ObjectRef.input(label) for label in labels])

    def evaluate(self) -> None:
        """Before a program runs on an input."""
        self._require(Action.EVALUATE, [PROGRAM])

    def refresh(self) -> None:
        """Before the ciphertexts of a refresh request are decrypted."""
        self._require(Action.REFRESH, [PROGRAM])

    def decrypt(self, labels: Sequence[str]) -> None:
        """Before these outputs are decrypted."""
        self._require(Action.DECRYPT, [ObjectRef.output(label) for label in labels])

    def hold(self) -> None:
        """Before keys are made."""
        self._require(Action.HOLD, [KEY_SECRET])

    def act_for(self, labels: Sequence[str]) -> None:
        """Before the secret key is read: the user may refresh, or decrypt one of these outputs."""
        asked = [(Action.DECRYPT, ObjectRef.output(label)) for label in labels]
        asked.append((Action.REFRESH, PROGRAM))
        user = self.user
        if user is None or any(self._index.decide(user, *pair).allowed for pair in asked):
            return
        self._gate.require(user, *asked[0])

    def as_anyone(self, action: Action, obj: ObjectRef) -> PolicyGuard:
        """The guard of a party that is played in a run of all parties.

        Returns:
            This one if its user may do that, else that of the first user in the policy who may;
            if nobody may, this one, which then refuses.
        """
        for user in (self.user, *(u.name for u in self._index.policy.users)):
            if user is not None and self._index.decide(user, action, obj).allowed:
                return PolicyGuard(self._gate, self._index, user)
        return self

    def _require(self, action: Action, objects: Sequence[ObjectRef]) -> None:
        user = self.user if self.user is not None else self._only_user(action, objects)
        for obj in objects:
            self._gate.require(user, action, obj)

    def _only_user(self, action: Action, objects: Sequence[ObjectRef]) -> str:
        """The one user who may do `action` on all of `objects`.

        Raises:
            UsageError: There is none or more than one: it must be said who asks.
        """
        users = [user.name for user in self._index.policy.users]
        able = [
            user
            for user in users
            if all(self._index.decide(user, action, obj).allowed for obj in objects)
        ]
        if len(able) == 1:
            return able[0]
        raise UsageError(
            f"say who asks to {action} with --as USER (or user=...); the policy's users are"
            f" {', '.join(users) or 'none'}."
        )
