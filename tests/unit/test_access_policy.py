"""Reading, printing and the types of policies."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from hecompile.access.policy import (
    APPLIES_TO,
    DEFAULT_ENFORCEMENT,
    KEY_SECRET,
    Action,
    Constraint,
    DpNoise,
    Enforcement,
    FieldLabels,
    KeyRule,
    Kind,
    ModelLabels,
    ObjectRef,
    Obligations,
    Permission,
    Policy,
    Role,
    Scope,
    permission_table,
    role_paths,
    single_owner_policy,
)
from hecompile.access.policy_io import (
    parse_policy,
    read_policy,
)
from hecompile.access.proof import ProgramFacts, check_policy
from hecompile.access.users import check_users, parse_users
from hecompile.errors import InputError

ROOT = Path(__file__).resolve().parents[2]

WARD = """\
format = 2
purposes = ["care", "research"]
unused = ["output:z"]

[roles.viewer]
description = "Sees results"
clearance = ["vitals.*"]
[roles.clinician]
inherits = ["viewer"]
[roles.researcher]
[roles.cloud]
[roles.custodian]

[[permissions]]
role = "viewer"
actions = ["receive"]
objects = ["output:y"]

[[permissions]]
role = "clinician"
actions = ["declassify"]
objects = ["output:y"]
purpose = ["care"]
obligations = {flood = 30, round = 0.05, budget = 64, log = true}

[[permissions]]
role = "researcher"
actions = ["declassify"]
objects = ["output:*"]
scope = "cohort"
[permissions.obligations]
flood = 40
budget = 1000
dp = {rho = 0.01, total_rho = 1, lower = -4, upper = 4.0, least = 20}

[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]

[[permissions]]
role = "custodian"
actions = ["hold"]
objects = ["key:secret"]

[[constraints]]
kind = "static"
roles = ["cloud", "custodian"]

[[constraints]]
kind = "dynamic"
roles = ["clinician", "researcher", "viewer"]
most = 2

[keys.secret]
holders = ["custodian"]
never = ["cloud"]
rotate_days = 90
rotate_releases = 1064

[labels]
"input:x" = "vitals.ecg"
"input:w" = {axis = 0, names = ["vitals.hr", "labs.glucose"]}

[model]
labels = ["training.ward"]
guarantee = "dp"
epsilon = 3
delta = 1e-6

