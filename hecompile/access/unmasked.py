"""Refreshes with no masks, or with masks of too few bits to hide anything.

They are for key holders who own the model, and so may see what it computes.
"""

from __future__ import annotations

from collections.abc import Iterable

from hecompile.access.policy import (
    KEY_SECRET,
    MODEL,
    PROGRAM,
    Action,
    Grant,
    Policy,
    grants,
    role_paths,
)
from hecompile.access.users import Users
from hecompile.errors import InputError
from hecompile.numeric.masking import FEWEST_MASK_BITS

_OWNS = (Action.OWN, Action.ENCRYPT)
"""Actions on the model that only its owner has: whoever encrypts the weights has them."""


def subjects(
    policy: Policy, users: Users | None = None
) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    """Each user, and each role that no user has: its title, where it stands, its roles.

    Without users every role counts.
    """
    entries = users.users if users is not None else ()
    for user in entries:
        yield f"user '{user.name}'", user.where, user.roles
    given = role_paths(policy, [name for user in entries for name in user.roles])
    for role in policy.roles:
        if role.name not in given:
            yield f"role '{role.name}'", role.where, (role.name,)


def check_unmasked(policy: Policy, users: Users | None = None) -> None:
    """Refuse refreshes with masks of too few bits unless whoever is near the secret key owns it.

    A refreshed value without a mask is an intermediate value of the model, in clear for whoever
    refreshes and for whoever has the secret key and gets hold of a request.

    Args:
        policy: The policy.
        users: Who has which role; None where that is not known, so that each role must own it.

    Raises:
        InputError: Naming one who does not own it, and the remedy.
    """
    for who, where, roles in subjects(policy, users):
        granted = list(grants(policy, roles))
        opens = next((grant for grant in granted if _opens(grant)), None)
        owns = any(grant.object == MODEL and grant.action in _OWNS for grant in granted)
        if opens is not None and not owns:
            place = f"{where}: " if where else ""
            raise InputError(
                f"{place}{who} may {opens.action} {opens.object} ({' -> '.join(opens.path)}) and "
                "does not own the model, whose intermediate values masks of fewer than "
                f"{FEWEST_MASK_BITS} bits do not hide: "
                f"grant role '{opens.path[-1]}' the action 'own' on 'model' if the model is its "
                f"own, or compile with --mask-bits of {FEWEST_MASK_BITS} or more"
            )


def _opens(grant: Grant) -> bool:
    return grant.object == KEY_SECRET or (grant.action, grant.object) == (Action.REFRESH, PROGRAM)
