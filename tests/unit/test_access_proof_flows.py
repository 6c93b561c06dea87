"""Rule S5: a clearance for all that flows into a value that is shown."""

from __future__ import annotations

import dataclasses

import pytest

from hecompile.access.labels import Flow
from hecompile.access.proof import ProgramFacts
from tests.unit.proof_cases import POLICY, change, check, grant, inherit, line, refuse

LABELS = '\n[labels]\n"input:x" = {axis = 0, names = ["vitals.hr", "labs.glucose", "genomic"]}\n'
MODEL = '\n[model]\nlabels = ["training.ecg"]\n'
FLOW = Flow("y", ("genomic", "vitals.hr"), (("vitals.hr",), ("genomic", "vitals.hr")), ())
TRAINED = dataclasses.replace(FLOW, weights=("training.ecg",))
FACTS = ProgramFacts(("x",), ("y",), flows=(FLOW,), shapes={"x": (3, 10)})
LEARNT = dataclasses.replace(FACTS, flows=(TRAINED,))

LABELLED = POLICY + LABELS


def cleared(*labels: str, role: str = "reader", text: str = LABELLED) -> str:
    names = ", ".join(f'"{label}"' for label in labels)
    return change(f"[roles.{role}]\n", f"[roles.{role}]\nclearance = [{names}]\n", text)


def test_a_clearance_that_covers_what_flows_in_passes() -> None:
    check(cleared("vitals.*", "genomic"), FACTS)
    check(cleared("*"), FACTS)
    # What does not flow into the output is no matter, nor are roles that are shown nothing.
    check(cleared("vitals.hr", "genomic"), FACTS, ann="sender reader", eve="cloud")


def test_clearance_is_inherited() -> None:
    check(cleared("vitals.hr", "genomic", role="staff"), FACTS)
    check(cleared("genomic", text=cleared("vitals.*", role="staff")), FACTS)


def test_what_a_clearance_lacks_is_named_with_its_elements() -> None:
    text = cleared("vitals.*")
    refuse(
        text,
        f"{line(text, '[roles.reader]')}: rule S5",
        "role 'reader' may declassify output:y (reader)",
        "its clearance (vitals.*) does not cover genomic of output:y",
        "genomic from input:x (axis 0, index 2) in elements 1",
        "add clearance = [...] to role 'reader'",
        facts=FACTS,
    )
    refuse(LABELLED, "its clearance (none) does not cover genomic, vitals.hr", facts=FACTS)


def test_what_is_shown_by_inheritance_counts() -> None:
    text = grant("staff", "decrypt", "output:y", cleared("genomic", "vitals.hr"))
    text = grant("staff", "hold", "key:secret", text)
    text = text.replace('inherits = ["staff"]\n\n[roles.reader]', "\n[roles.reader]")
    refuse(text, "rule S5", "role 'staff' may decrypt output:y (staff)", facts=FACTS)
    # The inheriting role is named with its path where it stands first.
    text = inherit("chief", "reader", text=cleared("labs.*"))
    refuse(text, "role 'chief' may declassify output:y (chief -> reader)", "labs.*", facts=FACTS)


def test_the_roles_of_one_user_do_not_lend_each_other_clearance() -> None:
    text = cleared("*", role="sender")
    refuse(text, "rule S5", "role 'reader'", facts=FACTS, ann="sender reader")


def test_wildcards_show_every_output() -> None:
    both = dataclasses.replace(
        FACTS, outputs=("y", "z"), flows=(FLOW, Flow("z", ("labs.glucose",)))
    )
    text = change('"output:y"', '"output:*"', cleared("vitals.*", "genomic"))
    refuse(text, "does not cover labs.glucose of output:z (labs.glucose from", facts=both)
    check(change('clearance = ["', 'clearance = ["labs.*", "', text), both)


def test_decrypted_inputs_show_their_labels() -> None:
    text = grant("reader", "decrypt", "input:*", cleared("vitals.*", "genomic"))
    text = grant("reader", "hold", "key:secret", text)
    refuse(text, "rule S5", "does not cover labs.glucose of input:x", facts=FACTS)
    text = grant("reader", "decrypt", "input:x", cleared("vitals.*", "genomic", "labs.glucose"))
    check(grant("reader", "hold", "key:secret", text), FACTS)


def test_the_training_set_shows_through_the_weights() -> None:
    text = cleared("vitals.*", "genomic", text=LABELLED + MODEL)
    check(text, FACTS)
    refuse(
        text,
        "does not cover training.ecg of output:y",
        "training.ecg from the weights, by what they were trained on",
        facts=LEARNT,
    )
    check(cleared("vitals.*", "genomic", "training.*", text=LABELLED + MODEL), LEARNT)
    private = f'{MODEL}guarantee = "dp"\nepsilon = 2.0\n'
    check(cleared("vitals.*", "genomic", text=LABELLED + private), LEARNT)


def test_a_guarantee_for_training_excuses_no_label_of_an_input() -> None:
    private = '\n[model]\nlabels = ["genomic"]\nguarantee = "dp"\nepsilon = 2.0\n'
    flow = dataclasses.replace(FLOW, weights=("genomic",))
    facts = dataclasses.replace(FACTS, flows=(flow,))
    refuse(cleared("vitals.*", text=LABELLED + private), "does not cover genomic", facts=facts)


@pytest.mark.parametrize("shapes", [None, {"x": (3, 10)}])
def test_labels_of_inputs_that_do_not_exist_are_refused(
    shapes: dict[str, tuple[int, ...]] | None,
) -> None:
    text = cleared("*", text=POLICY + LABELS.replace("input:x", "input:age"))
    refuse(text, "rule S5", "its inputs are", facts=dataclasses.replace(FACTS, shapes=shapes))


@pytest.mark.parametrize(
    ("shape", "words"), [((4, 10), "3 labels for axis 0, which has 4"), ((), "has no axis 0")]
)
def test_labels_that_do_not_fit_the_axis_are_refused(shape: tuple[int, ...], words: str) -> None:
    refuse(cleared("*"), "rule S5", words, facts=dataclasses.replace(FACTS, shapes={"x": shape}))


def test_every_output_has_one_flow() -> None:
    for flows in ((), (FLOW, FLOW), (Flow("z", ()),)):
        facts = dataclasses.replace(FACTS, flows=flows)
        refuse(cleared("*"), "rule S5", "the program's outputs are y", facts=facts)


def test_unknown_flows_are_not_checked_yet() -> None:
    check(LABELLED, dataclasses.replace(FACTS, flows=None))


def test_long_lists_of_elements_are_cut() -> None:
    carried = tuple(("genomic",) if i else () for i in range(100))
    facts = dataclasses.replace(FACTS, flows=(Flow("y", ("genomic",), carried),))
    refuse(LABELLED, "in elements 1, 2, 3, 4, 5, 6, 7, 8 and 91 more", facts=facts)
