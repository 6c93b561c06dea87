"""That releases have the noise that was planned, share budgets, and are refused where it is not."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hecompile.access.ledger import ReleaseLedger, Spent
from hecompile.access.objects import Scope
from hecompile.errors import AccessDeniedError, InputError, IntegrityError
from hecompile.ir.constants import Array
from hecompile.preprocess import SequenceWindows
from hecompile.runtime.custodian import Custodian
from hecompile.runtime.postprocess import labels_of
from hecompile.runtime.ranges import Ranges
from hecompile.runtime.release import Release, ReleaseRules
from tests.encrypted.releasing import (
    BOUND,
    Granting,
    Hospital,
    hospital,
    labels,
    people,
    plan,
    private,
    rounded,
)
from tests.encrypted.test_release import changed, logged, spent


@pytest.fixture(scope="module")
def place() -> Hospital:
    return hospital()


def test_ways_of_inheritance_share_a_budget(place: Hospital, tmp_path: Path) -> None:
    """The text of the rule tells the path and the object; the budget is the permission's."""
    custodian = place.custodian(tmp_path, rounded(3))
    for number, path in enumerate(("doctor", "chief -> doctor", "head -> chief -> doctor"), 1):
        custodian._guard = Granting(rounded(3), Scope.PERSON, path)
        envelope = place.results(people(40 + number, 1))[0]
        assert custodian.release(envelope).outputs["y"].number == number
    with pytest.raises(AccessDeniedError, match="3 releases, 3 were made"):
        custodian.release(place.results(people(44, 1))[0])


def test_the_outputs_of_a_permission_share_its_budget(place: Hospital, tmp_path: Path) -> None:
    (output,) = place.spec.outputs
    spec = replace(place.spec, outputs=(output, replace(output, label="z")))
    rules = ReleaseRules((plan(512), replace(plan(512), output="z")))
    granted = Granting(rounded(3), Scope.PERSON).declassify(["y", "z"])
    charges = [Release(spec, decision, rules).charge(1) for decision in granted]
    ledger = ReleaseLedger(tmp_path, "k" * 64)
    ledger.create()
    assert ledger.spend_all(charges) == (1, 2)
    with pytest.raises(AccessDeniedError, match="3 releases, 3 were made"):
        ledger.spend_all(charges)
    assert ledger.spent() == Spent(2, 0.0)


def test_windows_of_one_person_are_no_cohort(place: Hospital, tmp_path: Path) -> None:
    custodian = place.custodian(tmp_path, private(), scope=Scope.COHORT)
    (given,) = custodian.spec.inputs
    windows = replace(given, preprocessing=(SequenceWindows(4, 2),))
    custodian.spec = replace(custodian.spec, inputs=(windows,))
    with pytest.raises(AccessDeniedError, match="several rows of one sample"):
        custodian.release(b"never looked at", scope=Scope.COHORT)
    assert spent(custodian) == Spent(0, 0.0)


def test_a_missing_opendp_is_found_before_anything_is_spent(
    place: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    custodian = place.custodian(tmp_path, private(), scope=Scope.COHORT)
    (envelope,) = place.results(people(47, 30))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "opendp.prelude", None)
        with pytest.raises(InputError, match="pip install"):
            custodian.release(envelope, scope=Scope.COHORT)
    assert spent(custodian) == Spent(0, 0.0)
    assert custodian.release(envelope, scope=Scope.COHORT).outputs["y"].number == 1


def test_a_range_wider_than_planned_is_refused(place: Hospital, tmp_path: Path) -> None:
    """The bits that releases carry are counted for the planned width."""
    narrow = replace(plan(512), span=1.9)
    custodian = changed(place.custodian(tmp_path, rounded()), plan=narrow)
    with pytest.raises(AccessDeniedError, match=r"2 wide, more than the 1\.9"):
        custodian.release(b"never looked at")
    # Labels carry as many bits whatever the range.
    custodian = changed(place.custodian(tmp_path, labels()), plan=narrow)
    assert custodian.release(place.results(people(48, 1))[0]).outputs["y"].number == 1


def test_labels_of_what_is_put_into_no_one_class_are_refused(
    place: Hospital, tmp_path: Path
) -> None:
    custodian = place.custodian(tmp_path, labels())
    (output,) = custodian.spec.outputs
    custodian.spec = replace(custodian.spec, outputs=(replace(output, dims=(4, 4)),))
    with pytest.raises(AccessDeniedError, match="into no one class"):
        custodian.release(b"never looked at")
    assert spent(custodian).releases == 0


