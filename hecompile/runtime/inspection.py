"""Whether an envelope is taken: who signed it, whether it holds now, and whether that user may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hecompile.access.decide import Gate
from hecompile.access.manifest import Manifest
from hecompile.access.policy import MODEL, PROGRAM, Action, ObjectRef
from hecompile.access.state import State
from hecompile.access.users import Users
from hecompile.errors import IntegrityError, UsageError
from hecompile.runtime.envelope import LIFETIME, MODEL_LIFETIME, Admission
from hecompile.runtime.guard import Guard, PolicyGuard
from hecompile.runtime.header import Header, Kind
from hecompile.runtime.keycard import short
from hecompile.runtime.spec import UNBOUND

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far a sender's clock may be ahead."""

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


def wanted_of(kind: Kind, inputs: Sequence[str]) -> tuple[tuple[Action, ObjectRef], ...]:
    """What sending an envelope of a kind asks of the policy.

    Args:
        kind: What it is for.
        inputs: Names of the program's inputs.
    """
    match kind:
        case Kind.INPUT:
            return tuple((Action.SUBMIT, ObjectRef.input(name)) for name in inputs)
        case Kind.OUTPUT | Kind.REFRESH_REQUEST:
            return ((Action.EVALUATE, PROGRAM),)
        case Kind.REFRESH_RESPONSE:
            return ((Action.REFRESH, PROGRAM),)
        case Kind.MODEL:
            return ((Action.ENCRYPT, MODEL),)


class OpenInspector:
    """Takes every envelope: for a program in no bundle, and behind a gateway that has looked."""

    def signing_key(self, header: Header, what: str) -> Ed25519PublicKey | None:
        """None: signatures are not looked at."""
        return None

    def admit(self, header: Header, what: str) -> None:
        """Let pass."""

    def consume(self, headers: Sequence[Header], what: str) -> None:
        """Let pass."""


class Inspector:
    """Looks at the envelopes of one bundle: the sender, the policy, the clock, the nonce."""

    def __init__(
        self,
        manifest: Manifest,
        users: Users,
        state: State,
        gate: Gate,
        now: Clock = utc_now,
        session: str = "",
    ) -> None:
        """Prepare to look.

        Args:
            manifest: The bundle's signed manifest.
            users: The verified document of who has which key and role.
            state: Remembers the nonces.
            gate: Asked, and told, of every sender.
            now: The clock.
            session: The receiver's own session, within which separation of duties is kept; empty
                for the day. The one in an envelope is its sender's choice, and names an evaluation.
        """
        self._manifest = manifest
        self._users = users
        self._state = state
        self._gate = gate
        self._now = now
        self._session = session

    def signing_key(self, header: Header, what: str) -> Ed25519PublicKey | None:
        """The key of the user who sends it.

        Raises:
            IntegrityError: It is unsigned, or signed with a key that is not that user's.
        """
        if not header.signer:
            raise IntegrityError(
                f"{what} is not signed; have it made again by a user of the users document."
            )
        user = self._users.of_key(header.signer)
        if user is None or user.key is None:
            raise IntegrityError(
                f"{what} is signed with key {short(header.signer)}, which is no user's in version"
                f" {self._users.version} of the users document; have the key put into it."
            )
        if user.name != header.user:
            raise IntegrityError(
                f"{what} says that it is from {header.user!r}, but is signed with the key of user"
                f" '{user.name}'; do not rely on it."
            )
        return Ed25519PublicKey.from_public_bytes(user.key)

    def admit(self, header: Header, what: str) -> None:
        """Look at the clock, then ask the policy whether the sender may, for its purpose.

        The clock comes first: that a role was used is remembered for the day, and an envelope of
        long ago must not use one.

        Raises:
            AccessDeniedError: The sender may not, or the decision cannot be logged.
            IntegrityError: The envelope has expired, is of the future, or holds for longer than
                the policy lets it.
        """
        self._check_clock(header, what)
        ports = [port.name for port in self._manifest.io.inputs]
        for action, obj in wanted_of(header.kind, ports):
            self._gate.require(
                header.user,
                action,
                obj,
                purpose=header.purpose,
                session=self._session,
                digests=(header.digest,),
            )

    def _check_clock(self, header: Header, what: str) -> None:
        created, expires = header.span
        now = self._now()
        if expires <= now:
            raise IntegrityError(f"{what} has expired at {header.expires}; have it made again.")
        if created > now + CLOCK_TOLERANCE:
            raise IntegrityError(
                f"{what} was made at {header.created}, which is in the future; check the clocks."
            )
        model = header.kind is Kind.MODEL
        most = MODEL_LIFETIME if model else self._manifest.policy.envelope_seconds
        if expires - created > timedelta(seconds=most):
            raise IntegrityError(
                f"{what} holds from {header.created} to {header.expires}, longer than the {most}"
                " seconds allowed; have it made again with this bundle."
            )

    def consume(self, headers: Sequence[Header], what: str) -> None:
        """Use the nonces of envelopes up in one transaction.

        Raises:
            IntegrityError: One was used before; then none is used up.
        """
        nonces = [(header.nonce, header.span[1].timestamp()) for header in headers]
        now = self._now().timestamp()
        try:
            self._state.use_nonces(self._manifest.digest, nonces, now)
        except IntegrityError as error:
            raise IntegrityError(f"{what}: {error}.") from error


def admission_of(inspector: Admission | None, manifest: str) -> Admission:
    """The inspector to use: the one given, or an open one for a program in no bundle.

    Args:
        inspector: What was given.
        manifest: Digest of the manifest of the program's bundle.

    Raises:
        UsageError: None was given for a program of a bundle.
    """
    if inspector is not None:
        return inspector
    if manifest != UNBOUND:
        raise UsageError(
            "a program of a bundle takes signed envelopes: give the inspector that knows its users"
        )
    return OpenInspector()


def lifetime_of(guard: Guard | None) -> int:
    """Seconds for which the envelopes of a party hold, by the policy that its guard asks."""
    if isinstance(guard, PolicyGuard):
        return guard.manifest.policy.envelope_seconds
    return LIFETIME


def purpose_of(guard: Guard | None) -> str:
    """What the envelopes of a party are sent for, as its guard asks the policy."""
    return guard.purpose if isinstance(guard, PolicyGuard) else ""
