"""The three parties of a small program, with fresh keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.client import Client
from hecompile.runtime.custodian import Custodian, Decrypted
from hecompile.runtime.envelope import Envelope, check_envelope, read_header
from hecompile.runtime.evaluator import Evaluator, galois_steps
from hecompile.runtime.inspection import OpenInspector
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import (
    KeyRing,
    evaluation_keys,
    generate_keys,
    public_key,
    secret_key,
)
from hecompile.runtime.spec import CipherSpec, ClientSpec, spec_from_program


@dataclass(frozen=True)
class Parties:
    program: Program
    spec: ClientSpec
    ring: KeyRing
    client: Client
    evaluator: Evaluator
    custodian: Custodian

    def run(self, x: Array) -> list[Decrypted]:
        results = []
        for data in self.client.encrypt({"x": x}):
            evaluation = self.evaluator.start(data)
            while (request := evaluation.advance()) is not None:
                evaluation.accept(self.custodian.refresh(request))
            results.append(self.custodian.decrypt(evaluation.output()))
        return results

    def raw(self, x: Array) -> Array:
        return np.concatenate([result.raw["y"] for result in self.run(x)])


def opened(data: bytes, contract: Sequence[CipherSpec], parameters: Parameters) -> Envelope:
    """An envelope of whatever it says that it is."""
    return check_envelope(data, read_header(data), contract, parameters, admission=OpenInspector())


def make_parties(
    program: Program, memory_limit: int | None = None, spec: ClientSpec | None = None
) -> Parties:
    spec = spec if spec is not None else spec_from_program(program)
    ring = generate_keys(spec.parameters, galois_steps(program), spec.program)
    keys = evaluation_keys(ring.source(Role.EVALUATION))
    return Parties(
        program,
        spec,
        ring,
        Client(spec, public_key(ring.source(Role.PUBLIC))),
        Evaluator(program, keys, memory_limit=memory_limit),
        Custodian(spec, secret_key(ring.source(Role.SECRET))),
    )
