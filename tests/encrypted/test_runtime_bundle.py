"""A bundle opened for use: the policy is asked before any data is touched."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hecompile.access.audit import AuditLog
from hecompile.access.identity import identity_path, load_identity, make_identity
from hecompile.access.manifest import RefreshInfo
from hecompile.access.policy import single_owner_policy
from hecompile.access.users import UserEntry, Users, sign_users
from hecompile.errors import AccessDeniedError, IntegrityError, UsageError
from hecompile.runtime.evaluator import galois_steps
from hecompile.runtime.parties import Bundle, open_bundle
from hecompile.runtime.spec import ClientSpec, spec_from_program
from tests.encrypted.clinic import (
    CLINIC,
    MASK_BITS,
    OWNERS,
    ROLES,
    SIGNER,
    Clinic,
    make,
    manifest_of,
    masked_program,
    signed_users,
    write,
)
from tests.unit.cli_parties import hand_over

X = np.array([[0.5, -1.0, 1.1, 0.0]])
NOISE = 1e-4
"""Much more than scales of 30 bits leave."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A settings folder with everybody's identity and the vault's key, the same for all tests."""
    folder = tmp_path_factory.mktemp("home")
    for name in (*ROLES, *OWNERS, "eve"):
        make_identity(name, folder)
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, hecompile_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins with these identities, and with nothing remembered."""
    monkeypatch.setenv("HECOMPILE_HOME", str(home))
    for name in ("state.db", "audit.pem"):
        (home / name).unlink(missing_ok=True)


@pytest.fixture
def clinic(tmp_path: Path, home: Path) -> Clinic:
    return make(tmp_path, home)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    folder = tmp_path_factory.mktemp("clinic")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HECOMPILE_HOME", str(home))
        made = make(folder, home)
        made.open("safe").keygen(folder / "keys")
    return folder / "keys"


@pytest.fixture(scope="module")
def handed(keys: Path) -> Path:
    """What client and evaluator were given of the keys."""
    return hand_over(keys)


def test_four_parties_each_do_their_part(clinic: Clinic, keys: Path, handed: Path) -> None:
    data = clinic.open("ann").client(handed / "public").encrypt({"x": X})[0]
    evaluation = clinic.open("server").evaluator(handed / "evaluation").start(data)
    request = evaluation.advance()
    assert request is not None
    evaluation.accept(clinic.open("safe").custodian(keys / "secret").refresh(request))
    assert evaluation.advance() is None
    result = clinic.open("bea").custodian(keys / "secret").decrypt(evaluation.output())
    assert np.abs(result.raw["y"] - (X**8 + X**2)).max() < NOISE
    assert set(clinic.decisions()) == {
        ("ann", "encrypt", "allow"),
        ("ann", "submit", "allow"),
        ("server", "evaluate", "allow"),
        ("safe", "refresh", "allow"),
        ("bea", "decrypt", "allow"),
    }


@pytest.mark.parametrize(
    ("user", "attempt"),
    [
        ("server", lambda bundle, keys: bundle.client(keys)),
        ("bea", lambda bundle, keys: bundle.evaluator(keys)),
        ("ann", lambda bundle, keys: bundle.custodian(keys)),
        ("mallory", lambda bundle, keys: bundle.custodian(keys)),
        ("ann", lambda bundle, keys: bundle.keygen(keys / "more")),
        ("bea", lambda bundle, keys: bundle.custodian(keys).refresh(b"")),
        ("safe", lambda bundle, keys: bundle.custodian(keys).decrypt(b"")),
        ("ann", lambda bundle, keys: bundle.run({"x": X}, keys=keys)),
        ("safe", lambda bundle, keys: bundle.run({"x": X}, keys=keys)),
    ],
)
def test_others_are_denied_before_data_is_touched(
    clinic: Clinic, keys: Path, user: str, attempt: Callable[[Bundle, Path], object]
) -> None:
    with pytest.raises(AccessDeniedError, match=f"Access Denied: user '{user}' may not") as caught:
        attempt(clinic.open(user), keys)
    assert caught.value.exit_code == 3
    assert clinic.decisions()[-1][2] == "deny"
    assert not (keys / "more").exists()


def test_denial_comes_before_the_key_is_looked_for(clinic: Clinic, tmp_path: Path) -> None:
    bundle = clinic.open("ann")
    with pytest.raises(AccessDeniedError):
        bundle.custodian(tmp_path / "nowhere")
    with pytest.raises(AccessDeniedError):
        bundle.evaluator(tmp_path / "nowhere")


def test_run_as_one_user_lets_others_play_their_parties(clinic: Clinic) -> None:
    result = clinic.open("cyd").run({"x": X})
    assert np.abs(result.raw_outputs["y"] - (X**8 + X**2)).max() < NOISE
    assert clinic.decisions() == [
        ("cyd", "encrypt", "allow"),
        ("cyd", "decrypt", "allow"),
        ("safe", "hold", "allow"),
        ("safe", "refresh", "allow"),
        ("server", "evaluate", "allow"),
    ]


def test_without_a_user_the_only_one_is_taken(
    clinic: Clinic, handed: Path, tmp_path: Path, home: Path
) -> None:
    clinic.open().evaluator(handed)
    assert clinic.decisions() == [("server", "evaluate", "allow")]
    with pytest.raises(UsageError, match="say who asks to encrypt with --as USER"):
        clinic.open().client(handed)
    alone = make(tmp_path / "alone", home, single_owner_policy(["x"], ["y"]), OWNERS)
    assert np.abs(alone.open().run({"x": X}).raw_outputs["y"] - (X**8 + X**2)).max() < NOISE
    assert {user for user, _, _ in alone.decisions()} == {"owner", "host"}


def test_every_key_is_asked_for_and_logged(clinic: Clinic, keys: Path) -> None:
    """Nobody is named and several may use the secret key: it is not read."""
    with pytest.raises(
        UsageError,
        match=r"--as USER .* who may decrypt output:y or refresh program .*here: bea, cyd, safe",
    ):
        clinic.open().custodian(keys)
    assert clinic.decisions() == []
    clinic.open("cyd").custodian(keys)
    clinic.open("safe").custodian(keys)
    assert clinic.decisions() == [("cyd", "decrypt", "allow"), ("safe", "refresh", "allow")]


@pytest.mark.parametrize("user", ["mallory", "safe"])
def test_denial_comes_before_the_program_is_read(
    clinic: Clinic, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_files: object, name: str) -> bytes:
        raise AssertionError(f"{name} was read")

    bundle = clinic.open(user)
    monkeypatch.setattr("hecompile.bundle.store.BundleFiles.read", read)
    attempts: list[Callable[[], object]] = [
        lambda: bundle.client("keys"),
        lambda: bundle.evaluator("keys"),
        lambda: bundle.run({"x": X}),
    ]
    if user == "mallory":
        attempts += [lambda: bundle.custodian("keys"), lambda: bundle.keygen("keys")]
    for attempt in attempts:
        with pytest.raises(AccessDeniedError):
            attempt()
    assert {decision for *_, decision in clinic.decisions()} == {"deny"}


def test_keys_and_ciphertexts_of_the_same_program_under_another_policy_are_refused(
    tmp_path: Path, clinic: Clinic, keys: Path, handed: Path, home: Path
) -> None:
    """The policy is in the manifest, and keys and envelopes are bound to that."""
    policy = replace(CLINIC, envelope_seconds=3600)
    other = make(tmp_path / "other", home, policy, {**ROLES, "eve": ("doctor",)})
    assert other.open().spec.program == clinic.open().spec.program
    parties: list[tuple[Callable[[Path], object], Path]] = [
        (other.open("ann").client, handed),
        (other.open("server").evaluator, handed),
        (other.open("eve").custodian, keys),
    ]
    for party, folder in parties:
        with pytest.raises(
            IntegrityError, match=r"are for the bundle of manifest \w{12}\.\.\., not"
        ) as e:
            party(folder)
        assert e.value.exit_code == 4
    with pytest.raises(IntegrityError, match="are for the bundle of manifest"):
        other.open("cyd").run({"x": X}, keys=keys)
    other.open("safe").keygen(tmp_path / "keys", secret_folder=tmp_path / "vault")
    envelope = clinic.open("ann").client(handed).encrypt({"x": X})[0]
    evaluator = other.open("server").evaluator(tmp_path / "keys")
    with pytest.raises(IntegrityError, match=r"the encrypted input is for the bundle of manifest"):
        evaluator.start(envelope)


def test_if_the_decision_cannot_be_logged_it_is_no(clinic: Clinic, keys: Path) -> None:
    clinic.log.parent.mkdir()
    clinic.log.mkdir()
    with pytest.raises(AccessDeniedError, match="cannot be logged"):
        clinic.open("ann").client(keys)


def changed(
    tmp_path: Path, home: Path, spec: ClientSpec | None = None, **changes: object
) -> Bundle:
    """The bundle of the masked program with another client part, or another manifest."""
    program = masked_program()
    manifest = manifest_of(program, spec_from_program(program), CLINIC)
    users = signed_users(home, CLINIC, ROLES)
    stated = dataclasses.replace(manifest, **changes)  # type: ignore[arg-type]
    write(tmp_path / "changed", program, spec or spec_from_program(program), stated, users)
    return Clinic(tmp_path / "changed", tmp_path / "log").open("server")


def test_parts_of_different_programs_are_refused(tmp_path: Path, home: Path, handed: Path) -> None:
    bundle = changed(tmp_path, home, replace(spec_from_program(masked_program()), program="0" * 64))
    with pytest.raises(IntegrityError, match="client and server parts are of different programs"):
        bundle.evaluator(handed)


def test_a_manifest_that_promises_more_than_the_program_hides_is_refused(
    tmp_path: Path, home: Path, handed: Path
) -> None:
    bundle = changed(tmp_path, home, refresh=RefreshInfo(1, MASK_BITS + 1))
    with pytest.raises(IntegrityError, match=r"promises masks of 21 bits, .* has some of 20"):
        bundle.evaluator(handed)


def test_a_manifest_that_grants_other_rotations_than_the_program_takes_is_refused(
    tmp_path: Path, home: Path, handed: Path
) -> None:
    steps = galois_steps(masked_program())
    bundle = changed(tmp_path, home, galois_steps=tuple(sorted({*steps, 2047})))
    with pytest.raises(IntegrityError, match=r"2047, and its program rotates by .*S7"):
        bundle.evaluator(handed)


def test_who_acts_must_have_the_identity_that_the_users_document_names(
    clinic: Clinic, keys: Path, hecompile_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has no identity here, or one of the same name only, is denied before anything is read."""
    attempts: dict[str | None, list[Callable[[Bundle], object]]] = {
        "ann": [lambda bundle: bundle.client(keys)],
        "server": [lambda bundle: bundle.evaluator(keys)],
        "safe": [
            lambda bundle: bundle.custodian(keys),
            lambda bundle: bundle.keygen(keys / "more"),
        ],
        "cyd": [
            lambda bundle: bundle.custodian(keys),
            lambda bundle: bundle.run({"x": X}),
            lambda bundle: bundle.run({"x": X}, keys=keys),
        ],
        None: [lambda bundle: bundle.evaluator(keys)],
    }
    monkeypatch.setenv("HECOMPILE_HOME", str(hecompile_home))
    count = 0
    for told in ("is not on this machine", "the users document has another key"):
        for user, tried in attempts.items():
            for attempt in tried:
                with pytest.raises(AccessDeniedError, match=rf"may not .* here: .*{told}"):
                    attempt(clinic.open(user))
                count += 1
                decisions = clinic.decisions()
                assert len(decisions) == count
                assert decisions[-1][::2] == (user or "server", "deny")
        for name in ROLES:
            if not identity_path(name).exists():
                make_identity(name)
    assert not (keys / "more").exists()


