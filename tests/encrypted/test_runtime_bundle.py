"""A bundle opened for use: the policy is asked before any data is touched."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from hecompile.access.audit import AuditLog
from hecompile.access.manifest import (
    IoContract,
    Manifest,
    Port,
    RefreshInfo,
    Versions,
)
from hecompile.access.policy import (
    PROGRAM,
    Action,
    ObjectRef,
    Permission,
    Policy,
    Role,
    User,
    single_owner_policy,
)
from hecompile.access.signing import SigningKey
from hecompile.backends import find_backend
from hecompile.bundle.store import write_bundle
from hecompile.errors import AccessDeniedError, IntegrityError, UsageError
from hecompile.ir.program import Program
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.parties import CONSTANTS_FILE, SPEC_FILE, Bundle, open_bundle
from hecompile.runtime.serial import ciphertext_limit
from hecompile.runtime.spec import ClientSpec, InputSpec, OutputSpec, spec_from_program
from hecompile.runtime.spec_json import spec_to_json
from tests.encrypted.runtime_programs import refresh_program

X = np.array([[0.5, -1.0, 1.1, 0.0]])
CLINIC = Policy(
    roles=(Role("nurse"), Role("doctor", inherits=("nurse",)), Role("cloud"), Role("vault")),
    permissions=(
        Permission("nurse", (Action.ENCRYPT,), (ObjectRef.input("x"),)),
        Permission("doctor", (Action.DECRYPT,), (ObjectRef.output("y"),)),
        Permission("cloud", (Action.EVALUATE,), (PROGRAM,)),
        Permission("vault", (Action.REFRESH,), (PROGRAM,)),
        Permission("vault", (Action.HOLD,), (ObjectRef.parse("key:secret"),)),
    ),
    users=(
        User("ann", ("nurse",)),
        User("bea", ("doctor",)),
        User("cyd", ("doctor",)),
        User("server", ("cloud",)),
        User("safe", ("vault",)),
    ),
)


MASK_BITS = 20
NOISE = 1e-4
"""Much more than scales of 30 bits leave."""


def masked_program(mask_bits: int = MASK_BITS) -> Program:
    return refresh_program(4.0, mask_bits, Parameters(8192, (60, 30, 30, 60), 30))


def ports(
    spec: ClientSpec, entries: tuple[InputSpec, ...] | tuple[OutputSpec, ...]
) -> tuple[Port, ...]:
    limit = ciphertext_limit(spec.parameters, 2)
    return tuple(Port(e.label, e.dims, len(e.ciphertexts), limit, 2) for e in entries)


def write(
    folder: Path, policy: Policy, program: Program, spec: ClientSpec, stated: int = MASK_BITS
) -> SigningKey:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, unused=np.zeros(1))
    manifest = Manifest(
        # Bundles of one policy have one digest, so that keys fit all of them.
        created="2025-01-31T12:00:00Z",
        program=program.name,
        parameters=spec.parameters.to_json(),
        io=IoContract(ports(spec, spec.inputs), ports(spec, spec.outputs)),
        galois_steps=(),
        policy=policy,
        refresh=RefreshInfo(1, stated),
        predicted_error=1e-6,
        versions=Versions("0", "0", "0"),
    )
    key = SigningKey.generate()
    files = {
        SPEC_FILE: spec_to_json(spec),
        CONSTANTS_FILE: buffer.getvalue(),
        **find_backend("tenseal").emit(program),
    }
    write_bundle(folder, files, manifest, key)
    return key


@dataclass(frozen=True)
class Clinic:
    folder: Path
    key: SigningKey
    log: Path

    def open(self, user: str | None = None) -> Bundle:
        trust = [self.key.public_key]
        return open_bundle(self.folder, user=user, trust=trust, audit=AuditLog(self.log))

    def decisions(self) -> list[tuple[str, str, str]]:
        if not self.log.exists():
            return []
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [(line["user"], line["action"], line["decision"]) for line in lines]


def make(folder: Path, policy: Policy) -> Clinic:
    folder.mkdir(exist_ok=True)
    program = masked_program()
    key = write(folder / "bundle", policy, program, spec_from_program(program))
    return Clinic(folder / "bundle", key, folder / "audit" / "log")


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return make(tmp_path, CLINIC)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clinic")
    made = make(folder, CLINIC)
    made.open("safe").keygen(folder / "keys")
    return folder / "keys"


def test_four_parties_each_do_their_part(clinic: Clinic, keys: Path) -> None:
    data = clinic.open("ann").client(keys / "public").encrypt({"x": X})[0]
    evaluation = clinic.open("server").evaluator(keys / "evaluation").start(data)
    request = evaluation.advance()
    assert request is not None
    evaluation.accept(clinic.open("safe").custodian(keys / "secret").refresh(request))
    assert evaluation.advance() is None
    result = clinic.open("bea").custodian(keys / "secret").decrypt(evaluation.output())
    assert np.abs(result.raw["y"] - (X**8 + X**2)).max() < NOISE
    assert set(clinic.decisions()) == {
        ("ann", "encrypt", "allow"),
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
        ("bea", lambda bundle, keys: bundle.keygen(keys / "more")),
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


def test_without_a_user_the_only_one_is_taken(clinic: Clinic, keys: Path, tmp_path: Path) -> None:
    clinic.open().evaluator(keys)
    assert clinic.decisions() == [("server", "evaluate", "allow")]
    with pytest.raises(UsageError, match="say who asks to encrypt with --as USER"):
        clinic.open().client(keys)
    alone = make(tmp_path / "alone", single_owner_policy(["x"], ["y"]))
    assert np.abs(alone.open().run({"x": X}).raw_outputs["y"] - (X**8 + X**2)).max() < NOISE
    assert {user for user, _, _ in alone.decisions()} == {"owner", "cloud"}


def test_every_key_is_asked_for_and_logged(clinic: Clinic, keys: Path) -> None:
    """Nobody is named and several may use the secret key: it is not read."""
    with pytest.raises(
        UsageError,
        match=r"--as USER .* who may decrypt output:y or refresh program here: bea, cyd, safe",
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
    tmp_path: Path, clinic: Clinic, keys: Path
) -> None:
    """The policy is in the manifest, and keys and envelopes are bound to that."""
    users = (*CLINIC.users, User("eve", ("doctor",)))
    other = make(tmp_path / "other", replace(CLINIC, users=users))
    assert other.open().spec.program == clinic.open().spec.program
    parties: list[Callable[[Path], object]] = [
        other.open("ann").client,
        other.open("server").evaluator,
        other.open("eve").custodian,
    ]
    for party in parties:
        with pytest.raises(
            IntegrityError, match=r"are for the bundle of manifest \w{12}\.\.\., not"
        ) as e:
            party(keys)
        assert e.value.exit_code == 4
    with pytest.raises(IntegrityError, match="are for the bundle of manifest"):
        other.open("eve").run({"x": X}, keys=keys)
    other.open("safe").keygen(tmp_path / "keys")
    envelope = clinic.open("ann").client(keys).encrypt({"x": X})[0]
    evaluator = other.open("server").evaluator(tmp_path / "keys")
    with pytest.raises(IntegrityError, match=r"the encrypted input is for the bundle of manifest"):
        evaluator.start(envelope)


def test_if_the_decision_cannot_be_logged_it_is_no(clinic: Clinic, keys: Path) -> None:
    clinic.log.parent.mkdir()
    clinic.log.mkdir()
    with pytest.raises(AccessDeniedError, match="cannot be logged"):
        clinic.open("ann").client(keys)


def test_parts_of_different_programs_are_refused(tmp_path: Path, keys: Path) -> None:
    program = masked_program()
    spec = replace(spec_from_program(program), program="0" * 64)
    key = write(tmp_path / "bundle", CLINIC, program, spec)
    bundle = Clinic(tmp_path / "bundle", key, tmp_path / "log").open("server")
    with pytest.raises(IntegrityError, match="client and server parts are of different programs"):
        bundle.evaluator(keys)


def test_a_manifest_that_promises_more_than_the_program_hides_is_refused(
    tmp_path: Path, keys: Path
) -> None:
    program = masked_program()
    spec = spec_from_program(program)
    key = write(tmp_path / "bundle", CLINIC, program, spec, stated=MASK_BITS + 1)
    bundle = Clinic(tmp_path / "bundle", key, tmp_path / "log").open("server")
    with pytest.raises(IntegrityError, match=r"promises masks of 21 bits, .* has some of 20"):
        bundle.evaluator(keys)
