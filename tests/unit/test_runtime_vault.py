"""The secret key at rest: wrong secrets, changed bytes and swapped cards open nothing."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hecompile.access.records import Record
from hecompile.errors import HecompileError, InputError, IntegrityError
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.keys import load_secret_key, write_keys
from hecompile.runtime.vault import (
    KmsVault,
    MachineVault,
    PassphraseVault,
    Vault,
    lock,
    passphrase_file,
    unlock,
)
from hecompile.runtime.wrapped import Method, Wrapped, wrapped_from_record

SECRET, BOUND = b"the secret key" * 100, b"whose it is"
SMALL = Parameters(4096, (36, 30, 40), 30)
PROGRAM = "p" * 64
KMS = f"""{sys.executable} -c "
import sys
data = sys.stdin.buffer.read()
assert sys.argv[-1] in ('wrap', 'unwrap')
sys.stdout.buffer.write(bytes(b ^ 0x5a for b in data))
" """


def passphrase(text: bytes = b"correct horse") -> PassphraseVault:
    # The least cost that is read back, so that the tests are quick.
    return PassphraseVault(lambda: text, (1 << 14, 8, 1))


@pytest.fixture(params=["passphrase", "kms", "machine"])
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Vault:
    if request.param == "passphrase":
        return passphrase()
    if request.param == "kms":
        return KmsVault(KMS)
    return MachineVault(tmp_path / "deep" / "vault.key")


def test_what_was_locked_opens(vault: Vault) -> None:
    data, wrapped = lock(SECRET, BOUND, vault)
    assert SECRET[:20] not in data
    assert unlock(data, wrapped, BOUND, vault) == SECRET
    again, _ = lock(SECRET, BOUND, vault)
    assert again != data


def test_other_bindings_and_changed_bytes_are_refused(vault: Vault) -> None:
    data, wrapped = lock(SECRET, BOUND, vault)
    with pytest.raises(IntegrityError, match="cannot be decrypted"):
        unlock(data, wrapped, b"another's", vault)
    for place in (0, 12, len(data) // 2, len(data) - 1):
        bad = bytearray(data)
        bad[place] ^= 1
        with pytest.raises(IntegrityError, match="cannot be decrypted"):
            unlock(bytes(bad), wrapped, BOUND, vault)
    bad = bytearray(wrapped.key)
    bad[-1] ^= 1
    with pytest.raises(IntegrityError, match="cannot be decrypted"):
        unlock(data, replace(wrapped, key=bytes(bad)), BOUND, vault)
    for length in (0, 5, 27, len(data) - 1):
        with pytest.raises(IntegrityError, match="cannot be decrypted"):
            unlock(data[:length], wrapped, BOUND, vault)


def test_a_wrong_secret_is_told(tmp_path: Path) -> None:
    data, wrapped = lock(SECRET, BOUND, passphrase())
    with pytest.raises(IntegrityError, match="the passphrase is wrong"):
        unlock(data, wrapped, BOUND, passphrase(b"battery staple"))
    data, wrapped = lock(SECRET, BOUND, MachineVault(tmp_path / "one.key"))
    MachineVault(tmp_path / "two.key").wrap(bytes(32), b"")
    with pytest.raises(IntegrityError, match=r"under another two\.key"):
        unlock(data, wrapped, BOUND, MachineVault(tmp_path / "two.key"))
    with pytest.raises(InputError, match="encrypted on another machine"):
        unlock(data, wrapped, BOUND, MachineVault(tmp_path / "three.key"))
    assert not (tmp_path / "three.key").exists()


def test_the_wrong_kind_of_secret_names_the_right_one(tmp_path: Path) -> None:
    machine = MachineVault(tmp_path / "vault.key")
    data, wrapped = lock(SECRET, BOUND, passphrase())
    with pytest.raises(InputError, match="give it with --passphrase-file"):
        unlock(data, wrapped, BOUND, machine)
    data, wrapped = lock(SECRET, BOUND, KmsVault(KMS))
    with pytest.raises(InputError, match="name its command with --kms"):
        unlock(data, wrapped, BOUND, machine)
    data, wrapped = lock(SECRET, BOUND, machine)
    with pytest.raises(InputError, match="leave out --passphrase-file"):
        unlock(data, wrapped, BOUND, passphrase())


def test_new_passphrases_cost_128_mebibytes() -> None:
    wrapped = PassphraseVault(lambda: b"correct horse").wrap(bytes(32), BOUND)
    assert wrapped.cost == (1 << 17, 8, 1)
    assert len(wrapped.salt) == 16


def test_a_kms_that_fails_is_told() -> None:
    failing = f"{sys.executable} -c \"import sys; sys.exit('no such key')\""
    with pytest.raises(InputError, match="exit code 1: no such key"):
        KmsVault(failing).wrap(bytes(32), b"")
    with pytest.raises(InputError, match="failed"):
        KmsVault("/nowhere/kms").wrap(bytes(32), b"")
    for bad in ("", "'unclosed"):
        with pytest.raises(InputError, match="KMS command"):
            KmsVault(bad)


def test_no_shell_sees_the_kms_command(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    with pytest.raises(InputError):
        KmsVault(f"/nowhere/kms; touch {trap}").wrap(bytes(32), b"")
    assert not trap.exists()


def test_the_machines_key_is_private(tmp_path: Path) -> None:
    vault = MachineVault(tmp_path / "vault.key")
    wrapped = vault.wrap(bytes(32), BOUND)
    assert stat.S_IMODE(vault.path.stat().st_mode) == 0o600
    vault.path.chmod(0o640)
    with pytest.raises(IntegrityError, match="chmod 600"):
        vault.unwrap(wrapped, BOUND)


def test_passphrase_files(tmp_path: Path) -> None:
    path = tmp_path / "pass"
    path.write_bytes(b"one\r\ntwo\n")
    path.chmod(0o600)
    assert passphrase_file(path)() == b"one"
    path.chmod(0o644)
    with pytest.raises(IntegrityError, match="chmod 600"):
        passphrase_file(path)()
    path.write_bytes(b"\n")
    path.chmod(0o600)
    with pytest.raises(InputError, match="no passphrase"):
        passphrase_file(path)()
    with pytest.raises(InputError, match="cannot read"):
        passphrase_file(tmp_path / "nowhere")()


def complain(_place: tuple[str, ...], message: str) -> HecompileError:
    return IntegrityError(message)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 1 << 26},
        {"n": (1 << 17) + 1},
        {"n": 2},
        {"r": 1 << 20},
        {"p": 1 << 20},
        {"n": 1 << 20, "r": 32, "p": 16},
        {"n": True},
        {"n": "131072"},
        {"salt": ""},
        {"salt": "not base64!"},
        {"key": "A" * 65536},
        {"method": "none"},
        {"more": 1},
    ],
)
def test_costs_of_scrypt_are_bounded_when_read(change: dict[str, Any]) -> None:
    wrapped = Wrapped(Method.PASSPHRASE, b"k" * 60, b"s" * 16, (1 << 17, 8, 1))
    facts = json.loads(json.dumps(wrapped.to_json()))
    assert wrapped_from_record(Record.open_table(facts, (), complain)) == wrapped
    with pytest.raises(IntegrityError):
        wrapped_from_record(Record.open_table({**facts, **change}, (), complain))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    write_keys(tmp_path / "keys", SMALL, (), PROGRAM)
    return tmp_path / "keys"


