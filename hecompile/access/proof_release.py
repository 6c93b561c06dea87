"""Rule S6: what is declassified names its mechanism, what one answer is about, and its budget.

Flooding hides the errors of honest ciphertexts (IND-CPA-D). Whoever sends ciphertexts of its own
making and is shown what is released of them reads the key out of the answers: c1 + alpha X^j in
place of c1 adds alpha times rotated coefficients of the key to the input, which no noise that keeps
inputs apart hides. What stands against that is how little all releases of a key can carry: where
one role or user does both, it must be less than `KEY_SHARE` of the key's entropy.
"""

from __future__ import annotations

from collections.abc import Iterable

from hecompile.access.policy import (
    MODEL,
    Action,
    Grant,
    Kind,
    ObjectRef,
    Obligations,
    Permission,
    Policy,
    Scope,
)
from hecompile.access.policy_reader import FEWEST_FLOOD_BITS, FEWEST_PERSONS
from hecompile.access.proof_subjects import (
    ProgramFacts,
    Rule,
    Subject,
    is_hold,
    listed,
    means,
    violation,
)
from hecompile.access.release_plan import (
    KEY_SHARE,
    ReleasePlan,
    declassifications,
    key_bits,
    permission_bits,
    total_releases,
)


def check_releases(policy: Policy, facts: ProgramFacts) -> None:
    """Rule S6, and that the flooding which was planned is what the permissions ask for.

    Raises:
        InputError: Names the role, what its permission lacks, where it stands and the remedy.
    """
    for permission in declassifications(policy):
        _check_mechanism(permission)
        _check_scope(permission)
        _check_budget(policy, permission)
        if facts.releases is not None:
            for output in _outputs_of(permission, facts):
                _check_plan(policy, permission, output, facts.releases)


def check_chosen_ciphertexts(subjects: Iterable[Subject], facts: ProgramFacts) -> None:
    """Nobody but a holder of the key both sends ciphertexts and is shown much under that key.

    Args:
        subjects: Roles and users, over the closure of inheritance.
        facts: Ring and planned releases; without them nothing is checked.

    Raises:
        InputError: Names who does both, by which paths, the bits, and the remedy.
    """
    if facts.security is None:
        return
    entropy = key_bits(facts.security[0])
    for subject in subjects:
        sends, bits = subject.first(sends_ciphertexts), shown_bits(subject, facts)
        if sends is None or bits <= KEY_SHARE * entropy or subject.first(is_hold) is not None:
            continue
        shown = subject.first(lambda grant: grant.action is Action.DECLASSIFY)
        told = means(shown) if shown is not None else Action.DECLASSIFY
        raise violation(
            Rule.S6,
            subject.where,
            f"{subject.title} may {means(sends)} and may also {told}: whoever chooses ciphertexts "
            f"reads the key out of releases, which can carry {bits:.0f} bits of the {entropy:.0f} "
            f"of the key, more than {KEY_SHARE:.3g} of them; lower the budgets, round more "
            "coarsely, publish labels only, or give the two to separate roles and users",
        )


def sends_ciphertexts(grant: Grant) -> bool:
    """Whether it lets somebody choose a ciphertext that is evaluated: an input's, a weight's."""
    return grant.action is Action.SUBMIT or (grant.action, grant.object) == (Action.ENCRYPT, MODEL)


def shown_bits(subject: Subject, facts: ProgramFacts) -> float:
    """Most bits that all releases under one key can carry to somebody.

    A permission's budget is shared by its outputs, so that its most telling output counts.
    """
    plans = {plan.output: plan for plan in facts.releases or ()}
    found: dict[int, float] = {}
    for grant in subject.grants:
        if grant.action is Action.DECLASSIFY:
            for output in _outputs_of(grant.permission, facts):
                bits = permission_bits(grant.permission, plans[output]) if output in plans else 0.0
                found[grant.number] = max(found.get(grant.number, 0.0), bits)
    return sum(found.values())


def is_flooded(obligations: Obligations) -> bool:
    """Whether what is published of honest ciphertexts hides the key: flooded, coarse, counted."""
    enough = obligations.flood is not None and obligations.flood >= FEWEST_FLOOD_BITS
    return enough and bool(mechanisms(obligations)) and obligations.budget is not None


