"""What publishing outputs asks of the noise, and the plans that follow from a noise."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecompile.access.policy import Action, KeyRule, ObjectRef, Permission, Policy, Role, Scope
from hecompile.access.records import Place, Record
from hecompile.access.release_plan import (
    FIELDS,
    TAILS,
    ReleasePlan,
    flooding_sigma,
    tail_ratio,
    total_releases,
)
from hecompile.access.terms import DpNoise, Obligations
from hecompile.errors import CompileError, HecompileError, InputError, IntegrityError
from hecompile.ir.parser import parse
from hecompile.numeric import noise
from hecompile.precision import OutputNoise
from hecompile.preprocess import Crop, SequenceWindows
from hecompile.releases import Publication, check_rows, explain, publications, quietest

SCORES = Obligations(flood=30, round=0.1, budget=50)
LABELS = Obligations(flood=40, label_only=True, budget=14)
COHORTS = Obligations(flood=30, dp=DpNoise(0.1, 1.0, -4.0, 4.0, 20), budget=10)


def permission(duties: Obligations, output: str = "y", scope: Scope = Scope.PERSON) -> Permission:
    objects = (ObjectRef.output(output),)
    return Permission("doctor", (Action.DECLASSIFY,), objects, scope=scope, obligations=duties)


def policy(*permissions: Permission, keys: tuple[KeyRule, ...] = ()) -> Policy:
    return Policy((Role("doctor"),), permissions, keys=keys)


def publication(*duties: Obligations, values: int = 2, count: int = 2) -> Publication:
    permissions = tuple(map(permission, duties))
    bits = max(one.flood or 0 for one in duties)
    releases = sum(one.budget or 0 for one in duties)
    return Publication("y", values, count, 8.0, releases, bits, permissions)


def test_flooding_is_the_published_formula() -> None:
    # sqrt(12 tau) 2^(s/2) t with tau = 64, s = 30 and t the 2-norm of four errors of 1e-9.
    assert math.isclose(
        flooding_sigma(1e-9, 4, 64, 30), math.sqrt(12 * 64) * 2**15 * math.sqrt(4 * 1e-18)
    )


def test_releases_of_all_permissions_count_together_and_end_with_the_key() -> None:
    both = (permission(SCORES), permission(LABELS, "*"))
    assert total_releases(policy(*both)) == 64
    rule = KeyRule("secret", rotate_releases=20)
    assert total_releases(policy(*both, keys=(rule,))) == 20
    other = KeyRule("public", rotate_releases=3)
    assert total_releases(policy(*both, keys=(other,))) == 64
    assert total_releases(policy(Permission("doctor", (Action.DECRYPT,), ()))) == 0


@given(
    count=st.integers(1, 4096),
    bits=st.integers(30, 60),
    terms=st.floats(1.0, 1e6),
    more=st.integers(1, 10**6),
)
def test_errors_reach_no_farther_than_the_ratio_of_tails(
    count: int, bits: int, terms: float, more: int
) -> None:
    usual = noise.bound(1.0, count, terms=terms)
    exposed = count * more
    rare = noise.bound(1.0, exposed, 2.0**-bits, terms)
    assert rare <= usual * tail_ratio(count, exposed, bits) * (1 + 1e-9)


@pytest.mark.parametrize("duties", [(SCORES,), (LABELS,), (COHORTS,), (SCORES, LABELS, COHORTS)])
def test_a_noise_at_its_limit_is_flooded_within_every_tolerance(
    duties: tuple[Obligations, ...],
) -> None:
    wanted = publication(*duties)
    plan = wanted.plan(OutputNoise("y", wanted.noise_limit / 5, wanted.noise_limit))
    assert plan.is_flooded
    assert plan.flood_bits == max(one.flood or 0 for one in duties)
    assert plan.releases == sum(one.budget or 0 for one in duties)
    assert plan.step == (0.1 if SCORES in duties else None)
    if SCORES in duties:
        assert TAILS * plan.sigma <= 0.05
    else:
        assert TAILS * plan.sigma <= 0.05 * 8.0
    # It hides an error that only one evaluation in 2^flood exceeds.
    assert plan.bound >= wanted.noise_limit * tail_ratio(2, 2 * plan.releases, plan.flood_bits) * (
        1 - 1e-12
    )


def test_a_louder_program_is_refused_with_the_releases_that_it_allows() -> None:
    wanted = publication(SCORES)
    loud = wanted.noise_limit * 2
    with pytest.raises(CompileError) as refused:
        wanted.plan(OutputNoise("y", loud / 5, loud))
    told = str(refused.value)
    assert "output 'y' 50 times" in told
    assert "lower the budgets to 12 together" in told
    assert "label_only" in told
    few = dataclasses.replace(wanted, releases=12)
    assert few.plan(OutputNoise("y", loud / 5, loud)).releases == 12


def test_where_not_one_release_is_safe_it_is_said() -> None:
    wanted = publication(SCORES)
    with pytest.raises(CompileError, match="not even one release is hidden"):
        wanted.plan(OutputNoise("y", 1.0, 1.0))


def test_outputs_are_published_only_where_a_permission_declassifies_them() -> None:
    program = parse(
        'program "p" batch=1 {\n'
        '  %x = tensor.input() {label = "x", dims = [1, 2]} : tensor<1x2, secret>\n'
        '  tensor.output(%x) {label = "y", post = []}\n'
        '  tensor.output(%x) {label = "z", post = []}\n'
        "}\n"
    )
    samples = {"x": np.array([[[1.0, -3.0]], [[2.0, 0.5]]])}
    found = publications(policy(permission(LABELS, "z")), program, samples)
    assert [(one.output, one.values, one.spread) for one in found] == [("z", 2, 5.0)]
    assert publications(policy(), program, samples) == ()
    both = publications(policy(permission(LABELS, "*")), program, samples)
    assert [one.output for one in both] == ["y", "z"]


def test_publishing_never_loosens_the_noise() -> None:
    tight = publication(SCORES)
    assert quietest((tight,), None) == tight.noise_limit
    assert quietest((tight,), 1e-3) == tight.noise_limit
    assert quietest((tight,), 1e-30) == 1e-30
    assert quietest((), None) is None
    assert quietest((), 1e-3) == 1e-3
    loose = publication(dataclasses.replace(SCORES, round=1e9))
    assert loose.noise_limit > 5e-4
    assert quietest((loose,), None) is None


def test_means_over_windows_of_one_sample_are_refused() -> None:
    steps = {"x": (SequenceWindows(4, 2),)}
    cohort = policy(permission(COHORTS, scope=Scope.COHORT))
    with pytest.raises(InputError, match="input 'x' makes several rows of one sample"):
        check_rows(cohort, steps)
    check_rows(cohort, {"x": (Crop(4),)})
    check_rows(cohort, None)
    check_rows(policy(permission(SCORES)), steps)


def test_long_reasons_of_a_search_are_cut() -> None:
    wanted = publication(SCORES)
    told = str(explain((wanted,), CompileError("; ".join(["a ring is too small"] * 200)), ()))
    assert told.startswith("the policy publishes output 'y' 50 times")
    assert told.endswith("; and so on")
    assert len(told) < 1200


def read_back(fields: dict[str, object]) -> ReleasePlan:
    def complain(place: Place, message: str) -> HecompileError:
        return IntegrityError(f"{place}: {message}")

    return ReleasePlan.from_record(Record.of(fields, (), complain, FIELDS))


def test_a_plan_is_read_back_and_its_flooding_worked_out_again() -> None:
    wanted = publication(SCORES)
    plan = wanted.plan(OutputNoise("y", 1e-11, wanted.noise_limit))
    assert read_back(plan.to_json()) == plan


@pytest.mark.parametrize(
    "change",
    [
        {"sigma": 1e-12},
        {"sigma": 0.0},
        {"releases": 10**6},
        {"flood_bits": 60},
        {"values": 1000},
        {"bound": 1.0},
    ],
)
def test_a_plan_with_too_little_flooding_is_refused(change: dict[str, object]) -> None:
    wanted = publication(SCORES)
    plan = wanted.plan(OutputNoise("y", 1e-11, wanted.noise_limit))
    with pytest.raises(IntegrityError, match="sigma"):
        read_back({**plan.to_json(), **change})
