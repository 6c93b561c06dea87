"""Who asks, and whether the policy lets them: asked before any data is touched.

The one place where a user is found for what is asked; command line and Python API both use it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Protocol, Self

from hecompile.access.audit import AuditLog
from hecompile.access.decide import Decision, Gate, PolicyIndex, Request, RoleMemory
from hecompile.access.identity import Identity, acting_identity
from hecompile.access.manifest import Manifest
from hecompile.access.objects import Scope
from hecompile.access.users import Users
from hecompile.errors import AccessDeniedError, UsageError
from hecompile.runtime.acting import Actors
from hecompile.runtime.wants import (
    EVALUATION,
    HOLDING,
    MODELLING,
    REFRESHING,
    Want,
    declassifications,
    decryptions,
    encryptions,
    labels_of,
    scope_of,
)


class Guard(Protocol):
    """Raises `AccessDeniedError` where something may not be done."""

    def encrypt(self, labels: Sequence[str]) -> None:
        """Before samples of these inputs are looked at."""

    def evaluate(self) -> None:
        """Before a program runs on an input."""

    def refresh(self) -> None:
        """Before the ciphertexts of a refresh request are decrypted."""

    def decrypt(self, labels: Sequence[str], *, some: bool = False) -> tuple[str, ...]:
        """Before raw values of these outputs are decrypted.

        Args:
            labels: The outputs asked for.
            some: Leave out those that are not granted; at least one must be.

        Returns:
            The outputs to decrypt.
        """

    def declassify(
        self, labels: Sequence[str], scope: Scope = Scope.PERSON, *, some: bool = False
    ) -> tuple[Decision, ...]:
        """Before these outputs are released, as their permissions oblige to.

        Args:
            labels: The outputs asked for.
            scope: Whether each answer is about a person or a cohort.
            some: Leave out those that are not granted; at least one must be.

        Returns:
            A decision for each output to release, whose permission has the obligations.
        """


class OpenGuard:
    """Lets everything pass: for a program without a policy, and where the gate was asked before."""

    def encrypt(self, labels: Sequence[str]) -> None:
        """Let pass."""

    def evaluate(self) -> None:
        """Let pass."""

    def refresh(self) -> None:
        """Let pass."""

    def decrypt(self, labels: Sequence[str], *, some: bool = False) -> tuple[str, ...]:
        """Let all of them pass."""
        return tuple(labels)

    def declassify(
        self, labels: Sequence[str], scope: Scope = Scope.PERSON, *, some: bool = False
    ) -> tuple[Decision, ...]:
        """Refuse: what is done to a value before it is released stands in a policy alone.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"nothing says how {', '.join(labels)} is to be released: open the bundle, whose "
            "policy does, or decrypt raw values with the key"
        )


def say_nothing(_sentence: str) -> None:
    """Tell nobody."""


