"""Budgets under attack: races, crashes, ledgers put back or exchanged."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
from pathlib import Path

import pytest

from hecompile.access.ledger import Charge, ReleaseLedger, Spent
from hecompile.access.state import State
from hecompile.errors import AccessDeniedError, InputError, IntegrityError

KEY = "k" * 64


@pytest.fixture
def ledger(tmp_path: Path) -> ReleaseLedger:
    made = ReleaseLedger(tmp_path, KEY, State(tmp_path / "state.db"))
    made.create()
    return made


def test_releases_are_counted_to_the_limit(ledger: ReleaseLedger) -> None:
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600
    assert [ledger.spend("y", "permission 1", 3) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(AccessDeniedError, match=r"Access Denied: .* 3 releases, 3 were made"):
        ledger.spend("y", "permission 1", 3)
    assert ledger.spend("z", "permission 2", 5, units=5) == 5
    assert (ledger.spent("y"), ledger.spent("z"), ledger.spent()) == (
        Spent(3, 0.0),
        Spent(5, 0.0),
        Spent(8, 0.0),
    )


def test_a_permission_counts_all_its_outputs_together(ledger: ReleaseLedger) -> None:
    ledger.spend("y", "permission 1", 2)
    assert ledger.spend("z", "permission 1", 2) == 2
    with pytest.raises(AccessDeniedError):
        ledger.spend("z", "permission 1", 2)


def test_the_key_has_a_budget_over_all_permissions(ledger: ReleaseLedger) -> None:
    ledger.spend_all([Charge("y", "permission 1", 9, units=3, key_limit=4)])
    with pytest.raises(AccessDeniedError, match="the key's budget allows 4 releases, 3 were made"):
        ledger.spend_all([Charge("y", "permission 2", 9, units=2, key_limit=4)])


def test_what_is_foreseen_is_not_counted(ledger: ReleaseLedger) -> None:
    charge = Charge("y", "permission 1", 3, units=2, rho=0.5, total_rho=1.0)
    for _ in range(5):
        ledger.foresee([charge])
    assert ledger.spent() == Spent(0, 0.0)
    ledger.spend_all([charge])
    with pytest.raises(AccessDeniedError, match="3 releases, 2 were made and 2 more"):
        ledger.foresee([charge])
    assert ledger.spent() == Spent(2, 0.5)


def test_privacy_loss_adds_up(ledger: ReleaseLedger) -> None:
    for _ in range(10):
        ledger.spend("y", "permission 1", 100, rho=0.1, total_rho=1.0)
    with pytest.raises(AccessDeniedError, match="privacy loss"):
        ledger.spend("y", "permission 1", 100, rho=0.1, total_rho=1.0)
    assert ledger.spent().rho == pytest.approx(1.0)
    with pytest.raises(AccessDeniedError, match="privacy loss"):
        ledger.spend("z", "permission 2", 100, rho=0.1, total_rho=None)


@pytest.mark.parametrize(("units", "rho"), [(0, 0.0), (-1, 0.0), (1, -0.1), (1, float("nan"))])
def test_nothing_can_be_given_back(ledger: ReleaseLedger, units: int, rho: float) -> None:
    with pytest.raises(InputError, match="cannot count"):
        ledger.spend("y", "permission 1", 9, units=units, rho=rho, total_rho=1.0)
    assert ledger.spent() == Spent(0, 0.0)


def test_of_several_charges_all_are_made_or_none(ledger: ReleaseLedger) -> None:
    with pytest.raises(AccessDeniedError):
        ledger.spend_all([Charge("y", "permission 1", 5), Charge("z", "permission 2", 0)])
    assert ledger.spent() == Spent(0, 0.0)


def test_a_missing_ledger_denies_and_is_not_made_anew(ledger: ReleaseLedger) -> None:
    ledger.spend("y", "permission 1", 3)
    ledger.path.unlink()
    with pytest.raises(InputError, match="is missing; restore the newest copy"):
        ledger.spend("y", "permission 1", 3)
    assert not ledger.path.exists()


def test_a_ledger_put_back_is_found_out(ledger: ReleaseLedger, tmp_path: Path) -> None:
    ledger.spend("y", "permission 1", 3)
    shutil.copy2(ledger.path, tmp_path / "copy")
    ledger.spend("y", "permission 1", 3)
    shutil.copy2(tmp_path / "copy", ledger.path)
    with pytest.raises(IntegrityError, match="counts 1 releases, but 2 were made"):
        ledger.spend("y", "permission 1", 3)
    with pytest.raises(IntegrityError, match="an older copy was put back"):
        ledger.spent()


def test_another_keys_ledger_is_refused(ledger: ReleaseLedger, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = ReleaseLedger(tmp_path / "other", "o" * 64)
    other.create()
    shutil.copy2(other.path, ledger.path)
    with pytest.raises(IntegrityError, match="another key's"):
        ledger.spend("y", "permission 1", 3)


def test_a_ledger_is_not_made_twice(ledger: ReleaseLedger) -> None:
    with pytest.raises(InputError, match="exists already"):
        ledger.create()


def race(folder: Path, start: multiprocessing.synchronize.Event, place: int) -> None:
    start.wait()
    try:
        number = ReleaseLedger(folder, KEY, State(folder / "state.db")).spend("y", "p", 5)
    except AccessDeniedError:
        return
    (folder / f"won-{place}").write_text(str(number))


def test_two_that_race_for_the_last_unit(ledger: ReleaseLedger, tmp_path: Path) -> None:
    for _ in range(4):
        ledger.spend("y", "p", 5)
    fork = multiprocessing.get_context("fork")
    start = fork.Event()
    racers = [fork.Process(target=race, args=(tmp_path, start, n)) for n in range(2)]
    for racer in racers:
        racer.start()
    start.set()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert [path.read_text() for path in tmp_path.glob("won-*")] == ["5"]
    assert ledger.spent() == Spent(5, 0.0)


def test_a_crash_within_the_transaction_counts_nothing(
    ledger: ReleaseLedger, tmp_path: Path
) -> None:
    child = os.fork()
    if child == 0:
        with ledger._database.transaction() as change:
            change.execute("INSERT INTO spent VALUES ('p', 'y', 7, 0.0, '')")
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert ledger.spent() == Spent(0, 0.0)
    assert ledger.spend("y", "p", 1) == 1


def race_copy(folder: Path, start: multiprocessing.synchronize.Event, place: int) -> None:
    ledger = ReleaseLedger(folder / f"copy-{place}", KEY, State(folder / "state.db"))
    start.wait()
    try:
        ledger.spend_all([Charge("y", "p", 4, units=4, key_limit=4)])
    except IntegrityError:
        return
    (folder / f"won-{place}").touch()


def test_of_copies_that_are_used_side_by_side_one_counts(
    ledger: ReleaseLedger, tmp_path: Path
) -> None:
    fork = multiprocessing.get_context("fork")
    for round_ in range(3):
        for path in tmp_path.glob("won-*"):
            path.unlink()
        folder = tmp_path / str(round_)
        folder.mkdir()
        for place in range(6):
            (folder / f"copy-{place}").mkdir()
            shutil.copy2(ledger.path, folder / f"copy-{place}")
        start = fork.Event()
        racers = [fork.Process(target=race_copy, args=(folder, start, n)) for n in range(6)]
        for racer in racers:
            racer.start()
        start.set()
        for racer in racers:
            racer.join(60)
            assert racer.exitcode == 0
        assert len(list(folder.glob("won-*"))) == 1
        assert State(folder / "state.db").floor(KEY) == 4


def test_an_exhausted_privacy_budget_advises_no_new_keys(ledger: ReleaseLedger) -> None:
    """They would let the same persons' loss add up unseen."""
    with pytest.raises(AccessDeniedError) as told:
        ledger.spend("y", "permission 1", 100, rho=2.0, total_rho=1.0)
    assert "under several keys adds up: ask the data protection officer" in str(told.value)
    assert "make new keys" not in str(told.value)


def test_a_ledger_of_another_version_is_refused_as_such(ledger: ReleaseLedger) -> None:
    with contextlib.closing(sqlite3.connect(ledger.path)) as older:
        older.execute("PRAGMA user_version=1")
    for use in (ledger.spent, lambda: ledger.spend("y", "permission 1", 3)):
        with pytest.raises(IntegrityError, match=r"another version .*format 1, not 2"):
            use()
