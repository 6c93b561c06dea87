"""Refreshes as changes of layout, under exact masks, with real keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hecompile.errors import IntegrityError
from hecompile.ir.constants import Array
from hecompile.runtime import ringvalues
from hecompile.runtime.envelope import read_header, seal_envelope
from hecompile.runtime.masks import MaskSource
from hecompile.runtime.rawmemory import LayoutError
from hecompile.runtime.residues import SlowWarning, residue_access
from hecompile.runtime.rounds import KeyHolder, MaskedRounds, Relayout
from hecompile.runtime.wide import Double, Wide, double_of, whole
from tests.encrypted.relayout_rounds import (
    DEEP,
    gathered,
    random_gather,
    round_program,
    twice_program,
)
from tests.encrypted.runtime_parties import Parties, make_parties, opened

RNG = np.random.default_rng(17)
PERIODS = (4, 64, 64, 4096, 1)
RESULTS = (64, 4, 256, 4096, 1)
TABLES = [random_gather(RNG, PERIODS, period) for period in RESULTS]
NOISE = 3e-6
"""Errors of encryption under scales of 30 bits stay below it, in values of up to 1."""


@pytest.fixture(scope="module")
def parties() -> Parties:
    return make_parties(round_program(PERIODS, TABLES))


@pytest.fixture(scope="module")
def twice() -> Parties:
    return make_parties(twice_program())


def inputs(periods: Sequence[int]) -> dict[str, Array]:
    return {f"x{n}": RNG.uniform(-1, 1, (1, period)) for n, period in enumerate(periods)}


def run(parties: Parties, xs: dict[str, Array]) -> dict[str, Array]:
    evaluation = parties.evaluator.start(parties.client.encrypt(xs)[0])
    while (request := evaluation.advance()) is not None:
        evaluation.accept(parties.custodian.refresh(request))
    return parties.custodian.decrypt(evaluation.output()).raw


def test_slots_come_from_where_the_gather_says(parties: Parties) -> None:
    xs = inputs(PERIODS)
    found = run(parties, xs)
    rows = [x[0] for x in xs.values()]
    for number, table in enumerate(TABLES):
        assert np.abs(found[f"y{number}"][0] - gathered(table, rows)).max() < NOISE


@pytest.mark.parametrize("periods", [(4096, 4096), (64, 1024), (1, 2), (512, 8)])
def test_two_values_in_one_ciphertext_do_not_touch(periods: tuple[int, int]) -> None:
    """Each comes back as it went, whatever the other is; their scales are told apart."""
    tables = [np.stack([np.full(p, n), np.arange(p)]) for n, p in enumerate(periods)]
    program = round_program(periods, tables, scales=(1.0, 0.99))
    parties = make_parties(program)
    (round_,) = parties.spec.refreshes
    assert [len(values) for values in round_.parcels] == [2]
    assert len({value.scale for value in round_.values}) == 2
    xs = inputs(periods)
    for kept in (0, 1):
        zeroed = {name: x * (name == f"x{kept}") for name, x in xs.items()}
        found = run(parties, zeroed)
        for name, x in zeroed.items():
            assert np.abs(found[name.replace("x", "y")] - x).max() < NOISE


@pytest.mark.parametrize("batch", [2, 8])
def test_packed_samples_keep_their_lanes(batch: int) -> None:
    periods = (16, 64)
    table = random_gather(RNG, periods, 32, batch)
    parties = make_parties(round_program(periods, [table], batch=batch))
    xs = {f"x{n}": RNG.uniform(-1, 1, (batch, p // batch)) for n, p in enumerate(periods)}
    found = run(parties, xs)["y0"]
    rows = [x.T.ravel() for x in xs.values()]
    assert np.abs(found - gathered(table, rows).reshape(-1, batch).T).max() < NOISE


def test_every_round_trip_fits_in_an_envelope_by_file(parties: Parties) -> None:
    xs = inputs(PERIODS)
    evaluation = parties.evaluator.start(parties.client.encrypt(xs)[0])
    request = evaluation.advance()
    assert request is not None
    resumed = parties.evaluator.resume(evaluation.checkpoint())
    resumed.accept(parties.custodian.refresh(request))
    assert resumed.advance() is None
    found = parties.custodian.decrypt(resumed.output()).raw
    assert np.abs(found["y2"][0] - gathered(TABLES[2], [x[0] for x in xs.values()])).max() < NOISE


class Seen:
    """The integers that the key holder decrypts of a request, and the evaluator's masks."""

    def __init__(self, parties: Parties, request: bytes, source: MaskSource, group: int) -> None:
        self.parties, self.source, self.group = parties, source, group
        self.round = parties.spec.refresh(group)
        envelope = opened(request, self.round.request, parties.spec.parameters)
        pairs = zip(envelope.ciphertexts, self.round.request, strict=True)
        self.values = [parties.custodian._load(*pair) for pair in pairs]
        self.periodic = self._seen(Relayout(self.round).lengths)

    def whole(self) -> list[Double]:
        """All coefficients, those included that the key holder drops."""
        degree = self.parties.spec.parameters.poly_modulus_degree
        return self._seen([degree] * len(self.values))

    def masks(self) -> list[Wide]:
        rounds: MaskedRounds = self.parties.evaluator.rounds
        return [rounds._mask(self.source, self.group, c) for c in self.round.request]

    def _seen(self, lengths: Sequence[int]) -> list[Double]:
        holder: KeyHolder = self.parties.custodian._holder
        rows = zip(self.values, self.round.request, lengths, strict=True)
        return [holder._seen(*row) for row in rows]


