"""What a finished program will cost: operations, key switches, keys, bytes, seconds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, PlainType
from hecompile.numeric.cost import DEFAULT_COST_MODEL, CostModel
from hecompile.numeric.parameters import Parameters

ROUND_TRIP_SECONDS = 0.05
"""Price of one refresh round apart from its cryptography."""

_COST_NAMES: dict[type[Operation], str] = {
    he.Add: "add",
    he.Sub: "sub",
    he.AddPlain: "add_plain",
    he.Mul: "multiply",
    he.MulPlain: "multiply_plain",
    he.Negate: "negate",
    he.Rotate: "rotate",
    he.Relinearize: "relinearize",
    he.Rescale: "rescale",
    he.DropLevel: "drop_level",
}


@dataclass(frozen=True)
class Estimate:
    """Predicted cost of one evaluation.

    Attributes:
        op_counts: operations by name, sums of products counted by their products.
        op_counts_by_level: the same, by level.
        key_switches: rotations and relinearizations.
        rotation_steps: distinct steps, one Galois key each.
        galois_key_bytes: all Galois keys together, in memory.
        refreshes: rounds with the key holder.
        refreshed_ciphertexts: ciphertexts that these rounds carry.
        evaluator_seconds: CPU seconds of the evaluator.
        client_seconds: CPU seconds of encryption, refreshes and decryption.
        weight_bytes: encoded plaintexts.
        memory_bytes: evaluator's keys, weights and live ciphertexts.
        input_bytes: ciphertexts that go in, uncompressed.
        output_bytes: ciphertexts that come out, uncompressed.
    """

    op_counts: dict[str, int]
    op_counts_by_level: dict[int, dict[str, int]]
    key_switches: int
    rotation_steps: tuple[int, ...]
    galois_key_bytes: int
    refreshes: int
    refreshed_ciphertexts: int
    evaluator_seconds: float
    client_seconds: float
    weight_bytes: int
    memory_bytes: int
    input_bytes: int
    output_bytes: int

    @property
    def total_seconds(self) -> float:
        """Evaluator, client, and a fixed price for each round."""
        rounds = self.refreshes * ROUND_TRIP_SECONDS
        return self.evaluator_seconds + self.client_seconds + rounds


def estimate(program: Program, cost: CostModel = DEFAULT_COST_MODEL) -> Estimate:
    """Predict the cost of a program with levels.

    Raises:
        ProgramError: the program has no parameters or levels.
    """
    parameters = program.parameters
    if parameters is None:
        raise ProgramError(f"program '{program.name}' has no parameters; run choose-parameters")
    by_level: dict[int, Counter[str]] = {}
    server = client = 0.0
    for op in program:
        level = _level(op)
        counts = by_level.setdefault(level, Counter())
        for name, count in _primitives(op):
            counts[name] += count
            server += count * cost.seconds(name, parameters.poly_modulus_degree, level + 1)
        client += _client_seconds(op, parameters, cost)
        if isinstance(op, he.Refresh):
            counts["refresh"] += 1
    total = sum(by_level.values(), Counter())
    refreshes = program.select(he.Refresh)
    steps = tuple(sorted({op.steps for op in program.select(he.Rotate)}))
    weights = _weight_bytes(program, parameters)
    keys = len(steps) * parameters.galois_key_bytes
    relinearization = parameters.galois_key_bytes
    return Estimate(
        op_counts=dict(sorted(total.items())),
        op_counts_by_level={k: dict(sorted(v.items())) for k, v in sorted(by_level.items()) if v},
        key_switches=total["rotate"] + total["relinearize"],
        rotation_steps=steps,
        galois_key_bytes=keys,
        refreshes=len({op.group for op in refreshes}),
        refreshed_ciphertexts=len(refreshes),
        evaluator_seconds=server,
        client_seconds=client,
        weight_bytes=weights,
        memory_bytes=keys + relinearization + weights + _live_bytes(program, parameters),
        input_bytes=_bytes(program, parameters, inputs=True),
        output_bytes=_bytes(program, parameters, inputs=False),
    )


def _level(op: Operation) -> int:
    value = op.result if op.result is not None else op.operands[0]
    facts = value.type
    return (facts.level or 0) if isinstance(facts, CipherType | PlainType) else 0


def _primitives(op: Operation) -> list[tuple[str, int]]:
    if isinstance(op, he.SumMulPlain):
        return [("multiply_plain", len(op.xs)), ("add", len(op.xs) - 1)]
    if isinstance(op, he.Refresh):
        return [("add_plain", 2), ("encode", 2)]
    name = _COST_NAMES.get(type(op))
    if name is None:
        return []
    return [(name, 1)]


def _client_seconds(op: Operation, parameters: Parameters, cost: CostModel) -> float:
    degree = parameters.poly_modulus_degree

    def seconds(name: str, level: int) -> float:
        return cost.seconds(name, degree, level + 1)

    if isinstance(op, he.Input):
        return seconds("encode", _level(op)) + seconds("encrypt", _level(op))
    if isinstance(op, he.Output):
        return len(op.xs) * (seconds("decrypt", 0) + seconds("decode", 0))
    if isinstance(op, he.Refresh):
        low, high = he.cipher_type(op.x).level or 0, _level(op)
        down = seconds("decrypt", low) + seconds("decode", low)
        return down + seconds("encode", high) + seconds("encrypt", high)
    return 0.0


def _weight_bytes(program: Program, parameters: Parameters) -> int:
    total = 0
    for op in program:
        if isinstance(op, he.SumMulPlain):
            total += len(op.xs) * parameters.ciphertext_bytes(_level(op), 1)
        elif isinstance(op, he.Encode) and op.period > 1:
            total += parameters.ciphertext_bytes(_level(op), 1)
    return total


def _live_bytes(program: Program, parameters: Parameters) -> int:
    """Largest total of ciphertexts alive at once."""
    last = program.last_uses
    alive = most = 0
    for i, op in enumerate(program):
        if op.result is not None and isinstance(op.result.type, CipherType):
            facts = op.result.type
            alive += parameters.ciphertext_bytes(facts.level or 0, facts.polynomials)
        most = max(most, alive)
        for value in {v.name: v for v in op.operands}.values():
            if last[value.name] == i and isinstance(value.type, CipherType):
                facts = value.type
                alive -= parameters.ciphertext_bytes(facts.level or 0, facts.polynomials)
    return most


def _bytes(program: Program, parameters: Parameters, inputs: bool) -> int:
    if inputs:
        levels = [_level(op) for op in program.select(he.Input)]
    else:
        levels = [he.cipher_type(v).level or 0 for op in program.select(he.Output) for v in op.xs]
    return sum(parameters.ciphertext_bytes(level) for level in levels)
