"""What a custodian lets out, and when it refuses: budgets, replays, ranges, plans, crashes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from hecompile.access.audit import AuditLog, verify_audit
from hecompile.access.decide import Decision
from hecompile.access.ledger import Spent
from hecompile.access.objects import Scope
from hecompile.access.release_plan import ReleasePlan
from hecompile.access.terms import Obligations
from hecompile.access.users import UserEntry, Users
from hecompile.errors import AccessDeniedError, InputError, IntegrityError, UsageError
from hecompile.runtime.custodian import Custodian
from hecompile.runtime.guard import OpenGuard
from hecompile.runtime.release import Mechanism, ReleaseRules
from hecompile.runtime.release_log import ReleaseLog
from tests.encrypted.releasing import (
    ELEMENTS,
    FLOOD_BITS,
    PERSONS,
    STEP,
    Granting,
    Hospital,
    hospital,
    labels,
    people,
    plan,
    private,
    rounded,
)


@pytest.fixture(scope="module")
def place() -> Hospital:
    return hospital()


def changed(custodian: Custodian, **changes: ReleasePlan) -> Custodian:
    custodian.rules = ReleaseRules((changes["plan"],))
    return custodian


def spent(custodian: Custodian) -> Spent:
    assert custodian._ledger is not None
    return custodian._ledger.spent()


def test_scores_are_rounded_counted_and_near_the_exact_ones(
    place: Hospital, tmp_path: Path
) -> None:
    x = people(11, 3)
    custodian = place.custodian(tmp_path, rounded(6))
    (envelope,) = place.results(x)
    released = custodian.release(envelope)
    found = released.outputs["y"]
    assert found.raw is not None
    assert found.mechanism is Mechanism.ROUNDED
    assert found.raw.shape == (3, ELEMENTS)
    steps = found.raw / STEP
    assert np.abs(steps - np.rint(steps)).max() < 1e-9
    assert found.error is not None
    assert np.abs(found.raw - x**2).max() <= found.error < 0.03
    assert (found.number, found.limit) == (3, 6)
    assert str(found).startswith("rounded to 0.05, exact to 0.02")
    assert str(found).endswith("release 3 of 6")
    assert released.raw["y"] is found.raw
    assert spent(custodian) == Spent(3, 0.0)


def test_an_envelope_is_released_once(place: Hospital, tmp_path: Path) -> None:
    custodian = place.custodian(tmp_path, rounded())
    (envelope,) = place.results(people(12, 2))
    custodian.release(envelope)
    with pytest.raises(IntegrityError, match="received before"):
        custodian.release(envelope)
    assert spent(custodian).releases == 2
    # The key's holder may look at raw values as often as it likes.
    assert custodian.decrypt(envelope).raw["y"].shape == (2, ELEMENTS)


def test_twice_in_one_call_is_a_replay_too(place: Hospital, tmp_path: Path) -> None:
    custodian = place.custodian(tmp_path, rounded())
    (envelope,) = place.results(people(13, 2))
    with pytest.raises(IntegrityError, match="came twice: number 2 is a copy"):
        custodian.release_all([envelope, envelope])
    assert spent(custodian).releases == 0
    # Nothing was used up by the attempt.
    assert custodian.release(envelope).outputs["y"].number == 2


def test_a_replay_among_others_uses_none_of_them_up(place: Hospital, tmp_path: Path) -> None:
    custodian = place.custodian(tmp_path, rounded())
    (old,), new = place.results(people(17, 2)), place.results(people(18, PERSONS + 1))
    custodian.release(old)
    with pytest.raises(IntegrityError, match="received before"):
        custodian.release_all([*new, old])
    assert spent(custodian).releases == 2
    assert custodian.release_all(new).outputs["y"].number == PERSONS + 3


def test_an_exhausted_budget_denies_and_loses_nothing(place: Hospital, tmp_path: Path) -> None:
    custodian = place.custodian(tmp_path, rounded(3))
    custodian.release(place.results(people(14, 2))[0])
    refused = place.results(people(15, 2))[0]
    for _ in range(2):
        # It is not used up, so that somebody with releases left can still have it.
        with pytest.raises(AccessDeniedError, match="3 releases, 2 were made and 2 more"):
            custodian.release(refused)
    assert spent(custodian).releases == 2
    assert custodian.release(place.results(people(16, 1))[0]).outputs["y"].number == 3


def test_the_plan_bounds_all_permissions_together(place: Hospital, tmp_path: Path) -> None:
    custodian = place.custodian(tmp_path, rounded(100), releases=2)
    custodian.release(place.results(people(14, 2))[0])
    with pytest.raises(AccessDeniedError, match="the key's budget allows 2 releases"):
        custodian.release(place.results(people(15, 1))[0])


def test_labels_alone_leave(place: Hospital, tmp_path: Path) -> None:
    x = people(17, 40)
    found = place.custodian(tmp_path, labels()).release(place.results(x)[0]).outputs["y"]
    assert (found.raw, found.error, found.mechanism) == (None, None, Mechanism.LABEL)
    assert found.values.dtype == np.int64
    assert (found.values == (x**2).argmax(axis=1)).mean() > 0.9
    assert str(found) == "labels only, release 40 of 512"


def test_a_cohort_gives_one_mean(place: Hospital, tmp_path: Path) -> None:
    x = people(18, 200)
    custodian = place.custodian(tmp_path, private(rho=1.0), scope=Scope.COHORT)
    found = custodian.release(place.results(x)[0], scope=Scope.COHORT).outputs["y"]
    assert found.is_mean
    assert found.raw is not None
    assert found.error is not None
    assert found.raw.shape == (1, ELEMENTS)
    assert np.abs(found.raw - (x**2).mean(axis=0)).max() < found.error < 0.1
    assert found.epsilon == pytest.approx(8.43, abs=0.01)
    assert spent(custodian) == Spent(1, 1.0)
    with pytest.raises(AccessDeniedError, match="privacy loss"):
        custodian.release(place.results(people(19, 200))[0], scope=Scope.COHORT)


def test_a_cohort_must_be_large_enough(place: Hospital, tmp_path: Path) -> None:
    custodian = place.custodian(tmp_path, private(), scope=Scope.COHORT)
    with pytest.raises(AccessDeniedError, match="at least 20 persons, not 19"):
        custodian.release(place.results(people(20, 19))[0], scope=Scope.COHORT)
    with pytest.raises(AccessDeniedError, match="another scope"):
        custodian.release(place.results(people(20, 30))[0])
    assert spent(custodian) == Spent(0, 0.0)


def test_one_person_far_out_moves_a_mean_little_and_does_not_stop_it(
    place: Hospital, tmp_path: Path
) -> None:
    x = people(21, 200)
    far = x.copy()
    far[7] = 30.0
    custodian = place.custodian(tmp_path, private(rho=1.0), scope=Scope.COHORT)
    found = custodian.release(place.results(far)[0], scope=Scope.COHORT).outputs["y"]
    assert found.raw is not None
    assert np.abs(found.raw - (x**2).mean(axis=0)).max() < 0.1


def test_private_scores_tell_their_epsilon(place: Hospital, tmp_path: Path) -> None:
    custodian = place.custodian(tmp_path, private(rho=0.4, total=1.0))
    found = custodian.release(place.results(people(22, 2))[0]).outputs["y"]
    assert found.mechanism is Mechanism.PRIVATE
    assert found.raw is not None
    assert found.error is not None
    # So many elements at so little loss of privacy are all noise, and the error says so.
    assert found.error > 10.0
    assert found.epsilon == pytest.approx(5.1, abs=0.01)
    assert spent(custodian).releases == 2
    assert spent(custodian).rho == pytest.approx(0.8)
    with pytest.raises(AccessDeniedError, match="privacy loss"):
        custodian.release(place.results(people(23, 1))[0])


def test_values_outside_calibration_are_refused_and_counted(
    place: Hospital, tmp_path: Path
) -> None:
    x = people(24, 2)
    x[1, 3] = 1.4
    custodian = place.custodian(tmp_path, rounded())
    with pytest.raises(AccessDeniedError, match="outside the range seen in calibration") as told:
        custodian.release(place.results(x)[0])
    assert not any(digit in str(told.value) for digit in ("1.9", "1.96"))
    # A refusal tells of flooded values, so that it costs what an answer costs.
    assert spent(custodian).releases == 2


def weak_plans() -> list[ReleasePlan]:
    good = plan(512)
    return [
        replace(good, sigma=good.sigma * 0.99),
        replace(good, values=1, sigma=good.sigma / 4),
        replace(good, flood_bits=20),
        replace(good, step=2 * STEP),
        replace(good, step=None),
        replace(good, bound=0.0),
        replace(good, output="z"),
        replace(good, sigma=float("nan")),
    ]


@pytest.mark.parametrize("weak", weak_plans())
def test_a_plan_that_floods_too_little_is_refused(
    place: Hospital, tmp_path: Path, weak: ReleasePlan
) -> None:
    custodian = changed(place.custodian(tmp_path, rounded()), plan=weak)
    with pytest.raises(AccessDeniedError, match="plan"):
        custodian.release(b"never looked at")
    assert spent(custodian).releases == 0


@pytest.mark.parametrize(
    "duties",
    [
        Obligations(None, STEP, False, None, 5),
        Obligations(FLOOD_BITS, STEP, False, None, None),
        Obligations(FLOOD_BITS, None, False, None, 5),
        Obligations(FLOOD_BITS, STEP, True, None, 5),
    ],
)
def test_incomplete_obligations_release_nothing(
    place: Hospital, tmp_path: Path, duties: Obligations
) -> None:
    with pytest.raises(AccessDeniedError, match="flooding, a budget, and one of"):
        place.custodian(tmp_path, duties).release(b"never looked at")


def test_nothing_is_released_without_a_policy_a_ledger_or_a_range(
    place: Hospital, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="open the bundle"):
        Custodian(place.spec, place.secret, OpenGuard()).release(b"")
    rules = ReleaseRules((plan(5),))
    guard = Granting(rounded(5), Scope.PERSON)
    with pytest.raises(InputError, match="no folder with a ledger"):
        Custodian(place.spec, place.secret, guard, rules=rules).release(b"")
    (output,) = place.spec.outputs
    spec = replace(place.spec, outputs=(replace(output, ranges=None),))
    custodian = place.custodian(tmp_path, rounded())
    custodian.spec = spec
    with pytest.raises(AccessDeniedError, match="no calibrated range"):
        custodian.release(b"never looked at")
    with pytest.raises(InputError, match="no output 'z'"):
        place.custodian(tmp_path, rounded()).release(b"", ["z"])


def aged(custodian: Custodian, days: int, most: int | None) -> Custodian:
    custodian.rules = ReleaseRules(custodian.rules.plans, most)
    custodian._now = lambda: datetime.now(UTC) + timedelta(days=days)
    return custodian


def test_an_old_key_does_nothing_any_more(place: Hospital, tmp_path: Path) -> None:
    old = aged(place.custodian(tmp_path, rounded()), 91, 90)
    (envelope,) = place.results(people(25, 1))
    for use in (old.release, old.decrypt, old.refresh):
        with pytest.raises(AccessDeniedError, match=r"91 days ago, .* replaced after 90; make new"):
            use(envelope)
    assert aged(old, 89, 90).release(envelope).outputs["y"].number == 1


def test_a_key_is_replaced_after_so_many_releases(place: Hospital, tmp_path: Path) -> None:
    custodian = place.custodian(tmp_path, rounded())
    custodian.rules = ReleaseRules(custodian.rules.plans, None, 2)
    custodian.release(place.results(people(26, 2))[0])
    with pytest.raises(AccessDeniedError, match="the key's budget allows 2 releases"):
        custodian.release(place.results(people(27, 1))[0])


USERS = Users("p" * 64, 1, "", "", (UserEntry("anna", ("doctor",)),))


def logged(custodian: Custodian, log: Path) -> Custodian:
    custodian._log = ReleaseLog(AuditLog(log), USERS, "m" * 64)
    return custodian


def test_releases_and_refusals_are_logged_without_values(place: Hospital, tmp_path: Path) -> None:
    log = tmp_path / "log"
    custodian = logged(place.custodian(tmp_path, rounded(2)), log)
    found = custodian.release(place.results(people(28, 2))[0]).outputs["y"]
    with pytest.raises(AccessDeniedError):
        custodian.release(place.results(people(29, 1))[0])
    first, second = (line for line in log.read_text().splitlines() if '"decision"' in line)
    assert "release 2 of 2" in first
    assert '"allow"' in first
    assert '"deny"' in second
    assert "2 were made" in second
    assert verify_audit(log).entries == 2
    assert found.raw is not None
    # The time and digests have digits of their own.
    told = re.sub(r'"(time|[a-z_]*digests?|previous|hash)":("[^"]*"|\[[^]]*\])', "", first)
    assert not any(f"{value:.6g}" in told for value in found.raw.ravel() if abs(value) > 0.2)


def test_what_cannot_be_logged_does_not_leave_but_counts(place: Hospital, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    custodian = logged(place.custodian(tmp_path, rounded()), tmp_path / "folder")
    with pytest.raises(AccessDeniedError, match="cannot be logged"):
        custodian.release(place.results(people(30, 2))[0])
    assert spent(custodian).releases == 2


class Refusing(OpenGuard):
    """A policy that grants nothing."""

    def declassify(
        self, labels: Sequence[str], scope: Scope = Scope.PERSON, *, some: bool = False
    ) -> tuple[Decision, ...]:
        raise AccessDeniedError("Access Denied: nothing")


def test_a_denied_request_spends_nothing(place: Hospital, tmp_path: Path) -> None:
    custodian = place.custodian(tmp_path, rounded())
    custodian._guard = Refusing()
    (envelope,) = place.results(people(31, 1))
    with pytest.raises(AccessDeniedError, match="nothing"):
        custodian.release(envelope)
    assert spent(custodian).releases == 0
    # The envelope was not used up either.
    custodian._guard = Granting(rounded(), Scope.PERSON)
    assert custodian.release(envelope).outputs["y"].number == 1


def test_killed_between_commit_and_answer_the_release_counts(
    place: Hospital, tmp_path: Path
) -> None:
    custodian = place.custodian(tmp_path, rounded(7))
    (envelope,) = place.results(people(32, 3))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # What comes after the ledger's commit and before the answer: post-processing.
        def killed(*_: object) -> None:
            os.write(writing, b"answering")
            os.kill(os.getpid(), signal.SIGKILL)

        import hecompile.runtime.release as release

        release.gaussian = killed  # type: ignore[assignment]
        custodian.release(envelope)
        os._exit(1)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert os.read(reading, 20) == b"answering"
    again = place.custodian(tmp_path, rounded(7))
    assert spent(again).releases == 3
    with pytest.raises(IntegrityError, match="received before"):
        again.release(envelope)
    with pytest.raises(AccessDeniedError, match="7 releases, 3 were made"):
        again.release(place.results(people(33, 5))[0])


def test_an_envelope_of_another_key_is_refused_before_it_counts(
    place: Hospital, tmp_path: Path
) -> None:
    custodian = place.custodian(tmp_path, rounded())
    (foreign,) = hospital(1).results(people(34, 1))
    with pytest.raises(IntegrityError, match="encrypted under key"):
        custodian.release(foreign)
    assert spent(custodian).releases == 0
