"""What of releases goes into the audit log beside the gate's own decisions: never a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hecompile.access.audit import AuditLog
from hecompile.access.decide import Decision, take_down
from hecompile.access.users import Users
from hecompile.runtime.release import Released


class ReleaseLog:
    """Takes down, for one bundle, what was released and what was granted and then refused."""

    def __init__(self, log: AuditLog, users: Users | None, manifest: str) -> None:
        """Write to `log` of the bundle whose manifest has this digest."""
        self._log = log
        self._users = users
        self._manifest = manifest

    def released(
        self, decisions: Sequence[Decision], released: Released, envelopes: Sequence[str]
    ) -> None:
        """One entry for each output, before its value is handed over.

        Args:
            decisions: What was granted.
            released: What is about to leave; only its number is noted, as a digest of so few bits
                would give it away.
            envelopes: Digests of the headers of the envelopes it comes from.

        Raises:
            AccessDeniedError: The log cannot be written.
        """
        for decision in decisions:
            output = released.outputs[decision.request.obj.name]
            rule = f"{decision.rule}; release {output.number} of {output.limit}"
            self._append(decision, True, rule, envelopes)

    def denied(self, decisions: Sequence[Decision], reason: str) -> None:
        """One entry for each output that was granted and then not released."""
        for decision in decisions:
            self._append(decision, False, reason.removeprefix("Access Denied: "), ())

    def _append(self, decision: Decision, allowed: bool, rule: str, digests: Sequence[str]) -> None:
        asked = decision.request
        user = self._users.user(asked.user) if self._users is not None else None
        take_down(
            self._log,
            replace(decision, allowed=allowed, rule=rule),
            user.roles if user is not None else (),
            self._manifest,
            digests,
            f"Access Denied: {asked.obj} is not released, because that cannot be logged",
        )
