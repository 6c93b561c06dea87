"""Who asks, and whether the policy lets them: asked before any data is touched.

The one place where a user is found for what is asked; command line and Python API both use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, Self

from hecompile.access.audit import AuditLog
from hecompile.access.decide import Gate, PolicyIndex
from hecompile.access.manifest import Manifest
from hecompile.access.policy import KEY_SECRET, MODEL, PROGRAM, Action, ObjectRef
from hecompile.errors import AccessDeniedError, UsageError

Want = tuple[Action, ObjectRef]
"""An action on an object."""

EVALUATION: Final[tuple[Want, ...]] = ((Action.EVALUATE, PROGRAM),)
REFRESHING: Final[tuple[Want, ...]] = ((Action.REFRESH, PROGRAM),)
HOLDING: Final[tuple[Want, ...]] = ((Action.HOLD, KEY_SECRET),)
MODELLING: Final[tuple[Want, ...]] = ((Action.ENCRYPT, MODEL),)


def encryptions(labels: Sequence[str]) -> tuple[Want, ...]:
    """What encrypting these inputs asks for."""
    return tuple((Action.ENCRYPT, ObjectRef.input(label)) for label in labels)


def decryptions(labels: Sequence[str]) -> tuple[Want, ...]:
    """What decrypting these outputs asks for."""
    return tuple((Action.DECRYPT, ObjectRef.output(label)) for label in labels)


class Guard(Protocol):
    """Raises `AccessDeniedError` where something may not be done."""

    def encrypt(self, labels: Sequence[str]) -> None:
        """Before samples of these inputs are looked at."""

    def evaluate(self) -> None:
        """Before a program runs on an input."""

    def refresh(self) -> None:
        """Before the ciphertexts of a refresh request are decrypted."""

    def decrypt(self, labels: Sequence[str], *, some: bool = False) -> tuple[str, ...]:
        """Before these outputs are decrypted.

        Args:
            labels: The outputs asked for.
            some: Leave out those that are not granted; at least one must be.

        Returns:
            The outputs to decrypt.
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


def say_nothing(_sentence: str) -> None:
    """Tell nobody."""


