"""A small policy that passes every rule, and ways to break it."""

from __future__ import annotations

import pytest

from hecompile.access.policy import Policy
from hecompile.access.policy_io import parse_policy
from hecompile.access.proof import ProgramFacts, check_policy
from hecompile.access.users import UserEntry, Users
from hecompile.errors import InputError

FACTS = ProgramFacts(("x",), ("y",))

POLICY = """\
format = 2

[roles.staff]
description = "Has no permission of its own"

[roles.sender]
inherits = ["staff"]

[roles.reader]
inherits = ["staff"]

[roles.cloud]

[roles.vault]

[[permissions]]
role = "sender"
actions = ["encrypt", "submit"]
objects = ["input:x"]

[[permissions]]
role = "reader"
actions = ["declassify"]
objects = ["output:y"]
obligations = {flood = 30, round = 0.05, budget = 64}

[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]

[[permissions]]
role = "vault"
actions = ["hold", "refresh"]
objects = ["key:secret", "program"]
"""

KEY_RECOVERY_POLICY = """\
format = 2

[roles.clinician]

[roles.cloud]

[roles.vault]

[[permissions]]
role = "clinician"
actions = ["encrypt", "submit", "receive", "decrypt"]
objects = ["input:*", "output:*"]

[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]

[[permissions]]
role = "vault"
actions = ["hold", "refresh"]
objects = ["key:secret", "program"]
"""
"""Hands a clinician ciphertexts and their raw decryptions: what the key is computed from."""


def change(old: str, new: str, text: str = POLICY) -> str:
    """`text` with the first `old`, which must be there, replaced."""
    assert old in text
    return text.replace(old, new, 1)


def grant(role: str, action: str, obj: str, text: str = POLICY) -> str:
    """`text` with one more permission."""
    return (
        f'{text}\n[[permissions]]\nrole = "{role}"\nactions = ["{action}"]\nobjects = ["{obj}"]\n'
    )


def inherit(role: str, *parents: str, text: str = POLICY) -> str:
    """`text` with one more role, which inherits others."""
    names = ", ".join(f'"{parent}"' for parent in parents)
    return f"{text}\n[roles.{role}]\ninherits = [{names}]\n"


def line(text: str, start: str) -> str:
    """Where a message says that the one line of `text` beginning with `start` stands."""
    [number] = [i for i, one in enumerate(text.splitlines(), 1) if one.startswith(start)]
    return f"p.toml, line {number}"


def users_of(policy: Policy, **roles: str) -> Users:
    """Users by name, each with roles separated by spaces."""
    entries = tuple(UserEntry(name, tuple(given.split())) for name, given in roles.items())
    return Users(policy.digest, 1, "", "", entries)


def check(text: str, facts: ProgramFacts = FACTS, **roles: str) -> None:
    """Check a policy for a program, with users if any are given."""
    policy = parse_policy(text, "p.toml")
    check_policy(policy, facts, users_of(policy, **roles) if roles else None)


def refuse(text: str, *words: str, facts: ProgramFacts = FACTS, **roles: str) -> None:
    """The check fails with one line that has all of `words`."""
    with pytest.raises(InputError) as caught:
        check(text, facts, **roles)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, f"{word!r} not in {message!r}"
