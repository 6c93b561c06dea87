"""The client specification as JSON: strict, so that one specification has one text."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from hecompile.access.records import Place, Record, parse_json
from hecompile.errors import CompileError, InputError, IntegrityError, ProgramError
from hecompile.ir.types import Interval, Layout
from hecompile.numeric.parameters import Parameters
from hecompile.preprocess import steps_from_list, steps_to_list
from hecompile.runtime.ranges import Ranges
from hecompile.runtime.relayout import PROTOCOL
from hecompile.runtime.slot_runs import SlotRuns
from hecompile.runtime.spec import CipherSpec, ClientSpec, InputSpec, OutputSpec, RefreshSpec

FORMAT: Final = "hecompile-client"
VERSION: Final = 4
MAX_SPEC_BYTES: Final = 32 << 20
_FIELDS: Final = (
    "format",
    "version",
    "program",
    "parameters",
    "batch",
    "relayout",
    "inputs",
    "outputs",
    "refreshes",
)
_CIPHER_FIELDS: Final = ("name", "period", "level", "scale", "layout", "gather", "stride")
_LAYOUT_FIELDS: Final = ("first", "count", "stride", "offset", "rest")
_INPUT_FIELDS: Final = ("label", "dims", "ciphertexts", "range", "preprocessing")
_OUTPUT_FIELDS: Final = ("label", "dims", "ciphertexts", "range", "post")
_RANGE_FIELDS: Final = ("whole", "lower", "upper")
_REFRESH_FIELDS: Final = ("group", "values", "together", "response", "taken")
_MOST_TOGETHER: Final = 2
_RUN: Final = 3
"""Numbers of a run: how many slots, of which value of the request, from which slot on."""


def spec_to_json(spec: ClientSpec) -> bytes:
    """Write a specification; `spec_from_json` gives an equal one back."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "program": spec.program,
        "parameters": spec.parameters.to_json(),
        "batch": spec.batch,
        "relayout": PROTOCOL,
        "inputs": [_input_json(entry) for entry in spec.inputs],
        "outputs": [_output_json(entry) for entry in spec.outputs],
        "refreshes": [_refresh_json(entry) for entry in spec.refreshes],
    }
    return json.dumps(document, indent=1, allow_nan=False).encode("utf-8") + b"\n"


def spec_from_json(data: bytes) -> ClientSpec:
    """Read a specification strictly.

    Raises:
        IntegrityError: Not such JSON, another format or version, or a field at fault (named).
    """
    content = parse_json(data, "the client specification", MAX_SPEC_BYTES)
    if isinstance(content, dict) and (content.get("format"), content.get("version")) != (
        FORMAT,
        VERSION,
    ):
        raise IntegrityError(
            f"the client specification is not of format {FORMAT} version {VERSION}; update"
            " hecompile or compile again."
        )
    document = Record.of(content, (), _complain, _FIELDS)
    if document.integer("relayout") != PROTOCOL:
        raise IntegrityError(
            "the client specification has refreshes computed by other rules (number"
            f" {document.integer('relayout')}, not {PROTOCOL}): evaluator and key holder need the"
            " hecompile that compiled it, or compile again."
        )
    try:
        return ClientSpec(
            document.text("program"),
            Parameters.from_json(document.fields["parameters"]),
            document.integer("batch", 1),
            tuple(_read_input(r) for r in document.records("inputs", _INPUT_FIELDS)),
            tuple(_read_output(r) for r in document.records("outputs", _OUTPUT_FIELDS)),
            tuple(_read_refresh(r) for r in document.records("refreshes", _REFRESH_FIELDS)),
        )
    except (CompileError, InputError, ProgramError) as error:
        raise IntegrityError(f"the client specification: {error}") from error


def _complain(place: Place, message: str) -> IntegrityError:
    return IntegrityError(f"the client specification: {message}; get a fresh copy.")


def _cipher_json(spec: CipherSpec) -> dict[str, Any]:
    layout = spec.layout and {name: getattr(spec.layout, name) for name in _LAYOUT_FIELDS}
    gather = list(spec.gather) if spec.gather is not None else None
    facts = {name: getattr(spec, name) for name in _CIPHER_FIELDS}
    return facts | {"layout": layout, "gather": gather}


def _input_json(spec: InputSpec) -> dict[str, Any]:
    return {
        "label": spec.label,
        "dims": list(spec.dims),
        "ciphertexts": [_cipher_json(c) for c in spec.ciphertexts],
        "range": _range_json(spec.ranges),
        "preprocessing": steps_to_list(spec.preprocessing),
    }


