"""The slot interpreter: every he operation against numpy, packing, batches, checks."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.errors import InputError, ProgramError
from hecompile.interpret import slots as slots_module
from hecompile.interpret.slots import SLOT_KERNELS, run_program_slots, run_slots, trace_slots
from hecompile.ir import he_ops as he
from hecompile.ir.operation import OPERATIONS, Value
from hecompile.ir.parser import parse
from hecompile.ir.program import Builder, Program
from tests.unit.passes_for_tests import tiny_program

RANDOM = np.random.default_rng(0)


def _input(b: Builder, label: str, period: int) -> Value:
    op = he.Input(label=label, dims=(period,), period=period, first=0, count=period)
    return b.emit(op, label)


def _finish(b: Builder, *values: Value) -> Program:
    b.keep(he.Output(xs=values, label="y", dims=(1,)))
    return b.finish()


def test_every_operation_on_slots() -> None:
    x, y, p = RANDOM.normal(size=(3, 8)), RANDOM.normal(size=(3, 4)), RANDOM.normal(size=2)
    weights = RANDOM.normal(size=(2, 16))
    b = Builder(name="m")
    cx, cy = _input(b, "x", 8), _input(b, "y", 4)
    plain = b.emit(he.Encode(value=b.constant(p), period=2))
    twice, doubled, plenty = np.tile(y, 2), np.tile(p, 4), np.tile(weights, 1)
    expected = {
        b.emit(he.Add(x=cx, y=cy)).name: x + twice,
        b.emit(he.Sub(x=cy, y=cx)).name: twice - x,
        b.emit(he.Relinearize(x=b.emit(he.Mul(x=cx, y=cy)))).name: x * twice,
        b.emit(he.AddPlain(x=cx, p=plain)).name: x + doubled,
        b.emit(he.MulPlain(x=cx, p=plain)).name: x * doubled,
        b.emit(he.Negate(x=cx)).name: -x,
        b.emit(he.Rotate(x=cx, steps=3)).name: np.stack([x[:, (j + 3) % 8] for j in range(8)], 1),
        b.emit(he.Rescale(x=cx)).name: x,
        b.emit(he.DropLevel(x=cx, levels=2)).name: x,
        b.emit(he.Refresh(xs=(cx,))).name: x,
        b.emit(he.SumMulPlain(xs=(cx, cy), weights=b.constant(weights), period=16)).name: (
            np.tile(x, 2) * plenty[0] + np.tile(y, 4) * plenty[1]
        ),
    }
    values = {op.defined.name: op.defined for op in b.finish() if op.result is not None}
    program = _finish(b, *(values[name] for name in expected))
    got = run_slots(program, {"x": x, "y": y})
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, atol=1e-15, err_msg=name)


def test_every_ciphertext_operation_has_a_kernel() -> None:
    computing = {op for op in OPERATIONS.values() if op.name.startswith("he.")}
    assert computing - {he.Input, he.Output} == set(SLOT_KERNELS)


PROGRAM = """program "m" batch={batch} {{
  const @three : f64<1> = [3.0]
  %a = he.input() {{label = "x", dims = [2, 3], period = 16, first = 0, count = 4, stride = 4}} \
: ct<16, 0+4 stride=4 offset=0 rest=zero>
  %b = he.input() {{label = "x", dims = [2, 3], period = 8, first = 4, count = 2, stride = 4}} \
: ct<8, 4+2 stride=4 offset=0 rest=zero>
  %p = he.encode() {{value = @three, period = 1}} : pt<1>
  %c = he.mul_plain(%a, %p) : ct<16, 0+4 stride=4 offset=0 rest=zero>
  %d = he.rotate(%b) {{steps = 4}} : ct<8>
  %e = he.add(%b, %d) : ct<8, 4+1 stride=4 offset=4 rest=garbage>
  he.output(%c, %e) {{label = "y", dims = [5], post = []}}
}}
"""


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize("samples", [1, 3, 7])
def test_samples_are_packed_and_unpacked(
    batch: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots_module, "_CHUNK_ELEMENTS", 32)
    x = RANDOM.normal(size=(samples, 2, 3))
    got = run_program_slots(parse(PROGRAM.format(batch=batch)), {"x": x})["y"]
    flat = x.reshape(samples, 6)
    expected = np.hstack([3.0 * flat[:, :4], flat[:, 4:].sum(axis=1, keepdims=True)])
    np.testing.assert_allclose(got, expected)


def test_trace_tells_the_largest_slot() -> None:
    x = np.arange(1.0, 7.0).reshape(1, 2, 3) * [[[1.0]], [[-2.0]]]
    sizes = trace_slots(parse(PROGRAM.format(batch=1)), {"x": x})
    largest = {name: size.max() for name, size in sizes.items()}
    assert largest == {"a": 8.0, "b": 12.0, "p": 3.0, "c": 24.0, "d": 12.0, "e": 22.0}
    assert {len(size) for size in sizes.values()} <= {1, 8, 16}


def test_a_declared_period_must_be_true() -> None:
    text = PROGRAM.format(batch=1)
    assert "%e = he.add(%b, %d) : ct<8, 4+1 stride=4 offset=4" in text
    short = text.replace("ct<8, 4+1 stride=4 offset=4", "ct<4, 4+1 stride=4 offset=0")
    x = RANDOM.normal(size=(2, 2, 3))
    got = run_program_slots(parse(short), {"x": x})["y"]
    np.testing.assert_allclose(got[:, 4], x[:, 1, 1:].sum(axis=1))
    false = text.replace(": ct<8>", ": ct<4>")
    assert false != text
    with pytest.raises(ProgramError, match="%d does not repeat every 4 slots, as it declares"):
        run_program_slots(parse(false), {"x": x})


def test_an_output_of_clear_slots_is_given_for_every_sample() -> None:
    """A sum with all-zero weights still has one row a sample."""
    b = Builder(name="m")
    x = _input(b, "x", 4)
    weights = b.constant(np.zeros((1, 4)))
    y = b.emit(he.SumMulPlain(xs=(x,), weights=weights, period=4))
    assert run_slots(_finish(b, y), {"x": np.ones((3, 4))})[y.name].shape == (3, 4)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dims = [5]", "dims = [6]", r"holds 5 elements, not shape \(6,\)"),
        ("(%c, %e)", "(%e, %c)", "%e starts at element 4, not 0"),
        ("ct<8, 4+1 stride=4 offset=4 rest=garbage>", "ct<8>", "%e does not say where"),
        ("4+1 stride=4", "4+1 stride=2", "3 packed samples do not fit"),
    ],
)
def test_outputs_must_be_covered(old: str, new: str, message: str) -> None:
    text = PROGRAM.format(batch=3)
    assert old in text
    with pytest.raises(ProgramError, match=f"output 'y'.*{message}"):
        run_program_slots(parse(text.replace(old, new)), {"x": np.ones((1, 2, 3))})


def test_bad_inputs_are_refused() -> None:
    program = parse(PROGRAM.format(batch=1))
    with pytest.raises(InputError, match="input 'x' is missing"):
        run_program_slots(program, {})
    with pytest.raises(InputError, match="input 'b' has the shape"):
        run_slots(program, {"a": np.ones((1, 16)), "b": np.ones((1, 16))})
    with pytest.raises(InputError, match="holds nan"):
        trace_slots(program, {"x": np.full((1, 2, 3), np.nan)})
    with pytest.raises(ProgramError, match="at the tensor level; lower it to slots first"):
        run_program_slots(tiny_program(), {"x": np.ones((1, 2))})
