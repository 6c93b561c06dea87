"""Cost models and profiles in files: where they lie, how they are read, strictly, and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hecompile.access.records import Place, Record, parse_json
from hecompile.errors import HecompileError, InputError, IntegrityError
from hecompile.files import atomic_write_text, cannot_read, config_home
from hecompile.numeric.cost import DEFAULT_COST_MODEL, OPERATIONS, CostModel, Points
from hecompile.numeric.security import MAX_MODULUS_BITS

COST_FILE = "cost.json"
_FORMAT = 1
_MAX_BYTES = 1 << 20
_MODEL_FIELDS = ("format", "name", "seconds")
_PROFILE_FIELDS = ("format", "program", "evaluations", "operations")
_OPERATION_FIELDS = ("operation", "level", "count", "seconds")


def default_cost_path() -> Path:
    """Where `hecompile calibrate` writes and other commands look: in the settings folder."""
    return config_home() / COST_FILE


def find_cost_model(path: Path | None = None) -> tuple[CostModel, Path | None]:
    """The cost model to use, and the file it is from.

    Args:
        path: A file; None for the one in the settings folder, or else the shipped table.

    Raises:
        InputError: The file cannot be read, or holds no cost model.
    """
    if path is not None:
        return read_cost_model(path), path
    usual = default_cost_path()
    return (read_cost_model(usual), usual) if usual.exists() else (DEFAULT_COST_MODEL, None)


def write_cost_model(path: Path, model: CostModel) -> None:
    """Write a cost model as JSON.

    Raises:
        InputError: The file cannot be written.
    """
    table = {
        op: {str(ring): [list(point) for point in points] for ring, points in rings.items()}
        for op, rings in model.table.items()
    }
    document = {"format": _FORMAT, "name": model.name, "seconds": table}
    atomic_write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def read_cost_model(path: Path) -> CostModel:
    """Read a cost model.

    Raises:
        InputError: The file cannot be read, or is not exactly a cost model.
    """
    top = _top(path, _MODEL_FIELDS, "make it again with hecompile calibrate")
    seconds = top.record("seconds", required=tuple(OPERATIONS))
    table = {op: _rings(seconds.record(op, optional=tuple(_RINGS))) for op in OPERATIONS}
    try:
        return CostModel(top.text("name"), table)
    except InputError as error:
        raise InputError(f"{path}: {error}; make it again with hecompile calibrate") from error


_RINGS = {str(degree): degree for degree in MAX_MODULUS_BITS}


def _rings(record: Record) -> dict[int, Points]:
    return {_RINGS[name]: _points(record, name) for name in record.fields}


def _points(record: Record, name: str) -> Points:
    found = []
    for item in record.items(name):
        if not isinstance(item, list) or len(item) != 2:
            raise record.wrong(name, "must be a list of [primes, seconds]")
        pair = Record(
            dict(zip(("primes", "seconds"), item, strict=True)),
            (*record.place, name),
            record.complain,
        )
        found.append((pair.integer("primes", 1), pair.number("seconds")))
    return tuple(found)


@dataclass(frozen=True)
class Spent:
    """How often operations of one name ran at one level, and the CPU seconds they took."""

    count: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Profile:
    """What evaluations of a program took.

    Attributes:
        program: identity of the program.
        evaluations: how many there were.
        operations: by operation name and the level at which it read its operand.
    """

    program: str
    evaluations: int
    operations: Mapping[tuple[str, int], Spent]


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile as JSON.

    Raises:
        InputError: The file cannot be written.
    """
    rows = [
        {"operation": name, "level": level, "count": spent.count, "seconds": spent.seconds}
        for (name, level), spent in sorted(profile.operations.items())
    ]
    document = {
        "format": _FORMAT,
        "program": profile.program,
        "evaluations": profile.evaluations,
        "operations": rows,
    }
    atomic_write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        InputError: The file cannot be read, or is not exactly a profile.
    """
    top = _top(path, _PROFILE_FIELDS, "make it again with hecompile evaluate --profile")
    operations: dict[tuple[str, int], Spent] = {}
    for row in top.records("operations", _OPERATION_FIELDS):
        key = (row.text("operation"), row.integer("level"))
        if key in operations:
            raise row.wrong("operation", f"{key[0]} at level {key[1]} is listed twice")
        operations[key] = Spent(row.integer("count", 1), row.number("seconds"))
    return Profile(top.text("program"), top.integer("evaluations", 1), operations)


def _top(path: Path, fields: tuple[str, ...], remedy: str) -> Record:
    def complain(_: Place, message: str) -> HecompileError:
        return InputError(f"{path}: {message}; {remedy}")

    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise cannot_read(path, error) from error
    try:
        content = parse_json(data, str(path), _MAX_BYTES)
    except IntegrityError as error:
        raise InputError(f"{path} is no JSON that is read here; {remedy}") from error
    top = Record.of(content, (), complain, required=fields)
    if top.integer("format") != _FORMAT:
        raise top.wrong("format", f"must be {_FORMAT}")
    return top
