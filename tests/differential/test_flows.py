"""What carries no label of an element does not change it; in linear programs, the rest does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from hecompile import labelflow
from hecompile.access.labels import sample_shape
from hecompile.access.policy import FieldLabels, ObjectRef
from hecompile.config import CompileOptions
from hecompile.errors import HecompileError
from hecompile.frontend import import_onnx
from hecompile.interpret.samples import as_samples
from hecompile.interpret.slots import run_program_slots
from hecompile.interpret.tensor import run_tensor
from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array, Constant
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.ir.recurrent_ops import Lstm
from hecompile.ir.tensor_ops import tensor_type
from hecompile.labelflow import ElementLabels, propagate
from hecompile.passbase import Context
from hecompile.pipeline import parse_pipeline
from hecompile.pipelines import tensor_pipeline
from tests.benchmarks.cases import MissingError, make_case
from tests.differential.random_graphs import RandomModel
from tests.differential.random_models import models
from tests.differential.recurrent_cases import Form
from tests.differential.test_packing_programs import Writer, random_program
from tests.golden.cases import random_inputs

Fields = tuple[FieldLabels, ...]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]

SLOTS = "lower-to-slots{slots=32},cse,plan-rotations,cse,dce"
SIMPLIFY = "normalise,fold-constants,fold-batchnorm,unroll-recurrent,normalise,cse,dce"
SAMPLES = 3
MOST_SETS = 8
"""Label sets that one program is asked about."""


def random_fields(program: Program, number: int) -> Fields:
    """Labels for every input, by an axis or for all of it, some inputs twice over."""
    random = np.random.default_rng(number)
    # Sometimes more labels than one word of bits holds.
    pool = [f"group.{i}" for i in range(random.choice([2, 5, 90]))]
    found = []
    for op in program.select(tensor.Input):
        shape = sample_shape(op.dims)
        for _ in range(1 + (random.random() < 0.3)):
            axis = int(random.integers(-1, len(shape)))
            count = shape[axis] if axis >= 0 else 1
            labels = tuple(str(label) for label in random.choice(pool, count))
            found.append(
                FieldLabels(ObjectRef.input(op.label), axis if axis >= 0 else None, labels)
            )
    return tuple(found)


def carriers(program: Program, fields: Fields, labels: set[str]) -> dict[str, Array]:
    """Which elements of each input carry one of some labels, by looking at every element."""
    found = {}
    for op in program.select(tensor.Input):
        carries = np.zeros(op.dims, dtype=bool)
        for place in np.ndindex(op.dims):
            index = place[len(op.dims) - len(sample_shape(op.dims)) :]
            for field in fields:
                if field.object.name == op.label:
                    label = field.labels[0 if field.axis is None else index[field.axis]]
                    carries[place] |= label in labels
        found[op.label] = carries
    return found


def assert_no_interference(
    program: Program, fields: Fields, run: Run, number: int, tolerance: float = 0.0
) -> None:
    """Change all that carries none of some labels, and look at what carries no others."""
    carried = propagate(program, fields)
    base, other = (random_inputs(program, SAMPLES, number + i) for i in range(2))
    before = run(base)
    sets = {frozenset(one) for labels in carried.values() for one in labels.elements}
    for kept in sorted(map(sorted, sets))[:MOST_SETS]:
        fixed = carriers(program, fields, set(kept))
        after = run({name: np.where(fixed[name], base[name], other[name]) for name in base})
        for name, labels in carried.items():
            shown = np.array([set(one) <= set(kept) for one in labels.elements])
            old, new = (result[name].reshape(SAMPLES, -1)[:, shown] for result in (before, after))
            tame = np.isfinite(old) & np.isfinite(new)
            off = np.abs(old - new)[tame] / np.maximum(1.0, np.abs(old[tame]))
            assert off.max(initial=0.0) <= tolerance, f"{name} depends on more than {kept}"


def drawn(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The same examples in every run."""
    return settings(
        deadline=None,
        derandomize=True,
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow],
    )