class PolicyGuard:
    """Asks the gate of a bundle, which logs each decision.

    A choice that the caller left open (who acts, which outputs) is made by looking the policy up;
    what is chosen goes through the gate like everything else.

    Attributes:
        manifest: The bundle's signed manifest, whose policy decides.
        user: Who asks; None for the only user whom the policy allows what is asked.
    """

    def __init__(
        self,
        manifest: Manifest,
        log: AuditLog,
        user: str | None = None,
        tell: Callable[[str], None] = say_nothing,
    ) -> None:
        """Ask in the name of `user`; `tell` hears which user was taken where none was named."""
        self.manifest = manifest
        self.user = user
        self._log = log
        self._tell = tell
        self._index = PolicyIndex(manifest.policy)
        self._gate = Gate(self._index, log, manifest.digest)

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

    def encrypt(self, labels: Sequence[str]) -> None:
        """Before samples of these inputs are looked at."""
        self._enter(encryptions(labels))

    def evaluate(self) -> None:
        """Before a program runs on an input."""
        self._enter(EVALUATION)

    def refresh(self) -> None:
        """Before the ciphertexts of a refresh request are decrypted."""
        self._enter(REFRESHING)

    def encrypt_model(self) -> None:
        """Before the model's weights are read."""
        self._enter(MODELLING)

    def hold(self) -> None:
        """Before keys are made."""
        self._enter(HOLDING)

    def decrypt(self, labels: Sequence[str], *, some: bool = False) -> tuple[str, ...]:
        """Before these outputs are decrypted; with `some`, those not granted are left out.

        Returns:
            The outputs to decrypt.
        """
        return self._decrypting((), labels, some)[1]

    def act_for(self) -> Self:
        """Before the secret key is read: the user may decrypt one of the outputs, or refresh.

        Returns:
            The guard of that user, for the uses of the key.
        """
        asked = (*decryptions(self.outputs), *REFRESHING)
        user = self._acting((), asked)
        granted = self._granted(user, asked)
        self._gate.require(user, *(granted or asked)[0])
        return self._of(user)

    def run(
        self,
        only: Sequence[str] = (),
        *,
        key_holder: str | None = None,
        evaluator: str | None = None,
        model_owner: str | None = None,
    ) -> tuple[str, ...]:
        """Before all parties are played in one go: every step of each is asked for.

        Args:
            only: Outputs to decrypt, all of which must be granted; none for those that are.
            key_holder: Who holds the key and refreshes; None for this guard's user if allowed,
                else the first user who is.
            evaluator: Who evaluates, found likewise.
            model_owner: Who encrypts the weights of a program that hides them, found likewise.

        Returns:
            The outputs to decrypt.
        """
        wants = encryptions(self.inputs)
        user, labels = self._decrypting(wants, self.chosen(only), not only)
        holding = HOLDING + (REFRESHING if self.manifest.refresh.count else ())
        self._play(key_holder, holding, user)
        self._play(evaluator, EVALUATION, user)
        if self.manifest.encrypted_model:
            self._play(model_owner, MODELLING, user)
        return labels

    def _of(self, user: str) -> Self:
        return type(self)(self.manifest, self._log, user, self._tell)

    def _enter(self, wants: Sequence[Want]) -> None:
        user = self._acting(wants)
        for want in wants:
            self._gate.require(user, *want)

    def _decrypting(
        self, wants: Sequence[Want], labels: Sequence[str], some: bool
    ) -> tuple[str, tuple[str, ...]]:
        """Let a user do all of `wants` and decrypt these outputs, or those granted of them."""
        asked = decryptions(labels)
        user = self._acting(wants, asked) if some else self._acting((*wants, *asked))
        if some:
            # Where none is granted, the gate is to say so and to log it.
            granted = self._granted(user, asked)
            if granted and len(granted) < len(asked):
                left = [want[1].name for want in asked if want not in granted]
                self._tell(f"'{user}' may not decrypt {', '.join(left)}: left out")
            asked = granted or asked[:1]
        for want in (*wants, *asked):
            self._gate.require(user, *want)
        return user, tuple(obj.name for _, obj in asked)

    def _play(self, user: str | None, wants: Sequence[Want], preferred: str) -> None:
        """Let a further party of a run do what is wanted."""
        able = self._able(wants)
        nobody = user is None and not able
        if user is None:
            user = preferred if preferred in able or not able else able[0]
            if user != preferred:
                self._tell(f"'{user}' is to {wants[0][0]} {wants[0][1]}")
        try:
            for want in wants:
                self._gate.require(user, *want)
        except AccessDeniedError as denied:
            if not nobody:
                raise
            # The user who asks was only tried in default of another.
            told = " and ".join(f"{action} {obj}" for action, obj in wants)
            raise AccessDeniedError(f"Access Denied: no user may {told}") from denied

    def _granted(self, user: str, wants: Sequence[Want]) -> tuple[Want, ...]:
        return tuple(want for want in wants if self._index.decide(user, *want).allowed)

    def _able(self, wants: Sequence[Want], choice: Sequence[Want] = ()) -> list[str]:
        """Users who may do all of `wants` and, if there is a choice, some of it."""
        return [
            user.name
            for user in self.manifest.policy.users
            if len(self._granted(user.name, wants)) == len(wants)
            and (not choice or self._granted(user.name, choice))
        ]

    def _acting(self, wants: Sequence[Want], choice: Sequence[Want] = ()) -> str:
        """The user who asks: the one named, else the only one who may.

        Raises:
            UsageError: None was named, and none or several may.
        """
        if self.user is not None:
            return self.user
        able = self._able(wants, choice)
        told = " or ".join(f"{action} {obj}" for action, obj in wants[:1] or choice)
        if len(able) != 1:
            who = ", ".join(able) or "none of the policy's users"
            raise UsageError(
                f"say who asks to {(*wants, *choice)[0][0]} with --as USER (or user=...); "
                f"who may {told} here: {who}"
            )
        self._tell(f"acting as '{able[0]}', the only user who may {told}")
        return able[0]
