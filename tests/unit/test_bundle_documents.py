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
    TWO,
    TWO_OF_TWO,
    USERS_BY_TWO,
    refuse,
    resign,
    write,
)


@pytest.fixture(params=["demo", "demo.hec"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return tmp_path / str(request.param)


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


def follow(path: Path, before: Manifest, *keys: SigningKey, **changes: Any) -> Manifest:
    """Write a bundle in the place of `before`, signed by the keys."""
    after = superseding(before)
    changes = {"version": after.version, "supersedes": after.supersedes, **changes}
    manifest = dataclasses.replace(before, files=(), **changes)
    written = write(path, manifest, keys[0], users=None)
    for key in keys[1:]:
        place = path / "manifest.json"
        place.write_bytes(cosign(place.read_bytes(), key))
    return written


ALONE = Signers(1, (KEY.keyid,))


@pytest.fixture
def seen(tmp_path: Path) -> Manifest:
    """A manifest of two signers, seen on this machine."""
    first = write(tmp_path / "first", TWO, users=None)
    add_signature(tmp_path / "first", OTHER, BOTH)
    open_bundle_files(tmp_path / "first", BOTH)
    return first


def test_one_signer_cannot_lower_the_threshold_of_a_line(seen: Manifest, tmp_path: Path) -> None:
    follow(tmp_path / "second", seen, KEY, signers=ALONE)
    refuse(tmp_path / "second", "1 of the 2 signatures by signers of version 1", BOTH)
    review = review_bundle(tmp_path / "second", BOTH)
    assert (review.missing, review.owed) == (0, 1)
    # Both together may.
    signed = add_signature(tmp_path / "second", OTHER, BOTH)
    assert (signed.missing, signed.owed, signed.has_wrong_signatures) == (0, 0, False)
    open_bundle_files(tmp_path / "second", BOTH)
    refuse(tmp_path / "first", "version 1, but version 2 was seen here", BOTH)


def test_a_line_does_not_fork(seen: Manifest, tmp_path: Path) -> None:
    follow(tmp_path / "fork", seen, KEY, OTHER, supersedes="a" * 64)
    refuse(tmp_path / "fork", "the line was forked", BOTH)
    follow(tmp_path / "second", seen, KEY, OTHER)
    open_bundle_files(tmp_path / "second", BOTH)


def test_another_trusted_key_cannot_take_a_line_over_or_block_it(
    seen: Manifest, tmp_path: Path
) -> None:
    trusted = (*BOTH, THIRD.public_key)
    theirs = Signers(1, (THIRD.keyid,))
    follow(tmp_path / "theirs", seen, THIRD, version=2**52, signers=theirs)
    refuse(tmp_path / "theirs", "more than 1000 ahead of version 1", trusted)
    follow(tmp_path / "near", seen, THIRD, version=3, signers=theirs)
    refuse(tmp_path / "near", "0 of the 2 signatures by signers of version 1", trusted)
    follow(tmp_path / "second", seen, KEY, OTHER)
    open_bundle_files(tmp_path / "second", trusted)


def test_signers_change_once_the_old_ones_agree(seen: Manifest, tmp_path: Path) -> None:
    place = tmp_path / "second"
    everybody = (*BOTH, THIRD.public_key)
    second = follow(place, seen, THIRD, signers=Signers(1, (THIRD.keyid,)))
    refuse(place, "0 of the 2 signatures", everybody)
    for key in (KEY, OTHER):
        add_signature(place, key, everybody)
    open_bundle_files(place, everybody)
    # Trust in the old signers may be withdrawn, and who never had it needs none.
    newcomer = State(tmp_path / "newcomer.db")
    for state in (None, newcomer):
        opened = open_bundle_files(place, (THIRD.public_key,), state=state)
        assert opened.opening.keyids == (THIRD.keyid,)
    # What they signed is not believed for that.
    refuse(place, "which is not trusted here", BOTH, state=newcomer)
    third = follow(tmp_path / "third", second, THIRD, signers=second.signers)
    open_bundle_files(tmp_path / "third", everybody)
    follow(tmp_path / "back", third, KEY, OTHER, signers=TWO_OF_TWO)
    refuse(tmp_path / "back", "0 of the 1 signatures by signers of version 3", everybody)


def test_a_signature_that_is_wrong_counts_for_nothing(seen: Manifest, tmp_path: Path) -> None:
    place = tmp_path / "second"
    follow(place, seen, THIRD, KEY, OTHER, signers=Signers(1, (THIRD.keyid,)))
    envelope = (place / "manifest.json").read_bytes()
    payload = parse_envelope(envelope).payload
    good = parse_signature(payload, KEY)
    (place / "manifest.json").write_bytes(envelope.replace(good, parse_signature(payload, THIRD)))
    refuse(place, "does not match its signature by key", (*BOTH, THIRD.public_key))


def test_who_never_saw_the_old_version_cannot_add_its_signers(
    seen: Manifest, tmp_path: Path
) -> None:
    follow(tmp_path / "second", seen, THIRD, signers=Signers(1, (THIRD.keyid,)))
    with pytest.raises(InputError, match="nor among those of an older version seen here"):
        add_signature(tmp_path / "second", KEY, BOTH, state=State(tmp_path / "elsewhere.db"))


def test_what_is_missing_is_told_by_this_machines_threshold(tmp_path: Path) -> None:
    trusted = TrustedKeys(BOTH, 3, delegates=[THIRD.public_key])
    write(tmp_path / "demo", dataclasses.replace(MANIFEST, signers=Signers(1, TWO_OF_TWO.keyids)))
    assert review_bundle(tmp_path / "demo", trusted).missing == 2
    assert add_signature(tmp_path / "demo", OTHER, trusted).missing == 1
    assert review_bundle(tmp_path / "demo", trusted).missing == 1
    # The key that signs is known to be right, trusted or not.
    assert trusted.and_also(THIRD.public_key).delegates == trusted.delegates


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
