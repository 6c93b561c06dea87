"""Labels through tensor programs, and the flows that a manifest states of them."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecompile.access.labels import (
    FIELDS,
    MOST_ELEMENTS,
    Flow,
    check_labels,
    covers,
    flows_of,
    sample_shape,
)
from hecompile.access.policy import FieldLabels, ModelLabels, ObjectRef, Policy
from hecompile.access.records import Place, Record, canonical_json
from hecompile.cli.flows import flows_text
from hecompile.errors import HecompileError, InputError, IntegrityError
from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import SparseMap
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import TensorType
from hecompile.labelflow import propagate
from tests.unit.interpreting import clear, finish, secret

VITALS, LABS, GENES = "vitals.hr", "labs.glucose", "genomic.brca"
THREE = (VITALS, LABS, GENES)


def of_input(name: str, *labels: str, axis: int | None = None) -> FieldLabels:
    return FieldLabels(ObjectRef.input(name), axis, labels)


def elements(program: Program, *fields: FieldLabels) -> tuple[tuple[str, ...], ...]:
    return propagate(program, fields)["y"].elements


def sorted_labels(*labels: str) -> tuple[str, ...]:
    return tuple(sorted(labels))


def test_exact_zeros_of_a_map_cut_and_small_weights_do_not() -> None:
    build = Builder(name="m")
    x = secret(build, "x", 1, 3)
    weights = clear(build, [[1.0, 0.0], [1e-300, 0.0], [0.0, -0.0]])
    program = finish(build, y=build.emit(tensor.MatMul(x=x, y=weights)))
    assert elements(program, of_input("x", *THREE, axis=0)) == (sorted_labels(VITALS, LABS), ())


def test_entries_of_a_merged_map_that_cancel_do_not_cut() -> None:
    """Their sum may be zero, and rounding may still leave a trace."""
    build = Builder(name="m")
    x = secret(build, "x", 1, 2)
    entries = SparseMap(np.array([0, 0, 0]), np.array([0, 1, 1]), np.array([1.0, 2.0, -2.0]))
    maps = (build.constant(entries.to_array()),)
    bias = build.constant(np.zeros(1))
    program = finish(
        build, y=build.emit(movement.Affine(xs=(x,), maps=maps, bias=bias, dims=(1, 1)))
    )
    fields = of_input("x", VITALS, LABS, axis=0)
    assert elements(program, fields) == (sorted_labels(VITALS, LABS),)


def test_a_product_of_two_matrices_takes_a_row_and_a_column() -> None:
    build = Builder(name="m")
    x, y = secret(build, "x", 2, 3), secret(build, "w", 3, 2)
    program = finish(build, y=build.emit(tensor.MatMul(x=x, y=y)))
    found = elements(program, of_input("x", "a", "b", axis=0), of_input("w", "c", "d", axis=1))
    assert found == (("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"))


@pytest.mark.parametrize(("left", "right"), [((3,), (3, 2)), ((2, 3), (3,)), ((3,), (3,))])
def test_a_product_with_a_vector_joins_what_it_sums(
    left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    build = Builder(name="m")
    x, y = secret(build, "x", *left), secret(build, "w", *right)
    program = finish(build, y=build.emit(tensor.MatMul(x=x, y=y)))
    found = elements(program, of_input("x", "a"), of_input("w", "b"))
    size = int(np.prod(program.definitions["v0"].infer().shape))  # type: ignore[union-attr]
    assert found == (("a", "b"),) * size


def test_operands_that_broadcast_give_each_element_its_own() -> None:
    build = Builder(name="m")
    x, row = secret(build, "x", 2, 2), secret(build, "row", 2)
    program = finish(build, y=build.emit(tensor.Mul(x=x, y=row)))
    found = elements(program, of_input("x", "a", "b", axis=0), of_input("row", "c", "d", axis=0))
    assert found == (("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"))


def test_constant_segments_of_a_polynomial_cut() -> None:
    build = Builder(name="m")
    x = secret(build, "x", 1, 3)
    table = build.constant(np.array([[1.0, 2.0], [0.0, 0.0], [0.5, 0.0]]))
    op = tensor.Polynomial(x=x, coefficients=table, degree=2, sections=(1, 2))
    program = finish(build, y=build.emit(op))
    assert elements(program, of_input("x", *THREE, axis=0)) == ((VITALS,), (), ())


def test_zeros_computed_from_constants_cut_too() -> None:
    build = Builder(name="m")
    x = secret(build, "x", 1, 2)
    factor = build.emit(tensor.Sub(x=clear(build, [[1.0, 2.0]]), y=clear(build, [[1.0, 1.0]])))
    program = finish(build, y=build.emit(tensor.Mul(x=factor, y=x)))
    assert elements(program, of_input("x", VITALS, LABS, axis=0)) == ((), (LABS,))


def test_more_labels_than_a_word_has_bits() -> None:
    names = tuple(f"snp.{i:03}" for i in range(200))
    build = Builder(name="m")
    x = secret(build, "x", 1, 200)
    program = finish(build, y=build.emit(movement.Slice(x=x, axis=1, start=60, stop=130)))
    assert elements(program, of_input("x", *names, axis=0)) == tuple(
        (name,) for name in names[60:130]
    )


@dataclass(frozen=True, kw_only=True)
class Strange(tensor.Unary):
    """An operation that no rule knows."""

    name: ClassVar[str] = "tensor.strange"


def test_an_unknown_operation_gives_the_union_of_everything() -> None:
    build = Builder(name="m")
    x = secret(build, "x", 1, 3)
    strange = Value("strange", TensorType((1, 3), secret=True))
    build.keep(Strange(x=x, result=strange))
    found = elements(finish(build, y=strange), of_input("x", *THREE, axis=0))
    assert found == (sorted_labels(*THREE),) * 3


def test_weights_that_depend_on_inputs_join_everything() -> None:
    build = Builder(name="m")
    x, kernel = secret(build, "x", 1, 2, 3), secret(build, "k", 1, 2, 1)
    op = tensor.Conv(x=x, weight=kernel, strides=(1,), pads=(0, 0), dilations=(1,))
    program = finish(build, y=build.emit(op))
    found = elements(program, of_input("x", "a", "b", axis=0), of_input("k", "c"))
    assert found == (("a", "b", "c"),) * 3


def square() -> Program:
    """Three fields, each squared: no constant in it."""
    build = Builder(name="m")
    x = secret(build, "x", 1, 3)
    return finish(build, y=build.emit(tensor.Mul(x=x, y=x)))


def scaled() -> Program:
    """Three fields; the first output takes two of them, the second all, by weights."""
    build = Builder(name="m")
    x = secret(build, "x", 1, 3)
    matrix = clear(build, [[1.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    y = build.emit(tensor.MatMul(x=x, y=matrix))
    return finish(build, y=y, same=x)


def policy(*fields: FieldLabels, model: ModelLabels | None = None) -> Policy:
    return Policy((), (), labels=fields, model=model)


TRAINED = ModelLabels(("training.mimic", VITALS))
PER_FIELD = of_input("x", *THREE, axis=0)


def test_flows_tell_elements_and_weights_apart() -> None:
    first, second = flows_of(scaled(), policy(PER_FIELD, model=TRAINED))
    everything = sorted_labels(*THREE)
    assert first == Flow("y", everything, ((VITALS,), everything), sorted_labels(*TRAINED.labels))
    assert second == Flow("same", everything, ((VITALS,), (LABS,), (GENES,)), ())
    assert first.elements_with(LABS) == (1,)
    assert second.elements_with("training.mimic") == ()


def test_parameters_of_a_function_and_fills_are_weights_too() -> None:
    for op, learned in (
        (lambda x: tensor.Activation(x=x, functions=("relu",)), False),
        (lambda x: tensor.Activation(x=x, functions=("leaky_relu(alpha=0.1)",)), True),
        (lambda x: movement.Pad(x=x, pads=(0, 1, 0, 0)), False),
        (lambda x: movement.Pad(x=x, pads=(0, 1, 0, 0), fill=0.5), True),
    ):
        build = Builder(name="m")
        y = build.emit(op(secret(build, "x", 1, 3)))
        (flow,) = flows_of(finish(build, y=y), policy(PER_FIELD, model=TRAINED))
        assert bool(flow.weights) is learned


def test_equal_elements_are_not_listed() -> None:
    (flow,) = flows_of(square(), policy(of_input("x", VITALS)))
    assert flow == Flow("y", (VITALS,), None, ())
    assert flow.elements_with(VITALS) is None
    assert flow.elements_with(LABS) == ()


def test_many_elements_are_not_listed() -> None:
    count = MOST_ELEMENTS + 1
    build = Builder(name="m")
    program = finish(build, y=secret(build, "x", 1, count))
    names = (VITALS,) + (LABS,) * (count - 1)
    (flow,) = flows_of(program, policy(of_input("x", *names, axis=0)))
    assert flow == Flow("y", (LABS, VITALS), None)


def test_private_training_needs_no_clearance() -> None:
    flow = Flow("y", (LABS,), None, ("training.mimic",))
    assert flow.needed(None) == flow.needed(TRAINED) == (LABS, "training.mimic")
    stated = ModelLabels(TRAINED.labels, "dp", 2.0, 1e-6)
    assert flow.needed(stated) == (LABS,)
    unstated = ModelLabels(TRAINED.labels, "dp")
    assert flow.needed(unstated) == (LABS, "training.mimic")


def test_a_label_of_input_and_training_is_needed_for_the_input() -> None:
    stated = ModelLabels((LABS,), "dp", 2.0, 1e-6)
    assert Flow("y", (LABS,), None, (LABS,)).needed(stated) == (LABS,)


@pytest.mark.parametrize(
    ("clearance", "label", "covered"),
    [
        ("vitals.hr", "vitals.hr", True),
        ("vitals.hr", "vitals.hrv", False),
        ("vitals.*", "vitals.hr", True),
        ("vitals.*", "vitals.ecg.lead2", True),
        ("vitals.*", "vitals", False),
        ("vitals.*", "vitalsigns.hr", False),
        ("*", "anything", True),
        ("vitals*", "vitals.hr", False),
        (".*", "vitals.hr", False),
        ("", "vitals.hr", False),
        (("labs.*", "vitals.hr"), "vitals.hr", True),
        ((), "vitals.hr", False),
        # One text is one pattern, not a pattern a letter.
        ("labs.*", "vitals.hr", False),
    ],
)
def test_clearance(clearance: str | tuple[str, ...], label: str, covered: bool) -> None:
    assert covers(clearance, label) is covered


@pytest.mark.parametrize(
    ("dims", "shape"),
    [((1, 4, 32), (4, 32)), ((12,), (12,)), ((1,), (1,)), ((5, 1, 3), (5, 1, 3)), ((1, 1), (1,))],
)
def test_axes_count_without_the_batch(dims: tuple[int, ...], shape: tuple[int, ...]) -> None:
    assert sample_shape(dims) == shape


@pytest.mark.parametrize(
    ("field", "told"),
    [
        (of_input("z", VITALS), "no such input; its inputs are input:x"),
        (FieldLabels(ObjectRef.output("x"), None, (VITALS,)), "no such input"),
        (of_input("x", VITALS, LABS, axis=0), "2 labels for axis 0, which has 3 indices"),
        (of_input("x", *THREE, axis=1), "has no axis 1, it is 3; axes count from 0"),
        (of_input("x", *THREE, axis=-1), "has no axis -1"),
        (of_input("x"), "the list is empty"),
        (of_input("*", VITALS, LABS, axis=0), "2 labels for axis 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(field: FieldLabels, told: str) -> None:
    for check in (
        lambda: check_labels([field], {"x": (1, 3)}),
        lambda: flows_of(square(), policy(field)),
    ):
        with pytest.raises(InputError, match=told):
            check()


def test_a_refusal_names_the_line_of_the_policy() -> None:
    field = FieldLabels(ObjectRef.input("z"), None, (VITALS,), where="p.toml, line 7")
    with pytest.raises(InputError, match=r"^p\.toml, line 7: labels of input:z: "):
        check_labels([field], {"x": (1, 3)})


def test_a_wildcard_labels_every_input() -> None:
    build = Builder(name="m")
    x, other = secret(build, "x", 1, 3), secret(build, "other", 2)
    program = finish(build, y=x, z=other)
    flows = flows_of(program, policy(of_input("*", VITALS)))
    assert [flow.labels for flow in flows] == [(VITALS,), (VITALS,)]


def read(value: object) -> Flow:
    def complain(place: Place, message: str) -> HecompileError:
        return IntegrityError(f"{'.'.join(place)}: {message}")

    return Flow.from_record(Record.of(value, ("flow",), complain, FIELDS))


LABELS = st.lists(st.sampled_from(["a", "b.c", "b.d", "e"]), unique=True).map(sorted)


@given(LABELS, LABELS, st.lists(LABELS, min_size=2, max_size=6) | st.none())
def test_flows_survive_json(
    labels: list[str], weights: list[str], carried: list[list[str]] | None
) -> None:
    elements = None
    if carried is not None and any(one != carried[0] for one in carried):
        elements = tuple(map(tuple, carried))
        labels = sorted({label for one in carried for label in one})
    flow = Flow("y", tuple(labels), elements, tuple(weights))
    assert read(json.loads(canonical_json(flow.to_json()))) == flow


GOOD = {"output": "y", "labels": ["a", "b"], "elements": [[0], [0, 1]], "weights": ["t"]}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"output": 3}, "output must be text"),
        ({"labels": ["b", "a"]}, "must be sorted labels"),
        ({"labels": ["a", "a"]}, "must be sorted labels"),
        ({"labels": ["", "a"]}, "must be sorted labels"),
        ({"labels": "ab"}, "must be a list"),
        ({"weights": ["t", "s"]}, "must be sorted labels"),
        ({"weights": None}, "must be a list"),
        ({"elements": []}, "a list of 2 to"),
        ({"elements": [[0, 1]]}, "a list of 2 to"),
        ({"elements": [[0]] * (MOST_ELEMENTS + 1)}, "a list of 2 to"),
        ({"elements": [[0], 1]}, "sorted lists of whole numbers"),
        ({"elements": [[0], [True]]}, "sorted lists of whole numbers"),
        ({"elements": [[0], [1.0]]}, "sorted lists of whole numbers"),
        ({"elements": [[0], [1, 0]]}, "sorted lists of whole numbers"),
        ({"elements": [[0], [1, 1]]}, "sorted lists of whole numbers"),
        ({"elements": [[0], [2]]}, "refer to labels"),
        ({"elements": [[0], [-1, 1]]}, "refer to labels"),
        ({"elements": [[0], []]}, "must carry every label"),
        ({"elements": [[0, 1], [0, 1]]}, "must be null where"),
        ({"more": 1}, "unknown key 'more'"),
    ],
)
def test_forged_flows_are_refused(changes: dict[str, object], told: str) -> None:
    assert read(GOOD) == Flow("y", ("a", "b"), (("a",), ("a", "b")), ("t",))
    with pytest.raises(IntegrityError, match=told):
        read({**GOOD, **changes})


def test_the_table_in_the_documentation() -> None:
    build = Builder(name="m")
    x, history = secret(build, "x", 1, 3), secret(build, "history", 1, 4)
    score = build.emit(tensor.MatMul(x=x, y=clear(build, [[1.0, 2.0], [1.0, 1.0], [0.0, 0.0]])))
    split = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    moved = build.emit(tensor.MatMul(x=x, y=clear(build, split)))
    program = finish(build, score=score, state=build.emit(tensor.Add(x=history, y=moved)))
    fields = (PER_FIELD, of_input("history", "vitals.ecg"))
    model = ModelLabels(("training.mimic",))
    text = flows_text(flows_of(program, policy(*fields, model=model)), fields)
    page = Path(__file__).parents[2] / "docs" / "flows.md"
    assert textwrap.indent(text, "    ") in page.read_text(encoding="utf-8")


def test_the_table_writes_runs_and_says_what_does_not_flow() -> None:
    fields = (of_input("x", *"aababbbb", axis=0), of_input("z", "c"))
    build = Builder(name="m")
    x = secret(build, "x", 8)
    secret(build, "z", 1)
    text = flows_text(flows_of(finish(build, y=x), policy(*fields)), fields)
    assert [line.split()[-1] for line in text.splitlines()[2:5]] == ["0-1,3", "2,4-7", "-"]
    assert "axis 0: 0-1,3" in text


def test_the_table_without_labels_says_so() -> None:
    assert "labels neither inputs nor weights" in flows_text(flows_of(square(), policy()), ())
