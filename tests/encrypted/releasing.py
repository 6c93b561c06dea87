"""A program whose outputs fill every slot, and a custodian who releases them as a policy says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from hecompile.access.decide import Decision, Request
from hecompile.access.ledger import ReleaseLedger
from hecompile.access.objects import Action, ObjectRef, Scope
from hecompile.access.policy import Permission
from hecompile.access.release_plan import ReleasePlan, flooding_sigma
from hecompile.access.state import State
from hecompile.access.terms import DpNoise, Obligations
from hecompile.errors import AccessDeniedError
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.ir.types import Interval, Layout
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.client import Client
from hecompile.runtime.custodian import Custodian
from hecompile.runtime.evaluator import Evaluator
from hecompile.runtime.guard import OpenGuard
from hecompile.runtime.header import Header
from hecompile.runtime.inspection import OpenInspector
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import KeyRing, evaluation_keys, generate_keys, public_key, secret_key
from hecompile.runtime.keys import SecretKey as SecretKey
from hecompile.runtime.ranges import Ranges
from hecompile.runtime.release import ReleaseRules
from hecompile.runtime.spec import ClientSpec, spec_from_program
from tests.encrypted.runtime_programs import Writer

STRONG = Parameters(8192, (60, 48, 60), 48)
"""128 bits, and precise enough to release 16 scores of each of hundreds of persons."""

ELEMENTS, PERSONS = 16, 256
STEP = 0.05
FLOOD_BITS = 30
SPAN = 2.0
BOUND = 1e-10
"""Of one value's error; `test_the_stated_bound_holds` measures it."""


def square_program() -> Program:
    """y = x * x, 16 values of each of 256 persons: all slots of a ciphertext."""
    write = Writer(STRONG, "square", PERSONS)
    x = write.input("x", ELEMENTS, ELEMENTS * PERSONS, 1, PERSONS)
    square = write.same(he.Relinearize(x=write.mul(x, x)), polynomials=2)
    y = write.rescale(square, layout=Layout(0, ELEMENTS, PERSONS))
    write.output([y], "y", ELEMENTS)
    return write.finish()


def square_spec() -> ClientSpec:
    program = square_program()
    return spec_from_program(program, output_ranges={"y": Ranges(Interval(-0.5, 1.5))})


def people(seed: int, count: int = PERSONS) -> Array:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, size=(count, ELEMENTS))


@dataclass(frozen=True)
class Hospital:
    """Everybody's part of one key."""

    spec: ClientSpec
    ring: KeyRing
    client: Client
    evaluator: Evaluator

    def results(self, x: Array) -> list[bytes]:
        """Output envelopes."""
        found = []
        for data in self.client.encrypt({"x": x}):
            evaluation = self.evaluator.start(data)
            assert evaluation.advance() is None
            found.append(evaluation.output())
        return found

    def custodian(
        self,
        folder: Path,
        obligations: Obligations,
        releases: int = 2 * PERSONS,
        scope: Scope = Scope.PERSON,
        key: SecretKey | None = None,
    ) -> Custodian:
        """A custodian with a new ledger in `folder`, or the one that is there."""
        ledger = ReleaseLedger(folder, self.ring.key_id, State(folder / "state.db"))
        if not ledger.path.exists():
            ledger.create()
        return Custodian(
            self.spec,
            key if key is not None else self.secret,
            Granting(obligations, scope),
            inspector=Once(State(folder / "state.db")),
            ledger=ledger,
            rules=ReleaseRules((plan(releases),)),
        )

    @property
    def secret(self) -> SecretKey:
        return secret_key(self.ring.source(Role.SECRET))


@cache
def hospital(_number: int = 0) -> Hospital:
    """One key for a whole module; another number, another key."""
    program, spec = square_program(), square_spec()
    ring = generate_keys(spec.parameters, (), spec.program)
    return Hospital(
        spec,
        ring,
        Client(spec, public_key(ring.source(Role.PUBLIC))),
        Evaluator(program, evaluation_keys(ring.source(Role.EVALUATION))),
    )


def plan(releases: int, bound: float = BOUND) -> ReleasePlan:
    sigma = flooding_sigma(bound, ELEMENTS, releases, FLOOD_BITS)
    return ReleasePlan("y", bound / 8, bound, ELEMENTS, FLOOD_BITS, releases, sigma, STEP, SPAN)


def rounded(budget: int = 2 * PERSONS) -> Obligations:
    return Obligations(FLOOD_BITS, STEP, False, None, budget)


def labels(budget: int = 2 * PERSONS) -> Obligations:
    return Obligations(FLOOD_BITS, None, True, None, budget)


def private(rho: float = 0.05, total: float = 1.0, budget: int = 2 * PERSONS) -> Obligations:
    return Obligations(FLOOD_BITS, None, False, DpNoise(rho, total, 0.0, 1.0, 20), budget)


class Granting(OpenGuard):
    """Grants every release of one scope, under given obligations."""

    def __init__(
        self, obligations: Obligations, scope: Scope, path: str = "chief -> doctor"
    ) -> None:
        self.obligations = obligations
        self.scope = scope
        self.path = path

    def declassify(
        self, labels: Sequence[str], scope: Scope = Scope.PERSON, *, some: bool = False
    ) -> tuple[Decision, ...]:
        if scope is not self.scope:
            raise AccessDeniedError("Access Denied: another scope")
        objects = tuple(map(ObjectRef.output, labels))
        permission = Permission(
            "doctor", (Action.DECLASSIFY,), objects, scope=scope, obligations=self.obligations
        )
        asked = (Request("anna", Action.DECLASSIFY, obj, scope=scope) for obj in objects)
        return tuple(
            Decision(True, one, f"permission 1: {self.path} may declassify {one.obj}", "doctor",
                     permission)
            for one in asked
        )  # fmt: skip


class Once(OpenInspector):
    """Takes each envelope once, whoever sends it."""

    def __init__(self, state: State) -> None:
        self.state = state

    def consume(self, headers: Sequence[Header], what: str) -> None:
        nonces = [(header.nonce, header.span[1].timestamp()) for header in headers]
        self.state.use_nonces(headers[0].manifest, nonces)