def test_a_key_folder_is_closed_and_encrypted(keys: Path) -> None:
    secret = keys / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret.iterdir()} == {0o600}
    assert {path.name for path in secret.iterdir()} == {"key.json", "secret.key", "releases.db"}
    assert load_secret_key(keys, SMALL, PROGRAM).folder == secret
    (secret / "secret.key").chmod(0o644)
    with pytest.raises(IntegrityError, match="other users may read"):
        load_secret_key(keys, SMALL, PROGRAM)


@pytest.mark.parametrize(
    ("field", "value"),
    [("created", "2099-01-01T00:00:00+00:00"), ("key_id", "0" * 64), ("wrapped", None)],
)
def test_a_changed_card_opens_nothing(keys: Path, field: str, value: object) -> None:
    path = keys / "secret" / "key.json"
    card = json.loads(path.read_text())
    card[field] = value
    path.write_text(json.dumps(card))
    with pytest.raises(IntegrityError, match=r"cannot be decrypted|is not encrypted"):
        load_secret_key(keys, SMALL, PROGRAM)


def test_a_swapped_card_opens_nothing(keys: Path, tmp_path: Path) -> None:
    write_keys(tmp_path / "other", SMALL, (), PROGRAM)
    mine, other = (
        json.loads((k / "secret/key.json").read_text()) for k in (keys, tmp_path / "other")
    )
    # Both are wrapped by this machine; only what is bound tells them apart.
    mixed = {**other, "wrapped": mine["wrapped"], "files": mine["files"]}
    (keys / "secret" / "key.json").write_text(json.dumps(mixed))
    with pytest.raises(IntegrityError, match="cannot be decrypted"):
        load_secret_key(keys, SMALL, PROGRAM)


def test_the_secret_part_may_lie_elsewhere(tmp_path: Path) -> None:
    os.umask(0o022)
    write_keys(tmp_path / "keys", SMALL, (), PROGRAM, secret_folder=tmp_path / "safe")
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {"public", "evaluation"}
    assert stat.S_IMODE((tmp_path / "safe").stat().st_mode) == 0o700
    assert load_secret_key(tmp_path / "safe", SMALL, PROGRAM).folder == tmp_path / "safe"
    with pytest.raises(InputError, match="exists already"):
        write_keys(tmp_path / "more", SMALL, (), PROGRAM, secret_folder=tmp_path / "safe")
    assert not (tmp_path / "more").exists()