class PolicyGuard:
    """Asks the gate of a bundle, which logs each decision.

    A choice that the caller left open (who acts, which outputs) is made by looking the policy up;
    what is chosen goes through the gate like everything else. Whoever acts must first have the
    identity that the users document gives to the user; a user without it here is denied.

    Attributes:
        manifest: The bundle's signed manifest, whose policy decides.
        users: Who has which role; None where no document came with the bundle, so that nobody may
            do anything.
        user: Who asks; None for the only user whom the policy allows what is asked.
        purpose: Why, or empty.
        session: Name of the session, within which separation of duties is kept.
    """

    def __init__(
        self,
        manifest: Manifest,
        users: Users | None,
        log: AuditLog,
        user: str | None = None,
        tell: Callable[[str], None] = say_nothing,
        purpose: str = "",
        session: str = "",
        memory: RoleMemory | None = None,
    ) -> None:
        """Ask in the name of `user`; `tell` hears which user was taken where none was named.

        `memory` knows which roles users have acted in; None for one that ends with this guard.

        Raises:
            IntegrityError: The users document is for another policy.
        """
        self.manifest = manifest
        self.users = users
        self.user = user
        self.purpose = purpose
        self.session = session
        self._tell = tell
        self._index = PolicyIndex(manifest.policy, users)
        self.gate = Gate(self._index, log, manifest.digest, memory)
        self._actors = Actors(self._index, log, manifest.digest)

    @property
    def identity(self) -> Identity:
        """The identity of `user`, with which it signs.

        Raises:
            AccessDeniedError: It is not on this machine, or no user was named.
        """
        return acting_identity(self.user or "", self.users)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the program's inputs, from the manifest."""
        return tuple(port.name for port in self.manifest.io.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the program's outputs, from the manifest."""
        return tuple(port.name for port in self.manifest.io.outputs)

    def chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """The outputs of these names; all where none is named.

        Raises:
            UsageError: The program has no such output.
        """
        for name in names:
            if name not in self.outputs:
                raise UsageError(
                    f"the program has no output '{name}'; its outputs are {', '.join(self.outputs)}"
                )
        return tuple(name for name in self.outputs if not names or name in names)

    def acting(self, wants: Sequence[Want]) -> Identity:
        """Before all of `wants` are done: who does them is proven, then the gate is asked.

        Returns:
            The identity of the user named, or of the only one who may.

        Raises:
            AccessDeniedError: That identity is not here, or the policy does not grant a want.
            UsageError: No user was named, and none or several may.
        """
        user = self._who(wants)
        for want in wants:
            self._require(user, want)
        return self.of(user).identity

    def encrypt(self, labels: Sequence[str]) -> None:
        """Before samples of these inputs are looked at."""
        self.acting(encryptions(labels))

    def evaluate(self) -> None:
        """Before a program runs on an input."""
        self.acting(EVALUATION)

    def refresh(self) -> None:
        """Before the ciphertexts of a refresh request are decrypted."""
        self.acting(REFRESHING)

    def decrypt(self, labels: Sequence[str], *, some: bool = False) -> tuple[str, ...]:
        """Before raw values are decrypted; with `some`, outputs not granted are left out.

        Returns:
            The outputs to decrypt.
        """
        return labels_of(self._opening((), decryptions(labels), some)[1])

    def declassify(
        self, labels: Sequence[str], scope: Scope = Scope.PERSON, *, some: bool = False
    ) -> tuple[Decision, ...]:
        """Before outputs are released; with `some`, those not granted are left out.

        Returns:
            A decision for each output to release, whose permission has the obligations.
        """
        return self._opening((), declassifications(labels), some, scope)[1]

    def act_for(self, scope: Scope = Scope.PERSON) -> Self:
        """Before the secret key is read: the user may decrypt or release an output, or refresh.

        Args:
            scope: What a release would be about.

        Returns:
            The guard of that user, for the uses of the key.
        """
        outputs = self.outputs
        asked = (*decryptions(outputs), *REFRESHING, *declassifications(outputs))
        user = self._who((), asked, scope)
        granted = self._granted(user, asked, scope)
        self._require(user, (granted or asked)[0], scope)
        return self.of(user)

    def run(
        self,
        only: Sequence[str] = (),
        *,
        scope: Scope = Scope.PERSON,
        key_holder: str | None = None,
        evaluator: str | None = None,
        model_owner: str | None = None,
    ) -> tuple[Decision, ...]:
        """Before all parties are played in one go: every step of each is asked for.

        Args:
            only: Outputs to open, all of which must be granted; none for those that are.
            scope: What a release is about.
            key_holder: Who holds the key and refreshes; None for this guard's user if allowed,
                else the first user who is.
            evaluator: Who evaluates, found likewise.
            model_owner: Who encrypts the weights of a program that hides them, found likewise.

        Returns:
            A decision for each output to open: to decrypt it to raw values where that is granted,
            else to declassify it, as its permission obliges to.
        """
        wants = encryptions(self.inputs)
        labels = self.chosen(only)
        choice = (*decryptions(labels), *declassifications(labels))
        user = self._who(wants, choice, scope)
        asked = tuple(self._way_to_open(user, label, scope) for label in labels)
        _, decisions = self.of(user)._opening(wants, asked, not only, scope)
        holding = HOLDING + (REFRESHING if self.manifest.refresh.count else ())
        self._play(key_holder, holding, user)
        self._play(evaluator, EVALUATION, user)
        if self.manifest.encrypted_model:
            self._play(model_owner, MODELLING, user)
        return decisions

    def of(self, user: str) -> Self:
        """The guard of another user, with the same log, purpose and session."""
        found = copy.copy(self)
        found.user = user
        return found

    def _way_to_open(self, user: str, label: str, scope: Scope) -> Want:
        raw, released = (*decryptions([label]), *declassifications([label]))
        # Where neither is granted, the gate is to refuse the release.
        return raw if self._granted(user, (raw,), scope) else released

    def _require(self, user: str, want: Want, scope: Scope = Scope.PERSON) -> Decision:
        if self.users is not None:
            self._actors.require(user, want, self.purpose, self.session)
        asked = scope_of(want, scope)
        return self.gate.require(
            user, *want, purpose=self.purpose, scope=asked, session=self.session
        )

    def _opening(
        self,
        wants: Sequence[Want],
        asked: Sequence[Want],
        some: bool,
        scope: Scope = Scope.PERSON,
    ) -> tuple[str, tuple[Decision, ...]]:
        """Let a user do all of `wants` and open outputs, or those granted of them."""
        if some:
            user = self._who(wants, asked, scope)
            # Where none is granted, the gate is to say so and to log it.
            granted = self._granted(user, asked, scope)
            if granted and len(granted) < len(asked):
                left = [want[1].name for want in asked if want not in granted]
                self._tell(f"'{user}' may not {asked[0][0]} {', '.join(left)}: left out")
            asked = granted or asked[:1]
        else:
            user = self._who((*wants, *asked), scope=scope)
        for want in wants:
            self._require(user, want)
        return user, tuple(self._require(user, want, scope) for want in asked)

    def _play(self, user: str | None, wants: Sequence[Want], preferred: str) -> None:
        """Let a further party of a run do what is wanted."""
        able = self._able(wants)
        nobody = user is None and not able
        if user is None:
            here = [name for name in able if self._actors.proven(name)]
            user = preferred if preferred in able or not able else (here or able)[0]
            if user != preferred:
                self._tell(f"'{user}' is to {wants[0][0]} {wants[0][1]}")
        try:
            for want in wants:
                self._require(user, want)
        except AccessDeniedError as denied:
            if not nobody:
                raise
            # The user who asks was only tried in default of another.
            told = " and ".join(f"{action} {obj}" for action, obj in wants)
            raise AccessDeniedError(f"Access Denied: no user may {told}") from denied

    def _granted(
        self, user: str, wants: Sequence[Want], scope: Scope = Scope.PERSON
    ) -> tuple[Want, ...]:
        used = self.gate.used(user, self.session)
        return tuple(
            want
            for want in wants
            if self._index.decide(
                Request(user, *want, self.purpose, scope_of(want, scope), self.session), used
            ).allowed
        )

    def _able(
        self, wants: Sequence[Want], choice: Sequence[Want] = (), scope: Scope = Scope.PERSON
    ) -> list[str]:
        """Users who may do all of `wants` and, if there is a choice, some of it."""
        return [
            user.name
            for user in (self.users.users if self.users is not None else ())
            if len(self._granted(user.name, wants, scope)) == len(wants)
            and (not choice or self._granted(user.name, choice, scope))
        ]

    def _who(
        self, wants: Sequence[Want], choice: Sequence[Want] = (), scope: Scope = Scope.PERSON
    ) -> str:
        """The user who asks: the one named, else the only one who may.

        Raises:
            AccessDeniedError: No users document came with the bundle.
            UsageError: None was named, and none or several may.
        """
        if self.user is not None:
            return self.user
        if self.users is None:
            raise AccessDeniedError(
                "Access Denied: the bundle has no users document, so nobody may do anything; have "
                "one signed with `hecompile users sign`"
            )
        able = self._able(wants, choice, scope)
        told = " or ".join(f"{action} {obj}" for action, obj in wants[:1] or choice)
        ask = f"say who asks to {(*wants, *choice)[0][0]} with --as USER (or user=...)"
        if len(able) != 1:
            who = ", ".join(able) or "none of the users"
            raise UsageError(f"{ask}; who may {told} here: {who}")
        self._tell(f"acting as '{able[0]}', the only user who may {told}")
        return able[0]
