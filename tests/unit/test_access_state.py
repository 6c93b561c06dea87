"""What a machine must not unlearn, under attack: older documents, replays, other users, crashes."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
from pathlib import Path

import pytest

from hecompile.access.state import State
from hecompile.access.succession import Line
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


def test_versions_of_users_only_go_up(state: State) -> None:
    state.admit_users("line", 2, "a")
    state.admit_users("line", 2, "a")
    with pytest.raises(IntegrityError, match="version 1, but version 2 was seen here before"):
        state.admit_users("line", 1, "b")
    with pytest.raises(IntegrityError, match=r"another .* of version 2 was seen here before"):
        state.admit_users("line", 2, "b")
    state.admit_users("line", 5, "c")
    with pytest.raises(IntegrityError, match="version 2, but version 5"):
        state.admit_users("line", 2, "a")
    state.admit_users("other line", 1, "b")
    # Another process on the machine knows it too.
    with pytest.raises(IntegrityError):
        State(state.path).admit_users("line", 4, "d")


FIRST = Line(4, "d4", 2, ("ann", "ben", "cas"))


@pytest.fixture
def seen(state: State) -> State:
    state.admit_manifest("line", FIRST, "d3", ("ann", "ben"))
    return state


def test_a_machine_remembers_the_newest_manifest(seen: State) -> None:
    seen.admit_manifest("line", FIRST, "d3", ())
    assert State(seen.path).line("line") == FIRST
    assert seen.line("other line") is None
    after = Line(5, "d5", 1, ("dan",))
    seen.admit_manifest("line", after, "d4", ("ann", "cas", "dan"))
    assert seen.line("line") == after
    # From now on the new signers count.
    with pytest.raises(IntegrityError, match="0 of the 1 signatures by signers of version 5"):
        seen.admit_manifest("line", Line(6, "d6", 2, FIRST.keyids), "d5", FIRST.keyids)
    seen.admit_manifest("other line", Line(2**53, "x", 1, ("eve",)), "y", ("eve",))


@pytest.mark.parametrize(
    ("line", "supersedes", "signed_by", "words"),
    [
        (Line(3, "d3", 1, ("ann",)), "d2", FIRST.keyids, "version 3, but version 4 was seen"),
        (Line(4, "x", 2, FIRST.keyids), "d3", FIRST.keyids, "another manifest of version 4"),
        (Line(4, "d4", 1, ("ann",)), "d3", FIRST.keyids, "another manifest of version 4"),
        (Line(5, "d5", 1, ("ann",)), "d4", ("ann",), "1 of the 2 signatures by signers"),
        (Line(5, "d5", 1, ("ann",)), "d4", ("ann", "ann"), "1 of the 2 signatures by signers"),
        (Line(5, "d5", 1, ("eve",)), "d4", ("eve", "fay"), "0 of the 2 signatures by signers"),
        (Line(5, "d5", 2, FIRST.keyids), "x", FIRST.keyids, "the line was forked"),
        (Line(5, "d5", 2, FIRST.keyids), "", FIRST.keyids, "the line was forked"),
        # Versions were missed: the old signers are asked for all the same.
        (Line(9, "d9", 1, ("eve",)), "d8", ("ann", "eve"), "1 of the 2 signatures by signers"),
        (Line(1005, "x", 2, FIRST.keyids), "y", FIRST.keyids, "more than 1000 ahead of version 4"),
    ],
)
def test_what_may_not_follow_is_refused_and_not_remembered(
    seen: State, line: Line, supersedes: str, signed_by: tuple[str, ...], words: str
) -> None:
    with pytest.raises(IntegrityError, match=words):
        seen.admit_manifest("line", line, supersedes, signed_by)
    assert seen.line("line") == FIRST


def test_versions_may_be_missed(seen: State) -> None:
    seen.admit_manifest("line", Line(1004, "x", 1, ("eve",)), "y", ("ben", "cas", "eve"))


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


def test_nonces_are_used_all_or_none(state: State) -> None:
    state.use_nonces("m", [("a", LATER), ("b", LATER)])
    for nonces in (
        [("c", LATER), ("a", LATER)],
        [("c", LATER), ("c", LATER)],
        [("c", LATER), ("d", 100.0)],
        [("c", LATER), ("", LATER)],
    ):
        with pytest.raises(IntegrityError):
            state.use_nonces("m", nonces)
    state.use_nonces("m", [("c", LATER), ("d", LATER)])
    state.use_nonces("m", [])


def test_a_clock_that_was_ahead_for_a_moment_does_no_lasting_harm(state: State) -> None:
    now, year = 1_900_000_000.0, 366 * 86400.0
    state.use_nonce("m", "n", now + 60, now=now)
    with pytest.raises(IntegrityError, match="this message has expired"):
        state.use_nonce("m", "o", now + 90, now=now + year)
    state.use_nonce("m", "p", now + year + 60, now=now + year)
    # The clock is right again: what might be a replay of what was forgotten is refused alone.
    with pytest.raises(IntegrityError, match="set the clock right"):
        state.use_nonce("m", "n", now + 60, now=now)
    state.use_nonce("m", "q", now + 90, now=now)
    state.use_nonce("another manifest", "n", now + 60, now=now)


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


def test_a_file_of_another_version_is_refused(state: State) -> None:
    state.use_nonce("m", "n", LATER)
    with sqlite3.connect(state.path) as connection:
        connection.execute("PRAGMA user_version=1")
    for use_it in (lambda: state.use_nonce("m", "o", LATER), lambda: state.floor("key")):
        with pytest.raises(IntegrityError, match="made by another version"):
            use_it()


def test_a_folder_that_cannot_be_written_denies(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        State(tmp_path / "file" / "state.db").use_nonce("m", "n", LATER)
