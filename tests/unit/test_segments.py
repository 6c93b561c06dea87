"""The plan of a program: what lies between rounds with the key holder, and what they carry."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.errors import ProgramError
from hecompile.estimate import estimate
from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.ir.types import Layout
from hecompile.numeric.cost import OPERATIONS, CostModel
from hecompile.numeric.wire import ciphertext_file_bytes
from hecompile.segments import Line, find_segments
from hecompile.workload import requests
from tests.encrypted.runtime_programs import MEDIUM, Writer, matrix_program, refresh_program

UNIT = CostModel("unit", {op: {8192: ((1, 1.0), (2, 1.0))} for op in OPERATIONS})
"""Everything costs one second."""


def shared_program() -> Program:
    """Two rounds; in the first, two results are gathered from the same two ciphertexts."""
    write = Writer(MEDIUM, "shared")
    a = write.input("a", 4, 4, 3)
    b = write.input("b", 4, 4, 3)
    square = write.rescale(write.same(he.Relinearize(x=write.mul(a, a)), polynomials=2))
    other = write.emit(he.DropLevel(x=b, levels=1), 2, write.parameters.scale(3))
    fresh = []
    for turn in (0, 1):
        table = np.array([[0, 1, 0, 1], np.roll(np.arange(4), turn)], dtype=np.float64)
        gather = write.builder.constant(table, "g")
        op = he.Refresh(xs=(square, other), period=4, gather=gather, mask_bits=10, group=1)
        fresh.append(write.emit(op, 3, write.parameters.scale(3), bound=4.0))
    product = write.mul(fresh[0], fresh[1])
    low = write.rescale(write.same(he.Relinearize(x=product), polynomials=2))
    op = he.Refresh(xs=(low,), mask_bits=10, group=2)
    again = write.emit(op, 1, write.parameters.scale(1), bound=16.0, layout=Layout(0, 4))
    write.output([again], "y", 4)
    return write.finish()


def test_a_ciphertext_travels_once_a_round() -> None:
    program = shared_program()
    first, second, last = requests(program).values()
    assert [len(first), len(second), len(last)] == [1, 0, 1]
    one, two, three = find_segments(program, UNIT)
    assert (one.requests, one.responses) == (1, 2)
    assert one.request_bytes == ciphertext_file_bytes(MEDIUM, 2)
    assert one.response_bytes == 2 * ciphertext_file_bytes(MEDIUM, 3)
    assert (two.requests, two.responses) == (1, 1)
    assert two.request_bytes == ciphertext_file_bytes(MEDIUM, 2)
    assert two.response_bytes == ciphertext_file_bytes(MEDIUM, 1)
    assert (three.requests, three.responses, three.request_bytes, three.response_bytes) == (0,) * 4


def test_a_segment_tells_levels_primes_and_work() -> None:
    one, two, three = find_segments(shared_program(), UNIT)
    assert (one.levels, one.start_primes, one.end_primes) == (1, 4, 3)
    assert (two.levels, two.start_primes, two.end_primes) == (1, 4, 3)
    assert (three.levels, three.start_primes, three.end_primes) == (0, 2, 2)
    # Square, relinearize, rescale, drop.
    assert (one.operations, one.key_switches) == (4, 1)
    # Two inputs read. The request's two values put together, masked and hidden: a product, two
    # additions, a mask as three encodings and its slots as one, adding, an encryption, writing.
    # Per response reading, an encoding, taking away.
    assert one.evaluator_seconds == pytest.approx(2 + 4 + (3 + 3 + 1 + 3) + 2 * 3)
    # The key holder reads, decrypts, decodes, finds slots; it encodes, encrypts and writes.
    assert one.client_seconds == pytest.approx(4 + 2 * 3)
    assert three.client_seconds == 0.0


def test_segments_add_up_to_the_estimate() -> None:
    for program in (shared_program(), refresh_program(), matrix_program(np.eye(4), np.ones(4))):
        cost = None if program.name == "matrix" else UNIT
        found = estimate(program, cost)
        assert len(found.segments) == found.refreshes + 1
        assert sum(s.responses for s in found.segments) == found.refreshed_ciphertexts
        assert sum(s.key_switches for s in found.segments) == found.key_switches
        total = sum(s.evaluator_seconds for s in found.segments)
        assert total == pytest.approx(found.evaluator_seconds)
        sides = sum(s.client_seconds for s in found.segments)
        assert sides < found.client_seconds
    assert found.refresh_bytes == 0


def test_bytes_of_refreshes_are_the_clients_too() -> None:
    program = refresh_program()
    found = estimate(program, UNIT)
    parameters = program.parameters
    assert parameters is not None
    (first, _) = found.segments
    inputs, outputs = ciphertext_file_bytes(parameters, 2), ciphertext_file_bytes(parameters, 1)
    assert found.upload_bytes == inputs + first.response_bytes
    assert found.download_bytes == outputs + first.request_bytes
    assert found.refresh_bytes == first.request_bytes + first.response_bytes


def test_a_round_takes_its_trip_and_its_bytes() -> None:
    line = Line(rtt=0.25, bandwidth=8e6)
    found = estimate(refresh_program(), UNIT)
    first, last = found.segments
    assert line.round_seconds(first) == pytest.approx(0.25 + found.refresh_bytes / 1e6)
    assert line.round_seconds(last) == 0.0
    assert found.line_seconds(line) == pytest.approx(line.round_seconds(first))


def test_a_program_without_parameters_has_no_segments() -> None:
    with pytest.raises(ProgramError, match="has no parameters"):
        find_segments(shared_program().replace(parameters=None))
