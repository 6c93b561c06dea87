"""The example policy of a hospital, and what would break it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hecompile.access.labels import Flow
from hecompile.access.policy import Action, Policy, Role, permission_table
from hecompile.access.policy_io import parse_policy
from hecompile.access.proof import ProgramFacts, check_policy, policy_warnings, work_warnings
from hecompile.access.release_plan import ReleasePlan, flooding_sigma
from hecompile.access.users import UserEntry, Users
from hecompile.access.users_io import read_users
from hecompile.errors import InputError
from tests.unit.proof_cases import change, inherit

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "policies"
TEXT = (FOLDER / "hospital.toml").read_text()
HOSPITAL = parse_policy(TEXT, "hospital.toml")
RELEASES = 92
FACTS = ProgramFacts(
    inputs=("x",),
    outputs=("logits",),
    refreshes=8,
    mask_bits=40,
    encrypted_model=False,
    flows=(Flow("logits", ("vitals.ecg",), None, ("training.ecg5000",)),),
    galois_steps_used=(1, 2, 64),
    galois_steps_granted=(1, 2, 64),
    security=(16384, 430),
    releases=(
        ReleasePlan(
            "logits",
            2e-10,
            1e-9,
            5,
            30,
            RELEASES,
            flooding_sigma(1e-9, 5, RELEASES, 30),
            0.05,
            16.0,
        ),
    ),
    shapes={"x": (1, 140)},
)


def people(policy: Policy) -> Users:
    return read_users(FOLDER / "hospital-users.toml", policy)


def test_it_passes_every_rule_without_a_warning() -> None:
    users = people(HOSPITAL)
    check_policy(HOSPITAL, FACTS, users)
    assert policy_warnings(HOSPITAL, users, FACTS) == ()
    assert work_warnings(HOSPITAL, users, FACTS) == ()


def test_each_role_sees_as_much_as_its_work_allows() -> None:
    seen = {
        (row.role, row.granularity)
        for row in permission_table(HOSPITAL)
        if str(row.object) in ("input:x", "output:logits", "audit", "key:secret")
    }
    assert seen == {
        ("lab-technician", "own values"),
        ("lab-technician", "ciphertext"),
        ("doctor", "values rounded to 0.25 (64 a key)"),
        ("nurse", "label (24 a key)"),
        ("researcher", "cohort mean with rho 0.2 (4 a key)"),
        ("auditor", "log entries"),
        ("custodian", "ciphertext"),
        ("custodian", "secret key"),
    }
    assert not any(row.action is Action.DECRYPT for row in permission_table(HOSPITAL))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (change('["declassify"]', '["declassify", "receive", "decrypt"]', TEXT), "rule S3"),
        (change("label_only = true, ", "", TEXT), "rule S6.*'nurse'"),
        (change("budget = 64", "budget = 97", TEXT), "rule S6.*'doctor'"),
        (change('"vitals.ecg", "training', '"training', TEXT), "rule S5.*'researcher'.*vitals.ecg"),
        (change('["vitals.*", ', '["labs.*", ', TEXT), "rule S5.*'doctor'.*vitals.ecg"),
        (change('"register", "rotate"]\nobjects = [', '"register"]\nobjects = ["key:secret", ',
                TEXT), "rule S4.*'security-officer'"),
        (inherit("chief", "security-officer", "custodian", text=TEXT), "rule S2.*'chief'"),
        (inherit("chief", "custodian", text=TEXT), "rule S4.*chief -> custodian"),
        (inherit("chief", "evaluator", "nurse", text=TEXT), "rule S2.*chief -> nurse"),
        (change('"refresh", ', "", change('"program", "key:secret"', '"key:secret"', TEXT)),
         "needs 8 refreshes"),
    ],
)  # fmt: skip
def test_changes_that_break_a_rule(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_policy(parse_policy(text, "hospital.toml"), FACTS)


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        (("evaluator", "nurse"), "rule S2.*user 'mallory'"),
        (("evaluator", "custodian"), "rule S2.*user 'mallory'"),
        (("security-officer", "custodian"), "rule S2.*user 'mallory'"),
        (("lab-technician", "custodian"), "rule S4.*user 'mallory'"),
    ],
)
def test_users_who_break_a_rule(roles: tuple[str, ...], words: str) -> None:
    users = Users(HOSPITAL.digest, 1, "", "", (UserEntry("mallory", roles),))
    with pytest.raises(InputError, match=words):
        check_policy(HOSPITAL, FACTS, users)


def test_every_role_has_a_user_and_a_description() -> None:
    given = {role for user in people(HOSPITAL).users for role in user.roles}
    assert given == {role.name for role in HOSPITAL.roles} - {"clinician"}
    assert all(isinstance(role, Role) and role.description for role in HOSPITAL.roles)
