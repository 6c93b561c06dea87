"""Rule S6: what is declassified names its mechanism, what one answer is about, and its budget."""

from __future__ import annotations

from hecompile.access.policy import (
    Action,
    Kind,
    ObjectRef,
    Obligations,
    Permission,
    Policy,
    Scope,
)
from hecompile.access.policy_reader import FEWEST_FLOOD_BITS, FEWEST_PERSONS
from hecompile.access.proof_subjects import ProgramFacts, Rule, listed, violation
from hecompile.access.release_plan import ReleasePlan, declassifications, total_releases


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


def is_flooded(obligations: Obligations) -> bool:
    """Whether what is published tells nothing of the secret key: flooded, coarse and counted."""
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
