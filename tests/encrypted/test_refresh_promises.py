"""What masks rest on is planned, checked and stated: exact slots, noise within a share, bits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import helper

from hecompile.config import CompileOptions
from hecompile.errors import CompileError, InputError, PassError
from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.numeric.masking import NOISE_SHARE
from hecompile.passbase import Context, Pass
from hecompile.passes import choose_parameters
from hecompile.passes.check_precision import CheckPrecision
from hecompile.precision import mask_noise
from hecompile.runtime.admission import check_program
from hecompile.runtime.wide import Double, double_of
from tests.encrypted.compiled_models import Graph, compile_tiny, small_lstm
from tests.encrypted.relayout_rounds import DEEP, random_gather, round_program
from tests.encrypted.runtime_parties import make_parties
from tests.encrypted.test_runtime_refresh import Seen, exact
from tests.unit.test_runtime_admission import retyped

PERIODS = (64, 64)


def round_of(bound: float) -> Program:
    table = random_gather(np.random.default_rng(1), PERIODS, 64)
    return retyped(round_program(PERIODS, [table], DEEP, bound=bound), he.Refresh, bound=bound)


@pytest.mark.parametrize("bits", [60, 64])
def test_masks_too_large_for_exact_slots_are_refused_with_remedies(bits: int) -> None:
    """128 samples side by side make periods of 512 slots."""
    options = CompileOptions(mask_bits=bits, batch=128, degree=3, ring=8192)
    with pytest.raises(CompileError, match=r"masked slots take 10[0-9.]+ bits of 100") as caught:
        compile_tiny(small_lstm(steps=2), options=options)
    for remedy in ("fewer --mask-bits", "smaller --batch", "standardise the inputs"):
        assert remedy in str(caught.value)


@pytest.mark.parametrize(("bits", "batch"), [(58, 1), (50, 128)])
def test_what_is_planned_is_admitted(bits: int, batch: int) -> None:
    options = CompileOptions(mask_bits=bits, batch=batch, degree=3, ring=8192)
    compiled = compile_tiny(small_lstm(steps=2), options=options)
    assert compiled.report.mask_bits == bits
    check_program(compiled.program)


def test_the_noise_that_masks_hide_is_predicted() -> None:
    parties = make_parties(round_of(1.0))
    xs = {f"x{n}": np.zeros((1, 64)) for n in range(2)}
    evaluation = parties.evaluator.start(parties.client.encrypt(xs)[0])
    request = evaluation.advance()
    assert request is not None
    seen = Seen(parties, request, evaluation._checkpoint.masks, 3)
    (view,), (mask,) = seen.whole(), seen.masks()
    whole = double_of(mask)
    pairs = zip(exact(view), exact(Double(whole.high, whole.low)), strict=True)
    noise = np.array([float(a - b) for a, b in pairs]) / DEEP.scale(1)
    measured = float(np.linalg.norm(noise)) / NOISE_SHARE
    # Of both values of the ciphertext, each with what it takes up of the other.
    for predicted in mask_noise(round_of(1.0)).values():
        assert measured / 2 < predicted < measured * 2


def test_more_noise_than_masks_are_made_for_is_refused() -> None:
    share = max(mask_noise(round_of(1.0)).values())
    CheckPrecision().run(round_of(2 * share), Context(None))
    with pytest.raises(PassError, match="handed over with 2 times the noise that its mask"):
        CheckPrecision().run(round_of(share / 2), Context(None))


def faint_rnn(steps: int = 6, features: int = 3, hidden: int = 4) -> onnx.ModelProto:
    """States of a few thousandths, which are its outputs."""
    graph = Graph(5)
    draw = graph.random.uniform
    names = [
        graph.weight("w", draw(-0.001, 0.001, size=(1, hidden, features))),
        graph.weight("r", draw(-0.001, 0.001, size=(1, hidden, hidden))),
        graph.weight("b", draw(-0.001, 0.001, size=(1, 2 * hidden))),
    ]
    graph.node("Transpose", ["x"], "t", perm=[1, 0, 2])
    made = helper.make_node("RNN", ["t", *names], ["states", ""], "rnn", hidden_size=hidden)
    graph.nodes.append(made)
    graph.node("Transpose", ["states"], "moved", perm=[2, 0, 1, 3])
    graph.node("Flatten", ["moved"], "y", axis=1)
    return graph.model({"x": (steps, features)}, {"y": (steps * hidden,)})


def test_small_values_are_handed_over_at_a_larger_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    options = CompileOptions(degree=3, ring=8192)
    compiled = compile_tiny(faint_rnn(), options=options)
    assert compiled.report.mask_bits == 40
    assert max(mask_noise(compiled.program).values()) <= 1
    # A planner that does not look at it takes too small a scale, which the check refuses.
    monkeypatch.setattr(choose_parameters, "mask_noise", lambda *_: {})
    with pytest.raises(PassError, match="times the noise that its mask is made for"):
        compile_tiny(faint_rnn(), options=options)


@dataclass(frozen=True)
class Weaken(Pass):
    """Masks of fewer bits than asked for."""

    name: ClassVar[str] = "weaken"
    stage: ClassVar[str] = "slots"
    bits: int = 25

    def run(self, program: Program, context: Context) -> Program:
        return program.replace(
            operations=tuple(
                dataclasses.replace(op, mask_bits=self.bits) if isinstance(op, he.Refresh) else op
                for op in program
            )
        )


def test_the_bits_stated_are_those_of_the_program() -> None:
    options = CompileOptions(degree=3, ring=8192)
    compiled = compile_tiny(small_lstm(steps=2), options=options, passes=[Weaken()])
    assert {op.mask_bits for op in compiled.program.select(he.Refresh)} == {25}
    assert compiled.report.mask_bits == 25
    with pytest.raises(InputError, match="--mask-bits of 20 or more"):
        compile_tiny(small_lstm(steps=2), options=options, passes=[Weaken(19)])


def test_few_bits_are_refused_like_none() -> None:
    with pytest.raises(InputError, match="masks of fewer than 20 bits do not hide"):
        compile_tiny(small_lstm(steps=2), options=CompileOptions(mask_bits=1))
