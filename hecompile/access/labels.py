"""What flows into each output of a program: labels of the inputs' fields, and of the training set.

Labels are dotted names such as `vitals.hr`. Decentralised labels that a compiler follows through a
program are Myers and Liskov's ("A Decentralized Model for Information Flow Control", SOSP 1997);
here they are sets that only grow, as nothing branches under encryption.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hecompile.access.policy import FieldLabels, ModelLabels, ObjectRef, Policy
from hecompile.access.records import Record
from hecompile.access.terms import DP_GUARANTEE
from hecompile.errors import InputError

if TYPE_CHECKING:
    from hecompile.ir.program import Program

FIELDS: Final = ("output", "labels", "elements", "weights")

MOST_ELEMENTS: Final = 4096
"""Outputs with more elements than this state the union of their labels alone."""

ANY_LABEL: Final = "*"


@dataclass(frozen=True)
class Flow:
    """What one output depends on.

    Attributes:
        output: Name of the output.
        labels: Labels of the inputs' fields that some element depends on, sorted.
        elements: The labels of each element of one sample's raw output, in row-major order; None
            where every element has all of `labels`, or where there are more than `MOST_ELEMENTS`.
        weights: Labels of the training set, told apart: they reach the output through the weights,
            whatever the inputs are. Empty where it depends on no weight.
    """

    output: str
    labels: tuple[str, ...]
    elements: tuple[tuple[str, ...], ...] | None = None
    weights: tuple[str, ...] = ()

    def needed(self, model: ModelLabels | None) -> tuple[str, ...]:
        """The labels that a clearance must cover before the output is shown to anybody.

        Those of the weights count too, unless they were trained with a stated differential
        privacy.
        """
        if model is not None and model.guarantee == DP_GUARANTEE and model.epsilon is not None:
            return self.labels
        return tuple(sorted({*self.labels, *self.weights}))

    def elements_with(self, label: str) -> tuple[int, ...] | None:
        """The elements that carry a label, or None where that is not told apart: all of them."""
        if self.elements is None:
            return None if label in self.labels else ()
        return tuple(i for i, carried in enumerate(self.elements) if label in carried)

    def to_json(self) -> dict[str, object]:
        """The flow as plain JSON values; elements refer to `labels` by position."""
        place = {label: i for i, label in enumerate(self.labels)}
        elements = None
        if self.elements is not None:
            elements = [[place[label] for label in carried] for carried in self.elements]
        return {
            "output": self.output,
            "labels": list(self.labels),
            "elements": elements,
            "weights": list(self.weights),
        }

    @classmethod
    def from_record(cls, record: Record) -> Flow:
        """Read a flow whose keys are `FIELDS`.

        Raises:
            HecompileError: As the record complains: a field is of a wrong kind, labels are not
                sorted or stand twice, or the elements do not add up to the labels.
        """
        labels, weights = (_sorted_texts(record, field) for field in ("labels", "weights"))
        elements = None
        if record.fields["elements"] is not None:
            elements = _elements(record, labels)
        return cls(record.text("output"), labels, elements, weights)


def _sorted_texts(record: Record, field: str) -> tuple[str, ...]:
    found = record.texts(field)
    if not all(found) or list(found) != sorted(set(found)):
        raise record.wrong(field, "must be sorted labels, none twice and none empty")
    return found


def _elements(record: Record, labels: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    items = record.items("elements")
    if not 1 < len(items) <= MOST_ELEMENTS:
        raise record.wrong("elements", f"must be null, or a list of 2 to {MOST_ELEMENTS} lists")
    found = []
    for item in items:
        fits = isinstance(item, list) and all(type(i) is int for i in item)
        if not fits or not isinstance(item, list) or item != sorted(set(item)):
            raise record.wrong("elements", "must hold sorted lists of whole numbers")
        if item and not 0 <= item[0] <= item[-1] < len(labels):
            raise record.wrong("elements", "must refer to labels of this output by position")
        found.append(tuple(labels[i] for i in item))
    if {label for carried in found for label in carried} != set(labels):
        raise record.wrong("elements", "must carry every label of this output")
    if all(carried == labels for carried in found):
        raise record.wrong("elements", "must be null where every element carries every label")
    return tuple(found)


def covers(clearance: str | Iterable[str], label: str) -> bool:
    """Whether a clearance shows what a label names.

    Args:
        clearance: Names of labels; `vitals.*` covers what begins with `vitals.`, `*` everything.
        label: A label.
    """
    patterns = (clearance,) if isinstance(clearance, str) else clearance
    return any(
        pattern in (ANY_LABEL, label)
        or (pattern.endswith(f".{ANY_LABEL}") and label.startswith(pattern[:-1]))
        for pattern in patterns
    )


def sample_shape(dims: Sequence[int]) -> tuple[int, ...]:
    """The shape of one sample as users count its axes: without a leading batch axis of extent 1.

    Args:
        dims: The shape of an input as the program declares it.
    """
    return tuple(dims[1:]) if len(dims) > 1 and dims[0] == 1 else tuple(dims)


def check_labels(fields: Iterable[FieldLabels], inputs: Mapping[str, Sequence[int]]) -> None:
    """Hold a policy's labels against a program's inputs.

    Args:
        fields: The policy's labels.
        inputs: Shapes by name, as the program declares them.

    Raises:
        InputError: Labels for an input that does not exist, or for an axis that it does not have;
            or not one label for each index of the axis. The line of the policy is named.
    """
    for field in fields:
        told = f"{field.where}: " * bool(field.where) + f"labels of {field.object}"
        matched = [name for name in inputs if field.object.covers(ObjectRef.input(name))]
        if not matched:
            known = ", ".join(f"input:{name}" for name in inputs) or "none"
            raise InputError(f"{told}: the program has no such input; its inputs are {known}")
        if not field.labels:
            raise InputError(f"{told}: the list is empty; give a label or leave the input out")
        for name in matched:
            _check_axis(field, name, sample_shape(inputs[name]), told)


def _check_axis(field: FieldLabels, name: str, shape: tuple[int, ...], told: str) -> None:
    extents = "x".join(map(str, shape)) or "a single number"
    if field.axis is None:
        return
    if not 0 <= field.axis < len(shape):
        raise InputError(
            f"{told}: one sample of input '{name}' has no axis {field.axis}, it is {extents}; "
            "axes count from 0, without the batch"
        )
    if len(field.labels) != shape[field.axis]:
        raise InputError(
            f"{told}: {len(field.labels)} labels for axis {field.axis}, which has "
            f"{shape[field.axis]} indices (one sample of input '{name}' is {extents}); "
            "give one label for each"
        )


def flows_of(program: Program, policy: Policy) -> tuple[Flow, ...]:
    """What flows into each output of a program, by the labels that a policy states.

    Args:
        program: A tensor program; what is computed under encryption, after merge-linear, so that
            weights that are exactly zero cut flows.
        policy: States the inputs' labels and the training set's.

    Returns:
        One flow an output, in the program's order.

    Raises:
        InputError: The labels do not fit the program's inputs.
    """
    from hecompile.labelflow import propagate

    trained = tuple(sorted(set(policy.model.labels))) if policy.model is not None else ()
    flows = []
    for output, carried in propagate(program, policy.labels).items():
        labels = carried.union
        elements = None
        if carried.size <= MOST_ELEMENTS and not carried.uniform:
            elements = carried.elements
        flows.append(Flow(output, labels, elements, trained if carried.from_weights else ()))
    return tuple(flows)
