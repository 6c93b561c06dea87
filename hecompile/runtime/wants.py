"""What the steps of each party ask of the policy: actions on objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hecompile.access.decide import Decision
from hecompile.access.objects import KEY_SECRET, MODEL, PROGRAM, Action, ObjectRef, Scope

Want = tuple[Action, ObjectRef]
"""An action on an object."""

EVALUATION: Final[tuple[Want, ...]] = ((Action.EVALUATE, PROGRAM),)
REFRESHING: Final[tuple[Want, ...]] = ((Action.REFRESH, PROGRAM),)
HOLDING: Final[tuple[Want, ...]] = ((Action.HOLD, KEY_SECRET),)
MODELLING: Final[tuple[Want, ...]] = ((Action.ENCRYPT, MODEL),)


def encryptions(labels: Sequence[str]) -> tuple[Want, ...]:
    """What encrypting these inputs asks for."""
    return tuple((Action.ENCRYPT, ObjectRef.input(label)) for label in labels)


def decryptions(labels: Sequence[str]) -> tuple[Want, ...]:
    """What decrypting these outputs to raw values asks for."""
    return tuple((Action.DECRYPT, ObjectRef.output(label)) for label in labels)


def declassifications(labels: Sequence[str]) -> tuple[Want, ...]:
    """What releasing these outputs asks for."""
    return tuple((Action.DECLASSIFY, ObjectRef.output(label)) for label in labels)


def labels_of(decisions: Sequence[Decision]) -> tuple[str, ...]:
    """Names of the outputs that decisions are about."""
    return tuple(decision.request.obj.name for decision in decisions)


def scope_of(want: Want, scope: Scope) -> Scope:
    """The scope to ask for: only a release may be about a cohort."""
    return scope if want[0] is Action.DECLASSIFY else Scope.PERSON