def test_masks_cost_no_precision(parties: Parties) -> None:
    """What is left of masked values differs from unmasked ones by roundings of integers alone."""
    evaluation = parties.evaluator.start(parties.client.encrypt(inputs(PERIODS))[0])
    request = evaluation.advance()
    assert request is not None
    seen = Seen(parties, request, evaluation._checkpoint.masks, 3)
    relayout = Relayout(seen.round)
    kept, bare = [], []
    assert [len(values) for values in seen.round.parcels] == [2, 2, 1]
    for found, mask, cipher in zip(seen.periodic, seen.masks(), seen.round.request, strict=True):
        step = DEEP.poly_modulus_degree // len(found.high)
        kept.append(double_of(Wide(mask.high[::step], mask.low[::step])))
        bare.append(minus(found, kept[-1]))
        # The masks are 2**40 times as large as what they hide, and more.
        assert np.abs(found.high).max() > 2.0**40 * np.abs(bare[-1].high).max()
        assert np.abs(bare[-1].high).max() < 2.0 * cipher.scale
    masked, masks, plain = map(relayout.results, (seen.periodic, kept, bare))
    for one, mask, wanted in zip(masked, masks, plain, strict=True):
        left = np.array(whole(one), dtype=object) - np.array(whole(mask), dtype=object)
        assert np.abs((left - np.array(whole(wanted), dtype=object)).astype(float)).max() <= 1


def minus(x: Double, y: Double) -> Double:
    """Exactly, for integers."""
    pairs = zip(exact(x), exact(y), strict=True)
    return Double(np.array([float(a - b) for a, b in pairs]), np.zeros(x.high.shape))


def exact(x: Double) -> list[int]:
    return [int(a) + int(b) for a, b in zip(x.high.tolist(), x.low.tolist(), strict=True)]


def test_two_ciphertexts_never_share_a_mask(twice: Parties) -> None:
    """The one value has another mask in each round and in each evaluation."""
    x = RNG.uniform(-1, 1, (1, 4))
    masks: list[list[int]] = []
    for _ in range(2):
        evaluation = twice.evaluator.start(twice.client.encrypt({"x0": x})[0])
        for group in range(2):
            request = evaluation.advance()
            assert request is not None
            seen = Seen(twice, request, evaluation._checkpoint.masks, group)
            masks.append(whole(seen.masks()[0]))
            noisy = [a - b for a, b in zip(exact(seen.whole()[0]), masks[-1], strict=True)]
            assert max(map(abs, noisy)) < 2 * DEEP.scale(1)
            evaluation.accept(twice.custodian.refresh(request))
        evaluation.advance()
        for found in twice.custodian.decrypt(evaluation.output()).raw.values():
            assert np.abs(found - x).max() < NOISE
    for n, first in enumerate(masks):
        for second in masks[:n]:
            assert not set(first) & set(second)


def test_going_on_twice_from_one_state_shares_no_mask(twice: Parties) -> None:
    """The key holder may give two answers to one request, and see what comes of each."""
    evaluation = twice.evaluator.start(twice.client.encrypt({"x0": np.ones((1, 4))})[0])
    request = evaluation.advance()
    assert request is not None
    state = evaluation.checkpoint()
    masks, views = [], []
    for _ in range(2):
        resumed = twice.evaluator.resume(state)
        resumed.accept(twice.custodian.refresh(request))
        again = resumed.advance()
        assert again is not None
        seen = Seen(twice, again, resumed._checkpoint.masks, 1)
        masks.append(whole(seen.masks()[0]))
        views.append(exact(seen.whole()[0]))
        size = twice.evaluator.rounds._sizes[1, seen.round.request[0].name]
    assert not set(masks[0]) & set(masks[1])
    # Under one mask they would differ by noise alone, less than 2 * scale.
    apart = np.abs(np.array(views[0], dtype=object) - np.array(views[1], dtype=object))
    assert (apart.astype(float) > size / 2**10).mean() > 0.99


