"""For whom rules are proved, what each may do in effect, and how a broken rule reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from hecompile.access.labels import Flow
from hecompile.access.policy import KEY_SECRET, Action, Grant, Policy, grants, role_paths
from hecompile.access.release_plan import ReleasePlan
from hecompile.access.users import Users
from hecompile.errors import InputError


class Rule(StrEnum):
    """What is proved of a policy and its program before a bundle is made, and on every loading."""

    S1 = "S1 (every object exists and is spoken for)"
    S2 = "S2 (separation of duties)"
    S3 = "S3 (key-view separation)"
    S4 = "S4 (who may hold a key)"
    S5 = "S5 (clearance covers what flows in)"
    S6 = "S6 (declassification)"
    S7 = "S7 (rotation keys granted are rotation keys used)"
    S8 = "S8 (security of the parameters)"


@dataclass(frozen=True)
class ProgramFacts:
    """What is known of a program; a rule whose facts are None is not checked yet.

    Attributes:
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        refreshes: How many refreshes one evaluation needs.
        mask_bits: Bits of the smallest mask of a refresh; None without refreshes.
        encrypted_model: Whether its weights are encrypted.
        flows: What flows into each output.
        galois_steps_used: Rotation steps that the program takes.
        galois_steps_granted: Rotation steps for which the evaluator gets keys.
        security: Ring degree, and bits of the coefficient modulus with all its primes.
        releases: How each output that is declassified is flooded.
        shapes: Shape of one sample of each input, by name.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    refreshes: int = 0
    mask_bits: int | None = None
    encrypted_model: bool | None = None
    flows: tuple[Flow, ...] | None = None
    galois_steps_used: tuple[int, ...] | None = None
    galois_steps_granted: tuple[int, ...] | None = None
    security: tuple[int, int] | None = None
    releases: tuple[ReleasePlan, ...] | None = None
    shapes: Mapping[str, tuple[int, ...]] | None = None


@dataclass(frozen=True)
class Subject:
    """A role or a user, with all that it amounts to over the closure of inheritance.

    Attributes:
        title: `role 'x'` or `user 'x'`.
        where: File and line, for messages; may be empty.
        role: The role's name; empty for a user.
        paths: Every role that it has in effect, each with a path of inheritance to it.
        grants: Everything that it may do in effect, in the policy's order.
    """

    title: str
    where: str
    role: str
    paths: Mapping[str, tuple[str, ...]]
    grants: tuple[Grant, ...]

    def first(self, test: Callable[[Grant], bool]) -> Grant | None:
        """Its first grant for which `test` holds, or None."""
        return next((grant for grant in self.grants if test(grant)), None)

    def has_path(self, role: str) -> str:
        """The path of inheritance to a role that it has."""
        return " -> ".join(self.paths[role])


def subjects_of(policy: Policy, users: Users | None = None) -> tuple[Subject, ...]:
    """Every role and every user, over the closure of inheritance.

    Args:
        policy: A policy whose roles have been checked.
        users: Who has which role, or None where that is not known yet.
    """
    found: list[tuple[str, str, str, tuple[str, ...]]]
    found = [(f"role '{role.name}'", role.where, role.name, (role.name,)) for role in policy.roles]
    if users is not None:
        found += [(f"user '{user.name}'", user.where, "", user.roles) for user in users.users]
    return tuple(
        Subject(title, where, role, role_paths(policy, roles), tuple(grants(policy, roles)))
        for title, where, role, roles in found
    )


def acting_subjects(policy: Policy, users: Users | None = None) -> Iterator[Subject]:
    """Each user, and each role that no user has in effect: those of whom a warning tells.

    Args:
        policy: The policy.
        users: Who has which role, or None: then every role counts.
    """
    subjects = subjects_of(policy, users)
    given = {role for subject in subjects if not subject.role for role in subject.paths}
    yield from (s for s in subjects if not s.role or s.role not in given)


def holds_secret_key(grant: Grant) -> bool:
    """Whether it gives the secret key: who registers or replaces that has made it."""
    return grant.object == KEY_SECRET


def is_hold(grant: Grant) -> bool:
    """Whether it lets somebody hold the secret key to use it."""
    return grant.action is Action.HOLD and grant.object == KEY_SECRET


def violation(rule: Rule, where: str, text: str) -> InputError:
    """The error for a policy that breaks a rule.

    Args:
        rule: The rule.
        where: File and line; may be empty.
        text: Who breaks it, by which path of inheritance, and the remedy.
    """
    return InputError(f"{at(where)}rule {rule}: {text}")


def at(where: str) -> str:
    """What a message begins with to tell where its subject stands; `where` may be empty."""
    return f"{where}: " if where else ""


def path(grant: Grant) -> str:
    """The roles from the one that was asked about to the one that the permission names."""
    return " -> ".join(grant.path)


def means(grant: Grant) -> str:
    """What a grant lets somebody do, and by which path: `decrypt output:y (doctor -> viewer)`."""
    return f"{grant.action} {grant.object} ({path(grant)})"


def listed(words: Iterable[object]) -> str:
    """Words as one text, or `none`."""
    return ", ".join(map(str, words)) or "none"
