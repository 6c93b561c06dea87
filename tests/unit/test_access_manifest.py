"""The manifest's statement: strict, canonical, checked again on reading."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hecompile.access.labels import Flow
from hecompile.access.manifest import (
    FileDigest,
    RefreshInfo,
    Security,
    Signers,
    Succession,
    is_member_name,
    superseding,
)
from hecompile.access.manifest_json import PREDICATE_PREFIX, STATEMENT_TYPE
from hecompile.access.manifest_reader import parse_statement, statement_bytes
from hecompile.access.objects import ObjectRef
from hecompile.access.policy import (
    KEY_SECRET,
    PROGRAM,
    Action,
    Permission,
    Role,
)
from hecompile.access.records import canonical_json
from hecompile.access.terms import FieldLabels, ModelLabels
from hecompile.access.times import utc_now
from hecompile.errors import IntegrityError
from hecompile.files import sha256_bytes
from hecompile.numeric.parameters import Parameters
from tests.unit import manifests

MANIFEST = dataclasses.replace(
    manifests.MANIFEST,
    refresh=RefreshInfo(count=17, mask_bits=36),
    signers=Signers(1, ("a" * 64,)),
    files=(FileDigest("client/spec.json", "0" * 64, 3), FileDigest("server/a", "1" * 64, 0)),
)
STATEMENT = statement_bytes(MANIFEST)


def test_round_trip_and_digest() -> None:
    assert parse_statement(STATEMENT) == MANIFEST
    assert MANIFEST.digest == sha256_bytes(STATEMENT)
    assert MANIFEST.tool_version == "0.1.0"
    assert dataclasses.replace(MANIFEST, program="other").digest != MANIFEST.digest
    entry = MANIFEST.file("server/a")
    assert entry is not None
    assert entry.size == 0
    assert MANIFEST.file("server/b") is None


def test_statement_is_in_toto_v1() -> None:
    statement = json.loads(STATEMENT)
    assert statement["_type"] == STATEMENT_TYPE
    assert statement["predicateType"] == f"{PREDICATE_PREFIX}2"
    assert statement["subject"][0] == {
        "name": "client/spec.json",
        "digest": {"sha256": "0" * 64},
        "annotations": {"size": 3},
    }


def test_time_now_is_accepted() -> None:
    parse_statement(statement_bytes(dataclasses.replace(MANIFEST, created=utc_now())))


Edit = Callable[[dict[str, Any]], object]


def edited(edit: Edit) -> bytes:
    statement = copy.deepcopy(json.loads(STATEMENT))
    edit(statement)
    return canonical_json(statement)


def put(*path: Any) -> Edit:
    *where, last, value = path

    def edit(statement: Any) -> None:
        for part in where:
            statement = statement[part]
        statement[last] = value

    return edit


P = "predicate"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (put("extra", 1), "unknown key 'extra'"),
        (put(P, "extra", 1), "unknown key 'extra' in predicate"),
        (lambda s: s[P].pop("refresh"), "lacks the key 'refresh'"),
        (lambda s: s.pop("subject"), "lacks the key 'subject'"),
        (put("_type", "x"), "_type is not"),
        (put("predicateType", "https://example.org/v1"), "predicateType is not"),
        (put("predicateType", f"{PREDICATE_PREFIX}3"), "predicateType says 3"),
        (put(P, "format", 3), "format is 3, but predicateType says 2"),
        (put(P, "format", "1"), "whole number"),
        (put(P, "format", 0), "whole number"),
        (put(P, "created", "2025-01-31T12:00:00"), "a time in UTC"),
        (put(P, "created", "yesterdayZ"), "a time in UTC"),
        (put(P, "program", ""), "program is empty"),
        (put(P, "predicted_error", -1), "not below 0"),
        (put(P, "predicted_error", "small"), "must be a number"),
        (put(P, "predicted_error", True), "must be a number"),
        (put(P, "galois_steps", [8, 1]), "rising order"),
        (put(P, "galois_steps", [1, 1]), "rising order"),
        (put(P, "galois_steps", [1.5]), "whole numbers"),
        (put(P, "io", "inputs", []), "at least one"),
        (put(P, "io", "inputs", 0, "ciphertexts", 0), "not below 1"),
        (put(P, "io", "inputs", 0, "byte_limit", -5), "not below 1"),
        (put(P, "io", "inputs", 0, "shape", [0]), "below 1"),
        (put(P, "io", "inputs", 0, "name", ""), "is empty"),
        (put(P, "refresh", "count", -1), "not below 0"),
        (put(P, "refresh", []), "must be a table"),
        (put(P, "parameters", []), "must be a table"),
        (put(P, "versions", "onnx", "4"), "unknown key 'onnx'"),
        (lambda s: s[P]["versions"].pop("seal"), "lacks the key 'seal'"),
        (put(P, "galois_steps", [0, 1]), "outside the 4096 slots"),
        (put(P, "galois_steps", [4096]), "outside the 4096 slots"),
        (put(P, "io", "inputs", 0, "level", 3), "at level 3 of parameters with 2"),
        (put(P, "io", "outputs", 0, "byte_limit", 1 << 30), "more than the"),
        (put(P, "parameters", "poly_modulus_degree", 4096), "too large for ring degree"),
        (put(P, "parameters", "poly_modulus_degree", 1024), "not in the 128-bit security table"),
        (put(P, "parameters", "coeff_modulus_bits", [60, 30, 30, 50]), "security is stated as"),
        (put(P, "parameters", "more", 1), "must have exactly the fields"),
        (put(P, "security", "margin", 99), "security is stated as"),
        (put(P, "security", "limit", 999), "security is stated as"),
        (put(P, "security", "table", "my own"), "security is stated as"),
        (put(P, "lineage", "0" * 31), "32 lower-case hexadecimal digits"),
        (put(P, "lineage", "G" * 32), "32 lower-case hexadecimal digits"),
        (put(P, "version", 0), "not below 1"),
        (put(P, "version", 2), "supersedes must hold 64"),
        (put(P, "supersedes", "0" * 64), "must be empty in version 1"),
        (put(P, "not_before", "2025-01-31T12:00:00+00:00"), "a time in UTC"),
        (put(P, "not_after", "2025-02-30T12:00:00Z"), "a time in UTC"),
        (put(P, "not_after", "soon"), "a time in UTC"),
        (put(P, "signers", "threshold", 0), "not below 1"),
        (put(P, "signers", "threshold", 2), "is 2 of 1 signers"),
        (put(P, "signers", "keyids", []), "is 1 of 0 signers"),
        (put(P, "signers", "keyids", ["a" * 64, "a" * 64]), "sorted, each once"),
        (put(P, "signers", "users", ["A" * 64]), "sorted, each once"),
        (put(P, "signers", "users", [f"{i:064x}" for i in range(17)]), "at most 16"),
        (put(P, "releases", [{}]), "lacks the key"),
        (
            put(
                P, "flows", [{"output": "y", "labels": ["b", "a"], "elements": None, "weights": []}]
            ),
            "sorted labels",
        ),
        (put(P, "policy", "roles", {}), "no roles"),
        (put(P, "policy", "permissions", 0, "actions", ["fly"]), "unknown action 'fly'"),
        (put("subject", 0, "name", "../evil"), "no file of a bundle may be called"),
        (put("subject", 0, "name", "manifest.json"), "no file of a bundle may be called"),
        (put("subject", 0, "name", "users.json"), "no file of a bundle may be called"),
        (put("subject", 0, "name", "zz"), "once, in order"),
        (put("subject", 0, "name", "server/A"), "once, in order"),
        (put("subject", 0, "digest", {"sha256": "0" * 63}), "64 lower-case"),
        (put("subject", 0, "digest", {"sha256": "A" * 64}), "64 lower-case"),
        (put("subject", 0, "digest", {"md5": "0"}), "unknown key 'md5'"),
        (put("subject", 0, "annotations", {"size": 1.0}), "whole number"),
        (put("subject", 3), "must be a list"),
    ],
)
def test_strict_reading(edit: Edit, words: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_statement(edited(edit))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", STATEMENT + b" ", STATEMENT.replace(b"1e-05", b"0.00001"), b"\xff",
     STATEMENT.replace(b"1e-05", b"1e999"), STATEMENT.replace(b"1e-05", b"NaN")],
)  # fmt: skip
def test_other_spellings_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse_statement(data)


def test_a_signed_policy_is_checked_again() -> None:
    policy = dataclasses.replace(
        MANIFEST.policy,
        roles=(*MANIFEST.policy.roles, Role("cloud2", ("owner",))),
        permissions=(
            *MANIFEST.policy.permissions,
            Permission("cloud2", (Action.EVALUATE,), (PROGRAM,)),
        ),
    )
    with pytest.raises(IntegrityError, match="cloud2 -> owner"):
        statement_bytes(dataclasses.replace(MANIFEST, policy=policy))


def test_refresh_needs_a_role_in_the_manifest_too() -> None:
    permissions = tuple(
        permission
        for permission in MANIFEST.policy.permissions
        if Action.REFRESH not in permission.actions
    )
    policy = dataclasses.replace(MANIFEST.policy, permissions=permissions)
    with pytest.raises(IntegrityError, match="17 refreshes"):
        statement_bytes(dataclasses.replace(MANIFEST, policy=policy))


def test_what_json_cannot_hold_is_refused_at_writing() -> None:
    with pytest.raises(IntegrityError, match="program 'ecg'"):
        statement_bytes(dataclasses.replace(MANIFEST, parameters={"n": np.int64(3)}))
    with pytest.raises(IntegrityError, match="program 'ecg'"):
        statement_bytes(dataclasses.replace(MANIFEST, predicted_error=float("nan")))


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/../b", "/a", "a//b", "a/", "a\\b", "C:a", ".hidden", "a/.git", "a b",
     "a\n", "a\x00", "é", "manifest.json", "users.json", "Users.json", "a" * 256],
)  # fmt: skip
def test_names_that_no_bundle_may_hold(name: str) -> None:
    assert not is_member_name(name)


def test_names_that_a_bundle_may_hold() -> None:
    for name in ("report.json", "server/program.hir", "a-b_c.1/d"):
        assert is_member_name(name)


def test_the_evaluator_of_a_signed_manifest_never_holds_the_secret_key() -> None:
    extra = Permission("evaluator", (Action.HOLD,), (KEY_SECRET,))
    policy = dataclasses.replace(MANIFEST.policy, permissions=(*MANIFEST.policy.permissions, extra))
    with pytest.raises(IntegrityError, match="key:secret"):
        statement_bytes(dataclasses.replace(MANIFEST, policy=policy))


def test_a_period_must_have_a_length() -> None:
    first, last = "2025-02-01T00:00:00Z", "2025-03-01T00:00:00Z"
    valid = dataclasses.replace(MANIFEST, not_before=first, not_after=last)
    assert parse_statement(statement_bytes(valid)) == valid
    with pytest.raises(IntegrityError, match="later than not_before"):
        statement_bytes(dataclasses.replace(MANIFEST, not_before=first, not_after=first))


@pytest.mark.parametrize(
    ("number", "remedy"), [(1, "compile the model again"), (3, "upgrade hecompile")]
)
def test_other_formats_are_refused_with_a_remedy(number: int, remedy: str) -> None:
    statement = json.loads(STATEMENT)
    statement["predicate"]["format"] = number
    statement["predicateType"] = f"{PREDICATE_PREFIX}{number}"
    statement["predicate"]["news"] = True
    with pytest.raises(
        IntegrityError, match=f"format {number}, but this version reads 2; {remedy}"
    ):
        parse_statement(canonical_json(statement))


def test_a_successor_keeps_the_line_and_names_what_it_supersedes() -> None:
    first = Succession.first()
    assert first.lineage != Succession.first().lineage
    assert len(first.lineage) == 32
    after = superseding(MANIFEST)
    assert after == Succession(MANIFEST.lineage, 2, MANIFEST.digest)
    second = dataclasses.replace(MANIFEST, version=2, supersedes=MANIFEST.digest)
    assert parse_statement(statement_bytes(second)) == second
    assert superseding(second).supersedes == second.digest


def test_security_is_told_with_its_margin() -> None:
    found = MANIFEST.security
    assert (found.bits, found.modulus_bits, found.limit, found.margin) == (128, 180, 214, 34)
    assert "2024/463" in found.table
    larger = Security.of(Parameters(16384, (60, 30, 30, 60), 30))
    with pytest.raises(IntegrityError, match="security is stated as"):
        statement_bytes(dataclasses.replace(MANIFEST, security=larger))


LABELLED = dataclasses.replace(
    MANIFEST.policy,
    roles=tuple(dataclasses.replace(role, clearance=("*",)) for role in MANIFEST.policy.roles),
    labels=(FieldLabels(ObjectRef.input("x"), None, ("vitals.ecg",)),),
    model=ModelLabels(("training.ecg",)),
)


def test_flows_are_of_the_outputs_and_of_labels_that_the_policy_gives() -> None:
    flow = Flow("y", ("vitals.ecg",), None, ("training.ecg",))
    good = dataclasses.replace(MANIFEST, policy=LABELLED, flows=(flow,))
    assert parse_statement(statement_bytes(good)) == good
    for flows, words in (
        ((), "flows are of no output, where its outputs are y"),
        ((flow, flow), "flows are of y, y"),
        ((dataclasses.replace(flow, output="z"),), "flows are of z"),
        ((dataclasses.replace(flow, labels=("genomic",)),), "genomic flows into output 'y'"),
        ((dataclasses.replace(flow, weights=("vitals.ecg",)),), "vitals.ecg flows into"),
    ):
        with pytest.raises(IntegrityError, match=words):
            statement_bytes(dataclasses.replace(good, flows=flows))


def test_a_role_without_the_clearance_for_what_flows_is_refused_on_reading_too() -> None:
    flow = Flow("y", ("vitals.ecg",), None, ("training.ecg",))
    policy = dataclasses.replace(LABELLED, roles=MANIFEST.policy.roles)
    with pytest.raises(IntegrityError, match="S5"):
        statement_bytes(dataclasses.replace(MANIFEST, policy=policy, flows=(flow,)))
