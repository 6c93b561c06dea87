"""What a finished program will cost: operations, key switches, keys, bytes, seconds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.numeric.cost import CostModel, active_cost_model
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.wire import ciphertext_file_bytes, galois_key_file_bytes
from hecompile.segments import ARITHMETIC, Line, Segment, find_segments
from hecompile.workload import (
    client_work,
    evaluator_work,
    level_of,
    level_read,
    seconds,
    stored_weights,
)


@dataclass(frozen=True)
class Estimate:
    """Predicted cost of one evaluation, and of what is done once before it.

    Attributes:
        op_counts: arithmetic primitives by name, sums of products counted by their products.
        op_counts_by_level: the same, by the level at which they run.
        key_switches: rotations and relinearizations.
        rotation_steps: distinct steps, one Galois key each.
        galois_key_bytes: all Galois keys together, in memory.
        refreshes: rounds with the key holder.
        refreshed_ciphertexts: fresh ciphertexts that these rounds bring.
        evaluator_seconds: CPU seconds of the evaluator, from reading inputs to writing outputs.
        client_seconds: CPU seconds of encryption, refreshes and decryption.
        weight_bytes: encoded plaintexts and encrypted weights.
        memory_bytes: evaluator's keys, weights and live ciphertexts.
        input_bytes: ciphertexts that go in, uncompressed.
        output_bytes: ciphertexts that come out, uncompressed.
        evaluation_key_bytes: Galois keys and relinearization key, in memory.
        evaluation_key_file_bytes: the same as they are written and sent.
        keygen_seconds: CPU seconds to make and write them.
        load_seconds: CPU seconds of the evaluator to read them and to encode or read the weights.
        upload_bytes: ciphertexts that the client sends: inputs and answers to refreshes, packed.
        download_bytes: ciphertexts that it receives: refresh requests and outputs, packed.
        seconds_by_operation: the evaluator's seconds by operation name and level read.
        cost_model: name of the cost table.
        segments: the plan, one segment more than there are rounds.
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
    evaluation_key_bytes: int = 0
    evaluation_key_file_bytes: int = 0
    keygen_seconds: float = 0.0
    load_seconds: float = 0.0
    upload_bytes: int = 0
    download_bytes: int = 0
    seconds_by_operation: dict[tuple[str, int], float] = field(default_factory=dict)
    cost_model: str = ""
    segments: tuple[Segment, ...] = ()

    @property
    def total_seconds(self) -> float:
        """Evaluator, client, and the rounds over a line of 50 ms and 100 Mbit/s."""
        return self.evaluator_seconds + self.client_seconds + self.line_seconds(Line())

    def line_seconds(self, line: Line) -> float:
        """Seconds that rounds and the bytes of refreshes take on a line."""
        return self.refreshes * line.rtt + line.transfer(self.refresh_bytes)

    @property
    def refresh_bytes(self) -> int:
        """What goes up to the key holder and comes down from it in all rounds."""
        return sum(one.request_bytes + one.response_bytes for one in self.segments)

    @property
    def client_bytes(self) -> int:
        """What the client sends and receives for one evaluation."""
        return self.upload_bytes + self.download_bytes


@dataclass(frozen=True)
class KeyCosts:
    """Sizes and time of the evaluation keys, known before they are made.

    Attributes:
        galois_keys: number of Galois keys; the relinearization key comes on top of it below.
        memory_bytes: all evaluation keys in memory.
        file_bytes: as they are written.
        seconds: CPU seconds to make and write them.
        load_seconds: CPU seconds to read them.
    """

    galois_keys: int
    memory_bytes: int
    file_bytes: int
    seconds: float
    load_seconds: float


def key_costs(parameters: Parameters, galois_keys: int, cost: CostModel | None = None) -> KeyCosts:
    """Predict what the evaluation keys take, by the active cost model if none is given."""
    model = cost if cost is not None else active_cost_model()
    count = galois_keys + 1
    degree, primes = parameters.poly_modulus_degree, len(parameters.coeff_modulus_bits) - 1
    return KeyCosts(
        galois_keys,
        count * parameters.galois_key_bytes,
        count * galois_key_file_bytes(parameters),
        count * model.seconds("galois_key", degree, primes),
        count * model.seconds("galois_key_load", degree, primes),
    )


