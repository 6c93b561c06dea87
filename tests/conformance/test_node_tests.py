"""Every node test of the ONNX standard is passed or refused by name, never answered wrongly."""

from __future__ import annotations

import re

import onnx
import pytest

from tests.conformance.node_tests import OPERATORS, Outcome, judge, node_tests
from tests.conformance.table import DOCUMENT, document

LEAST_PASSED = 280

NONE_APPLIES = {
    "Cast": "inputs that are not finite",
    "CastLike": "inputs that are not finite",
    "Max": "Max of several encrypted values is a comparison",
    "Min": "Min of several encrypted values is a comparison",
}
"""Operators whose node tests all ask for what cannot be done; other tests show what can."""


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [judge(test) for test in node_tests()]


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_operator(outcomes: list[Outcome], operator: str) -> None:
    own = [outcome for outcome in outcomes if outcome.test.operator == operator]
    assert not [f"{outcome.test}: {outcome.wrong}" for outcome in own if outcome.wrong]
    if operator in NONE_APPLIES:
        assert NONE_APPLIES[operator] in {outcome.reason for outcome in own}
    else:
        assert any(outcome.applies for outcome in own)


def test_count(outcomes: list[Outcome]) -> None:
    assert sum(outcome.applies for outcome in outcomes) >= LEAST_PASSED


@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN"])
def test_all_node_tests_of_recurrent_operators_apply(
    outcomes: list[Outcome], operator: str
) -> None:
    own = [outcome for outcome in outcomes if outcome.test.operator == operator]
    assert len(own) >= 6
    assert all(outcome.applies for outcome in own)


def test_the_document_is_what_the_tests_say(outcomes: list[Outcome]) -> None:
    written = DOCUMENT.read_text(encoding="utf-8")
    (version,) = re.findall(r"of onnx ([\d.]+)\)", written)
    if version != onnx.__version__:
        pytest.skip(f"docs/operators.md was written with onnx {version}")
    assert written == document(outcomes), "`make operators` writes it anew"


@pytest.mark.slow
def test_no_operator_at_all_gives_a_wrong_answer() -> None:
    outcomes = [judge(test) for test in node_tests(everything=True)]
    assert len(outcomes) > 1500
    assert not [f"{outcome.test}: {outcome.wrong}" for outcome in outcomes if outcome.wrong]
