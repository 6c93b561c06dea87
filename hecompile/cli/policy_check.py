"""What `hecompile policy check` proves, and what is left for the compiler to prove."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hecompile.access.labels import Flow
from hecompile.access.objects import Kind
from hecompile.access.policy import Policy
from hecompile.access.proof import (
    ProgramFacts,
    check_policy,
    policy_warnings,
    work_warnings,
)
from hecompile.access.users import Users, check_times, check_users
from hecompile.cli.door import open_door
from hecompile.errors import IntegrityError


def check(policy: Policy, facts: ProgramFacts, users: Users | None) -> list[str]:
    """Prove what can be proved of a policy and its users before there is a program.

    What the weights were trained on is taken to flow into every output; what else flows there is
    known once the model is compiled.

    Args:
        policy: The policy.
        facts: What is known of the program.
        users: Who has which role, or None.

    Returns:
        Warnings.

    Raises:
        InputError: A rule is broken; the message has the remedy.
    """
    if policy.model is not None:
        trained = tuple(sorted(set(policy.model.labels)))
        flows = tuple(Flow(output, (), None, trained) for output in facts.outputs)
        facts = replace(facts, flows=flows)
    check_policy(policy, facts, users)
    warnings = list(policy_warnings(policy, users, facts))
    if users is not None:
        check_users(policy, users)
        warnings += work_warnings(policy, users, facts)
        try:
            check_times(users)
        except IntegrityError as error:
            warnings.append(str(error))
    return warnings


def facts_for(
    policy: Policy, model: Path | None, bundle: Path | None, trust: tuple[Path, ...]
) -> ProgramFacts:
    """What a model or a bundle tells of the program; without one, the names that the policy uses.

    Raises:
        HecompileError: The model or the bundle cannot be read, or does not fit the policy.
    """
    if bundle is not None:
        from hecompile.access.manifest_checks import facts_of

        # What is derived from a policy is that of the bundle's own, not of this one.
        facts = facts_of(open_door(bundle, trust).manifest)
        return replace(facts, flows=None, releases=None)
    if model is not None:
        from hecompile.bundle.assemble import prepare_policy
        from hecompile.frontend import import_onnx

        return prepare_policy(policy, import_onnx(model)).facts
    named = [obj for one in policy.permissions for obj in one.objects] + [*policy.unused]
    names = {
        kind: tuple(
            dict.fromkeys(obj.name for obj in named if obj.kind is kind and not obj.is_wildcard)
        )
        for kind in (Kind.INPUT, Kind.OUTPUT)
    }
    return ProgramFacts(names[Kind.INPUT], names[Kind.OUTPUT])


def rules_proved(*, program: bool, users: bool, compiled: bool) -> tuple[list[str], list[str]]:
    """Which rules a check has proved, and what of them is proved at compilation alone.

    Args:
        program: Whether the program's names were known.
        users: Whether it was known who has which role.
        compiled: Whether the parameters of the program were known.
    """
    names = "names of the program" if program else "names as the policy gives them"
    people = "roles and users" if users else "roles alone, without --users"
    proved = [
        f"S1 ({names})",
        f"S2, S3 and S4 ({people})",
        "S5 (clearances for the labels of inputs and of the training set)",
        "S6 (mechanism, scope and budget)",
    ]
    left = [
        "S5 (clearances for what flows through the network into each output)",
        "S6 (noise that floods all releases)",
    ]
    parameters = ["S7 (rotation keys)", "S8 (security of the parameters)"]
    return (proved + parameters, left) if compiled else (proved, left + parameters)
