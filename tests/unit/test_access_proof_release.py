"""Rule S6: declassification names its mechanism, what it is about, and its budget."""

from __future__ import annotations

import dataclasses
import math

import pytest

from hecompile.access.policy import (
    Action,
    DpNoise,
    ObjectRef,
    Obligations,
    Permission,
    Policy,
    Role,
    Scope,
)
from hecompile.access.proof import ProgramFacts
from hecompile.access.proof_release import check_releases
from hecompile.access.release_plan import ReleasePlan, flooding_sigma, permission_bits
from hecompile.errors import InputError
from tests.unit.proof_cases import FACTS, POLICY, change, check, grant, inherit, refuse

DUTIES = "{flood = 30, round = 0.05, budget = 64}"
NOISE = "dp = {rho = 0.1, total_rho = 0.8, lower = -1.0, upper = 1.0, least = 16}"
COHORT = change(DUTIES, f'{{flood = 30, {NOISE}, budget = 8}}\nscope = "cohort"')
WHERE = "p.toml, line 21 (permission 2): rule S6"
WHO = "role 'reader' may declassify output:y"


def plan(
    bits: int = 30, releases: int = 64, step: float | None = 0.05, span: float = 1.0
) -> ReleasePlan:
    sigma = flooding_sigma(1e-9, 5, releases, bits)
    return ReleasePlan("y", 2e-10, 1e-9, 5, bits, releases, sigma, step, span)


def planned(*plans: ReleasePlan) -> ProgramFacts:
    return dataclasses.replace(FACTS, releases=plans)


@pytest.mark.parametrize(
    "duties",
    [
        DUTIES,
        "{flood = 40, label_only = true, budget = 1}",
        f"{{flood = 30, {NOISE}, budget = 8}}",
    ],
)
def test_one_mechanism_with_flood_and_budget_passes(duties: str) -> None:
    check(change(DUTIES, duties))
    check(COHORT, ann="reader sender")


@pytest.mark.parametrize(
    ("duties", "words"),
    [
        ("{round = 0.05, budget = 64}", ["no flooding", "add flood = 30 or more"]),
        (
            "{flood = 30, budget = 64}",
            ["of round, label_only and dp its obligations name none", "exactly one"],
        ),
        (
            "{flood = 30, round = 0.1, label_only = true, budget = 64}",
            ["name round, label_only; name"],
        ),
        (f"{{flood = 30, round = 0.1, {NOISE}, budget = 64}}", ["name round, dp; name"]),
        ("{flood = 30, round = 0.05}", ["no budget", "add budget = N"]),
    ],
)
def test_what_a_declassification_lacks_is_named(duties: str, words: list[str]) -> None:
    refuse(change(DUTIES, duties), WHERE, WHO, *words)


def test_a_declassification_without_obligations_is_refused() -> None:
    refuse(change(f"obligations = {DUTIES}\n", ""), WHERE, "no flooding that hides the key")


def test_the_rule_binds_what_others_inherit() -> None:
    text = grant("staff", "declassify", "output:y")
    text = text.replace('[roles.sender]\ninherits = ["staff"]', "[roles.sender]")
    refuse(text, "rule S6", "role 'staff' may declassify output:y", "no flooding")
    # With ciphertexts in the heir's view the key is in danger first.
    refuse(inherit("chief", "staff", "sender", text=text), "rule S3", "chief -> staff")


def test_what_a_user_adds_to_an_unflooded_release_is_refused_too() -> None:
    text = grant("staff", "declassify", "output:y")
    text = text.replace('[roles.sender]\ninherits = ["staff"]', "[roles.sender]")
    refuse(text, "rule S3", "user 'ann'", "(sender)", "(staff)", ann="sender staff")


def test_cohorts_need_noise() -> None:
    text = change(f"obligations = {DUTIES}", f'obligations = {DUTIES}\nscope = "cohort"')
    refuse(text, WHERE, "cohorts without noise", "name dp", 'scope = "person"')


def test_a_budget_lies_within_the_life_of_a_key() -> None:
    check(f"{POLICY}\n[keys.secret]\nrotate_releases = 64\n")
    refuse(
        f"{POLICY}\n[keys.secret]\nrotate_releases = 63\n",
        WHERE,
        "64 times under one key",
        "after 63 releases",
        "lower 'budget' or raise 'rotate_releases'",
    )


@pytest.mark.parametrize(
    ("duties", "words"),
    [
        (Obligations(29, 0.1, budget=1), "no flooding"),
        (Obligations(30, dp=DpNoise(2.0, 1.0, -1.0, 1.0, 16), budget=1), "raise total_rho"),
        (Obligations(30, dp=DpNoise(0.1, 1.0, -1.0, 1.0, 1), budget=1), "least = 2 or more"),
    ],
)
def test_policies_made_in_python_are_held_to_the_same(duties: Obligations, words: str) -> None:
    permission = Permission(
        "a",
        (Action.DECLASSIFY,),
        (ObjectRef.output("y"),),
        scope=Scope.COHORT,
        obligations=duties,
    )
    with pytest.raises(InputError, match=f"rule S6.*{words}"):
        check_releases(Policy((Role("a"),), (permission,)), FACTS)