@pytest.mark.parametrize("steps", [(), ("softmax(axis=1)",), ("argmax(axis=1 keepdims=0)",)])
def test_one_label_leaves_whatever_the_axis_of_classes(steps: tuple[str, ...]) -> None:
    scores = np.random.default_rng(0).normal(size=(6, 1, 10, 1))
    found = labels_of(steps, scores)
    assert found.shape == (6, 1)
    assert np.array_equal(found[:, 0], scores[:, 0, :, 0].argmax(axis=1))
    assert np.array_equal(labels_of((), scores[:, :, :1] - 0.1)[:, 0], scores[:, 0, 0, 0] > 0.1)
    for several in (scores.reshape(6, 1, 5, 2), scores.reshape(6, 2, 5)):
        with pytest.raises(InputError, match="into no one class"):
            labels_of((), several)
    with pytest.raises(InputError, match="of labels, so that"):
        labels_of(("argmax(axis=1 keepdims=0)",), scores.reshape(6, 1, 5, 2))


def test_every_refusal_of_what_was_granted_is_logged(place: Hospital, tmp_path: Path) -> None:
    log = tmp_path / "log"
    custodian = logged(place.custodian(tmp_path, rounded()), log)
    (envelope,) = place.results(people(49, 1))
    custodian.release(envelope)
    (foreign,) = hospital(1).results(people(50, 1))
    broken = place.results(people(51, 1))[0][:-1]
    for bad in (envelope, foreign, broken):
        with pytest.raises(IntegrityError):
            custodian.release(bad)
    custodian._ledger = None
    with pytest.raises(InputError, match="no folder with a ledger"):
        custodian.release(place.results(people(52, 1))[0])
    lines = [line for line in log.read_text().splitlines() if '"decision"' in line]
    assert ['"deny"' in line for line in lines] == [False, True, True, True, True]
    assert "received before" in lines[1]
    assert "encrypted under key" in lines[2]


FINE = 1e-7
"""A step far below the flooding noise, so that the noise shows in what is released."""


def fine(custodian: Custodian) -> tuple[Custodian, float]:
    """The same custodian with so fine a plan, and the standard deviation of its noise."""
    fine_plan = replace(plan(512), step=FINE)
    return changed(custodian, plan=fine_plan), fine_plan.sigma


def test_what_is_released_has_the_planned_noise(place: Hospital, tmp_path: Path) -> None:
    duties = replace(rounded(), round=FINE)
    custodian, sigma = fine(place.custodian(tmp_path, duties))
    x = people(53)
    raw = custodian.release(place.results(x)[0]).raw["y"]
    # The standard deviation of 4096 values is known to 1.1 %.
    assert np.std(raw - x**2) == pytest.approx(sigma, rel=0.06)
    assert sigma > 1e6 * BOUND


def test_private_answers_have_the_planned_noise_besides(place: Hospital, tmp_path: Path) -> None:
    # So much privacy is lost that the noise which protects persons is far below the flooding.
    duties = private(rho=1e14, total=1e17)
    custodian, sigma = fine(place.custodian(tmp_path, duties))
    x = people(54, 100)
    raw = custodian.release(place.results(x)[0]).raw["y"]
    assert np.std(raw - x**2) == pytest.approx(sigma, rel=0.1)
    custodian._guard = Granting(duties, Scope.COHORT)
    errors = []
    for seed in range(12):
        x = people(60 + seed, 20)
        found = custodian.release(place.results(x)[0], scope=Scope.COHORT).raw["y"]
        errors.append(found[0] - (x**2).mean(axis=0))
    # Not a twentieth of it: errors under one key may point the same way.
    assert np.std(errors) == pytest.approx(sigma, rel=0.25)


def test_the_range_is_asked_of_flooded_values_alone(
    place: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether an exact value lies in a range tells of its error."""
    seen = []

    def outside(self: Ranges, rows: Array) -> None:
        seen.append(rows)

    monkeypatch.setattr(Ranges, "outside", outside)
    x = people(55)
    custodian = place.custodian(tmp_path, rounded())
    custodian.release(place.results(x)[0])
    (rows,) = seen
    assert np.std(rows - x**2) == pytest.approx(plan(512).sigma, rel=0.06)


def test_of_two_custodians_that_race_for_the_last_unit_one_answers(
    place: Hospital, tmp_path: Path
) -> None:
    place.custodian(tmp_path, rounded(2)).release(place.results(people(35, 1))[0])
    envelopes = [place.results(people(seed, 1))[0] for seed in (36, 37)]
    reading, writing = os.pipe()
    children = []
    for envelope in envelopes:
        children.append(os.fork())
        if children[-1] == 0:
            code = 1
            try:
                os.close(writing)
                # Both wait here until the parent closes its end.
                os.read(reading, 1)
                number = place.custodian(tmp_path, rounded(2)).release(envelope).outputs["y"].number
                code = 40 + number
            except AccessDeniedError:
                code = 3
            finally:
                os._exit(code)
    os.close(writing)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes == [3, 42]
    assert spent(place.custodian(tmp_path, rounded(2))).releases == 2