def test_whoever_plays_another_party_in_a_run_must_be_that_user_too(
    clinic: Clinic, home: Path, hecompile_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HECOMPILE_HOME", str(hecompile_home))
    (hecompile_home / "identities").mkdir(mode=0o700)
    for name in ("cyd", "safe"):
        shutil.copy(home / "identities" / f"{name}.pem", hecompile_home / "identities")
    make_identity("server")
    with pytest.raises(AccessDeniedError, match="'server' may not evaluate program here"):
        clinic.open("cyd").run({"x": X})
    assert [one for one in clinic.decisions() if one[0] == "server"] == [
        ("server", "evaluate", "deny")
    ]


def test_client_and_evaluator_refuse_keys_beside_the_secret_key(clinic: Clinic, keys: Path) -> None:
    for given in (keys, keys / "public", keys / "secret"):
        with pytest.raises(IntegrityError, match="the secret key lies in"):
            clinic.open("ann").client(given)
    for given in (keys, keys / "evaluation"):
        with pytest.raises(IntegrityError, match="the secret key lies in"):
            clinic.open("server").evaluator(given)


def test_without_users_nobody_may_do_anything(tmp_path: Path, keys: Path) -> None:
    program = masked_program()
    spec = spec_from_program(program)
    write(tmp_path / "bundle", program, spec, manifest_of(program, spec, CLINIC), None)
    place = Clinic(tmp_path / "bundle", tmp_path / "log")
    attempts: tuple[Callable[[Bundle], object], ...] = (
        lambda bundle: bundle.client(keys),
        lambda bundle: bundle.evaluator(keys),
        lambda bundle: bundle.custodian(keys),
        lambda bundle: bundle.keygen(keys / "more"),
        lambda bundle: bundle.run({"x": X}),
    )
    for user in ("cyd", None):
        for attempt in attempts:
            with pytest.raises(AccessDeniedError, match="no users document"):
                attempt(place.open(user))


def test_a_user_who_left_is_refused_by_the_next_users_document(
    clinic: Clinic, handed: Path, home: Path, tmp_path: Path
) -> None:
    data = clinic.open("ann").client(handed).encrypt({"x": X})[0]
    entries = tuple(
        UserEntry(name, given, load_identity(name, home).public_bytes)
        for name, given in ROLES.items()
        if name != "ann"
    )
    newer = sign_users(Users(CLINIC.digest, 2, "", "", entries), SIGNER)
    (tmp_path / "users.json").write_bytes(newer)
    bundle = open_bundle(
        clinic.folder,
        user="server",
        trust=[SIGNER.public_key],
        audit=AuditLog(clinic.log),
        users=tmp_path / "users.json",
    )
    with pytest.raises(IntegrityError, match="no user's in version 2 of the users document"):
        bundle.evaluator(handed).start(data)
    # The document in the bundle is out of date from now on.
    with pytest.raises(IntegrityError, match="version 1, but version 2 was seen here"):
        clinic.open("server")
