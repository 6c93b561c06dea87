"""The attack on approximate decryptions: it works on raw values and on nothing that is released."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hecompile.access.objects import Scope
from hecompile.access.release_plan import flooding_sigma
from hecompile.errors import AccessDeniedError
from hecompile.ir.constants import Array
from hecompile.runtime.context import Context
from hecompile.runtime.packing import unpack
from hecompile.runtime.release import gaussian
from tests.attacks.key_recovery import Attacker, is_key, kolmogorov_smirnov
from tests.encrypted.releasing import (
    BOUND,
    ELEMENTS,
    FLOOD_BITS,
    PERSONS,
    hospital,
    labels,
    people,
    private,
    rounded,
)
from tests.unit.proof_cases import KEY_RECOVERY_POLICY, refuse


@pytest.fixture(scope="module")
def attacker() -> Attacker:
    spec = hospital().spec
    return Attacker(spec, Context(spec.parameters))


@pytest.fixture(scope="module")
def envelopes() -> list[bytes]:
    """Outputs of 256 persons each; the attacker knows every input and sees every ciphertext."""
    return [hospital().results(people(seed))[0] for seed in range(3)]


def exact(seed: int) -> Array:
    return people(seed) ** 2


def opened(attacker: Attacker, key: list[int], envelope: bytes) -> Array:
    layout = attacker.cipher.layout
    assert layout is not None
    return unpack(attacker.decrypt(key, envelope), layout, PERSONS)


def test_two_raw_decryptions_give_the_whole_key(
    attacker: Attacker, envelopes: list[bytes], tmp_path: Path
) -> None:
    custodian = hospital().custodian(tmp_path, rounded())
    raws = [custodian.decrypt(envelope).raw["y"] for envelope in envelopes[:2]]
    key = attacker.solve(envelopes[:2], raws)
    assert len(key) == 8192
    assert is_key(key)
    # It opens what was never decrypted.
    assert np.abs(opened(attacker, key, envelopes[2]) - exact(2)).max() < BOUND


def test_the_policy_under_which_it_works_is_refused() -> None:
    refuse(KEY_RECOVERY_POLICY, "rule S3", "the secret key can be computed from the two")


def test_two_keys_are_not_found_in_one_anothers_ciphertexts(
    attacker: Attacker, envelopes: list[bytes], tmp_path: Path
) -> None:
    other = hospital(1)
    custodian = other.custodian(tmp_path, rounded())
    foreign = other.results(people(0))
    raw = custodian.decrypt(foreign[0]).raw["y"]
    key = attacker.solve(envelopes[:2], [raw, exact(1)])
    assert not is_key(key)


def fails(attacker: Attacker, envelopes: list[bytes], guesses: list[Array]) -> None:
    """The attack gives no key, and what it gives decrypts to garbage."""
    key = attacker.solve(envelopes[:2], guesses)
    assert not is_key(key)
    assert sum(c in (-1, 0, 1) for c in key) < len(key) // 100
    assert np.abs(opened(attacker, key, envelopes[2]) - exact(2)).max() > 1e3


def test_rounded_scores_over_the_whole_budget_give_nothing(
    attacker: Attacker, envelopes: list[bytes], tmp_path: Path
) -> None:
    custodian = hospital().custodian(tmp_path, rounded())
    found = [custodian.release(envelope).raw["y"] for envelope in envelopes[:2]]
    for scores, seed in zip(found, range(2), strict=True):
        assert np.abs(scores - exact(seed)).max() < 0.05
    with pytest.raises(AccessDeniedError, match="512 releases, 512 were made"):
        custodian.release(envelopes[2])
    fails(attacker, envelopes, found)
    # Whoever knows the inputs knows the answers better than what was released: no better either.
    fails(attacker, envelopes, [exact(0), exact(1)])
    corrected = [
        np.where(np.abs(scores - exact(seed)) < 0.025, exact(seed), scores)
        for scores, seed in zip(found, range(2), strict=True)
    ]
    fails(attacker, envelopes, corrected)


def test_labels_give_nothing(attacker: Attacker, envelopes: list[bytes], tmp_path: Path) -> None:
    custodian = hospital().custodian(tmp_path, labels())
    released = [custodian.release(envelope).outputs["y"] for envelope in envelopes[:2]]
    guesses = []
    for seed, output in enumerate(released):
        assert output.raw is None
        assert (output.values == exact(seed).argmax(axis=1)).mean() > 0.95
        # The best that agrees with the labels.
        guess = exact(seed)
        rows = np.arange(PERSONS)
        guess[rows, output.values] = np.maximum(guess[rows, output.values], guess.max(axis=1))
        guesses.append(guess)
    fails(attacker, envelopes, guesses)


def test_private_means_give_nothing(
    attacker: Attacker, envelopes: list[bytes], tmp_path: Path
) -> None:
    custodian = hospital().custodian(tmp_path, private(rho=0.5), scope=Scope.COHORT)
    means = [
        custodian.release(envelope, scope=Scope.COHORT).outputs["y"].raw
        for envelope in envelopes[:2]
    ]
    guesses = []
    for seed, mean in enumerate(means):
        assert mean is not None
        guesses.append(exact(seed) + (mean.ravel() - exact(seed).mean(axis=0)))
    fails(attacker, envelopes, guesses)


def errors_of(seed: int, tmp_path: Path) -> Array:
    """True errors of one output's values under the secret key, which a custodian alone sees."""
    envelope = hospital().results(people(seed))[0]
    custodian = hospital().custodian(tmp_path, rounded())
    return np.asarray(custodian.decrypt(envelope).raw["y"] - exact(seed))


