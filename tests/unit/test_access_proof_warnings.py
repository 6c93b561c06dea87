"""What a policy allows that no rule forbids, and steps that nobody may take."""

from __future__ import annotations

import dataclasses

import pytest

from hecompile.access.labels import Flow
from hecompile.access.policy import single_owner_policy
from hecompile.access.policy_io import parse_policy
from hecompile.access.proof import ProgramFacts, policy_warnings, work_warnings
from hecompile.access.release_plan import ReleasePlan, flooding_sigma
from hecompile.access.users import single_owner_users
from tests.unit.proof_cases import FACTS, POLICY, change, grant, users_of

DUTIES = "{flood = 30, round = 0.05, budget = 64}"
NOISE = "dp = {rho = 0.5, total_rho = 4.0, lower = -1.0, upper = 1.0, least = 2}"
STAFF = {"ann": "sender", "bob": "reader", "eve": "cloud", "kim": "vault"}


def test_flooded_releases_need_no_warning() -> None:
    assert policy_warnings(parse_policy(POLICY)) == ()
    owner = single_owner_policy(["x"], ["y"])
    assert policy_warnings(owner, single_owner_users(owner), FACTS) == ()


def released(releases: int = 64, ring: int = 8192) -> ProgramFacts:
    """Facts of a program that releases five values within a range of 1."""
    plan = ReleasePlan(
        "y", 2e-10, 1e-9, 5, 30, releases, flooding_sigma(1e-9, 5, releases, 30), 0.05, 1.0
    )
    return dataclasses.replace(FACTS, security=(ring, 200), releases=(plan,))


def test_who_is_shown_much_could_read_the_key_with_who_chooses_ciphertexts() -> None:
    # 64 releases of 5 values of 1 + 1 / 0.05 and two more steps, worked out by hand: 1448 bits, of
    # the 12984 of a ternary key of 8192 coefficients; an eighth of which is 1623.
    policy = parse_policy(POLICY)
    assert policy_warnings(policy, users_of(policy, **STAFF), released()) == ()
    many = POLICY.replace("budget = 64", "budget = 72")
    policy = parse_policy(many)
    [warning] = policy_warnings(policy, users_of(policy, **STAFF), released(72))
    assert warning.startswith("user 'bob' is shown releases that can carry 1628 bits, of the 12984")
    assert "together with any one of user 'ann', who choose ciphertexts" in warning
    [warning] = policy_warnings(policy, None, released(72))
    assert warning.startswith("role 'reader' is shown")
    assert policy_warnings(policy, None, released(72, 16384)) == ()
    assert policy_warnings(policy, None, FACTS) == ()


def test_nobody_is_warned_of_who_holds_the_key() -> None:
    policy = parse_policy(POLICY.replace("budget = 64", "budget = 4096"))
    people = users_of(policy, **{**STAFF, "bob": "reader vault"})
    assert policy_warnings(policy, people, released(4096)) == ()


def test_privacy_about_one_person_is_stated_as_it_is() -> None:
    text = change(DUTIES, f"{{flood = 30, {NOISE}, budget = 8}}")
    [warning] = policy_warnings(parse_policy(text, "p.toml"))
    assert warning.startswith("p.toml, line 21 (permission 2): role 'reader' gets values of one")
    # epsilon = rho + 2 sqrt(rho ln(1 / delta)), worked out by hand for rho 0.5 and 4.
    assert "epsilon = 5.76 at delta = 1e-06 for one release and 18.9 for all" in warning
    assert 'scope = "cohort"' in warning
    cohort = text.replace("budget = 8}", 'budget = 8}\nscope = "cohort"')
    assert policy_warnings(parse_policy(cohort)) == ()


def test_a_stated_guarantee_of_training_is_told_as_a_claim() -> None:
    text = f'{POLICY}\n[model]\nlabels = ["training.ecg"]\nguarantee = "dp"\nepsilon = 2.0\n'
    facts = dataclasses.replace(FACTS, flows=(Flow("y", (), None, ("training.ecg",)),))
    policy = parse_policy(text)
    [warning] = policy_warnings(policy, None, facts)
    assert "output:y depends on weights trained on training.ecg" in warning
    assert "epsilon = 2" in warning
    assert policy_warnings(policy, None, FACTS) == ()


def test_who_may_work_is_not_warned_of() -> None:
    policy = parse_policy(POLICY)
    facts = dataclasses.replace(FACTS, refreshes=1)
    assert work_warnings(policy, users_of(policy, **STAFF), facts) == ()
    owner = single_owner_policy(["x"], ["y"])
    assert work_warnings(owner, single_owner_users(owner), facts) == ()


def test_without_users_nobody_may_do_anything() -> None:
    [warning] = work_warnings(parse_policy(POLICY), None, FACTS)
    assert "nobody may do anything" in warning
    assert "hecompile users sign" in warning


@pytest.mark.parametrize(
    ("missing", "steps"),
    [
        ("ann", ["encrypt input:x", "submit input:x"]),
        ("bob", ["decrypt or declassify output:y"]),
        ("eve", ["evaluate program"]),
        ("kim", ["hold key:secret", "refresh program"]),
    ],
)
def test_steps_that_no_user_may_take_are_warned_of(missing: str, steps: list[str]) -> None:
    policy = parse_policy(change("format = 2\n", 'format = 2\nunused = ["output:z"]\n'))
    facts = dataclasses.replace(FACTS, outputs=("y", "z"), refreshes=1)
    people = users_of(policy, **{name: has for name, has in STAFF.items() if name != missing})
    found = work_warnings(policy, people, facts)
    assert len(found) == len(steps)
    for warning, step in zip(found, steps, strict=True):
        assert warning.startswith(f"no user may {step}: give a user a role with ")


def test_all_inputs_are_sent_by_one_user() -> None:
    policy = parse_policy(grant("vault", "encrypt", "input:a", grant("vault", "submit", "input:a")))
    facts = dataclasses.replace(FACTS, inputs=("x", "a"))
    [warning] = work_warnings(policy, users_of(policy, **STAFF), facts)
    assert warning.startswith("no user may encrypt and submit all of input:x, input:a")
    assert work_warnings(policy, users_of(policy, **{**STAFF, "ann": "sender vault"}), facts) == ()
