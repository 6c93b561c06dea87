"""Every node test of the ONNX standard is passed or refused by name, never answered wrongly."""

from __future__ import annotations

import re
from functools import cache

import onnx
import pytest

from hecompile.config import CompileOptions
from tests.conformance.encrypted import check_encrypted, sample
from tests.conformance.node_tests import OPERATORS, NodeTest, Outcome, judge, node_tests
from tests.conformance.packed import EXCEPTIONS, judge_packed
from tests.conformance.table import DOCUMENT, document

LEAST_PASSED = 284

NONE_APPLIES = {
    "Cast": "inputs that are not finite",
    "CastLike": "inputs that are not finite",
    "Max": "Max of several encrypted values is a comparison",
    "Min": "Min of several encrypted values is a comparison",
}
"""Operators whose node tests all ask for what cannot be done; other tests show what can."""

DEEP = frozenset({"Erf", "GRU", "LSTM", "Mish", "RNN"})
"""Operators whose smallest test takes a second or more to compile and run encrypted."""

RECURRENT = ("GRU", "LSTM", "RNN")

ACTIVATIONS = (
    *("Celu", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu"),
    *("Relu", "Selu", "Softplus", "Softsign", "Swish", "Tanh"),
)
"""Operators that become polynomials even at the end of a model."""

STRAIGHT = frozenset({"gru_reverse", "simple_rnn_bidirectional"})
"""Tests of recurrent operators whose activations are straight lines, but for 2e-5."""


@cache
def outcomes_of(operator: str) -> tuple[Outcome, ...]:
    return tuple(judge(test) for test in node_tests() if test.operator == operator)


def applicable(operator: str) -> list[NodeTest]:
    return [outcome.test for outcome in outcomes_of(operator) if outcome.applies]


@cache
def all_outcomes() -> list[Outcome]:
    return [outcome for operator in sorted(OPERATORS) for outcome in outcomes_of(operator)]


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_operator(operator: str) -> None:
    own = outcomes_of(operator)
    assert not [f"{outcome.test}: {outcome.wrong}" for outcome in own if outcome.wrong]
    if operator in NONE_APPLIES:
        assert NONE_APPLIES[operator] in {outcome.reason for outcome in own}
    else:
        assert any(outcome.applies for outcome in own)


@pytest.mark.parametrize("operator", sorted(OPERATORS - NONE_APPLIES.keys()))
def test_operator_in_slots(operator: str) -> None:
    for test in applicable(operator):
        packed = judge_packed(test)
        assert not packed.wrong, f"{test}: {packed.wrong}"
        assert packed.passed, f"{test}: {packed.refused}"


@pytest.mark.parametrize("operator", RECURRENT)
def test_straight_lines_in_recurrent_operators_are_noticed(operator: str) -> None:
    tests = {test.name: test for test in applicable(operator) if test.name not in STRAIGHT}
    assert len(tests) >= 5
    for name, test in tests.items():
        assert judge_packed(test, options=CompileOptions(degree=1)).wrong, name


@pytest.mark.parametrize("operator", ACTIVATIONS)
def test_straight_lines_for_activations_are_noticed(operator: str) -> None:
    test = sample(outcomes_of(operator))
    assert test is not None
    assert judge_packed(test, options=CompileOptions(degree=1)).wrong, test


def test_exceptions_are_node_tests() -> None:
    assert {outcome.test.name for outcome in all_outcomes() if outcome.applies} >= {*EXCEPTIONS}


@pytest.mark.parametrize("operator", sorted(OPERATORS - NONE_APPLIES.keys() - DEEP))
def test_operator_encrypted(operator: str) -> None:
    test = sample(outcomes_of(operator))
    assert test is not None
    assert not check_encrypted(test), test


@pytest.mark.slow
@pytest.mark.parametrize("operator", sorted(OPERATORS - NONE_APPLIES.keys()))
def test_every_node_test_encrypted(operator: str) -> None:
    for test in applicable(operator):
        assert not check_encrypted(test), test


def test_count() -> None:
    count = sum(outcome.applies for outcome in all_outcomes())
    assert count >= LEAST_PASSED


@pytest.mark.parametrize("operator", RECURRENT)
def test_all_node_tests_of_recurrent_operators_apply(operator: str) -> None:
    own = outcomes_of(operator)
    assert len(own) >= 6
    assert all(outcome.applies for outcome in own)


def test_the_document_is_what_the_tests_say() -> None:
    written = DOCUMENT.read_text(encoding="utf-8")
    (version,) = re.findall(r"of onnx ([\d.]+)\)", written)
    if version != onnx.__version__:
        pytest.skip(f"docs/operators.md was written with onnx {version}")
    # The tests above say whether slots give the expected outputs; here it is taken for granted.
    passed = {outcome.test.name for outcome in all_outcomes() if outcome.applies}
    assert written == document(all_outcomes(), passed), "`make operators` writes it anew"


@pytest.mark.slow
def test_every_choice_of_secrets_in_slots() -> None:
    for operator in sorted(OPERATORS):
        for test in applicable(operator):
            packed = judge_packed(test, every=True)
            assert not packed.wrong, f"{test}: {packed.wrong}"


@pytest.mark.slow
def test_no_operator_at_all_gives_a_wrong_answer() -> None:
    outcomes = [judge(test) for test in node_tests(everything=True)]
    assert len(outcomes) > 1500
    assert not [f"{outcome.test}: {outcome.wrong}" for outcome in outcomes if outcome.wrong]