def test_the_stated_bound_holds(tmp_path: Path) -> None:
    errors = np.concatenate([errors_of(seed, tmp_path) for seed in range(4)])
    assert np.abs(errors).max() < BOUND
    # Gaussian to the eye: 2**-30 of the values are beyond 6.2 deviations.
    assert 6.2 * errors.std() < BOUND


def test_flooded_errors_are_alike_whatever_they_were(tmp_path: Path) -> None:
    one, two = (errors_of(seed, tmp_path).ravel() for seed in (5, 6))
    raw = [np.round(errors / BOUND * 50) for errors in (one, two * 3)]
    assert kolmogorov_smirnov(*raw) < 1e-6
    sigma = flooding_sigma(BOUND, ELEMENTS, 2 * PERSONS, FLOOD_BITS)
    assert sigma > 1e6 * np.abs(one).max()
    for _ in range(4):
        flooded = [errors + gaussian(errors.shape, sigma) for errors in (one, two * 3)]
        assert kolmogorov_smirnov(*flooded) > 1e-4


def test_averages_over_the_budget_do_not_reach_the_errors(tmp_path: Path) -> None:
    """The mean of all that a key releases is still flooded by 2^15 times the largest error."""
    error = errors_of(7, tmp_path).ravel()[:ELEMENTS]
    budget = 2 * PERSONS
    sigma = flooding_sigma(BOUND, ELEMENTS, budget, FLOOD_BITS)
    mean = np.mean([error + gaussian(error.shape, sigma) for _ in range(budget)], axis=0)
    left = sigma / np.sqrt(budget)
    assert left > 2.0 ** (FLOOD_BITS / 2) * np.linalg.norm(error)
    assert 0.3 * left < np.std(mean) < 3.0 * left


def noises() -> Iterator[Array]:
    yield gaussian((200_000,), 1.0)
    yield gaussian((199_999,), 2.0) / 2.0


def test_the_noise_is_gaussian_and_fresh() -> None:
    for noise in noises():
        assert abs(noise.mean()) < 5.0 / np.sqrt(noise.size)
        assert noise.std() == pytest.approx(1.0, abs=0.01)
        assert (np.abs(noise) > 3.0).mean() == pytest.approx(0.0027, abs=0.0006)
    a, b = noises()
    assert kolmogorov_smirnov(a, b) > 1e-4
    assert not np.intersect1d(a, b).size
    assert gaussian((2, 3), 1.0).shape == (2, 3)


def test_noise_comes_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seeded generator elsewhere changes nothing; that of the system does."""
    asked = itertools.count()

    def source(size: int) -> bytes:
        next(asked)
        return bytes(size)

    np.random.default_rng(0)
    first = gaussian((4,), 1.0)
    assert not np.array_equal(first, gaussian((4,), 1.0))
    monkeypatch.setattr("hecompile.runtime.release.os.urandom", source)
    assert np.array_equal(gaussian((4,), 1.0), gaussian((4,), 1.0))
    assert next(asked) == 2