[envelopes]
seconds = 3600
"""


def change(old: str, new: str) -> str:
    assert old in WARD
    return WARD.replace(old, new, 1)


def refuse(text: str, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_policy(text, "p.toml")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_whole_policy_is_read() -> None:
    policy = parse_policy(WARD, "p.toml")
    assert policy.role("clinician") == Role("clinician", ("viewer",))
    viewer = policy.role("viewer")
    assert viewer is not None
    assert viewer.clearance == ("vitals.*",)
    assert policy.role("nobody") is None
    care, cohort = policy.permissions[1:3]
    assert care.purposes == ("care",)
    assert care.scope is Scope.PERSON
    assert care.obligations == Obligations(flood=30, round=0.05, budget=64)
    assert care.where == "p.toml, line 19 (permission 2)"
    assert cohort.scope is Scope.COHORT
    noise = DpNoise(rho=0.01, total_rho=1.0, lower=-4.0, upper=4.0, least=20)
    assert cohort.obligations == Obligations(flood=40, budget=1000, dp=noise)
    assert policy.constraints == (
        Constraint("static", ("cloud", "custodian")),
        Constraint("dynamic", ("clinician", "researcher", "viewer"), 2),
    )
    assert policy.key_rule("secret") == KeyRule("secret", ("custodian",), ("cloud",), 90, 1064)
    assert policy.key_rule("public") is None
    assert policy.labels == (
        FieldLabels(ObjectRef.input("w"), 0, ("vitals.hr", "labs.glucose")),
        FieldLabels(ObjectRef.input("x"), None, ("vitals.ecg",)),
    )
    assert policy.model == ModelLabels(("training.ward",), "dp", 3.0, 1e-6)
    assert policy.envelope_seconds == 3600
    assert policy.unused == (ObjectRef.output("z"),)


def test_every_action_has_objects_and_an_enforcement() -> None:
    assert set(APPLIES_TO) == set(Action) == set(DEFAULT_ENFORCEMENT)
    assert DEFAULT_ENFORCEMENT[Action.DECRYPT] is Enforcement.GATEWAY
    assert DEFAULT_ENFORCEMENT[Action.HOLD] is Enforcement.CRYPTOGRAPHIC


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("description", "descripton", ["'descripton'"]),
        ('role = "cloud"', 'object = "x"\nrole = "cloud"', ["'object'"]),
        ("unused =", "foo =", ["'foo'"]),
        ('["evaluate"]', '["evaluat"]', ["did you mean 'evaluate'?"]),
        ('["evaluate"]', "[3]", ["permissions.4.actions", "texts"]),
        ('["evaluate"]', "[]", ["grants nothing"]),
        ('"key:secret"', '"key:*"', ["'key:*'"]),
        ('"program"', '"program:a"', ["takes no name"]),
        ('"program"', '"file:a"', ["names no object"]),
        ('scope = "cohort"', 'scope = "crowd"', ["unknown scope 'crowd'", "person, cohort"]),
        ('purpose = ["care"]', 'purpose = ["cure"]', ["did you mean 'care'?", "'purposes'"]),
        ('purpose = ["care"]', 'purpose = ["care", "care"]', ["twice"]),
        ('purpose = ["care"]', "purpose = []", ["leave it out"]),
        ('purposes = ["care", "research"]', 'purposes = ["care", ""]', ["not a usable name"]),
        ("flood = 30", "flood = 29", ["from 30 to 60"]),
        ("flood = 30", "flood = 61", ["from 30 to 60"]),
        ("flood = 30", "flood = true", ["from 30 to 60"]),
        ("flood = 30", "fload = 30", ["'fload'", "flood"]),
        ("round = 0.05", "round = 0", ["above 0"]),
        ("round = 0.05", "round = -1.0", ["not below 0"]),
        ("round = 0.05", "round = inf", ["finite"]),
        ("round = 0.05", "round = nan", ["finite"]),
        ("budget = 64", "budget = 0", ["from 1 to"]),
        ("budget = 64", "budget = 4294967297", ["from 1 to 4294967296"]),
        ("log = true", "log = false", ["every release is logged"]),
        ("log = true", "label_only = 1", ["true or false"]),
        ("rho = 0.01", "rho = 0.0", ["above 0"]),
        ("total_rho = 1", "total_rho = 0.001", ["below rho"]),
        ("lower = -4", "lower = 4", ["below upper"]),
        ("lower = -4", "lower = -inf", ["finite"]),
        ("least = 20", "least = 1", ["from 2 to"]),
        ("rho = 0.01, ", "", ["lacks the key 'rho'"]),
        ('kind = "static"', 'kind = "strict"', ["'static'", "'dynamic'"]),
        ('roles = ["cloud", "custodian"]', 'roles = ["cloud"]', ["two roles or more"]),
        ('roles = ["cloud", "custodian"]', 'roles = ["cloud", "cloud"]', ["twice"]),
        ("most = 2", "most = 0", ["from 1 to 2"]),
        ("most = 2", "most = 3", ["from 1 to 2"]),
        ("[keys.secret]", "[keys.secert]", ["did you mean 'secret'?"]),
        ('never = ["cloud"]', 'never = ["custodian"]', ["among the holders"]),
        ("rotate_days = 90", "rotate_days = 0", ["from 1 to"]),
        ("rotate_releases = 1064", "rotate_releases = 1.5", ["from 1 to"]),
        ('"vitals.ecg"', '"vitals..ecg"', ["is no label"]),
        ('"vitals.ecg"', '"vitals.*"', ["is no label"]),
        ('"vitals.ecg"', "3", ["labels.input:x must be a table"]),
        ('"vitals.ecg"', "[]", ["lists no label"]),
        ('"vitals.ecg"', '["a.b", "a.b"]', ["twice"]),
        ('"input:x" =', '"input:*" =', ["not one input"]),
        ('"input:x" =', '"output:y" =', ["not one input"]),
        ("axis = 0", "axis = -1", ["from 0 to"]),
        ('["vitals.hr", "labs.glucose"]', "[]", ["lists no label"]),
        ('["vitals.*"]', '["vitals*"]', ["is no label", "'vitals.*'"]),
        ('guarantee = "dp"', 'guarantee = "some"', ["'none' or 'dp'"]),
        ('guarantee = "dp"', 'guarantee = "none"', ["belongs to guarantee = 'dp'"]),
        ("epsilon = 3\n", "", ["without 'epsilon'"]),
        ("epsilon = 3", "epsilon = 0", ["above 0"]),
        ("delta = 1e-6", "delta = 1", ["below 1"]),
        ('labels = ["training.ward"]', "labels = []", ["trained on"]),
        ("seconds = 3600", "seconds = 0", ["from 1 to"]),
    ],
)  # fmt: skip
def test_malformed_policies_name_file_and_line(old: str, new: str, words: list[str]) -> None:
    text = change(old, new)
    line = WARD[: WARD.index(old)].count("\n") + 1
    with pytest.raises(InputError) as caught:
        parse_policy(text, "p.toml")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    told = int(message.split("line ")[1].split(":")[0].split(" ")[0])
    # The line itself, or that of the table around it.
    assert line - 4 <= told <= line + 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (change("format = 2\n", ""), ["p.toml", "lacks the key 'format'"]),
        (change("format = 2", "format = 3"), ["line 1", "upgrade"]),
        (change("format = 2", "format = 1"), ["line 1", "users.toml", "format = 2"]),
        (change("format = 2", "format = true"), ["whole number"]),
        (WARD + "[users]\nanna = ['viewer']\n", ["line 73", "users.toml", "users sign"]),
        (change("[roles.cloud]", '[roles." cloud"]'), ["not a usable name"]),
        (change("[roles.cloud]", '[roles."a\\u0007"]'), ["not a usable name"]),
        ("format = 2", ["no roles"]),
        ("format = 2\n[roles.a]", ["no permissions"]),
        ("format = = 2", ["not valid TOML", "line 1"]),
        (f"format = {'9' * 5000}", ["not valid TOML"]),
        ("roles = 3\nformat = 2\n[[permissions]]", ["permissions.1 lacks"]),
        (WARD + "".join(f"[roles.r{i}]\n" for i in range(1000)), ["roles has 10", "more than 300"]),
        ("format = 2\nroles = " + "[" * 5000, ["nested too deeply"]),
    ],
)
def test_what_is_no_policy_is_refused(text: str, words: list[str]) -> None:
    refuse(text, *words)


def test_obligations_are_for_releases_alone() -> None:
    text = change('actions = ["evaluate"]', 'actions = ["evaluate"]\nobligations = {budget = 3}')
    refuse(text, "permissions.4.obligations", "no effect", "'declassify'")
    text = change('actions = ["evaluate"]', 'actions = ["evaluate"]\nscope = "cohort"')
    refuse(text, "permissions.4.scope", "'declassify' alone")
    mixed = WARD.replace(
        'actions = ["declassify"]\nobjects = ["output:*"]',
        'actions = ["declassify", "receive"]\nobjects = ["output:*"]',
    )
    refuse(mixed, "permissions.3.scope", "permission of their own")


def test_a_digest_is_of_the_meaning_not_of_the_spelling() -> None:
    policy = parse_policy(WARD, "a.toml")
    spaced = parse_policy("# signed\n\n" + WARD.replace("lower = -4", "lower = -4.0"), "b.toml")
    assert spaced == policy
    assert spaced.digest == policy.digest
    assert len(policy.digest) == 64
    assert parse_policy(change("round = 0.05", "round = 0.06")).digest != policy.digest
    order = dataclasses.replace(policy, permissions=policy.permissions[::-1])
    # The first permission that grants decides, so their order is part of the meaning.
    assert order.digest != policy.digest


def test_closure_ends_on_cycles_and_passes_over_unknown_roles() -> None:
    roles = (Role("a", ("b", "ghost")), Role("b", ("a",)))
    assert role_paths(Policy(roles, ()), ["a", "ghost"]) == {"a": ("a",), "b": ("a", "b")}
    chain = tuple(Role(f"r{i}", (f"r{i + 1}",) if i < 1999 else ()) for i in range(2000))
    assert len(role_paths(Policy(chain, ()), ["r0"])["r1999"]) == 2000


def test_single_owner_policy_separates_owner_and_evaluator() -> None:
    rows = permission_table(single_owner_policy(["x", "age"], ["y"]))
    evaluator = [(row.action, row.object.kind) for row in rows if row.role == "evaluator"]
    assert evaluator == [(Action.EVALUATE, Kind.PROGRAM)]
    assert any(row.object == KEY_SECRET and row.role == "owner" for row in rows)
    assert not any(row.action is Action.EVALUATE for row in rows if row.role == "owner")


def test_table_shows_inherited_rights_their_source_and_granularity() -> None:
    rows = permission_table(parse_policy(WARD))
    shown = {(row.role, str(row.action), str(row.object)): row for row in rows}
    assert shown["clinician", "receive", "output:y"].inherited_from == "viewer"
    assert shown["viewer", "receive", "output:y"].inherited_from is None
    assert shown["viewer", "receive", "output:y"].granularity == "ciphertext"
    care = shown["clinician", "declassify", "output:y"]
    assert care.granularity == "values rounded to 0.05 (64 a key)"
    assert care.purposes == ("care",)
    cohort = shown["researcher", "declassify", "output:*"]
    assert cohort.granularity == "cohort mean with rho 0.01 (1000 a key)"
    assert shown["custodian", "hold", "key:secret"].granularity == "secret key"


def test_a_pair_without_a_meaning_is_no_right() -> None:
    permission = Permission(
        "a", (Action.ENCRYPT, Action.DECRYPT), (ObjectRef.input("x"), ObjectRef.output("y"))
    )
    rows = permission_table(Policy((Role("a"),), (permission,)))
    assert ("encrypt", "output:y") not in {(str(row.action), str(row.object)) for row in rows}


def test_policy_files(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(WARD)
    assert read_policy(path) == parse_policy(WARD)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        read_policy(path)
    path.write_bytes(b"#" * ((4 << 20) + 1))
    with pytest.raises(InputError, match="is no policy"):
        read_policy(path)
    with pytest.raises(InputError, match="cannot read"):
        read_policy(tmp_path / "none.toml")


def test_the_examples_of_the_reference_are_read() -> None:
    documented = (ROOT / "docs/policy.md").read_text()
    policy_text, users_text = re.findall(r"```toml\n(.*?)```", documented, re.DOTALL)
    policy = parse_policy(policy_text, "docs/policy.md")
    facts = ProgramFacts(("x",), ("logits", "embedding"), refreshes=1)
    users = parse_users(users_text, policy)
    check_policy(policy, facts, users)
    check_users(policy, users)
    for action in Action:
        assert f"`{action}`" in documented