def estimate(program: Program, cost: CostModel | None = None) -> Estimate:
    """Predict the cost of a program with levels.

    Args:
        program: With parameters, levels and scales.
        cost: The cost model; None for the active one.

    Raises:
        ProgramError: the program has no parameters or levels.
    """
    parameters = program.parameters
    if parameters is None:
        raise ProgramError(f"program '{program.name}' has no parameters; run choose-parameters")
    model = cost if cost is not None else active_cost_model()
    degree = parameters.poly_modulus_degree
    by_level: dict[int, Counter[str]] = {}
    spent: defaultdict[tuple[str, int], float] = defaultdict(float)
    works = list(evaluator_work(program, model))
    for op, work in works:
        counts = by_level.setdefault(level_read(op), Counter())
        for call, count in work.items():
            if call.name in ARITHMETIC:
                counts[call.name] += count
        if isinstance(op, he.Refresh):
            counts["refresh"] += 1
        if work:
            spent[op.name, level_read(op)] += seconds(work, degree, model)
    total = sum(by_level.values(), Counter())
    refreshes = program.select(he.Refresh)
    steps = tuple(sorted({op.steps for op in program.select(he.Rotate)}))
    keys = key_costs(parameters, len(steps), model)
    stored = stored_weights(program)
    weights = _weight_bytes(program, parameters, stored)
    encoding = sum(n * model.seconds("encode", degree, level + 1) for level, n in stored.items())
    for weight in program.select(he.Weight):
        encoding += model.seconds("load", degree, level_of(weight.defined) + 1)
    segments = find_segments(program, model, works)
    upload, download = _wire_bytes(program, parameters, segments)
    return Estimate(
        op_counts=dict(sorted(total.items())),
        op_counts_by_level={k: dict(sorted(v.items())) for k, v in sorted(by_level.items()) if v},
        key_switches=total["rotate"] + total["relinearize"],
        rotation_steps=steps,
        galois_key_bytes=len(steps) * parameters.galois_key_bytes,
        refreshes=len({op.group for op in refreshes}),
        refreshed_ciphertexts=len(refreshes),
        evaluator_seconds=sum(spent.values()),
        client_seconds=sum(seconds(work, degree, model) for _, work in client_work(program)),
        weight_bytes=weights,
        memory_bytes=keys.memory_bytes + weights + _live_bytes(program, parameters),
        input_bytes=sum(_bytes(op.defined, parameters) for op in program.select(he.Input)),
        output_bytes=sum(_bytes(v, parameters) for v in _outputs(program)),
        evaluation_key_bytes=keys.memory_bytes,
        evaluation_key_file_bytes=keys.file_bytes,
        keygen_seconds=keys.seconds,
        load_seconds=keys.load_seconds + encoding,
        upload_bytes=upload,
        download_bytes=download,
        seconds_by_operation=dict(sorted(spent.items())),
        cost_model=model.name,
        segments=segments,
    )


def _outputs(program: Program) -> Iterator[Value]:
    for op in program.select(he.Output):
        yield from op.xs


def _bytes(value: Value, parameters: Parameters) -> int:
    facts = he.cipher_type(value)
    return parameters.ciphertext_bytes(facts.level or 0, facts.polynomials)


def _weight_bytes(program: Program, parameters: Parameters, stored: Counter[int]) -> int:
    encoded = sum(n * parameters.ciphertext_bytes(level, 1) for level, n in stored.items())
    return encoded + sum(_bytes(op.defined, parameters) for op in program.select(he.Weight))


def _wire_bytes(
    program: Program, parameters: Parameters, segments: Iterable[Segment]
) -> tuple[int, int]:
    """What the client sends and what it receives."""
    up = sum(
        ciphertext_file_bytes(parameters, level_of(op.defined)) for op in program.select(he.Input)
    )
    down = sum(ciphertext_file_bytes(parameters, level_of(v)) for v in _outputs(program))
    for one in segments:
        up, down = up + one.response_bytes, down + one.request_bytes
    return up, down


def _live_bytes(program: Program, parameters: Parameters) -> int:
    """Largest total of ciphertexts alive at once; inputs are all read at the start."""
    last = program.last_uses
    alive = sum(_bytes(op.defined, parameters) for op in program.select(he.Input))
    most = alive
    for i, op in enumerate(program):
        held = isinstance(op, he.Input | he.Weight)
        if op.result is not None and isinstance(op.result.type, CipherType) and not held:
            alive += _bytes(op.result, parameters)
        most = max(most, alive)
        for value in {v.name: v for v in op.operands}.values():
            ended = last[value.name] == i and isinstance(value.type, CipherType)
            if ended and not isinstance(program.definitions[value.name], he.Weight):
                alive -= _bytes(value, parameters)
    return most
