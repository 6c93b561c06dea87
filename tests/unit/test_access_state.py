"""What a machine must not unlearn, under attack: older documents, replays, other users, crashes."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from hecompile.access.state import State
from hecompile.errors import InputError, IntegrityError

LATER = 2_000_000_000.0


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "deep" / "state.db")


def test_the_file_is_the_users_alone(state: State, hecompile_home: Path) -> None:
    state.use_nonce("m", "n", LATER)
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.path.parent.stat().st_mode) == 0o700
    assert State().path == hecompile_home / "state.db"


@pytest.mark.parametrize("admit", [State.admit_manifest, State.admit_users])
def test_versions_only_go_up(state: State, admit: Callable[[State, str, int, str], None]) -> None:
    admit(state, "line", 2, "a")
    admit(state, "line", 2, "a")
    with pytest.raises(IntegrityError, match="version 1, but version 2 was seen here before"):
        admit(state, "line", 1, "b")
    with pytest.raises(IntegrityError, match=r"another .* of version 2 was seen here before"):
        admit(state, "line", 2, "b")
    admit(state, "line", 5, "c")
    with pytest.raises(IntegrityError, match="version 2, but version 5"):
        admit(state, "line", 2, "a")
    admit(state, "other line", 1, "b")
    # Another process on the machine knows it too.
    with pytest.raises(IntegrityError):
        admit(State(state.path), "line", 4, "d")


def test_a_nonce_is_used_once(state: State) -> None:
    state.use_nonce("m", "n", LATER)
    with pytest.raises(IntegrityError, match="received before"):
        state.use_nonce("m", "n", LATER)
    with pytest.raises(IntegrityError, match="received before"):
        State(state.path).use_nonce("m", "n", LATER + 1)
    state.use_nonce("another manifest", "n", LATER)
    state.use_nonce("m", "another nonce", LATER)


@pytest.mark.parametrize("nonce", ["", "x" * 200])
def test_odd_nonces_are_refused(state: State, nonce: str) -> None:
    with pytest.raises(IntegrityError, match="empty or too long"):
        state.use_nonce("m", nonce, LATER)


def test_expired_nonces_are_forgotten_and_stay_refused(state: State) -> None:
    state.use_nonce("m", "n", 100.0, now=50.0)
    state.use_nonce("m", "other", 300.0, now=200.0)
    with sqlite3.connect(state.path) as connection:
        assert connection.execute("SELECT nonce FROM nonces").fetchall() == [("other",)]
    with pytest.raises(IntegrityError, match="expired"):
        state.use_nonce("m", "n", 100.0, now=200.0)
    # The clock was set back: what is no longer known does not come back to life.
    with pytest.raises(IntegrityError, match="expired"):
        state.use_nonce("m", "n", 100.0, now=60.0)
    with pytest.raises(IntegrityError, match="expired"):
        state.use_nonce("m", "new", float("nan"))


def test_floors_only_rise(state: State) -> None:
    assert state.floor("key") == 0
    assert not state.path.exists()
    state.raise_floor("key", 3)
    state.raise_floor("key", 2)
    assert (state.floor("key"), state.floor("other")) == (3, 0)


def use(path: Path, start: multiprocessing.synchronize.Event, place: int) -> None:
    start.wait()
    try:
        State(path).use_nonce("m", "contested", LATER)
    except IntegrityError:
        return
    path.with_name(f"won-{place}").touch()


def test_of_many_who_race_one_wins(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    start = fork.Event()
    path = tmp_path / "state.db"
    racers = [fork.Process(target=use, args=(path, start, n)) for n in range(6)]
    for racer in racers:
        racer.start()
    start.set()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert len(list(tmp_path.glob("won-*"))) == 1


def test_an_open_or_foreign_file_is_refused(state: State, tmp_path: Path) -> None:
    state.use_nonce("m", "n", LATER)
    state.path.chmod(0o644)
    with pytest.raises(IntegrityError, match="chmod 600"):
        state.use_nonce("m", "o", LATER)
    (tmp_path / "link.db").symlink_to(state.path)
    with pytest.raises(IntegrityError, match="not a file of this user"):
        State(tmp_path / "link.db").use_nonce("m", "o", LATER)


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(900)])
def test_damage_is_refused(state: State, damage: bytes) -> None:
    state.use_nonce("m", "n", LATER)
    state.path.write_bytes(damage)
    with pytest.raises((IntegrityError, InputError), match=r"state\.db"):
        state.use_nonce("m", "n", LATER)


def test_another_database_is_refused(state: State) -> None:
    state.use_nonce("m", "n", LATER)
    with sqlite3.connect(state.path) as connection:
        connection.execute("PRAGMA application_id=7")
    with pytest.raises(IntegrityError, match="is not the state file"):
        state.use_nonce("m", "o", LATER)


def test_a_folder_that_cannot_be_written_denies(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        State(tmp_path / "file" / "state.db").use_nonce("m", "n", LATER)
