from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hecompile.errors import InputError, IntegrityError, ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder
from hecompile.ir.types import CipherType, Interval
from hecompile.preprocess import fit_steps
from hecompile.preprocess_steps import CapOutliers, Standardise
from hecompile.runtime.ranges import Ranges
from hecompile.runtime.slot_runs import SlotRuns
from hecompile.runtime.spec import ClientSpec, program_id, spec_from_program
from hecompile.runtime.spec_json import spec_from_json, spec_to_json
from tests.encrypted.runtime_programs import matrix_program, polynomial_program, refresh_program

PROGRAM = polynomial_program(np.ones(3), batch=2)


def full_spec() -> ClientSpec:
    train = np.random.default_rng(0).standard_normal((20, 3))
    steps = fit_steps([(CapOutliers, {"z": 2.0}), (Standardise, {})], train)
    seen = Ranges(Interval(-1.5, 2.25), (-1.5, 0.0, 1.0), (2.25, 0.5, 1.0))
    outputs = {"y": Ranges(Interval(-4.0, 1e-3))}
    return spec_from_program(PROGRAM, {"x": steps}, {"x": seen}, outputs)


def test_json_round_trip() -> None:
    for spec in (full_spec(), spec_from_program(refresh_program())):
        assert spec_from_json(spec_to_json(spec)) == spec


def test_spec_holds_what_the_program_says() -> None:
    spec = full_spec()
    assert spec.program == program_id(PROGRAM)
    assert spec.batch == 2
    assert [c.level for c in spec.input_ciphertexts] == [3]
    assert spec.outputs[0].post == ("argmax(axis=1 keepdims=1)",)
    rounds = spec_from_program(refresh_program()).refreshes
    assert [(r.group, len(r.request), len(r.response)) for r in rounds] == [(7, 1, 2)]
    assert [[c.level for c in values] for values in rounds[0].parcels] == [[0, 0]]
    assert rounds[0].values == (rounds[0].request[0], rounds[0].imaginary[0])
    assert [c.level for c in rounds[0].response] == [2, 1]
    assert [one.runs for one in rounds[0].taken] == [((4, 0, 0),), ((4, 1, 0),)]


def test_programs_differ_in_identity_by_their_constants() -> None:
    one, two = (matrix_program(np.eye(4) * k, np.ones(4)) for k in (1, 2))
    assert program_id(one) != program_id(two)


def test_unknown_input_is_refused() -> None:
    with pytest.raises(InputError, match="no input 'z'; it has x"):
        spec_from_program(PROGRAM, None, {"z": Ranges(Interval(0, 1))})
    with pytest.raises(InputError, match="no output 'x'; it has y"):
        spec_from_program(PROGRAM, None, None, {"x": Ranges(Interval(0, 1))})


def test_unfinished_program_is_refused() -> None:
    with pytest.raises(ProgramError, match="no encryption parameters"):
        spec_from_program(PROGRAM.replace(parameters=None))


def test_groups_must_be_contiguous() -> None:
    program = refresh_program()
    operations = list(program.operations)
    places = [i for i, op in enumerate(operations) if isinstance(op, he.Refresh)]
    operations.insert(places[1], operations.pop(places[1] + 1))
    with pytest.raises(ProgramError, match="group 7 are not contiguous"):
        spec_from_program(program.replace(operations=tuple(operations)))


def gathered_spec() -> ClientSpec:
    """The specification of a program whose first input ciphertext is gathered."""
    build = Builder(PROGRAM)
    for op in PROGRAM:
        if isinstance(op, he.Input):
            places = build.constant(np.array([2.0, -1.0, 0.0, 2.0]), "gather")
            assert isinstance(op.defined.type, CipherType)
            kind = replace(op.defined.type, layout=None)
            assert (op.dims, op.period, op.stride) == ((1, 3), 8, 2)
            op = replace(op, gather=places, result=Value(op.defined.name, kind))
        build.keep(op)
    return spec_from_program(build.finish())


