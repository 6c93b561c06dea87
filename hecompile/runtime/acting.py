"""Who acts in a user's name: shown by the identity on this machine, before the policy is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hecompile.access.audit import AuditLog
from hecompile.access.decide import NO_USER, Decision, PolicyIndex, Request, take_down
from hecompile.access.identity import Identity, acting_identity
from hecompile.errors import AccessDeniedError
from hecompile.runtime.wants import Want

UNPROVEN: Final = "the identity on this machine does not prove the user"


@dataclass(frozen=True)
class Actors:
    """Checks that whoever acts has the identity that the users document gives to the user.

    Attributes:
        index: Has the users, and the roles of each.
        log: Where refusals are taken down.
        manifest_digest: SHA-256 of the manifest whose policy is asked next.
    """

    index: PolicyIndex
    log: AuditLog
    manifest_digest: str

    def proven(self, user: str) -> bool:
        """Whether the user's identity is here; nothing is logged."""
        try:
            acting_identity(user, self.index.users)
        except AccessDeniedError:
            return False
        return True

    def require(self, user: str, want: Want, purpose: str = "", session: str = "") -> Identity:
        """The identity of the user who is about to ask for something.

        Args:
            user: The user's name.
            want: What will be asked for; a refusal is about it.
            purpose: What for, for the log.
            session: Name of the session, for the log.

        Raises:
            AccessDeniedError: The identity is not here or is another's, which is taken down.
        """
        try:
            return acting_identity(user, self.index.users)
        except AccessDeniedError as error:
            reason = str(error).removeprefix("Access Denied: ")
            told = f"Access Denied: user {user!r} may not {want[0]} {want[1]} here: {reason}"
            rule = UNPROVEN if self._names(user) else NO_USER
            take_down(
                self.log,
                Decision(False, Request(user, *want, purpose, session=session), rule),
                self.index.roles_of(user),
                self.manifest_digest,
                (),
                f"{told}; and the decision cannot be logged",
            )
            raise AccessDeniedError(told) from error

    def _names(self, user: str) -> bool:
        users = self.index.users
        return users is not None and users.user(user) is not None
