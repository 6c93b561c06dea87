"""Options of a compilation, judged by the program that comes out and by its encrypted runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from hecompile.compiler import Compiled
from hecompile.config import CompileOptions
from hecompile.errors import CompileError, HecompileError, UsageError
from hecompile.ir import he_ops
from hecompile.ir.printer import print_program
from hecompile.ir.program import Program
from hecompile.passbase import Context, Pass
from tests.encrypted.compiled_models import (
    answers,
    compile_tiny,
    run_encrypted,
    samples,
    sigmoid_mlp,
    small_lstm,
    square_mlp,
    worst,
)
from tests.encrypted.runtime_parties import make_parties


@pytest.mark.parametrize("steps", [5, 8])
def test_without_refreshes_a_deep_program_is_refused_with_its_stages(steps: int) -> None:
    with pytest.raises(CompileError) as caught:
        compile_tiny(small_lstm(steps), options=CompileOptions(refresh="never"))
    told = str(caught.value)
    depth = int(re.findall(r"y_node: 1 \((\d+) so far\)", told)[0])
    assert depth > 6 * steps
    levels, reached = re.findall(r"by stage: lstm: (\d+) \((\d+) so far\)", told)[0]
    assert int(levels) == int(reached) == depth - 1
    remedies = told.partition("Remedies: ")[2]
    for remedy in ("--refresh auto", "--precision", "--degree", "standardise"):
        assert remedy in remedies


def test_fewer_rounds_than_any_plan_has_are_refused_with_the_fewest() -> None:
    with pytest.raises(CompileError) as caught:
        compile_tiny(small_lstm(8), options=CompileOptions(max_refreshes=1, ring=8192))
    told = str(caught.value)
    fewest = re.findall(r"--max-refreshes is 1, and the smallest .* reached is (\d+)\.", told)
    assert int(fewest[0]) > 1
    assert "too few levels" not in told
    assert "Remedies: raise --max-refreshes, leave --ring to the compiler" in told


def test_the_line_decides_between_few_rounds_and_many() -> None:
    model = small_lstm(steps=2)
    near, far = (
        compile_tiny(model, options=CompileOptions(rtt=rtt, degree=3)).report.estimate
        for rtt in (1e-4, 2.0)
    )
    assert near.refreshes > far.refreshes
    assert near.evaluator_seconds < far.evaluator_seconds


def test_refreshes_at_no_price_save_the_evaluator_work() -> None:
    model = small_lstm()
    cheap = compile_tiny(model, options=CompileOptions(refresh="client"))
    auto = compile_tiny(model)
    assert cheap.report.estimate.refreshes > 0
    seconds = cheap.report.estimate.evaluator_seconds
    assert seconds <= auto.report.estimate.evaluator_seconds
    inputs = samples(model, 2)
    raw = run_encrypted(make_parties(cheap.program, spec=cheap.spec), inputs).raw
    assert worst(raw, answers(model, inputs)) <= cheap.predicted_error


def test_mask_bits_reach_every_refresh() -> None:
    compiled = compile_tiny(small_lstm(steps=2), options=CompileOptions(mask_bits=20))
    refreshes = compiled.program.select(he_ops.Refresh)
    assert refreshes
    assert {op.mask_bits for op in refreshes} == {20}
    assert compiled.report.mask_bits == 20


@pytest.mark.parametrize("method", ["weighted", "chebyshev", "minimax"])
@pytest.mark.parametrize("degree", [3, 5])
def test_degree_and_method_are_obeyed(method: str, degree: int) -> None:
    compiled = compile_tiny(sigmoid_mlp(), options=CompileOptions(degree=degree, method=method))
    assert [fit.degree for fit in compiled.report.fits] == [degree]
    assert compiled.report.fits[0].fit_error < (0.1 if degree == 3 else 0.03)


def test_a_degree_given_is_run_encrypted() -> None:
    model = sigmoid_mlp()
    options = CompileOptions(degree=5, method="minimax", ring=16384)
    compiled = compile_tiny(model, options=options)
    assert compiled.report.parameters.poly_modulus_degree == 16384
    inputs = samples(model, 3)
    raw = run_encrypted(make_parties(compiled.program, spec=compiled.spec), inputs).raw
    assert worst(raw, answers(model, inputs)) <= compiled.predicted_error


def test_a_precision_is_met_or_refused() -> None:
    model = sigmoid_mlp()
    loose, tight = (compile_tiny(model, precision=p) for p in (0.5, 1e-3))
    assert tight.predicted_error <= 1e-3
    assert tight.predicted_error < loose.predicted_error <= 0.5
    inputs = samples(model, 3)
    raw = run_encrypted(make_parties(tight.program, spec=tight.spec), inputs).raw
    assert worst(raw, answers(model, inputs)) <= 1e-3
    with pytest.raises(HecompileError, match=r"precision|noise"):
        compile_tiny(model, precision=1e-13)
    with pytest.raises(CompileError, match="out of reach before anything is encrypted"):
        compile_tiny(square_mlp(), precision=1e-12)


def test_one_ring_only() -> None:
    compiled = compile_tiny(square_mlp(), options=CompileOptions(ring=32768))
    assert compiled.report.parameters.poly_modulus_degree == 32768
    with pytest.raises(CompileError, match="a ring of 4096"):
        compile_tiny(
            square_mlp(), precision=1e-5, options=CompileOptions(ring=4096, refresh="never")
        )
    with pytest.raises(UsageError, match="--ring is one of"):
        CompileOptions(ring=1000)


def test_equal_calls_give_equal_programs() -> None:
    def made() -> Compiled:
        return compile_tiny(small_lstm(steps=2), precision=5e-2)

    one, other = made(), made()
    assert print_program(one.program) == print_program(other.program)
    assert one.program == other.program
    assert one.spec == other.spec
    assert one.report == other.report


@dataclass(frozen=True)
class Watch(Pass):
    """Note the dialect and the number of operations seen, and change nothing."""

    name: ClassVar[str] = "watch"
    seen: list[tuple[str, int]] = field(default_factory=list, compare=False)

    def run(self, program: Program, context: Context) -> Program:
        assert context.calibration
        self.seen.append((program.dialect, len(program.operations)))
        return program


@dataclass(frozen=True)
class WatchSlots(Watch):
    """The same on slot programs."""

    name: ClassVar[str] = "watch-slots"
    stage: ClassVar[str] = "slots"


@dataclass(frozen=True)
class Drop(Pass):
    """Break the program: leave its first operation out."""

    name: ClassVar[str] = "drop"

    def run(self, program: Program, context: Context) -> Program:
        return program.replace(operations=program.operations[1:])


def test_own_passes_run_at_their_stage() -> None:
    tensors, slots = Watch(), WatchSlots()
    plain = compile_tiny(square_mlp())
    compiled = compile_tiny(square_mlp(), passes=[tensors, slots])
    assert [dialect for dialect, _ in tensors.seen] == ["tensor"]
    assert {dialect for dialect, _ in slots.seen} == {"he"}
    assert compiled.program == plain.program


def test_an_own_pass_that_breaks_the_program_is_told() -> None:
    with pytest.raises(HecompileError, match="drop"):
        compile_tiny(square_mlp(), passes=[Drop()])