PROGRAMS = (st.integers(0, 2**32 - 1), st.integers(1, 2), st.integers(1, 7), st.integers(1, 2))


@drawn(150)
@given(*PROGRAMS)
def test_random_programs_do_not_depend_on_what_they_do_not_carry(
    number: int, inputs: int, steps: int, outputs: int
) -> None:
    judge_level(random_program(number, 1, inputs, steps, outputs), number)


@pytest.mark.parametrize("batch", [1, 3])
def test_nor_do_their_slots(batch: int) -> None:
    @drawn(40)
    @given(*PROGRAMS)
    def check(number: int, inputs: int, steps: int, outputs: int) -> None:
        program = random_program(number, batch, inputs, steps, outputs)
        packed = parse_pipeline(SLOTS).run(program, Context())
        fields = random_fields(program, number)
        assert_no_interference(program, fields, partial(run_program_slots, packed), number, 1e-9)

    check()


class LinearWriter(Writer):
    """Affine maps and movement alone."""

    def step(self) -> None:
        kinds = (self._affine, self._affine, self._slice, self._negate, self._reshape)
        self.values.append(kinds[self.random.integers(len(kinds))](self._pick()))


@drawn(150)
@given(*PROGRAMS)
def test_what_a_linear_program_carries_it_depends_on(
    number: int, inputs: int, steps: int, outputs: int
) -> None:
    writer = LinearWriter(number, 1)
    for i in range(inputs):
        writer.input(f"x{i}")
    for _ in range(steps):
        writer.step()
    program = writer.finish(outputs)
    fields = random_fields(program, number)
    base, other = (random_inputs(program, SAMPLES, number + i) for i in range(2))
    before = run_tensor(program, base)
    for name, labels in propagate(program, fields).items():
        for label in labels.union[:MOST_SETS]:
            moved = carriers(program, fields, {label})
            changed = {x: np.where(moved[x], other[x], base[x]) for x in base}
            differs = (run_tensor(program, changed)[name] != before[name]).any(axis=0)
            carries = labels.carried[:, labels.names.index(label)]
            assert (differs.ravel() == carries).all(), f"{label} in {name}"


def pruned(program: Program, number: int) -> Program:
    """The program with about half of its weights exactly zero, some of them by whole rows."""
    random = np.random.default_rng(number)
    constants = {}
    for symbol, constant in program.constants.items():
        array = constant.array
        mask = random.random(array.shape) < 0.5
        axes = np.flatnonzero(np.array(array.shape) > 1)
        if len(axes) and random.random() < 0.5:
            mask = np.ones(array.shape, dtype=bool)
            axis = int(random.choice(axes))
            mask = np.moveaxis(mask, axis, 0).copy()
            mask[random.integers(len(mask))] = False
            mask = np.moveaxis(mask, 0, axis)
        constants[symbol] = Constant(np.where(mask, array, 0.0))
    return program.replace(constants=constants)


def levels(program: Program, number: int) -> list[Program]:
    """The program as imported, simplified, and as it is computed under encryption."""
    context = Context(random_inputs(program, 16, number))
    found = [program]
    for pipeline in (parse_pipeline(SIMPLIFY), tensor_pipeline(CompileOptions(degree=3))):
        try:
            found.append(pipeline.run(program, context))
        except HecompileError:
            # Pruning may leave nothing to compute, which the compiler refuses.
            continue
    return found


def judge(program: Program, number: int) -> int:
    """Ask about a program at every level that it reaches, and how many these are."""
    reached = levels(program, number)
    for level in reached:
        judge_level(level, number)
    return len(reached)


def judge_level(program: Program, number: int) -> None:
    """Ask about a tensor program with random labels."""
    fields = random_fields(program, number)
    assert_no_interference(program, fields, partial(run_tensor, program), number)


