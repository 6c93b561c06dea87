"""Who has which role: a signed document of its own, so that people change without a new bundle.

It names the policy it is for by its digest, counts its versions upwards and holds for a span of
time. A bundle without one lets nobody do anything.
"""

from __future__ import annotations

from datetime import datetime

from hecompile.access.policy import Policy
from hecompile.access.times import check_period
from hecompile.access.user_entries import (
    USERS_FORMAT,
    UserEntry,
    Users,
    key_text,
    parse_key_text,
    public_key,
    single_owner_users,
    users_to_json,
)
from hecompile.access.users_io import (
    USERS_NAME,
    USERS_PAYLOAD_TYPE,
    parse_users,
    read_users,
    sign_users,
    users_from_json,
    users_to_toml,
    verify_users,
)
from hecompile.errors import InputError, IntegrityError

__all__ = [
    "USERS_FORMAT",
    "USERS_NAME",
    "USERS_PAYLOAD_TYPE",
    "UserEntry",
    "Users",
    "check_policy_digest",
    "check_times",
    "check_users",
    "key_text",
    "parse_key_text",
    "parse_users",
    "public_key",
    "read_users",
    "sign_users",
    "single_owner_users",
    "users_from_json",
    "users_to_json",
    "users_to_toml",
    "verify_users",
]


def check_users(policy: Policy, users: Users) -> None:
    """Hold a users document against its policy.

    It is for this policy, names each user once and only roles that exist, and gives nobody roles
    that do not go together: static separation of duties, and rules S2 to S4 over the closure of
    inheritance.

    Args:
        policy: A policy that `check_policy` has passed.
        users: The document.

    Raises:
        InputError: Names the user, the roles with their paths of inheritance, and a remedy.
        IntegrityError: The document is for another policy.
    """
    # The proofs know this module.
    from hecompile.access.proof import check_assignments

    check_policy_digest(policy, users)
    seen: set[str] = set()
    for user in users.users:
        if user.name in seen:
            at = f"{user.where}: " if user.where else ""
            raise InputError(f"{at}user '{user.name}' is named twice; keep one entry")
        seen.add(user.name)
    check_assignments(policy, users)


def check_policy_digest(policy: Policy, users: Users) -> None:
    """Refuse a users document that is for another policy.

    Raises:
        IntegrityError: It names another digest.
    """
    if users.policy != policy.digest:
        raise IntegrityError(
            f"the users document (version {users.version}) is for the policy {users.policy[:16]}, "
            f"not {policy.digest[:16]}; sign one for this policy with `hecompile users sign`"
        )


def check_times(users: Users, now: datetime | None = None) -> None:
    """Refuse a document outside its span of time; `now` is by default the clock's.

    Raises:
        IntegrityError: It does not hold yet, or no longer.
    """
    check_period(
        users.not_before,
        users.not_after,
        now,
        f"the users document (version {users.version})",
        "get a newer one from who signs it (`hecompile users sign`)",
    )
