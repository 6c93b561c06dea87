"""The plan of a program: what lies between one round with the key holder and the next.

A program without refreshes is one segment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation
from hecompile.ir.parcels import Parcel
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.levels import PRODUCTS, ciphertexts
from hecompile.numeric.cost import CostModel, active_cost_model
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.wire import ciphertext_file_bytes
from hecompile.workload import Work, client_work, evaluator_work, level_of, requests, seconds

ARITHMETIC = frozenset(
    {"add", "sub", "add_plain", "multiply", "square", "multiply_plain", "negate", "rotate"}
    | {"relinearize", "rescale", "drop_level", "scalar_matrix"}
)
"""Primitives that compute something, as opposed to encoding, reading and writing."""

KEY_SWITCHES = ("rotate", "relinearize")


@dataclass(frozen=True)
class Segment:
    """What the evaluator computes without the key holder, and the round that ends it.

    The last segment ends with the outputs: nothing is asked of the key holder.

    Attributes:
        levels: products on the longest chain, those with plaintexts included.
        start_primes: primes of the largest ciphertext that an operation reads.
        end_primes: primes of the smallest ciphertext that goes to the key holder or is an output.
        operations: arithmetic primitives but for masks, sums of products counted by their products.
        key_switches: rotations and relinearizations among them.
        evaluator_seconds: CPU seconds, masking, reading and writing included.
        requests: masked ciphertexts that go up to the key holder.
        responses: fresh ciphertexts that come down from it.
        request_bytes: bytes that go up.
        response_bytes: bytes that come down.
        client_seconds: CPU seconds of the key holder for the round.
    """

    levels: int
    start_primes: int
    end_primes: int
    operations: int
    key_switches: int
    evaluator_seconds: float
    requests: int
    responses: int
    request_bytes: int
    response_bytes: int
    client_seconds: float


@dataclass(frozen=True)
class Line:
    """The line between evaluator and key holder.

    Attributes:
        rtt: seconds of a round trip, whatever it carries.
        bandwidth: bits per second, of both directions together.
    """

    rtt: float = 0.05
    bandwidth: float = 100e6

    def transfer(self, count: int) -> float:
        """Seconds that some bytes take."""
        return 8.0 * count / self.bandwidth

    def round_seconds(self, segment: Segment) -> float:
        """Seconds that the line takes for the round at a segment's end; 0 where there is none."""
        if not segment.responses:
            return 0.0
        return self.rtt + self.transfer(segment.request_bytes + segment.response_bytes)


def find_segments(
    program: Program,
    cost: CostModel | None = None,
    work: Iterable[tuple[Operation, Work]] | None = None,
) -> tuple[Segment, ...]:
    """Cut a finished program at its rounds.

    Args:
        program: With parameters and levels.
        cost: The cost model; None for the active one.
        work: What `evaluator_work` gives for it, if that is known already.

    Returns:
        One segment more than there are rounds.

    Raises:
        ProgramError: the program has no parameters.
    """
    parameters = program.parameters
    if parameters is None:
        raise ProgramError(f"program '{program.name}' has no parameters; run choose-parameters")
    model = cost if cost is not None else active_cost_model()
    sent = requests(program)
    degree = parameters.poly_modulus_degree
    client = {name: seconds(calls, degree, model) for name, calls in _rounds(program)}
    current = _Growing(parameters, model)
    found = []
    group: int | None = None
    for op, calls in work if work is not None else evaluator_work(program, model):
        if group is not None and not (isinstance(op, he.Refresh) and op.group == group):
            found.append(current.finished())
            current, group = _Growing(parameters, model), None
        current.add(op, calls)
        if isinstance(op, he.Refresh):
            current.refresh(op, sent[op.defined.name], client[op.defined.name])
            group = op.group
    return (*found, current.finished())


def _rounds(program: Program) -> Iterable[tuple[str, Work]]:
    for op, work in client_work(program):
        if isinstance(op, he.Refresh):
            yield op.defined.name, work


class _Growing:
    """A segment so far."""

    def __init__(self, parameters: Parameters, cost: CostModel) -> None:
        self._parameters = parameters
        self._cost = cost
        self._depth: dict[str, int] = {}
        self._calls: Counter[str] = Counter()
        self._seconds = 0.0
        self._client = 0.0
        self._read: list[int] = []
        self._left: list[int] = []
        self._up: list[int] = []
        self._down: list[int] = []

    def add(self, op: Operation, work: Work) -> None:
        """Count an operation."""
        read = ciphertexts(op)
        self._read += [level_of(x) + 1 for x in read]
        if isinstance(op, he.Output | he.Refresh):
            self._left += [level_of(x) + 1 for x in read]
        elif op.result is not None and isinstance(op.result.type, CipherType):
            before = max((self._depth.get(x.name, 0) for x in read), default=0)
            self._depth[op.result.name] = before + isinstance(op, PRODUCTS)
        for call, count in work.items():
            if call.name in ARITHMETIC and not isinstance(op, he.Refresh):
                self._calls[call.name] += count
        self._seconds += seconds(work, self._parameters.poly_modulus_degree, self._cost)

    def refresh(self, op: he.Refresh, sent: Iterable[Parcel], client: float) -> None:
        """Count what a refresh sends to the key holder and gets from it."""
        self._up += [
            ciphertext_file_bytes(self._parameters, level_of(one.values[0])) for one in sent
        ]
        self._down.append(ciphertext_file_bytes(self._parameters, level_of(op.defined)))
        self._client += client

    def finished(self) -> Segment:
        return Segment(
            levels=max(self._depth.values(), default=0),
            start_primes=max(self._read, default=0),
            end_primes=min(self._left, default=0),
            operations=self._calls.total(),
            key_switches=sum(self._calls[name] for name in KEY_SWITCHES),
            evaluator_seconds=self._seconds,
            requests=len(self._up),
            responses=len(self._down),
            request_bytes=sum(self._up),
            response_bytes=sum(self._down),
            client_seconds=self._client,
        )