def test_random_models_do_not_depend_on_what_they_do_not_carry() -> None:
    reached: list[int] = []

    @seed(0)
    @settings(
        max_examples=100,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(models(), st.integers(0, 2**31))
    def check(model: RandomModel, number: int) -> None:
        reached.append(judge(pruned(import_onnx(model.proto), number), number))

    check()
    assert np.mean(reached) > 2.5, "most models are to be compiled"


FORMS = [
    Form(kind, direction, batch=2, h0=h0, c0=h0, outputs=(output,), seed=i)
    for i, kind in enumerate(("LSTM", "GRU", "RNN"))
    for direction in ("forward", "reverse", "bidirectional")
    for h0 in ("none", "secret")
    for output in ("Y", "Y_h")
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_recurrent_layers_do_not_depend_on_what_they_do_not_carry(form: Form) -> None:
    assert judge(pruned(import_onnx(form.model()), form.seed), form.seed) >= 2


def test_steps_of_a_layer_are_told_apart() -> None:
    """Before it is unrolled too: a step knows nothing of those after it."""
    program = import_onnx(Form("LSTM", steps=3, outputs=("Y",)).model())
    fields = (FieldLabels(ObjectRef.input("x"), 0, ("t.0", "t.1", "t.2")),)
    for level in levels(program, 0):
        (labels,) = propagate(level, fields).values()
        assert labels.elements == (("t.0",),) * 2 + (("t.0", "t.1"),) * 2 + (labels.union,) * 2


MUTANTS: dict[type[Operation], Callable[[Any, Any], Any]] = {
    tensor.Mul: lambda op, known: known(op.x),
    tensor.Polynomial: lambda op, known: known.nothing(tensor_type(op.x).shape),
    movement.Affine: lambda op, known: known.nothing(op.dims),
    Lstm: lambda op, known: known.nothing(tensor_type(op.defined).shape),
}


@pytest.mark.parametrize("kind", MUTANTS, ids=lambda kind: kind.name)
def test_the_oracle_notices_a_rule_that_forgets(
    kind: type[Operation], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {**labelflow._RULES, kind: MUTANTS[kind]}
    monkeypatch.setattr(labelflow, "_RULES", rules)
    programs = [random_program(number, 1, 2, 7, 1) for number in range(120)]
    if kind is Lstm:
        programs = [import_onnx(form.model()) for form in FORMS[:4]]
    assert any(interferes(program, number) for number, program in enumerate(programs))


def interferes(program: Program, number: int) -> bool:
    try:
        judge_level(program, number)
    except AssertionError:
        return True
    return False


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, dict[str, Array]]:
    """The CNN-LSTM that peers are measured on, and calibration samples."""
    try:
        case = make_case("CNNLSTM", tmp_path_factory.mktemp("cnnlstm"), 4)
    except MissingError as error:
        pytest.skip(f"no reference model: {error}")
    program = import_onnx(Path(case.model))
    return program, as_samples(program, {"x": case.calibration[:64]})


def test_a_zeroed_weight_column_cuts_that_channel(
    convolutional: tuple[Program, dict[str, Array]],
) -> None:
    program, samples = convolutional
    (op,) = program.select(tensor.Input)
    channels = sample_shape(op.dims)[0]
    fields = (FieldLabels(ObjectRef.input(op.label), 0, _names(channels)),)
    assert flowing(program, fields, samples) == set(_names(channels))
    first = program.select(tensor.Conv)[0]
    symbol = next(
        c.value for c in program.select(tensor.ConstantTensor) if c.defined == first.weight
    )
    weight = np.array(program.array(symbol))
    weight[:, 1] = 0.0
    cut = program.replace(constants={**program.constants, symbol: Constant(weight)})
    assert flowing(cut, fields, samples) == set(_names(channels)) - {"channel.1"}


def flowing(program: Program, fields: Fields, samples: dict[str, Array]) -> set[str]:
    """The labels that reach the output, before and after compilation the same."""
    polynomial = tensor_pipeline(CompileOptions(degree=3)).run(program, Context(samples))
    found: list[ElementLabels] = []
    for level in (program, polynomial):
        found += propagate(level, fields).values()
        assert_no_interference(level, fields, partial(run_tensor, level), 0)
    assert found[0].union == found[1].union
    return set(found[0].union)


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"channel.{i}" for i in range(count))
