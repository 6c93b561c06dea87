"""Rules S7 and S8: the evaluator gets no key that it does not need, and the keys are secure."""

from __future__ import annotations

from collections.abc import Iterable

from hecompile.access.proof_subjects import ProgramFacts, Rule, listed, violation
from hecompile.errors import CompileError
from hecompile.numeric.security import check_security

_MOST_TOLD = 8


def check_parameters(facts: ProgramFacts) -> None:
    """Rules S7 and S8, as far as the facts are known.

    Raises:
        InputError: Names the rotation steps, or the modulus and its limit, and the remedy.
    """
    if facts.galois_steps_used is not None and facts.galois_steps_granted is not None:
        _check_steps(set(facts.galois_steps_used), set(facts.galois_steps_granted))
    if facts.security is not None:
        try:
            check_security(*facts.security)
        except CompileError as error:
            raise violation(Rule.S8, "", str(error).rstrip(".")) from None


def _check_steps(used: set[int], granted: set[int]) -> None:
    if used == granted:
        return
    differences = []
    if granted - used:
        differences.append(f"grants keys for steps {_told(granted - used)} that no rotation takes")
    if used - granted:
        differences.append(f"grants none for steps {_told(used - granted)} that rotations take")
    raise violation(
        Rule.S7, "", f"the manifest {' and '.join(differences)}; compile the model again"
    )


def _told(steps: Iterable[int]) -> str:
    found = sorted(steps)
    more = f" and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
    return listed(found[:_MOST_TOLD]) + more
