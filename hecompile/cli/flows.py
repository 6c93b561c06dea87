"""What flows into each output, drawn for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hecompile.access.labels import Flow
from hecompile.access.policy import FieldLabels
from hecompile.cli import console

NOWHERE = "-"


def flows_text(flows: Sequence[Flow], fields: Sequence[FieldLabels]) -> str:
    """A table: a line a label, where it comes from, and the elements of each output it reaches.

    Args:
        flows: What flows into each output, as the manifest states it.
        fields: The labels of the inputs, as the policy states them.
    """
    named = {label for field in fields for label in field.labels}
    trained = sorted({label for flow in flows for label in flow.weights})
    if not named and not trained:
        return (
            "the policy labels neither inputs nor weights, so no flow is stated; "
            "say under [labels] what the inputs are about\n"
        )
    head = ("label", "from", *(flow.output for flow in flows))
    rows = [
        (label, _sources(label, fields), *(_elements(flow, label) for flow in flows))
        for label in sorted(named)
    ]
    rows += [
        (label, "the weights", *("all" if label in flow.weights else NOWHERE for flow in flows))
        for label in trained
    ]
    told = (
        "elements of one sample's raw output, from 0 in row-major order; "
        f"'{NOWHERE}' where a label does not reach an output\n"
    )
    return f"what flows into the outputs:\n{console.table(rows, head)}{told}"


def _sources(label: str, fields: Sequence[FieldLabels]) -> str:
    """The inputs that carry a label, and where."""
    found = []
    for field in fields:
        places = [i for i, one in enumerate(field.labels) if one == label]
        if places and field.axis is None:
            found.append(str(field.object))
        elif places:
            found.append(f"{field.object} axis {field.axis}: {_runs(places)}")
    return "; ".join(found)


def _elements(flow: Flow, label: str) -> str:
    places = flow.elements_with(label)
    if places is None or (flow.elements is not None and len(places) == len(flow.elements)):
        return "all"
    return _runs(places) or NOWHERE


def _runs(places: Sequence[int]) -> str:
    """Numbers in ascending order as runs: `0-2,5`."""
    cuts = [i for i, (one, other) in enumerate(pairwise(places), 1) if other != one + 1]
    starts = [0, *cuts] if places else []
    ends = [*cuts, len(places)]
    parts = [(places[a], places[b - 1]) for a, b in zip(starts, ends, strict=False)]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
