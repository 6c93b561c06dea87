"""Signatures on key folders: who vouches that a key is the one to use with a bundle.

A folder of public or evaluation keys has a `key.json`, which names every file in it by its
SHA-256, and beside it a `key.sig`: a DSSE envelope whose payload is that `key.json`, byte by byte.
Whoever may hold the secret key signs it. Where the policy lets somebody register the key, one who
may signs it as well; where it lets somebody rotate it, a key that replaces another bears the
signature of one who may. Nothing else of a folder is read before these are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from securesystemslib.dsse import Envelope

from hecompile.access.identity import Identity
from hecompile.access.key_state import KeyState
from hecompile.access.manifest import Manifest
from hecompile.access.objects import KEY_SECRET, Action, Kind, ObjectRef
from hecompile.access.policy import Policy, grants
from hecompile.access.signing import cosign, is_signed_by, parse_envelope, sign, spell
from hecompile.access.trust import MAX_SIGNATURES
from hecompile.access.user_entries import UserEntry, Users, public_key
from hecompile.errors import AccessDeniedError, IntegrityError

SIGNATURE_FILE: Final = "key.sig"
KEY_PAYLOAD_TYPE: Final = "application/vnd.hecompile.key+json"
MAX_SIGNATURE_BYTES: Final = 2 << 20
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far the clock of whoever made a key may be ahead."""

_ACTIONS: Final = (Action.HOLD, Action.REGISTER, Action.ROTATE)
"""What a user who signs must be granted, one of them at least."""


@dataclass(frozen=True)
class KeyClaim:
    """What a folder says of its keys, unproven.

    Attributes:
        name: Which key of the policy it is: `public` or `evaluation`.
        key_id: SHA-256 of the public key that it belongs to.
        created: When it was made, with its zone.
        card: The bytes of its `key.json`.
        where: The folder, for messages.
    """

    name: str
    key_id: str
    created: datetime
    card: bytes
    where: str

    @property
    def object(self) -> ObjectRef:
        """The key as the policy names it."""
        return ObjectRef(Kind.KEY, self.name)

    @property
    def signature_file(self) -> str:
        """Name of its `key.sig`, for messages."""
        return f"{self.where}/{SIGNATURE_FILE}"


@dataclass(frozen=True)
class Vouchers:
    """Users who signed a `key.json`, every signature checked.

    Attributes:
        holders: Those who may hold the secret key.
        registrars: Those who may register this key.
        rotators: Those who may rotate it.
    """

    holders: tuple[str, ...]
    registrars: tuple[str, ...]
    rotators: tuple[str, ...]


def sign_card(card: bytes, identity: Identity) -> bytes:
    """Sign a `key.json` as whoever made the keys; the result is the contents of `key.sig`."""
    return sign(card, identity.key, KEY_PAYLOAD_TYPE)


def may(policy: Policy, user: UserEntry, action: Action, obj: ObjectRef) -> bool:
    """Whether a permission grants this to the user for some purpose, inheritance included."""
    return any(g.action is action and g.object.covers(obj) for g in grants(policy, user.roles))


def is_granted(policy: Policy, action: Action, obj: ObjectRef) -> bool:
    """Whether the policy grants this to any role."""
    return any(
        action in one.actions and any(named.covers(obj) for named in one.objects)
        for one in policy.permissions
    )


