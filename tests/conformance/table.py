"""Writes docs/operators.md: which operators are supported, by the ONNX standard's own tests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import onnx

from hecompile.frontend.plan import HEADS
from hecompile.frontend.refusals import REASONS
from hecompile.frontend.site import CONVERTERS
from tests.conformance.node_tests import OPERATORS, Outcome, judge, node_tests

DOCUMENT = Path(__file__).parents[2] / "docs" / "operators.md"

_HEAD = """\
# Operators

Written by `make operators`; do not edit. It runs the node tests of the ONNX standard
(`onnx.backend.test` of onnx {version}) of every operator that hecompile takes: import, the tensor
passes up to the unrolling of recurrent layers, and the exact interpreter of tensor programs.
Polynomials and encryption come later; their error is bounded and told for each model.

A node test does not say which inputs are secret, so each choice is tried: all inputs of real
numbers, and each of them alone, the others being weights. A test is passed if some choice compiles
and every one that compiles gives the expected outputs. It does not apply if no choice compiles.
Tests that end in `_expanded` write an operator by means of others, and are refused where those are.

**{passed} of {applicable} node tests that apply are passed**; {rest} of {total} do not apply.

| Operator | Passed | Do not apply, and why |
|---|---|---|
"""

_CLIENT = """
At the very end of a model the client computes {heads} after decryption,
and what only moves elements behind them. Operators whose inputs are all constants are computed at
compile time, as are Shape and Size of anything.

## Refused by name

Whatever else a model holds is refused before anything is encrypted: each node with its name, the
reason and a remedy.

| Operators | Why | Remedy |
|---|---|---|
"""


def document(outcomes: Iterable[Outcome]) -> str:
    """The whole document."""
    by_operator: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_operator[outcome.test.operator].append(outcome)
    everything = [outcome for found in by_operator.values() for outcome in found]
    applicable = [outcome for outcome in everything if outcome.applies]
    head = _HEAD.format(
        version=onnx.__version__,
        passed=sum(not outcome.wrong for outcome in applicable),
        applicable=len(applicable),
        rest=len(everything) - len(applicable),
        total=len(everything),
    )
    rows = [_row(operator, by_operator[operator]) for operator in sorted(OPERATORS)]
    heads = sorted(HEADS)
    client = _CLIENT.format(heads=f"{', '.join(heads[:-1])} and {heads[-1]}")
    return head + "".join(rows) + client + "".join(_refusals())


def _row(operator: str, outcomes: list[Outcome]) -> str:
    if not outcomes:
        return f"| {operator} | no node test | |\n"
    applicable = [outcome for outcome in outcomes if outcome.applies]
    passed = sum(not outcome.wrong for outcome in applicable)
    reasons = Counter(outcome.reason for outcome in outcomes if not outcome.applies)
    told = "; ".join(f"{count}: {reason}" for reason, count in sorted(reasons.items()))
    return f"| {operator} | {passed} of {len(applicable)} | {told.replace('|', '/')} |\n"


def _refusals() -> Iterable[str]:
    """The operators that are refused, those of one reason and remedy together."""
    families: dict[tuple[str, str], list[str]] = defaultdict(list)
    for operator, reason in REASONS.items():
        if operator not in CONVERTERS and operator not in HEADS:
            families[reason].append(operator)
    for (why, remedy), operators in families.items():
        yield f"| {', '.join(operators)} | {why} | {remedy} |\n"


def main() -> None:
    """Write the document and tell the count."""
    outcomes = [judge(test) for test in node_tests()]
    for outcome in outcomes:
        for wrong in outcome.wrong:
            print(f"wrong: {outcome.test}: {wrong}")
    text = document(outcomes)
    DOCUMENT.write_text(text, encoding="utf-8")
    print(next(line for line in text.splitlines() if line.startswith("**")).replace("**", ""))


if __name__ == "__main__":
    main()
