"""What programs come down to, and what that is predicted to cost."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hecompile.estimate import estimate, key_costs
from hecompile.ir.parser import parse
from hecompile.ir.program import Program
from hecompile.numeric.cost import DEFAULT_COST_MODEL, OPERATIONS, CostModel, using_cost_model
from hecompile.workload import Call, evaluator_work, rows_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

UNIT = CostModel("unit", {op: {8192: ((1, 1.0), (2, 1.0))} for op in OPERATIONS})
"""Everything costs one second."""

SCALARS = """\
program "scalars" batch=1 {
  parameters n=8192 bits=[40, 30, 44] scale_bits=30
  const @v : f64<2x1> = [3.0, 0.0]
  const @w : f64<2x1> = [1.0, 2.0]
  %x0 = he.input() {label = "x", dims = [1, 2], period = 1, first = 0, count = 1} : ct<1, 0+1 stride=1 offset=0 rest=zero, level=1, scale=1.0>
  %x1 = he.input() {label = "x", dims = [1, 2], period = 1, first = 1, count = 1} : ct<1, 1+1 stride=1 offset=0 rest=zero, level=1, scale=1.0>
  %y0 = he.sum_mul_plain(%x0, %x1) {weights = @w, period = 1} : ct<1, level=1, scale=1.0>
  %y1 = he.sum_mul_plain(%x0, %x1) {weights = @v, period = 1} : ct<1, level=1, scale=1.0>
  %z = he.sum_mul_plain(%y0, %y1) {weights = @w, period = 1} : ct<1, level=1, scale=1.0>
  %r = he.rescale(%z) : ct<1, level=0, scale=1.0>
  he.output(%r) {label = "y", dims = [1, 1], post = []}
}
"""  # noqa: E501


def read(path: str) -> Program:
    text = (GOLDEN / path).read_text(encoding="utf-8").partition("// -----")[0]
    return parse(text.partition("\n")[2], {}, path)


def scalars() -> Program:
    return parse(SCALARS, {}, "scalars")


@pytest.fixture
def cube() -> Program:
    return read("check-levels/keeps.hir")


def work(program: Program, cost: CostModel = UNIT) -> Counter[Call]:
    return sum((found for _, found in evaluator_work(program, cost)), Counter[Call]())


def test_operations_come_down_to_primitives_at_the_level_they_read(cube: Program) -> None:
    found = work(cube)
    assert found[Call("square", 4)] == 1
    assert found[Call("multiply", 3)] == 1
    assert {n: found[Call("rescale", n)] for n in (4, 3, 2)} == {4: 2, 3: 2, 2: 1}
    assert found[Call("relinearize", 4, 3)] == found[Call("relinearize", 3, 3)] == 1
    assert found[Call("multiply_plain", 4)] == found[Call("multiply_plain", 3)] == 1
    # Two rows of weights; the constants 1 and 0.5 are single numbers, encoded when used.
    assert found[Call("multiply_plain", 2)] == 2
    assert found[Call("add", 2)] == 2
    scalar = {call.primes: n for call, n in found.items() if call.name == "encode_scalar"}
    assert scalar == {4: 1, 3: 1, 2: 1}
    assert found[Call("load", 4)] == found[Call("save", 1)] == 1
    assert Call("encode", 4) not in found


def test_the_estimate_adds_up(cube: Program) -> None:
    found = estimate(cube, UNIT)
    assert found.cost_model == "unit"
    assert found.evaluator_seconds == pytest.approx(sum(found.seconds_by_operation.values()))
    # Three of these operations read three polynomials, but key switches cost the same for them.
    assert found.evaluator_seconds == pytest.approx(sum(work(cube).values()))
    assert found.seconds_by_operation["he.rescale", 3] == pytest.approx(2.0)
    assert found.seconds_by_operation["he.input", 3] == pytest.approx(1.0)
    assert found.op_counts_by_level[3]["square"] == 1
    assert found.op_counts["rescale"] == 5
    # Encode, encrypt, save; load, decrypt, decode.
    assert found.client_seconds == pytest.approx(6.0)


def test_keys_are_known_before_they_are_made(cube: Program) -> None:
    parameters = cube.parameters
    assert parameters is not None
    found, keys = estimate(cube, UNIT), key_costs(parameters, 1, UNIT)
    assert found.evaluation_key_bytes == keys.memory_bytes == 2 * parameters.galois_key_bytes
    assert found.galois_key_bytes == parameters.galois_key_bytes
    assert found.keygen_seconds == keys.seconds == pytest.approx(2.0)
    assert 0.2 < keys.file_bytes / keys.memory_bytes < 0.5
    # Both keys, and two rows of weights.
    assert found.load_seconds == pytest.approx(4.0)
    assert found.weight_bytes == 2 * parameters.ciphertext_bytes(1, 1)


def test_bytes_of_the_client(cube: Program) -> None:
    found = estimate(cube)
    assert found.client_bytes == found.upload_bytes + found.download_bytes
    assert 0.5 < found.upload_bytes / found.input_bytes < 0.7
    assert 0.5 < found.download_bytes / found.output_bytes < 0.75


def test_refreshes_are_work_for_both_and_travel_both_ways() -> None:
    program = read("assign-scales/fires_refresh.hir")
    assert program.parameters is not None
    text = (GOLDEN / "assign-scales/fires_refresh.hir").read_text(encoding="utf-8")
    after = parse(text.partition("// -----\n")[2], {}, "after")
    found = estimate(after, UNIT)
    assert found.refreshes >= 1
    assert found.refreshed_ciphertexts >= 1
    # A mask as three encodings, its slots as one, added, hidden, written; read, encoded and taken
    # away.
    key = next(key for key in found.seconds_by_operation if key[0] == "he.refresh")
    assert found.seconds_by_operation[key] % 11.0 == pytest.approx(0.0)
    alone = dataclasses.replace(found, refreshes=0)
    assert found.total_seconds > alone.total_seconds


def test_scalar_sums_over_known_operands_are_one_matrix() -> None:
    cheap = dict(DEFAULT_COST_MODEL.table) | {
        name: {8192: ((1, 1e-12), (2, 1e-12))}
        for name in OPERATIONS
        if name.startswith("scalar_matrix")
    }
    found = work(scalars(), CostModel("cheap matrices", cheap))
    # y0 and y1 together: two operands, two results; z needs them, so it comes after.
    assert found[Call("scalar_matrix", 2)] == 4 + 2
    assert found[Call("scalar_matrix_operand", 2)] == 2 + 2
    assert found[Call("scalar_matrix_result", 2)] == 2 + 1
    assert Call("multiply_plain", 2) not in found
    first = dict((op.result.name, w) for op, w in evaluator_work(scalars(), CostModel("c", cheap))
                 if op.result is not None)  # fmt: skip
    assert first["y0"]
    assert not first["y1"]
    assert estimate(scalars(), CostModel("c", cheap)).op_counts["scalar_matrix"] == 6


def test_small_matrices_are_left_to_single_products() -> None:
    found = work(scalars(), DEFAULT_COST_MODEL)
    assert found[Call("multiply_plain", 2)] == 2 + 1 + 2
    assert found[Call("encode_scalar", 2)] == 6
    assert not [call for call in found if call.name.startswith("scalar_matrix")]


def test_encrypted_weights_are_held_and_read_once() -> None:
    line = '%e = he.weight() {source = "w", period = 2, value = @e}'
    text = SCALARS.replace("  const @v", "  const @e : f64<2> = [1.0, 2.0]\n  const @v").replace(
        "  he.output(%r)",
        f"  {line} : ct<2, level=0, scale=1.0>\n"
        "  %m = he.add(%r, %e) : ct<2, level=0, scale=1.0>\n  he.output(%m)",
    )
    plain, secret = estimate(scalars(), UNIT), estimate(parse(text, {}, "secret"), UNIT)
    size = 2 * 8192 * 8
    assert secret.weight_bytes - plain.weight_bytes == size
    assert secret.load_seconds - plain.load_seconds == pytest.approx(1.0)
    assert secret.upload_bytes == plain.upload_bytes


def test_equal_vectors_of_weights_are_stored_once(cube: Program) -> None:
    rows = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 3.0], [0.0, 0.0]])
    twice = dataclasses.replace(
        cube,
        constants=dict(cube.constants) | {"w": type(cube.constants["w"])(np.repeat(rows, 2, 1))},
    )
    found = rows_of(twice.constants["w"])
    assert len(found.vectors) == 2
    assert len(set(found.vectors)) == 1
    assert (found.uniform, found.zero) == (1, 1)


def test_the_model_in_use_counts_where_none_is_given(cube: Program) -> None:
    with using_cost_model(UNIT):
        assert estimate(cube).cost_model == "unit"
    assert estimate(cube).cost_model == "shipped"