class KeyInspector:
    """Looks at the key folders of one bundle: who signed, and whether a newer key was seen."""

    def __init__(
        self,
        manifest: Manifest,
        users: Users | None,
        state: KeyState | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        """Prepare to look.

        Args:
            manifest: The bundle's signed manifest.
            users: The verified document of who has which key and role.
            state: Remembers keys; None for this machine's own.
            now: The clock; None for the machine's.

        Raises:
            AccessDeniedError: There is no users document.
        """
        if users is None:
            raise AccessDeniedError(
                "Access Denied: the bundle has no users document, so nobody may make keys for it"
            )
        self._policy = manifest.policy
        self._lineage = manifest.lineage
        self._users = users
        self._state = state if state is not None else KeyState()
        self._now = now if now is not None else _utc_now

    def check(self, claim: KeyClaim, signatures: bytes | None) -> None:
        """Refuse keys that nobody vouches for, and those older than what was seen here.

        Args:
            claim: What the folder says.
            signatures: The bytes of its `key.sig`; None where it has none.

        Raises:
            IntegrityError: They are unsigned, signed by others than the policy asks for, changed
                since, of the future, or older than keys seen on this machine.
        """
        vouchers = self.vouchers(claim, signatures)
        if not vouchers.registrars and self._is_granted(Action.REGISTER, claim):
            raise IntegrityError(
                f"the keys in {claim.where} are not registered: nobody signed them who may "
                f"register key:{claim.name}; have such a user run hecompile register on the folder"
            )
        may_replace = bool(vouchers.rotators) or not self._is_granted(Action.ROTATE, claim)
        try:
            self._state.admit_key(
                self._lineage, claim.name, claim.created, claim.key_id, may_replace
            )
        except IntegrityError as error:
            raise IntegrityError(f"the keys in {claim.where}: {error}") from error

    def vouchers(self, claim: KeyClaim, signatures: bytes | None) -> Vouchers:
        """Check every signature of a folder, of which one must be a key holder's.

        Raises:
            IntegrityError: As `check`, but for registration and for keys seen before.
        """
        what = claim.signature_file
        envelope = _envelope(claim, signatures)
        names: dict[Action, list[str]] = {action: [] for action in _ACTIONS}
        for keyid in envelope.signatures:
            user = self._signer(envelope, keyid, what)
            granted = [action for action in names if self._may(user, action, claim)]
            if not granted:
                raise IntegrityError(
                    f"{what} is signed by user '{user.name}', who may neither hold key:secret nor "
                    f"register or rotate key:{claim.name}; do not rely on these keys"
                )
            for action in granted:
                names[action].append(user.name)
        if not names[Action.HOLD]:
            raise IntegrityError(
                f"{what} lacks the signature of whoever made the keys, a user who may hold "
                "key:secret; get the folder from that user"
            )
        created = claim.created
        if created > self._now() + CLOCK_TOLERANCE:
            raise IntegrityError(
                f"the keys in {claim.where} were made at {created.isoformat()}, which is in the "
                "future; check the clocks"
            )
        return Vouchers(*(tuple(names[action]) for action in names))

    def wanted(self, claim: KeyClaim) -> tuple[tuple[Action, ObjectRef], ...]:
        """What registering keys asks of the policy.

        Returns:
            To register the key, if the policy lets anybody; and to rotate it, if it lets anybody
            and another key was seen here before.
        """
        seen = self._state.newest(self._lineage, claim.name)
        asked = [Action.REGISTER] if self._is_granted(Action.REGISTER, claim) else []
        if seen is not None and seen.key_id != claim.key_id:
            asked += [Action.ROTATE] if self._is_granted(Action.ROTATE, claim) else []
        return tuple((action, claim.object) for action in asked or [Action.REGISTER])

    def register(self, claim: KeyClaim, signatures: bytes | None, identity: Identity) -> bytes:
        """Add a registrar's signature to keys that their holder signed.

        Signatures of users who vouch for nothing any more are left out. The policy must have been
        asked for what is `wanted`.

        Args:
            claim: What the folder says.
            signatures: The bytes of its `key.sig`.
            identity: Who registers.

        Returns:
            The new contents of `key.sig`, which `check` has accepted.

        Raises:
            IntegrityError: The holder's signature is missing or wrong, or `check` refuses.
        """
        envelope = _envelope(claim, signatures)
        envelope.signatures = {
            keyid: one for keyid, one in envelope.signatures.items() if self._vouches(keyid, claim)
        }
        added = spell(envelope)
        self.vouchers(claim, added)
        if identity.keyid not in envelope.signatures:
            added = cosign(added, identity.key, claim.signature_file, KEY_PAYLOAD_TYPE)
        self.check(claim, added)
        return added

    def _vouches(self, keyid: str, claim: KeyClaim) -> bool:
        user = self._users.of_key(keyid)
        return user is not None and any(self._may(user, action, claim) for action in _ACTIONS)

    def _signer(self, envelope: Envelope, keyid: str, what: str) -> UserEntry:
        user = self._users.of_key(keyid)
        if user is None or user.key is None:
            raise IntegrityError(
                f"{what} is signed with key {keyid[:80]!r}, which is no user's in version "
                f"{self._users.version} of the users document; get the folder anew from whoever "
                "makes the keys"
            )
        if not is_signed_by(envelope, public_key(user.key, user.name)):
            raise IntegrityError(
                f"{what} does not match its signature by user '{user.name}': it was changed after "
                "signing; get a fresh copy of the folder"
            )
        return user

    def _may(self, user: UserEntry, action: Action, claim: KeyClaim) -> bool:
        obj = KEY_SECRET if action is Action.HOLD else claim.object
        return may(self._policy, user, action, obj)

    def _is_granted(self, action: Action, claim: KeyClaim) -> bool:
        return is_granted(self._policy, action, claim.object)


def _envelope(claim: KeyClaim, signatures: bytes | None) -> Envelope:
    what = claim.signature_file
    if signatures is None:
        raise IntegrityError(
            f"the keys in {claim.where} are not signed ({SIGNATURE_FILE} is missing); get the "
            "folder from whoever made them with hecompile keygen"
        )
    if len(signatures) > MAX_SIGNATURE_BYTES:
        raise IntegrityError(f"{what} is too large to be a signature; get a fresh copy")
    envelope = parse_envelope(signatures, what, KEY_PAYLOAD_TYPE)
    if envelope.payload != claim.card:
        raise IntegrityError(
            f"{what} signs another key.json than the one beside it: one of them was changed or "
            "exchanged; get a fresh copy of the folder"
        )
    if len(envelope.signatures) > MAX_SIGNATURES:
        raise IntegrityError(
            f"{what} has {len(envelope.signatures)} signatures, where at most {MAX_SIGNATURES} are "
            "taken; get a fresh copy"
        )
    return envelope


def _utc_now() -> datetime:
    return datetime.now(UTC)
