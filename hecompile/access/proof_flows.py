"""Rule S5: whoever is shown a value has a clearance for all that flows into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hecompile.access.labels import Flow, check_labels, covers
from hecompile.access.policy import Action, Grant, Kind, ObjectRef, Policy
from hecompile.access.proof_subjects import (
    ProgramFacts,
    Rule,
    Subject,
    listed,
    means,
    violation,
)
from hecompile.errors import InputError

_SHOWN = frozenset({Action.DECRYPT, Action.DECLASSIFY})
_MOST_TOLD = 8


def check_flows(policy: Policy, subjects: Iterable[Subject], facts: ProgramFacts) -> None:
    """Rule S5 for every role, inheritance included; a user is covered through its roles.

    Args:
        policy: A policy whose roles have been checked.
        subjects: Its roles and users.
        facts: Names of inputs and outputs; flows and shapes as far as they are known.

    Raises:
        InputError: Names the role, the labels that its clearance lacks, whence they come, where
            the role stands and the remedy; or labels that do not fit the program's inputs.
    """
    _check_fields(policy, facts)
    if facts.flows is not None:
        _check_flow_names(facts.flows, facts.outputs)
    # A user has what its roles have, and a clearance never narrows: roles decide.
    for subject in subjects:
        if subject.role:
            for grant in subject.grants:
                _check_grant(policy, subject, grant, facts)


def _check_fields(policy: Policy, facts: ProgramFacts) -> None:
    if facts.shapes is not None:
        try:
            check_labels(policy.labels, facts.shapes)
        except InputError as error:
            raise violation(Rule.S5, "", str(error)) from None
        return
    for field in policy.labels:
        if not any(field.object.covers(ObjectRef.input(name)) for name in facts.inputs):
            raise violation(
                Rule.S5,
                field.where,
                f"labels of '{field.object}', which does not exist in the program; its inputs are "
                f"{listed(facts.inputs)}: correct the name",
            )


def _check_flow_names(flows: Sequence[Flow], outputs: Sequence[str]) -> None:
    if sorted(flow.output for flow in flows) != sorted(outputs):
        raise violation(
            Rule.S5,
            "",
            f"flows are told for {listed(flow.output for flow in flows)}, but the program's "
            f"outputs are {listed(outputs)}; compile the model again",
        )


def _check_grant(policy: Policy, subject: Subject, grant: Grant, facts: ProgramFacts) -> None:
    if grant.action not in _SHOWN:
        return
    clearance = [
        label for role in policy.roles if role.name in subject.paths for label in role.clearance
    ]
    for what, labels, flow in _contents(policy, grant, facts):
        missing = [label for label in labels if not covers(clearance, label)]
        if missing:
            origins = "; ".join(_origin(policy, label, flow) for label in missing[:_MOST_TOLD])
            raise violation(
                Rule.S5,
                subject.where,
                f"{subject.title} may {means(grant)}, but its clearance "
                f"({listed(sorted(set(clearance)))}) does not cover {listed(missing[:_MOST_TOLD])}"
                f" of {what} ({origins}); add clearance = [...] to role "
                f"'{grant.path[-1]}' or take the permission away",
            )


def _contents(
    policy: Policy, grant: Grant, facts: ProgramFacts
) -> Iterator[tuple[str, tuple[str, ...], Flow | None]]:
    """What the grant shows: its title, the labels in it, its flow if it is an output."""
    if grant.object.kind is Kind.OUTPUT:
        for flow in facts.flows or ():
            if grant.object.covers(ObjectRef.output(flow.output)):
                yield f"output:{flow.output}", flow.needed(policy.model), flow
        return
    for field in policy.labels:
        if field.object.covers(grant.object) or grant.object.covers(field.object):
            yield str(field.object), tuple(sorted(set(field.labels))), None


def _origin(policy: Policy, label: str, flow: Flow | None) -> str:
    """Where a label comes from, and which elements of the output carry it."""
    sources = [
        str(field.object) if field.axis is None else _indices(str(field.object), field.axis, places)
        for field in policy.labels
        if (places := [i for i, name in enumerate(field.labels) if name == label])
    ]
    if flow is not None and label in flow.weights:
        sources.append("the weights, by what they were trained on")
    text = f"{label} from {' and '.join(sources) or 'no input that the policy names'}"
    elements = flow.elements_with(label) if flow is not None and label in flow.labels else None
    if elements is not None:
        text += f" in elements {_some(elements)}"
    return text


def _indices(name: str, axis: int, places: Sequence[int]) -> str:
    return f"{name} (axis {axis}, index {_some(places)})"


def _some(numbers: Sequence[int]) -> str:
    told = listed(numbers[:_MOST_TOLD])
    return told if len(numbers) <= _MOST_TOLD else f"{told} and {len(numbers) - _MOST_TOLD} more"
