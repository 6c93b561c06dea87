"""The manifest's statement: strict, canonical, checked again on reading."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hecompile.access.manifest import (
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    FileDigest,
    IoContract,
    Manifest,
    Port,
    RefreshInfo,
    Versions,
    is_member_name,
    manifest_digest,
    parse_statement,
    statement_bytes,
    utc_now,
)
from hecompile.access.policy import (
    KEY_SECRET,
    PROGRAM,
    Action,
    Permission,
    Role,
    User,
    single_owner_policy,
)
from hecompile.access.records import canonical_json
from hecompile.errors import IntegrityError
from hecompile.files import sha256_bytes

MANIFEST = Manifest(
    created="2025-01-31T12:00:00Z",
    program="ecg",
    parameters={"poly_modulus_degree": 8192, "coeff_modulus_bits": [40, 30, 30, 44]},
    io=IoContract((Port("x", (1, 96), 1, 1_000_000, 2),), (Port("y", (2,), 1, 500_000, 0),)),
    galois_steps=(-1, 1, 8),
    policy=single_owner_policy(["x"], ["y"]),
    refresh=RefreshInfo(count=17, mask_bits=36),
    predicted_error=1e-5,
    versions=Versions("0.1.0", "0.3.18", "2.2.0"),
    files=(FileDigest("client/spec.json", "0" * 64, 3), FileDigest("server/a", "1" * 64, 0)),
)
STATEMENT = statement_bytes(MANIFEST)


def test_round_trip_and_digest() -> None:
    assert parse_statement(STATEMENT) == MANIFEST
    assert MANIFEST.digest == manifest_digest(MANIFEST) == sha256_bytes(STATEMENT)
    assert MANIFEST.tool_version == "0.1.0"
    assert dataclasses.replace(MANIFEST, program="other").digest != MANIFEST.digest
    entry = MANIFEST.file("server/a")
    assert entry is not None
    assert entry.size == 0
    assert MANIFEST.file("server/b") is None


def test_statement_is_in_toto_v1() -> None:
    statement = json.loads(STATEMENT)
    assert statement["_type"] == STATEMENT_TYPE
    assert statement["predicateType"] == PREDICATE_TYPE
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
        (put("predicateType", f"{PREDICATE_TYPE[:-1]}2"), "format 2, but this version reads up to"),
        (put(P, "format", 2), "format 2, but this version reads up to 1; upgrade"),
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
        (put(P, "versions", "seal", "4"), "unknown key 'seal'"),
        (put(P, "policy", "roles", {}), "no roles"),
        (put(P, "policy", "permissions", 0, "actions", ["fly"]), "unknown action 'fly'"),
        (put("subject", 0, "name", "../evil"), "no file of a bundle may be called"),
        (put("subject", 0, "name", "manifest.json"), "no file of a bundle may be called"),
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
     "a\n", "a\x00", "é", "manifest.json", "a" * 256],
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
    both = dataclasses.replace(
        MANIFEST.policy, users=(*MANIFEST.policy.users, User("m", ("owner", "evaluator")))
    )
    with pytest.raises(IntegrityError, match="user 'm'"):
        statement_bytes(dataclasses.replace(MANIFEST, policy=both))
