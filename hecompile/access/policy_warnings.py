"""What a policy allows that no rule forbids: collusion, weak privacy, steps nobody may take."""

from __future__ import annotations

from collections.abc import Iterator

from hecompile.access.policy import (
    KEY_SECRET,
    MODEL,
    PROGRAM,
    Action,
    Grant,
    ObjectRef,
    Policy,
    Scope,
)
from hecompile.access.proof_release import sends_ciphertexts, shown_bits
from hecompile.access.proof_subjects import (
    ProgramFacts,
    Subject,
    acting_subjects,
    is_hold,
    listed,
    subjects_of,
)
from hecompile.access.release_plan import KEY_SHARE, declassifications, key_bits
from hecompile.access.users import Users

_WITHOUT_USERS = (
    "there is no users document, so nobody may do anything: state users and their roles in a "
    "users.toml and have it signed (hecompile users sign)"
)


def policy_warnings(
    policy: Policy, users: Users | None = None, facts: ProgramFacts | None = None
) -> tuple[str, ...]:
    """What a policy allows that rules cannot forbid.

    Told are those whose releases, together with somebody who chooses ciphertexts, could give much
    of the secret key away; how little differential privacy about one person hides; and outputs
    whose training set is shown by grace of a stated guarantee.

    Args:
        policy: The policy, checked by `check_policy`.
        users: Who has which role, or None: then each role counts.
        facts: What is known of the program, or None.

    Returns:
        One sentence for each, with the remedy.
    """
    subjects = list(acting_subjects(policy, users))
    found = [*_collusion_warnings(subjects, facts), *_person_warnings(policy)]
    found += _training_warnings(policy, facts)
    return tuple(found)


def work_warnings(policy: Policy, users: Users | None, facts: ProgramFacts) -> tuple[str, ...]:
    """What nobody can do under a policy, so that the program cannot be used as it should be.

    A role without a user is no fault, so this warns and does not refuse.

    Args:
        policy: The policy, checked by `check_policy`.
        users: Who has which role; None is told, for without them nobody may do anything.
        facts: Names of the inputs, all of which one user encrypts and submits; of the outputs, of
            which those listed as unused are passed over; refreshes; whether weights are encrypted.

    Returns:
        One sentence for each step that no user may take, with the remedy.
    """
    if users is None:
        return (_WITHOUT_USERS,)
    people = [subject for subject in subjects_of(policy, users) if not subject.role]
    inputs = [ObjectRef.input(name) for name in facts.inputs]
    steps: list[tuple[tuple[Action, ...], ObjectRef]]
    steps = [((action,), obj) for obj in inputs for action in (Action.ENCRYPT, Action.SUBMIT)]
    steps += [((Action.EVALUATE,), PROGRAM), ((Action.HOLD,), KEY_SECRET)]
    steps += [((Action.REFRESH,), PROGRAM)] if facts.refreshes else []
    steps += [((Action.ENCRYPT,), MODEL)] if facts.encrypted_model else []
    outputs = [ObjectRef.output(name) for name in facts.outputs]
    steps += [
        ((Action.DECRYPT, Action.DECLASSIFY), obj) for obj in outputs if obj not in policy.unused
    ]
    found = [
        f"no user may {_either(actions)} {obj}: give a user a role with "
        f"'{_either(actions)}' on {obj}"
        for actions, obj in steps
        if not any(_may(person, action, obj) for person in people for action in actions)
    ]
    sending = [(action, obj) for (action, *_), obj in steps if obj in inputs]
    if not found and not any(all(_may(one, *step) for step in sending) for one in people):
        found.append(
            f"no user may encrypt and submit all of {listed(inputs)}, which one user sends "
            "together: give a user roles with 'encrypt' and 'submit' on each"
        )
    return tuple(found)


def _either(actions: tuple[Action, ...]) -> str:
    return " or ".join(actions)


def _may(subject: Subject, action: Action, obj: ObjectRef) -> bool:
    def fits(grant: Grant) -> bool:
        return grant.action is action and grant.object.covers(obj)

    return subject.first(fits) is not None


def _collusion_warnings(subjects: list[Subject], facts: ProgramFacts | None) -> Iterator[str]:
    """Who is shown enough to read the key out of ciphertexts that somebody else chooses."""
    if facts is None or facts.security is None:
        return
    entropy = key_bits(facts.security[0])
    for subject in subjects:
        bits = shown_bits(subject, facts)
        if bits <= KEY_SHARE * entropy or subject.first(is_hold) is not None:
            continue
        partners = [
            other.title
            for other in subjects
            if other is not subject and other.first(sends_ciphertexts) is not None
        ]
        if partners:
            yield (
                f"{subject.title} is shown releases that can carry {bits:.0f} bits, of the "
                f"{entropy:.0f} of the secret key: together with any one of {listed(partners)}, "
                "who choose ciphertexts, it can compute much of the key; lower the budgets, round "
                "more coarsely or publish labels only, unless these trust each other"
            )


def _person_warnings(policy: Policy) -> Iterator[str]:
    from hecompile.access.privacy import DELTA, epsilon

    for permission in declassifications(policy):
        noise = permission.obligations.dp
        if noise is None or permission.scope is not Scope.PERSON:
            continue
        at = f"{permission.where}: " if permission.where else ""
        yield (
            f"{at}role '{permission.role}' gets values of one person with noise of rho = "
            f"{noise.rho:g}, which is epsilon = {epsilon(noise.rho):.3g} at delta = {DELTA:g} for "
            f"one release and {epsilon(noise.total_rho):.3g} for all under one key; an epsilon "
            "above 1 hides little of that person, and one below leaves little of the value. "
            'Ask for scope = "cohort" where a mean will do'
        )


def _training_warnings(policy: Policy, facts: ProgramFacts | None) -> Iterator[str]:
    model = policy.model
    if model is None or facts is None or model.epsilon is None:
        return
    for flow in facts.flows or ():
        hidden = sorted(set(flow.weights) - set(flow.needed(model)))
        if hidden:
            yield (
                f"output:{flow.output} depends on weights trained on {listed(hidden)}, for which "
                f"no clearance is asked since the policy states differential privacy of epsilon = "
                f"{model.epsilon:g} for them; nothing here can check that claim"
            )
