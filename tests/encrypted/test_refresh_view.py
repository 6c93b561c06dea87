"""What the key holder sees of refreshed values, with masks of so few bits that it could show.

A mask of k bits lets nobody tell two values within the bound apart with an advantage of more than
2**-k, and the masks of an evaluation together keep to the bits that its refreshes ask for. Here all
travel in pairs. Of shifted uniform distributions the best test is whether what is seen is possible
under the one value only, so its success, counted over many evaluations, measures the advantage
itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from numpy.typing import NDArray

from hecompile.numeric.masking import Content, mask_bits_needed
from hecompile.runtime.masks import MaskSource, mask_size
from hecompile.runtime.rounds import MaskedRounds
from tests.encrypted.relayout_rounds import SHALLOW, random_gather, round_program
from tests.encrypted.runtime_parties import Parties, make_parties
from tests.encrypted.test_runtime_refresh import Seen, exact

Pair = tuple[float, float]

BITS = 4
"""Of each ciphertext; eight of them make 1 bit for an evaluation."""
RUNS = 48
WHOLE_RUNS = 8
VALUES = 16
CIPHERTEXTS = VALUES // 2
ASKED = BITS - 3
BOUND = 1.0
PERIODS = (1,) * VALUES
DEGREE = SHALLOW.poly_modulus_degree
SCALE = SHALLOW.scale(1)
SIZE = mask_size(mask_bits_needed(DEGREE, [Content(1, BOUND * SCALE)] * 2, BITS))
SAMPLES = RUNS * CIPHERTEXTS


@pytest.fixture(scope="module")
def parties() -> Parties:
    table = random_gather(np.random.default_rng(1), PERIODS, 1)
    return make_parties(round_program(PERIODS, [table], SHALLOW, ASKED, bound=BOUND))


def seen(parties: Parties, pair: Pair, runs: int) -> Iterator[Seen]:
    """What the key holder decrypts of evaluations whose pairs of values are all this one."""
    xs = {f"x{n}": np.full((1, 1), pair[n % 2]) for n in range(VALUES)}
    (data,) = parties.client.encrypt(xs)
    for number in range(runs):
        evaluation = parties.evaluator.start(data)
        # Seeds of this test's own, so that it always draws the same masks.
        source = MaskSource(sha256(f"{pair} {number}".encode()).digest())
        evaluation._checkpoint = replace(evaluation._checkpoint, masks=source)
        request = evaluation.advance()
        assert request is not None
        yield Seen(parties, request, source, 3)


def coefficients(parties: Parties, pair: Pair) -> NDArray[np.float64]:
    """What is seen of the two coefficients that carry values, of all ciphertexts and runs."""
    found = seen(parties, pair, RUNS)
    return np.array([x.high for one in found for x in one.periodic])


def advantages(parties: Parties, size: int) -> dict[str, float]:
    """How much more often the best test says 'the first' of a pair than of its opposite.

    The pairs are as far apart as the bound lets them be, each value in one coefficient. Tests look
    at the one, at the other, or at both.
    """
    reach = size - BOUND * SCALE
    first, second = (coefficients(parties, (x, -x)) * (1, -1) > reach for x in (BOUND, -BOUND))
    counts = first.mean(axis=0) - second.mean(axis=0)
    both = first.any(axis=1).mean() - second.any(axis=1).mean()
    return {"real": counts[0], "imaginary": counts[1], "both": both}


def deviation(share: float) -> float:
    """Standard deviation of a share that was counted, with its complement's."""
    return math.sqrt(2 * share * (1 - share) / SAMPLES)


def test_two_pairs_cannot_be_told_apart_beyond_the_bound(parties: Parties) -> None:
    for part, found in advantages(parties, SIZE).items():
        # Two uniform distributions of 2M integers, 2 * bound * scale apart, for each value.
        expected = 1.0 - (1.0 - BOUND * SCALE / SIZE) ** (2 if part == "both" else 1)
        assert expected <= 2.0**-BITS
        assert abs(found - expected) < 4.5 * deviation(expected)
        assert found < 2.0**-BITS


def test_a_whole_evaluation_keeps_the_promise(parties: Parties) -> None:
    """The best test looks at every ciphertext of an evaluation, whose values are all this pair."""
    reach = SIZE - BOUND * SCALE
    told = []
    for x in (BOUND, -BOUND):
        found = coefficients(parties, (x, -x)).reshape(RUNS, -1, 2) * (x, -x)
        told.append((found > reach).any(axis=(1, 2)).mean())
        other = coefficients(parties, (-x, x)).reshape(RUNS, -1, 2) * (x, -x)
        assert not (other > reach).any()
    expected = 1.0 - (1.0 - BOUND * SCALE / SIZE) ** (2 * CIPHERTEXTS)
    assert expected <= 2.0**-ASKED
    for share in told:
        assert abs(share - expected) < 4.5 * math.sqrt(expected * (1 - expected) / RUNS)


def test_the_same_count_tells_that_masks_are_too_small(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: masks smaller by 2**4 give either value away."""
    rounds: MaskedRounds = parties.evaluator.rounds
    small = mask_size(math.log2(SIZE) - 4)
    monkeypatch.setattr(rounds, "_sizes", dict.fromkeys(rounds._sizes, small))
    for found in advantages(parties, small).values():
        assert found > 2.0**-BITS + 4.5 * deviation(2.0**-BITS)
        assert found > 4 * 2.0**-BITS


def test_masks_are_in_every_coefficient_and_no_larger_than_said(parties: Parties) -> None:
    for pair in ((BOUND, -BOUND), (-BOUND, BOUND)):
        found = seen(parties, pair, WHOLE_RUNS)
        masked = np.array([x.high for one in found for x in one.whole()])
        masked[:, [0, DEGREE // 2]] -= np.array(pair) * SCALE
        # What is left is the mask and the noise of encryption, a few thousand.
        noise = BOUND * SCALE / 64
        assert np.abs(masked).max() < SIZE + noise
        # Of 64 draws in each of 4096 coefficients, the largest of every one is near the end.
        assert masked.max(axis=0).min() > 0.5 * SIZE
        assert masked.min(axis=0).max() < -0.5 * SIZE
        counts, _ = np.histogram(masked, bins=64, range=(-SIZE, SIZE))
        share = masked.size / 64
        assert np.abs(counts[1:-1] - share).max() < 6 * math.sqrt(share)
        # Coefficients are independent: neighbours, and one coefficient in different ciphertexts.
        scaled = masked / (SIZE / math.sqrt(3))
        limit = 6 / math.sqrt(masked.size)
        assert abs((scaled[:, 1:] * scaled[:, :-1]).mean()) < limit
        assert abs((scaled[1:] * scaled[:-1]).mean()) < limit
        assert abs(scaled.mean()) < limit


def test_what_is_seen_is_the_value_and_the_mask_exactly(parties: Parties) -> None:
    """So what holds of the masks holds of the view: nothing is lost or wrapped around."""
    (one,) = seen(parties, (0.5, -0.25), 1)
    for view, mask, cipher in zip(one.whole(), one.masks(), one.round.request, strict=True):
        low = np.array(exact(view), dtype=object) - (mask.high.astype(object) * 2**48 + mask.low)
        low[0] -= round(0.5 * cipher.scale)
        low[DEGREE // 2] -= round(-0.25 * cipher.scale)
        assert np.abs(low.astype(float)).max() < BOUND * SCALE / 64