def mechanisms(obligations: Obligations) -> tuple[str, ...]:
    """What makes a published value coarse, by the names of the policy's keys."""
    found = {
        "round": obligations.round is not None,
        "label_only": obligations.label_only,
        "dp": obligations.dp is not None,
    }
    return tuple(name for name, given in found.items() if given)


def _outputs_of(permission: Permission, facts: ProgramFacts) -> list[str]:
    """Names of the outputs that a permission declassifies."""
    return [
        name
        for name in facts.outputs
        if any(obj.covers(ObjectRef.output(name)) for obj in permission.objects)
    ]


def _wrong(permission: Permission, text: str) -> Exception:
    objects = listed(obj for obj in permission.objects if obj.kind is Kind.OUTPUT)
    who = f"role '{permission.role}' may {Action.DECLASSIFY} {objects}"
    return violation(Rule.S6, permission.where, f"{who}, {text}")


def _check_mechanism(permission: Permission) -> None:
    duties = permission.obligations
    if duties.flood is None or duties.flood < FEWEST_FLOOD_BITS:
        raise _wrong(
            permission,
            "but its obligations name no flooding that hides the key; add "
            f"flood = {FEWEST_FLOOD_BITS} or more to 'obligations'",
        )
    found = mechanisms(duties)
    if len(found) != 1:
        raise _wrong(
            permission,
            f"but of round, label_only and dp its obligations name {listed(found)}; name exactly "
            "one of them",
        )


def _check_scope(permission: Permission) -> None:
    noise = permission.obligations.dp
    if permission.scope is Scope.COHORT and noise is None:
        raise _wrong(
            permission,
            "about cohorts without noise, and two cohorts that differ in one person would tell "
            "that person's value; name dp in 'obligations', or write scope = \"person\"",
        )
    if noise is None:
        return
    if noise.rho > noise.total_rho:
        raise _wrong(
            permission,
            f"but one release costs rho = {noise.rho:g} and all together may cost "
            f"{noise.total_rho:g}; raise total_rho or lower rho",
        )
    if permission.scope is Scope.COHORT and noise.least < FEWEST_PERSONS:
        raise _wrong(
            permission,
            f"about cohorts of {noise.least}; ask for least = {FEWEST_PERSONS} or more persons",
        )


def _check_budget(policy: Policy, permission: Permission) -> None:
    budget = permission.obligations.budget
    if budget is None:
        raise _wrong(
            permission,
            "but its obligations name no budget, and flooding holds for a stated number of "
            "releases only; add budget = N, the releases under one key, to 'obligations'",
        )
    rule = policy.key_rule("secret")
    if rule is not None and rule.rotate_releases is not None and budget > rule.rotate_releases:
        raise _wrong(
            permission,
            f"{budget} times under one key, but [keys.secret] has the key replaced after "
            f"{rule.rotate_releases} releases; lower 'budget' or raise 'rotate_releases'",
        )


def _check_plan(
    policy: Policy, permission: Permission, output: str, plans: tuple[ReleasePlan, ...]
) -> None:
    plan = next((plan for plan in plans if plan.output == output), None)
    if plan is None:
        raise _wrong(
            permission,
            f"but no flooding is planned for output '{output}'; compile the model again with this "
            "policy",
        )
    bits, releases = permission.obligations.flood or 0, total_releases(policy)
    enough = plan.flood_bits >= bits and plan.releases >= releases and plan.is_flooded
    if not enough:
        raise _wrong(
            permission,
            f"which needs {bits} bits of flooding over {releases} releases, but noise of standard "
            f"deviation {plan.sigma:g} is planned for {plan.flood_bits} bits and {plan.releases} "
            "releases; compile the model again with this policy",
        )
    step = permission.obligations.round
    if step is not None and (plan.step is None or plan.step > step):
        planned = "no rounding" if plan.step is None else f"steps of {plan.step:g}"
        raise _wrong(
            permission,
            f"rounded to {step:g}, but {planned} of output '{output}' is planned; compile the "
            "model again with this policy",
        )