def test_gathered_inputs_say_what_is_where() -> None:
    spec = gathered_spec()
    (cipher,) = spec.input_ciphertexts
    assert (cipher.gather, cipher.stride, cipher.layout) == ((2, -1, 0, 2), 2, None)
    assert spec_from_json(spec_to_json(spec)) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gather": [2, -1, 0, 3]}, "elements that its input does not have"),
        ({"gather": [-1, -1, -1, -1]}, "elements that its input does not have"),
        ({"gather": [2, -2, 0, 1]}, "must hold no number below -1"),
        ({"gather": [2, 1.0, 0, 1]}, "must be a list of whole numbers"),
        ({"gather": "2"}, "must be a list"),
        ({"gather": [2, 1]}, "do not fill its period"),
        ({"gather": []}, "do not fill its period"),
        ({"gather": [0] * 8, "stride": 1}, "2 samples do not fit places of 1 slots"),
        ({"stride": 0}, "must be a whole number not below 1"),
        ({"gather": None}, "has a stride, but no places"),
        (
            {"layout": {"first": 0, "count": 2, "stride": 2, "offset": 0, "rest": "zero"}},
            "both a layout and places",
        ),
    ],
)
def test_places_are_read_strictly(change: dict[str, Any], message: str) -> None:
    document = json.loads(spec_to_json(gathered_spec()))
    document["inputs"][0]["ciphertexts"][0] |= change
    with pytest.raises(IntegrityError, match=message):
        spec_from_json(json.dumps(document).encode())


def test_only_inputs_are_gathered() -> None:
    document = json.loads(spec_to_json(gathered_spec()))
    document["outputs"][0]["ciphertexts"][0]["gather"] = [0, 1, 2, -1]
    with pytest.raises(IntegrityError, match="is no input, but says what to gather"):
        spec_from_json(json.dumps(document).encode())


def remove_program(d: dict[str, Any]) -> None:
    del d["program"]


def add_field(d: dict[str, Any]) -> None:
    d["inputs"][0]["colour"] = "red"


def newer(d: dict[str, Any]) -> None:
    d["version"] = 5


def other_relayout(d: dict[str, Any]) -> None:
    d["relayout"] += 1


def high_level(d: dict[str, Any]) -> None:
    d["inputs"][0]["ciphertexts"][0]["level"] = 9


def long_period(d: dict[str, Any]) -> None:
    d["inputs"][0]["ciphertexts"][0]["period"] = 8192


def zero_scale(d: dict[str, Any]) -> None:
    d["inputs"][0]["ciphertexts"][0]["scale"] = 0.0


def text_dims(d: dict[str, Any]) -> None:
    d["inputs"][0]["dims"] = ["1", 3]


def unsafe(d: dict[str, Any]) -> None:
    bits = d["parameters"]["coeff_modulus_bits"]
    bits[:] = [60] * len(bits)


def other_step(d: dict[str, Any]) -> None:
    d["inputs"][0]["preprocessing"][0]["step"] = "os.system"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_program, "lacks the key 'program'"),
        (add_field, "unknown key 'colour'"),
        (newer, "version 4"),
        (other_relayout, "refreshes computed by other rules"),
        (high_level, "level 9"),
        (long_period, "period of 8192 in 4096 slots"),
        (zero_scale, "scale"),
        (text_dims, "dims"),
        (unsafe, "prime"),
        (other_step, "step"),
    ],
)
def test_reader_is_strict(change: Callable[[dict[str, Any]], None], message: str) -> None:
    document = json.loads(spec_to_json(full_spec()))
    change(document)
    with pytest.raises(IntegrityError, match=message):
        spec_from_json(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([-1.5, 2.25], "inputs.1.range must be a table"),
        ({"whole": [2, 1]}, "a range runs upwards"),
        ({"whole": [1.0]}, "must be two numbers"),
        ({"whole": [0.0, "1"]}, "must be a list of finite numbers"),
        ({"whole": [0.0, True]}, "must be a list of finite numbers"),
        ({"whole": None}, "must be a list"),
        ({"lower": [-1.5, 0.0]}, "2 least values do not match 3"),
        ({"lower": [-1.5, 0.6, 1.0]}, "element 1 has the range"),
        ({"lower": [-1.6, 0.0, 1.0]}, "element 0 has the range"),
        ({"upper": [2.25, 0.5, 1e999]}, "is not valid JSON"),
        ({"lower": [0.0] * 4, "upper": [1.0] * 4}, "ranges of 4 elements, but 3"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_ranges_are_read_strictly(change: Any, message: str) -> None:
    document = json.loads(spec_to_json(full_spec()))
    entry = document["inputs"][0]
    entry["range"] = entry["range"] | change if isinstance(change, dict) else change
    data = json.dumps(document).replace("Infinity", "1e999").encode()
    with pytest.raises(IntegrityError, match=message):
        spec_from_json(data)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b'{"a": NaN}'])
