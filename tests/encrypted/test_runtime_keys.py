"""Key folders: who gets what, and what is refused."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hecompile.errors import InputError, IntegrityError
from hecompile.files import sha256_file
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.keycard import KeyCard, Role
from hecompile.runtime.keys import (
    generate_keys,
    load_evaluation_keys,
    load_public_key,
    load_secret_key,
    write_keys,
)
from hecompile.runtime.vault import MachineVault
from tests.encrypted.runtime_programs import SMALL

PROGRAM = "a" * 64
STEPS = (4, 1, 4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "keys"
    write_keys(folder, SMALL, STEPS, PROGRAM, vault=beside(folder))
    return folder


def beside(keys: Path) -> MachineVault:
    """What wraps the secret key of this module's keys, whatever the settings folder is."""
    return MachineVault(keys.parent / "vault.key")


@pytest.fixture
def keys(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(saved, tmp_path / "keys")
    shutil.copy2(saved.parent / "vault.key", tmp_path)
    return tmp_path / "keys"


def test_each_party_has_its_own_folder(saved: Path) -> None:
    names = {p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()}
    assert names == {
        "secret/key.json",
        "secret/secret.key",
        "secret/releases.db",
        "public/key.json",
        "public/public.key",
        "evaluation/key.json",
        "evaluation/relin.key",
        "evaluation/galois-1.key",
        "evaluation/galois-4.key",
    }
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in saved.rglob("secret*")}
    assert modes == {"secret": 0o700, "secret.key": 0o600}


def test_the_secret_key_is_in_no_file(tmp_path: Path) -> None:
    ring = generate_keys(SMALL, (1,), PROGRAM)
    ring.save(tmp_path / "keys")
    body = ring.files[Role.SECRET]["secret.key"][40:200]
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert body not in path.read_bytes()
    assert load_secret_key(tmp_path / "keys", SMALL, PROGRAM).card.key_id == ring.key_id


def test_all_three_load_and_belong_together(saved: Path) -> None:
    secret = load_secret_key(saved, SMALL, PROGRAM, vault=beside(saved))
    public = load_public_key(saved / "public", SMALL, PROGRAM)
    evaluation = load_evaluation_keys(saved, SMALL, PROGRAM)
    assert secret.card.key_id == public.card.key_id == evaluation.card.key_id
    assert public.card.key_id == sha256_file(saved / "public" / "public.key")
    assert sorted(evaluation.galois) == [1, 4]
    assert "key=" not in repr(secret)


def test_only_needed_rotations_are_loaded(saved: Path) -> None:
    assert list(load_evaluation_keys(saved, SMALL, PROGRAM, [4]).galois) == [4]
    with pytest.raises(InputError, match=r"no Galois key for rotations by 2, 3; .*keygen"):
        load_evaluation_keys(saved, SMALL, PROGRAM, [2, 3, 4])


def test_progress_counts_every_key() -> None:
    seen: list[tuple[str, int, int]] = []
    ring = generate_keys(SMALL, STEPS, PROGRAM, lambda *report: seen.append(report))
    assert seen == [("generating keys", n, 5) for n in range(1, 6)]
    assert set(ring.files[Role.EVALUATION]) == {"relin.key", "galois-1.key", "galois-4.key"}
    assert len(repr(ring)) < 5000


def test_a_ring_saves_the_folders_asked_for(tmp_path: Path) -> None:
    ring = generate_keys(SMALL, (1,), PROGRAM)
    ring.save(tmp_path / "cloud", [Role.EVALUATION])
    assert [p.name for p in (tmp_path / "cloud").iterdir()] == ["evaluation"]
    assert load_evaluation_keys(tmp_path / "cloud", SMALL, PROGRAM).card.key_id == ring.key_id


