"""Client, evaluator and custodian together, with real keys and 128-bit parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hecompile.errors import IntegrityError, ProgramError
from hecompile.ir import he_ops as he
from hecompile.runtime.evaluator import Evaluator
from hecompile.runtime.header import Kind
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import evaluation_keys
from tests.encrypted.runtime_parties import Parties, make_parties, opened
from tests.encrypted.runtime_programs import (
    matrix_program,
    polynomial_program,
    refresh_program,
    survivor_program,
)

RNG = np.random.default_rng(5)
MATRIX = RNG.standard_normal((8, 8))
# One diagonal of zeros, which SEAL would refuse to multiply by.
MATRIX[np.arange(8), (np.arange(8) + 3) % 8] = 0.0
BIAS = RNG.standard_normal(8)


@pytest.fixture(scope="module")
def power() -> Parties:
    return make_parties(refresh_program())


@pytest.fixture(scope="module")
def matrix() -> Parties:
    return make_parties(matrix_program(MATRIX, BIAS))


def powers(x: np.ndarray) -> np.ndarray:
    return np.asarray(x**8 + x**2)


def test_affine_map(matrix: Parties) -> None:
    x = RNG.standard_normal((3, 8))
    assert np.abs(matrix.raw(x) - (x @ MATRIX.T + BIAS)).max() < 1e-5
    counts = matrix.evaluator.weights
    assert (counts.stored, counts.uniform, counts.at_use) == (8, 1, 0)
    assert counts.stored_bytes == 7 * 2 * 4096 * 8 + 4096 * 8
    assert matrix.evaluator.timings["he.rotate"].count % 7 == 0
    assert matrix.evaluator.timings["he.rotate"].seconds > 0


def test_weights_beyond_the_memory_limit_are_encoded_at_use() -> None:
    parties = make_parties(matrix_program(MATRIX, BIAS), memory_limit=3 * 65536)
    counts = parties.evaluator.weights
    # The bias is at a lower level, where encoding takes longer for its memory.
    assert (counts.stored, counts.stored_bytes, counts.at_use) == (3, 2 * 65536 + 32768, 5)
    x = RNG.standard_normal((1, 8))
    assert np.abs(parties.raw(x) - (x @ MATRIX.T + BIAS)).max() < 1e-5


def test_zero_weights_alone_give_zero() -> None:
    parties = make_parties(matrix_program(np.zeros((4, 4)), np.arange(4.0)))
    assert np.abs(parties.raw(RNG.standard_normal((1, 4))) - np.arange(4.0)).max() < 1e-5


@pytest.mark.parametrize("samples", [1, 3, 4])
def test_batches_and_post_processing(samples: int) -> None:
    weights = RNG.standard_normal(5)
    parties = make_parties(polynomial_program(weights, batch=3))
    x = RNG.uniform(-1, 1, (samples, 5))
    results = parties.run(x)
    expected = x * x + x - weights * x
    assert len(results) == -(-samples // 3)
    assert np.abs(np.concatenate([r.raw["y"] for r in results]) - expected).max() < 1e-4
    labels = np.concatenate([r.outputs["y"] for r in results])
    assert np.array_equal(labels, expected.argmax(axis=1)[:, None])


def test_refresh(power: Parties) -> None:
    x = RNG.uniform(-1.1, 1.1, (2, 4))
    before = power.custodian.rounds
    assert np.abs(power.raw(x) - powers(x)).max() < 1e-7
    assert power.custodian.rounds == before + 2


def test_evaluate_as_a_generator(power: Parties) -> None:
    x = RNG.uniform(-1, 1, (1, 4))
    generator = power.evaluator.evaluate(power.client.encrypt({"x": x})[0])
    request = next(generator)
    with pytest.raises(StopIteration) as stop:
        generator.send(power.custodian.refresh(request))
    assert np.abs(power.custodian.decrypt(stop.value.value).raw["y"] - powers(x)).max() < 1e-7


def test_the_custodian_sees_masked_values_only(power: Parties) -> None:
    request = power.evaluator.start(power.client.encrypt({"x": np.ones((1, 4))})[0]).advance()
    assert request is not None
    round_ = power.spec.refreshes[0]
    # Two values of bound 4, 10 bits of mask, and 2**2.1 coefficients: 8 of up to 24576 make a slot,
    # where the values are 1.
    envelope = opened(request, round_.request, power.spec.parameters)
    assert (envelope.header.kind, envelope.header.round) == (Kind.REFRESH_REQUEST, 7)
    seen = np.concatenate(
        [
            power.custodian._slots(data, cipher)
            for data, cipher in zip(envelope.ciphertexts, round_.request, strict=True)
        ]
    )
    assert np.abs(seen).max() > 1000
    assert np.abs(seen).max() < 8 * 24576
    assert len(np.unique(seen.round(3))) == 4


def test_an_evaluation_can_be_set_aside_and_taken_up(power: Parties) -> None:
    x = RNG.uniform(-1, 1, (1, 4))
    evaluation = power.evaluator.start(power.client.encrypt({"x": x})[0])
    request = evaluation.advance()
    assert request is not None
    saved = evaluation.checkpoint()
    again = Evaluator(power.program, evaluation_keys(power.ring.source(Role.EVALUATION)))
    resumed = again.resume(saved)
    resumed.accept(power.custodian.refresh(request))
    assert resumed.advance() is None
    assert resumed.done
    assert np.abs(power.custodian.decrypt(resumed.output()).raw["y"] - powers(x)).max() < 1e-7


def test_live_values_are_set_aside_too() -> None:
    """A value that outlives the refresh travels in the checkpoint."""
    parties = make_parties(survivor_program())
    x = RNG.uniform(-1, 1, (1, 4))
    evaluation = parties.evaluator.start(parties.client.encrypt({"x": x})[0])
    request = evaluation.advance()
    assert request is not None
    resumed = parties.evaluator.resume(evaluation.checkpoint())
    resumed.accept(parties.custodian.refresh(request))
    assert resumed.advance() is None
    assert np.abs(parties.custodian.decrypt(resumed.output()).raw["y"] - 3 * x).max() < 1e-7


def test_damaged_checkpoints_are_refused(power: Parties) -> None:
    evaluation = power.evaluator.start(power.client.encrypt({"x": np.ones((1, 4))})[0])
    with pytest.raises(ProgramError, match="only an evaluation that waits"):
        evaluation.checkpoint()
    evaluation.advance()
    saved = evaluation.checkpoint()
    changed = bytearray(saved)
    changed[len(saved) // 2] ^= 1
    for data in (b"", saved[:-1], bytes(changed), bytes(len(saved))):
        with pytest.raises(IntegrityError, match="saved evaluation"):
            power.evaluator.resume(data)


def test_order_of_calls_is_enforced(power: Parties) -> None:
    evaluation = power.evaluator.start(power.client.encrypt({"x": np.ones((1, 4))})[0])
    with pytest.raises(ProgramError, match="has asked for no refresh"):
        evaluation.accept(b"")
    with pytest.raises(ProgramError, match="not finished"):
        evaluation.output()
    evaluation.advance()
    with pytest.raises(ProgramError, match="waits for the response"):
        evaluation.advance()


def test_a_round_is_answered_for_its_own_evaluation_only(power: Parties) -> None:
    first, second = (
        power.evaluator.start(power.client.encrypt({"x": np.ones((1, 4))})[0]) for _ in range(2)
    )
    one, two = first.advance(), second.advance()
    assert one is not None
    assert two is not None
    answer = power.custodian.refresh(one)
    with pytest.raises(IntegrityError, match="belongs to another evaluation"):
        second.accept(answer)
    first.accept(answer)


def test_ciphertexts_of_another_key_are_refused(power: Parties) -> None:
    other = make_parties(power.program)
    data = other.client.encrypt({"x": np.ones((1, 4))})[0]
    with pytest.raises(IntegrityError, match="were encrypted under key") as caught:
        power.evaluator.start(data)
    assert caught.value.exit_code == 4
    request = other.evaluator.start(data).advance()
    assert request is not None
    with pytest.raises(IntegrityError, match="were encrypted under key"):
        power.custodian.refresh(request)


def test_an_input_is_no_output(power: Parties) -> None:
    data = power.client.encrypt({"x": np.ones((1, 4))})[0]
    with pytest.raises(IntegrityError, match="of kind input, where output"):
        power.custodian.decrypt(data)
    with pytest.raises(IntegrityError, match="no refresh round 0"):
        power.custodian.refresh(data)


def test_keys_of_another_program_are_refused(power: Parties, matrix: Parties) -> None:
    keys = evaluation_keys(matrix.ring.source(Role.EVALUATION))
    with pytest.raises(IntegrityError, match="the evaluation keys are for program"):
        Evaluator(power.program, keys)


def test_missing_rotations_are_refused(matrix: Parties) -> None:
    keys = evaluation_keys(matrix.ring.source(Role.EVALUATION), [1, 2])
    with pytest.raises(IntegrityError, match=r"lack rotations by \[3, 4, 5, 6, 7\]"):
        Evaluator(matrix.program, keys)


def test_seal_errors_name_the_operation(matrix: Parties) -> None:
    operations = tuple(
        replace(op, location="/fc/Gemm") if isinstance(op, he.Rotate) else op
        for op in matrix.program
    )
    program = matrix.program.replace(operations=operations)
    parties = make_parties(program)
    keys = evaluation_keys(parties.ring.source(Role.EVALUATION))
    wrong = replace(keys, galois=dict.fromkeys(keys.galois, keys.galois[1]))
    parties = replace(parties, evaluator=Evaluator(program, wrong))
    with pytest.raises(ProgramError, match=r"he\.rotate that defines %rotate.* \(/fc/Gemm\)"):
        parties.raw(np.ones((1, 8)))
