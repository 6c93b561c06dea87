"""Writes docs/operators.md: which operators are supported, by the ONNX standard's own tests."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

import onnx

from hecompile.frontend.plan import HEADS
from hecompile.frontend.refusals import REASONS
from hecompile.frontend.site import CONVERTERS
from tests.conformance.encrypted import check_encrypted, sample
from tests.conformance.node_tests import OPERATORS, Outcome, judge, node_tests
from tests.conformance.packed import EXCEPTIONS, OPTIONS, PACKING, TOLERANCE, judge_packed

DOCUMENT = Path(__file__).parents[2] / "docs" / "operators.md"

_HEAD = """\
# Operators

Written by `make operators`; do not edit. It runs the node tests of the ONNX standard
(`onnx.backend.test` of onnx {version}) of every operator that hecompile takes, three times:

- **Tensor**: import, the tensor passes up to the unrolling of recurrent layers, and the exact
  interpreter of tensor programs. The outputs are the expected ones, but for rounding.
- **Slots**: all passes down to packed slots, activations as polynomials of degree {degree}, and
  the interpreter of slot programs, on inputs that calibration has not seen. Packing changes nothing
  (less than {packing:g}), and the outputs are the expected ones, but for rounding and what
  polynomials change: no more than the compiler states for them, and no more than {tolerance:g},
  but for {exceptions} tests listed below with tolerances of their own.
- **Encrypted**: the smallest test that applies, compiled, and run by client, evaluator and key
  holder with fresh keys at 128 bits, on inputs that calibration has not seen. The noise and the
  whole error of the decrypted outputs keep within the bounds that the compiler predicts for them.
  `make test-slow` does so for every test that applies.

A node test does not say which inputs are secret, so each choice is tried: all inputs of real
numbers, and each of them alone, the others being weights. A test is passed if some choice compiles
and every one that compiles gives the expected outputs. It does not apply if no choice compiles.
Slots and encryption take the first choice that compiles.
Tests that end in `_expanded` write an operator by means of others, and are refused where those are.

**{passed} of {applicable} node tests that apply are passed**, {packed} of them in slots too;
{rest} of {total} do not apply. {samples} of {operators} operators have an encrypted sample.

| Operator | Tensor | Slots | Encrypted | Do not apply, and why |
|---|---|---|---|---|
"""

_CLIENT = """
At the very end of a model the client computes {heads} after decryption,
and what only moves elements behind them, exactly: their node tests judge no polynomial. Operators
whose inputs are all constants are computed at compile time, as are Shape and Size of anything.

## Tests with a tolerance of their own

With polynomials of degree {degree} for every activation; a `--precision` chooses higher ones.

| Tests | Tolerance | Why |
|---|---|---|
{exceptions}\

## Refused by name

Whatever else a model holds is refused before anything is encrypted: each node with its name, the
reason and a remedy.

| Operators | Why | Remedy |
|---|---|---|
"""


def document(outcomes: Iterable[Outcome], packed: Collection[str]) -> str:
    """The whole document.

    Args:
        outcomes: of every node test.
        packed: names of the tests that give the expected outputs in slots.
    """
    by_operator: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_operator[outcome.test.operator].append(outcome)
    everything = [outcome for found in by_operator.values() for outcome in found]
    applicable = [outcome for outcome in everything if outcome.applies]
    head = _HEAD.format(
        version=onnx.__version__,
        degree=OPTIONS.degree,
        packing=PACKING,
        tolerance=TOLERANCE,
        exceptions=len(EXCEPTIONS),
        passed=sum(not outcome.wrong for outcome in applicable),
        applicable=len(applicable),
        packed=len(packed),
        rest=len(everything) - len(applicable),
        total=len(everything),
        samples=sum(sample(found) is not None for found in by_operator.values()),
        operators=len(OPERATORS),
    )
    rows = [_row(operator, by_operator[operator], packed) for operator in sorted(OPERATORS)]
    heads = sorted(HEADS)
    client = _CLIENT.format(
        heads=f"{', '.join(heads[:-1])} and {heads[-1]}",
        degree=OPTIONS.degree,
        exceptions="".join(_exceptions()),
    )
    return head + "".join(rows) + client + "".join(_refusals())


def _row(operator: str, outcomes: list[Outcome], packed: Collection[str]) -> str:
    if not outcomes:
        return f"| {operator} | no node test | | | |\n"
    applicable = [outcome for outcome in outcomes if outcome.applies]
    passed = sum(not outcome.wrong for outcome in applicable)
    slots = sum(outcome.test.name in packed for outcome in applicable)
    encrypted = sample(outcomes)
    name = f"`{encrypted}`" if encrypted is not None else ""
    reasons = Counter(outcome.reason for outcome in outcomes if not outcome.applies)
    told = "; ".join(f"{count}: {reason}" for reason, count in sorted(reasons.items()))
    whole = len(applicable)
    told = told.replace("|", "/")
    return f"| {operator} | {passed} of {whole} | {slots} of {whole} | {name} | {told} |\n"


def _exceptions() -> Iterable[str]:
    """The tests with a tolerance of their own, those with the same one and reason together."""
    families: dict[tuple[float, str], list[str]] = defaultdict(list)
    for name, entry in EXCEPTIONS.items():
        families[entry].append(f"`{name}`")
    for (tolerance, why), names in sorted(families.items()):
        yield f"| {', '.join(names)} | {tolerance:g} | {why} |\n"


def _refusals() -> Iterable[str]:
    """The operators that are refused, those of one reason and remedy together."""
    families: dict[tuple[str, str], list[str]] = defaultdict(list)
    for operator, reason in REASONS.items():
        if operator not in CONVERTERS and operator not in HEADS:
            families[reason].append(operator)
    for (why, remedy), operators in families.items():
        yield f"| {', '.join(operators)} | {why} | {remedy} |\n"


def main() -> None:
    """Run all tests, write the document if none failed, and tell the count."""
    outcomes = [judge(test) for test in node_tests()]
    wrong = [f"{one.test}: {text}" for one in outcomes for text in one.wrong]
    packed = {}
    for outcome in outcomes:
        if outcome.applies:
            packed[outcome.test.name] = found = judge_packed(outcome.test)
            wrong += [f"{outcome.test} in slots: {text}" for text in found.wrong]
    for operator in sorted(OPERATORS):
        test = sample(one for one in outcomes if one.test.operator == operator)
        if test is not None and (text := check_encrypted(test)):
            wrong.append(f"{test} encrypted: {text}")
    if wrong:
        sys.exit("\n".join(wrong))
    text = document(outcomes, {name for name, found in packed.items() if found.passed})
    DOCUMENT.write_text(text, encoding="utf-8")
    count = text[text.index("\n**") : text.index("\n\n| ")]
    print(" ".join(count.replace("**", "").split()))


if __name__ == "__main__":
    main()