def test_what_was_planned_is_what_the_policy_asks_for() -> None:
    for facts in (planned(plan()), planned(plan(40, 100, 0.01))):
        check(POLICY, facts)
    refuse(POLICY, WHERE, "no flooding is planned for output 'y'", facts=planned())
    for less in (
        plan(bits=29),
        plan(releases=63),
        dataclasses.replace(plan(), sigma=plan().sigma / 2),
    ):
        refuse(POLICY, WHERE, "needs 30 bits of flooding over 64 releases", facts=planned(less))
    refuse(POLICY, WHERE, "steps of 0.1 of output 'y'", facts=planned(plan(step=0.1)))
    refuse(POLICY, WHERE, "no rounding of output 'y'", facts=planned(plan(step=None)))


def test_releases_of_all_permissions_count_together() -> None:
    text = grant("staff", "declassify", "output:y")
    text += "obligations = {flood = 30, label_only = true, budget = 8}\n"
    refuse(text, "needs 30 bits of flooding over 72 releases", facts=planned(plan()))
    check(text, planned(plan(releases=72)))
    check(f"{text}\n[keys.secret]\nrotate_releases = 64\n", planned(plan()))


def chosen(budget: int) -> tuple[str, ProgramFacts]:
    """A policy and a program of ring degree 8192 that releases five values so often."""
    facts = planned(plan(releases=budget))
    text = change("budget = 64", f"budget = {budget}")
    return text, dataclasses.replace(facts, security=(8192, 200))


def test_who_chooses_ciphertexts_is_not_shown_an_eighth_of_the_key() -> None:
    # A release of five values carries 5 log2(3 + 1 / 0.05) = 22.6 bits, the key 8192 log2(3).
    text, facts = chosen(71)
    check(text, facts, ann="sender reader")
    text, facts = chosen(72)
    check(text, facts, ann="sender", bob="reader")
    words = "rule S6", "may submit input:x (sender)", "may also declassify output:y", "1628 bits"
    refuse(text, "user 'ann'", "lower the budgets", *words, facts=facts, ann="sender reader")
    refuse(
        inherit("chief", "sender", "reader", text=text),
        "role 'chief' may submit input:x (chief -> sender)",
        "1628 bits of the 12984",
        facts=facts,
    )
    # Who holds the key needs no attack to get it.
    check(text, facts, ann="sender reader vault")


def test_encrypted_weights_are_ciphertexts_that_somebody_chooses() -> None:
    text, facts = chosen(72)
    facts = dataclasses.replace(facts, encrypted_model=True)
    refuse(grant("reader", "encrypt", "model", text), "may encrypt model (reader)", facts=facts)


def test_the_bits_of_all_permissions_add_up_once_for_all_their_outputs() -> None:
    text = grant("staff", "declassify", "output:*", change("budget = 64", "budget = 60"))
    text += "obligations = {flood = 30, label_only = true, budget = 100}\n"
    both = tuple(dataclasses.replace(plan(releases=160), output=name) for name in "yz")
    facts = dataclasses.replace(FACTS, outputs=("y", "z"), releases=both, security=(8192, 200))
    # 60 times 22.6 bits and 100 times one of five labels or none, log2(6).
    check(text, facts, ann="sender reader")
    more = text.replace("budget = 100", "budget = 104")
    facts = dataclasses.replace(
        facts, releases=tuple(dataclasses.replace(one, releases=164, sigma=1.0) for one in both)
    )
    refuse(more, "user 'ann'", "1626 bits", facts=facts, ann="sender reader")


def test_private_means_carry_what_a_gaussian_channel_does() -> None:
    noise = DpNoise(0.5, 4.0, -1.0, 1.0, 16)
    objects = (ObjectRef.output("y"),)
    mean = Permission(
        "a", (Action.DECLASSIFY,), objects, scope=Scope.COHORT,
        obligations=Obligations(30, dp=noise, budget=8),
    )  # fmt: skip
    # 2^20 rows at one end of the range against sigma = sqrt(5) 2 / 2^20 / sqrt(2 rho).
    ratio = (2**20) ** 2 / 5 / 4
    assert permission_bits(mean, plan()) == pytest.approx(8 * 5 * math.log2(1 + ratio) / 2)
    person = dataclasses.replace(mean, scope=Scope.PERSON)
    assert permission_bits(person, plan()) == pytest.approx(8 * 5 * math.log2(1 + 1 / 20) / 2)


def test_a_key_that_nothing_replaces_is_not_said_to_be_replaced() -> None:
    for name in ("public", "evaluation"):
        for limit in ("rotate_days", "rotate_releases"):
            text = f"{POLICY}\n[keys.{name}]\n{limit} = 90\n"
            refuse(text, "rule S4", f"[keys.{name}]", "nothing enforces", "in [keys.secret]")