def _output_json(spec: OutputSpec) -> dict[str, Any]:
    return {
        "label": spec.label,
        "dims": list(spec.dims),
        "ciphertexts": [_cipher_json(c) for c in spec.ciphertexts],
        "range": _range_json(spec.ranges),
        "post": list(spec.post),
    }


def _range_json(ranges: Ranges | None) -> dict[str, Any] | None:
    if ranges is None:
        return None
    whole = [ranges.whole.lower, ranges.whole.upper]
    return {"whole": whole, "lower": list(ranges.lower), "upper": list(ranges.upper)}


def _refresh_json(spec: RefreshSpec) -> dict[str, Any]:
    return {
        "group": spec.group,
        "values": [_cipher_json(c) for c in spec.values],
        "together": [len(values) for values in spec.parcels],
        "response": [_cipher_json(c) for c in spec.response],
        "taken": [[number for run in one.runs for number in run] for one in spec.taken],
    }


def _read_ciphers(record: Record, field: str) -> tuple[CipherSpec, ...]:
    return tuple(_read_cipher(r) for r in record.records(field, _CIPHER_FIELDS))


def _read_cipher(record: Record) -> CipherSpec:
    scale = record.number("scale")
    if scale <= 0:
        raise record.wrong("scale", "must be above 0")
    layout = None
    if record.fields["layout"] is not None:
        entry = record.record("layout", _LAYOUT_FIELDS)
        numbers = {name: entry.integer(name) for name in _LAYOUT_FIELDS[:-1]}
        try:
            layout = Layout(**numbers, rest=entry.text("rest"))
        except ProgramError as error:
            raise record.wrong("layout", str(error)) from error
    period = record.integer("period", 1)
    gather = record.integers("gather", -1) if record.fields["gather"] is not None else None
    name, level = record.text("name"), record.integer("level")
    return CipherSpec(name, period, level, scale, layout, gather, record.integer("stride", 1))


def _read_input(record: Record) -> InputSpec:
    try:
        steps = steps_from_list(record.fields["preprocessing"])
    except InputError as error:
        raise record.wrong("preprocessing", str(error)) from error
    return InputSpec(
        record.text("label"),
        record.integers("dims", 1),
        _read_ciphers(record, "ciphertexts"),
        _read_range(record),
        steps,
    )


def _read_range(record: Record) -> Ranges | None:
    if record.fields["range"] is None:
        return None
    entry = record.record("range", _RANGE_FIELDS)
    whole = _finite(entry, "whole")
    if len(whole) != 2:
        raise entry.wrong("whole", "must be two numbers, the lower first")
    try:
        return Ranges(Interval(*whole), _finite(entry, "lower"), _finite(entry, "upper"))
    except ProgramError as error:
        raise record.wrong("range", f"is at fault: {error}") from error


def _finite(record: Record, field: str) -> tuple[float, ...]:
    found = []
    for item in record.items(field):
        if not isinstance(item, int | float) or isinstance(item, bool) or not math.isfinite(item):
            raise record.wrong(field, "must be a list of finite numbers")
        found.append(float(item))
    return tuple(found)


def _read_output(record: Record) -> OutputSpec:
    return OutputSpec(
        record.text("label"),
        record.integers("dims", 1),
        _read_ciphers(record, "ciphertexts"),
        record.texts("post"),
        _read_range(record),
    )


def _read_refresh(record: Record) -> RefreshSpec:
    values, counts = _read_ciphers(record, "values"), record.integers("together", 1)
    if sum(counts) != len(values) or max(counts, default=1) > _MOST_TOGETHER:
        raise record.wrong("together", "must share the values out, one or two to a ciphertext")
    starts = [sum(counts[:n]) for n in range(len(counts))]
    pairs = list(zip(starts, counts, strict=True))
    response = _read_ciphers(record, "response")
    taken = []
    for item in record.items("taken"):
        numbers = item if isinstance(item, list) else [None]
        if len(numbers) % _RUN or any(type(n) is not int for n in numbers):
            raise record.wrong("taken", "must hold lists of whole numbers, three a run")
        runs = zip(*(numbers[first::_RUN] for first in range(_RUN)), strict=True)
        taken.append(SlotRuns(tuple(runs)))
    return RefreshSpec(
        record.integer("group"),
        tuple(values[start] for start, _ in pairs),
        response,
        tuple(taken),
        tuple(values[start + 1] if count > 1 else None for start, count in pairs),
    )
