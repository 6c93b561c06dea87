"""Registering keys of a bundle: by the Python API and by the command, allowed and denied."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hecompile.access.identity import generate_identity, make_identity
from hecompile.access.policy import KEY_EVALUATION, KEY_PUBLIC, Action, Permission, Role
from hecompile.errors import AccessDeniedError, IntegrityError
from hecompile.runtime.evaluator import galois_steps
from hecompile.runtime.key_folders import signatures_beside
from hecompile.runtime.keys import write_keys
from tests.attacks.senders import forbid_seal
from tests.encrypted.clinic import CLINIC, ROLES, SIGNER, Clinic, make
from tests.unit.cli_calls import Caller

KEYS = (KEY_PUBLIC, KEY_EVALUATION)
EVE = generate_identity("eve")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


def clinic_with_registrar(folder: Path, home: Path) -> Clinic:
    permissions = (*CLINIC.permissions, Permission("officer", (Action.REGISTER,), KEYS))
    policy = replace(CLINIC, roles=(*CLINIC.roles, Role("officer")), permissions=permissions)
    roles = {**ROLES, "sofia": ("officer",)}
    for name in roles:
        make_identity(name, home)
    return make(folder, home, policy, roles)


def test_a_bundle_takes_registered_keys_alone(tmp_path: Path, hecompile_home: Path) -> None:
    clinic = clinic_with_registrar(tmp_path / "clinic", hecompile_home)
    keys = tmp_path / "keys"
    clinic.open("safe").keygen(keys, secret_folder=tmp_path / "vault")
    parts: dict[str, Callable[[], object]] = {
        "public": lambda: clinic.open("ann").client(keys / "public"),
        "evaluation": lambda: clinic.open("server").evaluator(keys / "evaluation"),
    }
    for load in parts.values():
        with pytest.raises(IntegrityError, match="are not registered"):
            load()
    with pytest.raises(AccessDeniedError, match="user 'safe' may not register key:public"):
        clinic.open("safe").register(keys)
    clinic.open("sofia").register(keys)
    clinic.open("sofia").register(keys / "public")
    assert clinic.decisions().count(("sofia", "register", "allow")) == 3
    for load in parts.values():
        load()
    spec = clinic.open("safe").spec
    shutil.rmtree(keys)
    steps = galois_steps(clinic.open("safe").program)
    write_keys(keys, spec.parameters, steps, spec.program, manifest=spec.manifest, identity=EVE)
    shutil.rmtree(keys / "secret")
    with pytest.MonkeyPatch.context() as patch:
        forbid_seal(patch)
        for load in parts.values():
            with pytest.raises(IntegrityError, match="is no user's"):
                load()


def test_the_command_registers_and_denies(
    tmp_path: Path, hecompile_home: Path, call: Caller
) -> None:
    clinic = clinic_with_registrar(tmp_path / "clinic", hecompile_home)
    trust = tmp_path / "signer.pub"
    trust.write_bytes(SIGNER.public_key.pem)
    keys, words = tmp_path / "keys", ("--bundle", clinic.folder, "--trust", trust)
    making = ("keygen", clinic.folder, "--trust", trust, "-o", keys, "--as", "safe")
    call(*making, "--secret-dir", tmp_path / "vault")
    before = signatures_beside(keys / "public")
    denied = call("register", keys, *words, "--as", "ann", code=3).err
    assert "user 'ann' may not register key:public" in denied
    assert signatures_beside(keys / "public") == before
    done = call("register", keys, *words, "--json").document
    assert done["user"] == "sofia"
    assert [row["key"] for row in done["registered"]] == ["key:public", "key:evaluation"]
    assert "registered" in call("register", keys / "evaluation", *words, "--as", "sofia").out
    assert "no public or evaluation keys in" in call("register", tmp_path, *words, code=1).err
    told = call("register", tmp_path / "vault", *words, code=1).err
    assert "holds the secret key, which is never handed out" in told
    shutil.copytree(tmp_path / "vault", keys / "public" / "kept")
    assert "the secret key lies in" in call("register", keys, *words, code=4).err
