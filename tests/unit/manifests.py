"""Manifests, users documents and bundles for tests that need no compiled program."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from hecompile.access.labels import Flow
from hecompile.access.manifest import (
    IoContract,
    Manifest,
    Port,
    RefreshInfo,
    Security,
    Signers,
    Versions,
)
from hecompile.access.manifest_reader import parse_statement, statement_bytes
from hecompile.access.policy import Policy, single_owner_policy
from hecompile.access.signing import SigningKey, cosign, parse_envelope, sign
from hecompile.access.users import USERS_PAYLOAD_TYPE, UserEntry, Users, sign_users
from hecompile.bundle.store import open_bundle_files, write_bundle
from hecompile.errors import IntegrityError
from hecompile.numeric.parameters import Parameters

KEY = SigningKey.generate()
OTHER = SigningKey.generate()
THIRD = SigningKey.generate()
TRUSTED = (KEY.public_key,)
BOTH = (KEY.public_key, OTHER.public_key)
PARAMETERS = Parameters(8192, (60, 30, 30, 60), 30)
FILES = {
    "client/spec.json": b'{"shape":[1,96]}',
    "server/program.hir": b"program @ecg {}\n" * 40,
    "server/constants.npz": bytes(range(256)),
    "report.json": b"",
}
MANIFEST = Manifest(
    created="2025-01-31T12:00:00Z",
    program="ecg",
    parameters=PARAMETERS.to_json(),
    io=IoContract((Port("x", (1, 96), 1, 400_000, 2),), (Port("y", (2,), 1, 200_000, 0),)),
    galois_steps=(1, 8),
    policy=single_owner_policy(["x"], ["y"]),
    refresh=RefreshInfo(0, 0),
    predicted_error=1e-5,
    versions=Versions("0.1.0", "0.3.18", "2.2.0", "4.3"),
    security=Security.of(PARAMETERS),
    lineage="0123456789abcdef" * 2,
    flows=(Flow("y", ()),),
)
TWO_OF_TWO = Signers(2, tuple(sorted((KEY.keyid, OTHER.keyid))))


def make_users(policy: Policy = MANIFEST.policy, version: int = 1, **changes: Any) -> Users:
    """The users `owner` and `cloud` of the single-owner policy, without keys."""
    entries = (UserEntry("owner", ("owner",)), UserEntry("cloud", ("evaluator",)))
    return dataclasses.replace(Users(policy.digest, version, "", "", entries), **changes)


USERS = sign_users(make_users(), KEY)


def write(
    path: Path,
    manifest: Manifest = MANIFEST,
    key: SigningKey = KEY,
    users: bytes | None = USERS,
    overwrite: bool = False,
) -> Manifest:
    """Write a bundle of `FILES`."""
    return write_bundle(path, FILES, manifest, key, users=users, overwrite=overwrite)


def resign(folder: Path, key: SigningKey = KEY, **changes: Any) -> None:
    """Exchange the manifest of a bundle in a folder by a changed one that `key` signs alone."""
    place = folder / "manifest.json"
    manifest = parse_statement(parse_envelope(place.read_bytes()).payload)
    changed = dataclasses.replace(manifest, **changes)
    place.write_bytes(sign(statement_bytes(changed), key))


TWO = dataclasses.replace(MANIFEST, signers=TWO_OF_TWO)
USERS_BY_TWO = cosign(USERS, OTHER, "users.json", USERS_PAYLOAD_TYPE)


def refuse(path: Path, words: str, trusted: Any = TRUSTED, **more: Any) -> None:
    with pytest.raises(IntegrityError, match=words) as caught:
        open_bundle_files(path, trusted, **more)
    assert "\n" not in str(caught.value)
