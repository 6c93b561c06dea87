"""Random models: onnxruntime against the slot interpreter, and against real encryption."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from hecompile.config import CompileOptions
from tests.differential import fuzz_judge
from tests.differential.fuzz_judge import Tally, judge_encrypted, judge_slots
from tests.differential.random_graphs import RandomModel
from tests.differential.random_models import STEPS, models

IN_SLOTS, FEW_IN_SLOTS = 120, 50
ENCRYPTED, GROUPS = 500, 20
MOST_REFUSED = 0.05
"""Share of the models that may be refused; the generator draws nothing that should be."""


def judged(judge: Callable[[RandomModel], None], count: int, number: int = 0) -> Tally:
    """Judge so many models, always the same ones."""
    tally = Tally()

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(models())
    def check(model: RandomModel) -> None:
        tally.take(model, judge)

    check()
    print(tally)
    return tally


def test_random_models_in_slots() -> None:
    tally = judged(judge_slots, IN_SLOTS)
    assert tally.share <= MOST_REFUSED, tally


def test_straight_lines_for_activations_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_judge, "OPTIONS", CompileOptions(degree=1))
    assert judged(judge_slots, FEW_IN_SLOTS).share > MOST_REFUSED


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 11))
def test_many_random_models_in_slots(number: int) -> None:
    tally = judged(judge_slots, IN_SLOTS, number)
    assert tally.share <= MOST_REFUSED, tally


@pytest.mark.slow
@pytest.mark.parametrize("number", range(GROUPS))
def test_random_models_encrypted(number: int) -> None:
    tally = judged(judge_encrypted, ENCRYPTED // GROUPS, number)
    assert tally.share <= MOST_REFUSED, tally


def test_the_generator_draws_every_step() -> None:
    drawn: set[str] = set()

    @seed(0)
    @settings(max_examples=400, database=None, deadline=None, phases=(Phase.generate,))
    @given(models())
    def check(model: RandomModel) -> None:
        drawn.update(model.kinds)

    check()
    assert {name.removeprefix("second ") for name in STEPS} <= drawn
