"""The users document of a new bundle: users without a key get an identity on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hecompile.access.identity import identity_path, load_identity, make_identity
from hecompile.access.policy import Policy
from hecompile.access.signing import SigningKey
from hecompile.access.users import UserEntry, Users, single_owner_users
from hecompile.access.users_io import read_users, sign_users

Tell = Callable[[str], None]


def prepare_users(
    users: Users | str | Path | None, policy: Policy, built_in: bool = False
) -> Users | None:
    """Read the users document for a policy.

    Args:
        users: The document, the path of a users.toml, or None.
        policy: The policy that it is for.
        built_in: Whether the policy is the built-in one, which has users of its own.

    Returns:
        The document; None where there is none, so that nobody may do anything yet.

    Raises:
        InputError: It cannot be read, or is for another policy.
    """
    if users is None:
        return single_owner_users(policy) if built_in else None
    if isinstance(users, Users):
        return users
    return read_users(users, policy)


def with_local_keys(users: Users, tell: Tell) -> Users:
    """Give every user without a key the key of its identity here, made if there is none.

    Such users are this machine's: whoever runs it can sign in the name of each. Users of other
    machines make their own identities, whose public keys the document then names.

    Args:
        users: The document.
        tell: Told of identities that were made.

    Raises:
        HecompileError: An identity cannot be read or written.
    """
    made: list[str] = []

    def keyed(user: UserEntry) -> UserEntry:
        if user.key is not None:
            return user
        if identity_path(user.name).exists():
            identity = load_identity(user.name)
        else:
            identity = make_identity(user.name)
            made.append(user.name)
        return replace(user, key=identity.public_bytes)

    found = replace(users, users=tuple(map(keyed, users.users)))
    if made:
        tell(
            f"made identity keys on this machine for {', '.join(made)}: whoever runs it can act as "
            "each of them; where parties have machines of their own, let each run hecompile "
            "identity new USER and put its key into users.toml"
        )
    return found


def signed_users(users: Users | None, key: SigningKey, tell: Tell) -> bytes | None:
    """The signed document that goes beside a new bundle's manifest; None where there is none."""
    return None if users is None else sign_users(with_local_keys(users, tell), key)
