"""Sums of scalar products as matrix products: bit by bit what SEAL computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal

from hecompile.errors import ProgramError
from hecompile.ir.program import Program
from hecompile.ir.types import Layout
from hecompile.numeric.parameters import Parameters
from hecompile.runtime import families
from hecompile.runtime.context import Context
from hecompile.runtime.evaluator import Evaluator
from hecompile.runtime.families import Batch, ScalarSums, Sum, plan_batches, scalar_sums
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import evaluation_keys
from hecompile.runtime.residues import LayoutError, ResidueAccess, load_residues
from hecompile.runtime.scalar_matrix import integer_weights
from tests.encrypted.runtime_parties import make_parties, opened
from tests.encrypted.runtime_programs import Writer

SHORT = Parameters(8192, (30, 28, 28, 28, 30), 24)
LONG = Parameters(8192, (54, 54, 60), 40)


@pytest.fixture(scope="module", params=[SHORT, LONG], ids=["28 bits", "54 bits"])
def context(request: pytest.FixtureRequest) -> Context:
    return Context(request.param)


def random_ciphertexts(
    context: Context, count: int, polynomials: int, level: int
) -> dict[str, Any]:
    random = np.random.default_rng(count)
    primes = context.parameters.data_primes[: level + 1]
    degree = context.parameters.poly_modulus_degree
    found = {}
    for number in range(count):
        rows = [random.integers(0, p, size=(polynomials, degree), dtype=np.uint64) for p in primes]
        found[f"x{number}"] = load_residues(context, np.stack(rows, axis=1), level, 1.0)
    return found


def by_seal(context: Context, live: dict[str, Any], one: Sum, level: int) -> Any:
    evaluator = seal.Evaluator(context.seal)
    total: Any = None
    for name, weight in zip(one.operands, one.weights, strict=True):
        if weight:
            plain = context.encode(float(weight) / one.scale, level, one.scale)
            product = seal.Ciphertext()
            evaluator.multiply_plain(live[name], plain, product)
            if total is None:
                total = product
            else:
                evaluator.add_inplace(total, product)
    return total


@pytest.mark.parametrize("polynomials", [2, 3])
@pytest.mark.parametrize("level", [0, 1])
def test_sums_equal_those_of_seal_bit_by_bit(
    context: Context, polynomials: int, level: int
) -> None:
    access = ResidueAccess(context)
    live = random_ciphertexts(context, 12, polynomials, level)
    random = np.random.default_rng(7)
    scale = 2.0**20
    sums = []
    for number, width in enumerate((12, 12, 12, 5, 5, 4, 1)):
        names = tuple(f"x{(number + n) % 12}" for n in range(width))
        weights = integer_weights(random.normal(size=width), scale)
        assert weights is not None
        sums.append(Sum(f"y{number}", scale, names, weights))
    batch = Batch(level, polynomials, sums)
    found = ScalarSums({0: batch}, context).run(batch, live)
    for one in sums:
        value, wanted = found[one.result], by_seal(context, live, one, level)
        assert np.array_equal(access.view(value), access.view(wanted))
        assert value.scale == wanted.scale
        assert value.parms_id() == wanted.parms_id()


def test_views_follow_seal_and_refuse_what_is_not_there(context: Context) -> None:
    access = ResidueAccess(context)
    value = random_ciphertexts(context, 1, 2, context.parameters.levels)["x0"]
    view = access.view(value)
    assert [value[n] for n in (0, 1, 5000, view.size - 1)] == [
        int(view.flat[n]) for n in (0, 1, 5000, view.size - 1)
    ]
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0, 0] = 1
    with pytest.raises(LayoutError):
        access.view(seal.Ciphertext())


def test_residues_that_are_none_are_refused(context: Context) -> None:
    prime = context.parameters.data_primes[0]
    residues = np.ones((2, 1, context.parameters.poly_modulus_degree), dtype=np.uint64)
    residues[1, 0, 17] = prime
    with pytest.raises(ProgramError, match="SEAL does not take"):
        load_residues(context, residues, 0, 1.0)
    residues[1] = 0
    with pytest.raises(ProgramError, match="transparent"):
        load_residues(context, residues, 0, 1.0)


def dense(inputs: int = 12, hidden: int = 8) -> tuple[Program, float]:
    """y = a · x for one number x, by two layers with one weight for each pair of ciphertexts."""
    write = Writer(Parameters(8192, (45, 30, 30, 30, 45), 30), "dense")
    first = np.random.default_rng(0).normal(size=(hidden, inputs)) / inputs
    # SEAL refuses products with zero: the evaluator must get around them here too.
    first[2] = 0.0
    x = write.input("x", 1, 1, 3)
    factors = 1.0 + np.arange(inputs) / 8
    parts = [write.rescale(write.sum([x], np.full((1, 1), f))) for f in factors]
    sums = [write.rescale(write.sum(parts, row[:, None])) for row in first]
    y = write.rescale(write.sum(sums, np.ones((hidden, 1))), layout=Layout(0, 1))
    write.output([y], "y", 1)
    return write.finish(), float(first.sum(axis=0) @ factors)


def test_a_program_gives_the_same_residues_with_and_without_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program, factor = dense()
    batches = plan_batches(program)
    assert [len(batch.sums) for batch in batches.values()] == [8]
    with_batches = make_parties(program)
    data = with_batches.client.encrypt({"x": np.array([[1.25]])})[0]
    outputs = [run(with_batches.evaluator, data)]
    assert with_batches.evaluator.timings["he.sum_mul_plain"].count == 12 + 8 + 1
    result = with_batches.custodian.decrypt(outputs[0]).raw["y"]
    assert result.item() == pytest.approx(1.25 * factor, abs=1e-4)
    monkeypatch.setattr(families, "plan_batches", lambda program: {})
    keys = evaluation_keys(with_batches.ring.source(Role.EVALUATION))
    outputs.append(run(Evaluator(program, keys), data))
    spec = with_batches.spec
    blobs = [opened(o, spec.output_ciphertexts, spec.parameters).ciphertexts for o in outputs]
    assert blobs[0] == blobs[1]


def run(evaluator: Evaluator, data: bytes) -> bytes:
    evaluation = evaluator.start(data)
    assert evaluation.advance() is None
    return evaluation.output()


def test_batches_stay_within_their_memory() -> None:
    program, _ = dense(24, 16)
    parameters = program.parameters
    assert parameters is not None
    size = parameters.ciphertext_bytes(2)
    batches = plan_batches(program, 8 * size)
    assert [len(batch.sums) for batch in batches.values()] == [8, 8]
    assert plan_batches(program, size) == {}


def test_without_access_to_memory_seal_does_the_work_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, context: Context
) -> None:
    def refuse(context: Context) -> None:
        raise LayoutError("no memory can be read")

    monkeypatch.setattr(families, "residue_access", refuse)
    with pytest.warns(RuntimeWarning, match="no memory can be read"):
        assert not scalar_sums(dense()[0], context)


def test_a_ciphertext_at_another_level_is_refused(context: Context) -> None:
    live = random_ciphertexts(context, 2, 2, 1)
    one = Sum("y", 2.0, ("x0", "x1"), np.array([2, 3]))
    batch = Batch(0, 2, [one])
    with pytest.raises(ProgramError, match="shape"):
        ScalarSums({0: batch}, context).run(batch, live)
