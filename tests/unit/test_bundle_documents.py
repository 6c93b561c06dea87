"""Signatures, times and roll-back: what is believed before a bundle's files are read."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hecompile.access.manifest import Manifest, Signers, superseding
from hecompile.access.signing import (
    SigningKey,
    TrustedKeys,
    TrustStore,
    cosign,
    parse_envelope,
    sign,
)
from hecompile.access.state import State
from hecompile.access.users import USERS_PAYLOAD_TYPE
from hecompile.bundle.opening import manifest_to_supersede
from hecompile.bundle.review import add_signature, review_bundle
from hecompile.bundle.store import (
    open_bundle_files,
)
from hecompile.errors import InputError, IntegrityError
from tests.unit.manifests import (
    BOTH,
    FILES,
    KEY,
    MANIFEST,
    OTHER,
    THIRD,
    TRUSTED,
    TWO_OF_TWO,
    USERS,
    resign,
    write,
)

TWO = dataclasses.replace(MANIFEST, signers=TWO_OF_TWO)
USERS_BY_TWO = cosign(USERS, OTHER, "users.json", USERS_PAYLOAD_TYPE)


@pytest.fixture(params=["demo", "demo.hec"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return tmp_path / str(request.param)


def refuse(path: Path, words: str, trusted: Any = TRUSTED, **more: Any) -> None:
    with pytest.raises(IntegrityError, match=words) as caught:
        open_bundle_files(path, trusted, **more)
    assert "\n" not in str(caught.value)


# Signers


def test_a_second_signer_opens_a_bundle_that_needs_two(place: Path) -> None:
    manifest = write(place, TWO, users=USERS_BY_TWO)
    refuse(place, "has 1 of the 2 signatures that it needs", BOTH)
    review = review_bundle(place, BOTH)
    assert (review.missing, [one.counts for one in review.signatures]) == (1, [True])
    signed = add_signature(place, OTHER, BOTH)
    assert signed.missing == 0
    opened = open_bundle_files(place, BOTH)
    assert opened.manifest == manifest
    assert opened.opening.keyids == TWO_OF_TWO.keyids
    assert {name: opened.read(name) for name in FILES} == FILES
    refuse(place, "which is not trusted here", TRUSTED)


def test_the_machine_may_ask_for_more_signatures_than_the_manifest(place: Path) -> None:
    write(place)
    refuse(place, "has 1 of the 2 signatures", TrustedKeys(BOTH, threshold=2))
    TrustStore().add(KEY.public_key)
    TrustStore().add(OTHER.public_key)
    TrustStore().require(2)
    refuse(place, "has 1 of the 2 signatures", TrustStore().load())
    with pytest.raises(InputError, match="not among the manifest's signers"):
        add_signature(place, OTHER, BOTH)


def test_one_signer_cannot_sign_twice(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write(folder, TWO, users=USERS_BY_TWO)
    with pytest.raises(InputError, match="already"):
        add_signature(folder, KEY, BOTH)
    # By hand: the same signature twice in the envelope.
    envelope = (folder / "manifest.json").read_bytes()
    start = envelope.index(b'"signatures":[') + len(b'"signatures":[')
    end = envelope.rindex(b"]}")
    twice = envelope[:end] + b"," + envelope[start:end] + envelope[end:]
    (folder / "manifest.json").write_bytes(twice)
    refuse(folder, "not a signed document as hecompile writes it", BOTH)


def test_a_second_signature_by_a_stranger_is_no_help(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write(folder, TWO, users=USERS_BY_TWO)
    with pytest.raises(InputError, match="not among the manifest's signers"):
        add_signature(folder, THIRD, BOTH)
    envelope = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(cosign(envelope, THIRD))
    refuse(folder, "which is not trusted here", BOTH)
    # Trusted here for other bundles, but none of this manifest's signers.
    refuse(folder, "not among its 2 signers", (*BOTH, THIRD.public_key))


def test_a_signer_who_is_not_listed_signs_nothing_alone(tmp_path: Path) -> None:
    write(tmp_path / "demo")
    resign(tmp_path / "demo", OTHER)
    refuse(tmp_path / "demo", "not among its 1 signers", BOTH)


def test_a_manifest_cannot_be_written_by_a_key_that_may_not_sign_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not among the manifest's signers"):
        write(tmp_path / "demo", TWO, THIRD)
    with pytest.raises(IntegrityError, match="is 2 of 1 signers"):
        write(tmp_path / "demo", dataclasses.replace(MANIFEST, signers=Signers(2, (KEY.keyid,))))
    assert list(tmp_path.iterdir()) == []


def test_signing_checks_the_whole_bundle_first(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    manifest = write(folder, TWO, users=USERS_BY_TWO)
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="nothing was signed"):
        add_signature(folder, OTHER, BOTH, digest="0" * 8)
    (folder / "report.json").write_bytes(b"changed")
    with pytest.raises(IntegrityError, match=r"file report\.json"):
        add_signature(folder, OTHER, BOTH)
    (folder / "report.json").write_bytes(FILES["report.json"])
    forged = before.replace(b'"sig":"', b'"sig":"AA', 1)
    (folder / "manifest.json").write_bytes(forged)
    with pytest.raises(IntegrityError):
        add_signature(folder, OTHER, BOTH)
    (folder / "manifest.json").write_bytes(before)
    add_signature(folder, OTHER, BOTH, digest=manifest.digest[:12])
    open_bundle_files(folder, BOTH)


def test_a_signature_by_another_key_under_a_signers_name_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    write(folder, TWO, users=USERS_BY_TWO)
    envelope = parse_envelope((folder / "manifest.json").read_bytes())
    forged = cosign((folder / "manifest.json").read_bytes(), OTHER).replace(
        parse_signature(envelope.payload, OTHER), parse_signature(envelope.payload, THIRD)
    )
    (folder / "manifest.json").write_bytes(forged)
    refuse(folder, f"does not match its signature by key {OTHER.keyid}", BOTH)
    with pytest.raises(IntegrityError, match="does not match its signature"):
        add_signature(folder, KEY, BOTH)


def parse_signature(payload: bytes, key: SigningKey) -> bytes:
    """The text of a signature, as it stands in an envelope."""
    envelope = sign(payload, key)
    start = envelope.index(b'"sig":"')
    return envelope[start : envelope.index(b'"', start + 7)]


# Times


PERIOD = dataclasses.replace(
    MANIFEST, not_before="2025-03-01T00:00:00Z", not_after="2025-03-31T23:59:59Z"
)


def test_a_manifest_is_valid_in_its_time_alone(place: Path) -> None:
    write(place, PERIOD)
    for moment in (
        datetime(2025, 3, 1, tzinfo=UTC),
        datetime(2025, 3, 15, tzinfo=UTC),
        datetime(2025, 3, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ):
        open_bundle_files(place, TRUSTED, now=moment)
    refuse(place, "is valid from 2025-03-01", now=datetime(2025, 2, 28, 23, 59, 59, tzinfo=UTC))
    refuse(place, "expired at 2025-03-31", now=datetime(2025, 4, 1, tzinfo=UTC))
    refuse(place, "expired at 2025-03-31")


def test_what_is_refused_for_its_time_is_not_remembered(
    tmp_path: Path, hecompile_home: Path
) -> None:
    write(tmp_path / "demo", dataclasses.replace(PERIOD, version=7, supersedes="0" * 64))
    refuse(tmp_path / "demo", "expired")
    assert list(hecompile_home.iterdir()) == []


# Roll-back


def succession(tmp_path: Path, **changes: Any) -> tuple[Path, Path, Manifest]:
    """A bundle, and one that supersedes it."""
    first = write(tmp_path / "first")
    after = superseding(first)
    second = dataclasses.replace(
        MANIFEST,
        lineage=after.lineage,
        version=after.version,
        supersedes=after.supersedes,
        **changes,
    )
    write(tmp_path / "second.hec", second)
    return tmp_path / "first", tmp_path / "second.hec", second


def test_an_older_version_is_refused_after_a_newer_one(tmp_path: Path) -> None:
    first, second, _ = succession(tmp_path, predicted_error=2e-5)
    open_bundle_files(first, TRUSTED)
    open_bundle_files(second, TRUSTED)
    open_bundle_files(second, TRUSTED)
    refuse(first, "version 1, but version 2 was seen here")
    # Another machine has not seen the newer one.
    elsewhere = State(tmp_path / "elsewhere.db")
    open_bundle_files(first, TRUSTED, state=elsewhere)


def test_two_manifests_of_one_version_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "other", dataclasses.replace(MANIFEST, predicted_error=2e-5))
    open_bundle_files(tmp_path / "one", TRUSTED)
    refuse(tmp_path / "other", "another manifest of version 1 was seen here")
    open_bundle_files(tmp_path / "one", TRUSTED)


def test_the_lines_of_two_models_do_not_meet(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "other", dataclasses.replace(MANIFEST, lineage="f" * 32))
    open_bundle_files(tmp_path / "one", TRUSTED)
    open_bundle_files(tmp_path / "other", TRUSTED)


def test_what_is_to_be_superseded_may_have_expired_but_not_been_changed(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    manifest = write(folder, PERIOD)
    refuse(folder, "expired")
    assert manifest_to_supersede(folder, TRUSTED) == manifest
    with pytest.raises(IntegrityError, match="not trusted here"):
        manifest_to_supersede(folder, (OTHER.public_key,))
    with pytest.raises(IntegrityError, match="1 of the 2 signatures"):
        manifest_to_supersede(folder, TrustedKeys(BOTH, 2))