def test_the_second_polynomial_says_nothing_of_the_ciphertext(twice: Parties) -> None:
    """It is uniform and new each time, where the input's own went into the sum."""
    (data,) = twice.client.encrypt({"x0": np.ones((1, 4))})
    access = residue_access(twice.evaluator.context)
    primes = np.array(DEEP.data_primes[:2], dtype=np.uint64)[:, None]
    found = []
    for _ in range(3):
        evaluation = twice.evaluator.start(data)
        own = np.array(access.view(evaluation._live["input"])[1])
        request = evaluation.advance()
        assert request is not None
        seen = Seen(twice, request, evaluation._checkpoint.masks, 0)
        inside = residue_access(twice.custodian._context)
        found.append(np.array(inside.view(seen.values[0])[1]))
    for n, one in enumerate(found):
        for other in (own, *found[:n]):
            assert (one == other).mean() < 1e-3
            moved = np.where(one >= other, (one - other) / primes, 1.0 - (other - one) / primes)
            counts, _ = np.histogram(moved, bins=16, range=(0, 1))
            share = moved.size / 16
            assert np.abs(counts - share).max() < 6 * np.sqrt(share)


@pytest.fixture
def no_access(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise LayoutError("this system does not let a process read its own memory")

    monkeypatch.setattr(ringvalues, "residue_access", refuse)
    monkeypatch.setattr(ringvalues, "PlaintextAccess", refuse)


@pytest.mark.usefixtures("no_access")
def test_without_access_to_memory_it_is_as_exact(twice: Parties) -> None:
    again = make_parties(twice.program)
    x = RNG.uniform(-1, 1, (1, 4))
    with pytest.warns(SlowWarning, match="longer"):
        found = run(again, {"x0": x})
    assert np.abs(found["y0"] - x).max() < NOISE
    assert np.abs(found["y1"] - x).max() < NOISE


def forged(
    parties: Parties, data: bytes, contract: Sequence[Any], change: Callable[[list[Any]], list[Any]]
) -> bytes:
    """An envelope whose ciphertexts, named and with digests, were put in another order."""
    envelope = opened(data, contract, parties.spec.parameters)
    pairs = change(list(zip(contract, envelope.ciphertexts, strict=True)))
    return seal_envelope(envelope.header, [c for c, _ in pairs], [b for _, b in pairs])


CHANGES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "swapped": lambda pairs: [pairs[1], pairs[0], *pairs[2:]],
    "repeated": lambda pairs: [pairs[0], *pairs[:-1]],
    "cut off": lambda pairs: pairs[:-1],
    "one more": lambda pairs: [*pairs, pairs[0]],
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_ciphertexts_than_the_program_has_are_refused(parties: Parties, name: str) -> None:
    evaluation = parties.evaluator.start(parties.client.encrypt(inputs(PERIODS))[0])
    request = evaluation.advance()
    assert request is not None
    (round_,) = parties.spec.refreshes
    with pytest.raises(IntegrityError, match="does not hold the 3 ciphertexts that the program"):
        parties.custodian.refresh(forged(parties, request, round_.request, CHANGES[name]))
    response = parties.custodian.refresh(request)
    with pytest.raises(IntegrityError, match="does not hold the 5 ciphertexts that the program"):
        evaluation.accept(forged(parties, response, round_.response, CHANGES[name]))
    evaluation.accept(response)


def test_a_round_answers_for_no_other(twice: Parties) -> None:
    evaluation = twice.evaluator.start(twice.client.encrypt({"x0": np.ones((1, 4))})[0])
    first = evaluation.advance()
    assert first is not None
    response = twice.custodian.refresh(first)
    evaluation.accept(response)
    second = evaluation.advance()
    assert second is not None
    with pytest.raises(IntegrityError, match="is of refresh round 0, where 1 is needed"):
        evaluation.accept(response)
    as_second = replace(read_header(first), round=1)
    kept = opened(first, twice.spec.refresh(0).request, DEEP)
    # The value has the same name, level and scale in both rounds: this is a request as good as
    # any, and its answer is of use to nobody without the mask.
    again = seal_envelope(as_second, twice.spec.refresh(1).request, kept.ciphertexts)
    evaluation.accept(twice.custodian.refresh(again))
    evaluation.advance()
    found = twice.custodian.decrypt(evaluation.output()).raw
    assert np.abs(found["y0"] - 1).max() < NOISE
    assert np.abs(found["y1"]).max() > 1e6
    with pytest.raises(IntegrityError, match="has no refresh round 2"):
        twice.custodian.refresh(
            seal_envelope(replace(as_second, round=2), twice.spec.refresh(1).request, [b""])
        )