def test_reader_refuses_other_bytes(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        spec_from_json(data)


def taken_spec(runs: object) -> bytes:
    document = json.loads(spec_to_json(spec_from_program(refresh_program())))
    document["refreshes"][0]["taken"][1] = runs
    return json.dumps(document).encode()


def test_slots_may_come_from_anywhere_in_the_request() -> None:
    spec = spec_from_json(taken_spec([1, 0, 3, 1, -1, 0, 2, 0, 1]))
    taken = spec.refreshes[0].taken[1]
    assert taken.runs == ((1, 0, 3), (1, -1, 0), (2, 0, 1))
    gather = taken.gather()
    assert gather.source.tolist() == [0, -1, 0, 0]
    assert gather.place.tolist() == [3, 0, 1, 2]
    assert SlotRuns.of(gather, [0, 1]) == taken
    assert SlotRuns.of(gather, [1, 0]).runs == ((1, 1, 3), (1, -1, 0), (2, 1, 1))
    assert spec_from_json(spec_to_json(spec)) == spec


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (None, "refreshes.1.taken must hold lists of whole numbers, three a run"),
        ([4, 0], "three a run"),
        ([4, 0, 0.0], "three a run"),
        ([4, True, 0], "three a run"),
        ([], r"%refresh.\d has 4 slots, but 0 are taken"),
        ([3, 0, 0], "has 4 slots, but 3 are taken"),
        ([5, 0, 0], "slots 0 to 4 take slots up to 4 of value 0, which has 4"),
        ([2, 0, 0, 2, 1, 3], "slots 2 to 3 take slots up to 4 of value 1"),
        ([2, 0, 0, 2, 2, 0], "slots 2 to 3 take value 2 of 2"),
        ([2, 0, 0, 2, -2, 0], "slots 2 to 3 are no run"),
        ([2, 0, 0, 2, 1, -1], "slots 2 to 3 are no run"),
        ([4, 0, 0, 0, 1, 0], "slots 4 to 3 are no run"),
        ([2, 0, 0, 2, -1, 1], "slots 2 to 3 take slot 1 of no value"),
        ([2, 0, 0, 2, 0, 2], "not as long as they can be"),
        ([2, -1, 0, 2, -1, 0], "not as long as they can be"),
    ],
)
def test_what_is_taken_is_read_strictly(runs: object, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        spec_from_json(taken_spec(runs))


def test_every_result_says_what_it_takes() -> None:
    spec = spec_from_program(refresh_program())
    (round_,) = spec.refreshes
    with pytest.raises(ProgramError, match="round 7 does not say what its results take"):
        replace(spec, refreshes=(replace(round_, taken=round_.taken[:1]),))
    with pytest.raises(ProgramError, match="round 7 has a value come twice"):
        replace(spec, refreshes=(replace(round_, imaginary=round_.request),))
    with pytest.raises(ProgramError, match="round 7 does not say which values come together"):
        replace(spec, refreshes=(replace(round_, imaginary=()),))
    other = replace(round_.values[1], level=1)
    with pytest.raises(ProgramError, match="comes with a value of another level"):
        replace(spec, refreshes=(replace(round_, imaginary=(other,)),))


@pytest.mark.parametrize("counts", [[], [1], [3], [1, 2], [1, 1, 1]])
def test_what_comes_together_is_read_strictly(counts: list[int]) -> None:
    document = json.loads(spec_to_json(spec_from_program(refresh_program())))
    document["refreshes"][0]["together"] = counts
    with pytest.raises(IntegrityError, match="must share the values out, one or two"):
        spec_from_json(json.dumps(document).encode())