def test_spilled_keys_leave_the_secret_in_memory(tmp_path: Path) -> None:
    ring = generate_keys(SMALL, (1,), PROGRAM, spill=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["evaluation"]
    assert not ring.files[Role.EVALUATION]
    assert load_evaluation_keys(tmp_path, SMALL, PROGRAM).card.key_id == ring.key_id


@pytest.mark.parametrize("step", [0, -1, 2048])
def test_impossible_rotations_are_refused_and_nothing_is_written(tmp_path: Path, step: int) -> None:
    with pytest.raises(InputError, match="needs no key in 2048 slots"):
        write_keys(tmp_path / "keys", SMALL, (step,), PROGRAM)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(_task: str, done: int, _total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_keys(tmp_path / "keys", SMALL, STEPS, PROGRAM, interrupt)
    assert not list(tmp_path.iterdir())


def test_existing_keys_are_not_overwritten(saved: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        write_keys(saved, SMALL, (1,), PROGRAM)


def load_all(folder: Path, parameters: Parameters = SMALL, program: str = PROGRAM) -> None:
    load_secret_key(folder, parameters, program, vault=beside(folder))
    load_public_key(folder, parameters, program)
    load_evaluation_keys(folder, parameters, program)


def test_missing_keys_are_named_with_the_command(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no secret key in .*hecompile keygen"):
        load_secret_key(tmp_path / "nowhere", SMALL, PROGRAM)
    (keys / "secret" / "secret.key").unlink()
    with pytest.raises(InputError, match=r"secret\.key is missing; .*hecompile keygen"):
        load_all(keys)


def test_keys_of_another_program_or_parameters_are_refused(saved: Path) -> None:
    with pytest.raises(IntegrityError, match=r"are for program aaaaaaaaaaaa\.\.\., not bbbb"):
        load_all(saved, program="b" * 64)
    with pytest.raises(IntegrityError, match="for other encryption parameters"):
        load_all(saved, parameters=Parameters(4096, (37, 29, 40), 30))


def test_keys_of_the_same_program_in_another_bundle_are_refused(tmp_path: Path) -> None:
    one, two = "1" * 64, "2" * 64
    write_keys(tmp_path / "keys", SMALL, (), PROGRAM, manifest=one)
    assert load_secret_key(tmp_path / "keys", SMALL, PROGRAM, manifest=one).card.manifest == one
    for load in (load_secret_key, load_public_key, load_evaluation_keys):
        with pytest.raises(IntegrityError, match=r"manifest 111111111111.*222222222222"):
            load(tmp_path / "keys", SMALL, PROGRAM, manifest=two)
        with pytest.raises(IntegrityError, match="not a program without a bundle"):
            load(tmp_path / "keys", SMALL, PROGRAM)


def test_a_folder_of_another_party_is_refused(saved: Path) -> None:
    with pytest.raises(IntegrityError, match="holds the public key, not the secret key"):
        load_secret_key(saved / "public", SMALL, PROGRAM)


@pytest.mark.parametrize(
    "name", ["secret/secret.key", "public/public.key", "evaluation/galois-4.key"]
)
def test_every_changed_file_is_refused(keys: Path, name: str) -> None:
    data = bytearray((keys / name).read_bytes())
    data[len(data) // 2] ^= 1
    (keys / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=r"was changed: it does not match its key\.json"):
        load_all(keys)
    (keys / name).write_bytes(bytes(data) + b"x")
    with pytest.raises(IntegrityError, match="was changed"):
        load_all(keys)


def rename(card: dict[str, Any]) -> None:
    card["key_id"] = "c" * 64


def newer(card: dict[str, Any]) -> None:
    card["version"] = 3


def extra(card: dict[str, Any]) -> None:
    card["owner"] = "me"


def no_file(card: dict[str, Any]) -> None:
    card["files"] = {}


def other_role(card: dict[str, Any]) -> None:
    card["role"] = "root"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "is not the key that its key.json names"),
        (newer, "version 2"),
        (extra, "unknown key 'owner'"),
        (no_file, "lists no public.key"),
        (other_role, "role must be one of secret, public, evaluation"),
    ],
)
def test_cards_are_read_strictly(
    keys: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = keys / "public" / KeyCard.FILE
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))
    with pytest.raises((InputError, IntegrityError), match=message):
        load_public_key(keys, SMALL, PROGRAM)


def test_a_card_that_is_no_json_is_refused(keys: Path) -> None:
    (keys / "public" / KeyCard.FILE).write_bytes(b"{")
    with pytest.raises(IntegrityError, match="not valid JSON"):
        load_public_key(keys, SMALL, PROGRAM)


def test_keys_are_fresh_every_time() -> None:
    one, two = (generate_keys(SMALL, (), PROGRAM) for _ in range(2))
    assert one.key_id != two.key_id
