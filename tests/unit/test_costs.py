"""Cost models and profiles in files: what is written is read, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hecompile.costs import (
    Profile,
    Spent,
    default_cost_path,
    find_cost_model,
    read_cost_model,
    read_profile,
    write_cost_model,
    write_profile,
)
from hecompile.errors import InputError
from hecompile.numeric.cost import DEFAULT_COST_MODEL, OPERATIONS, CostModel

PROFILE = Profile("p" * 64, 2, {("he.add", 1): Spent(4, 0.5), ("he.rotate", 0): Spent(2, 1.0)})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HECOMPILE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_a_cost_model_survives_its_file(tmp_path: Path) -> None:
    write_cost_model(tmp_path / "c.json", DEFAULT_COST_MODEL)
    assert read_cost_model(tmp_path / "c.json") == DEFAULT_COST_MODEL


def test_the_settings_folder_is_looked_into_unless_a_file_is_named(
    home: Path, tmp_path: Path
) -> None:
    assert find_cost_model() == (DEFAULT_COST_MODEL, None)
    usual = CostModel("usual", DEFAULT_COST_MODEL.table)
    write_cost_model(default_cost_path(), usual)
    assert default_cost_path().parent == home
    assert find_cost_model() == (usual, home / "cost.json")
    named = CostModel("named", DEFAULT_COST_MODEL.table)
    write_cost_model(tmp_path / "named.json", named)
    assert find_cost_model(tmp_path / "named.json")[0] == named
    (home / "cost.json").write_text("{}")
    with pytest.raises(InputError, match=r"home/cost\.json.*hecompile calibrate"):
        find_cost_model()


def _set(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = to

    return change


def _drop(*path: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for name in path[:-1]:
            document = document[name]
        del document[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_set("format", to=2), "format must be 1"),
        (_set("format", to=True), "format must be a whole number"),
        (_drop("name"), "lacks the key 'name'"),
        (_set("name", to=3), "name must be text"),
        (_set("more", to=1), "unknown key 'more'"),
        (_drop("seconds", "rotate"), "lacks the key 'rotate'"),
        (_set("seconds", "bootstrap", to={}), "unknown key 'bootstrap'"),
        (_set("seconds", "rotate", to=[]), "seconds.rotate must be a table"),
        (_set("seconds", "rotate", to={}), "'rotate' are by ring degree"),
        (_set("seconds", "rotate", "1024", to=[[1, 1.0]]), "unknown key '1024'"),
        (_set("seconds", "rotate", "8192", to=[]), "'rotate' at ring degree 8192"),
        (_set("seconds", "rotate", "8192", to=[1, 1.0]), "a list of .primes, seconds."),
        (_set("seconds", "rotate", "8192", to=[[1, 1.0, 2]]), "a list of .primes, seconds."),
        (_set("seconds", "rotate", "8192", to=[[1.5, 1.0]]), "whole number not below 1"),
        (_set("seconds", "rotate", "8192", to=[[0, 1.0]]), "whole number not below 1"),
        (_set("seconds", "rotate", "8192", to=[[1, "1"]]), "must be a number"),
        (_set("seconds", "rotate", "8192", to=[[1, True]]), "must be a number"),
        (_set("seconds", "rotate", "8192", to=[[1, 0]]), "finite seconds above 0"),
        (_set("seconds", "rotate", "8192", to=[[2, 1.0], [1, 1.0]]), "ascending"),
    ],
)
def test_what_is_not_exactly_a_cost_model_is_refused(
    tmp_path: Path, change: Callable[[Any], None], told: str
) -> None:
    path = tmp_path / "c.json"
    write_cost_model(path, DEFAULT_COST_MODEL)
    document = copy.deepcopy(json.loads(path.read_text()))
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=told) as caught:
        read_cost_model(path)
    assert str(path) in str(caught.value)
    assert "hecompile calibrate" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"format": 1, "format": 1}', '{"format": NaN}', "\x80", "[" * 9999]
)
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="hecompile calibrate"):
        read_cost_model(path)
    with pytest.raises(InputError, match="--profile"):
        read_profile(path)


def test_files_that_are_not_there_or_endless_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_cost_model(tmp_path / "nothing")
    (tmp_path / "large").write_bytes(b" " * (2 << 20))
    with pytest.raises(InputError, match="hecompile calibrate"):
        read_cost_model(tmp_path / "large")


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    write_profile(tmp_path / "p.json", PROFILE)
    assert read_profile(tmp_path / "p.json") == PROFILE


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_drop("program"), "lacks the key 'program'"),
        (_set("evaluations", to=0), "not below 1"),
        (_set("operations", 0, "count", to=0), "not below 1"),
        (_set("operations", 0, "seconds", to=-1), "not below 0"),
        (_set("operations", 1, to={"operation": "he.add"}), "lacks the key"),
        (_set("operations", 0, "wall", to=1), "unknown key 'wall'"),
    ],
)
def test_what_is_not_exactly_a_profile_is_refused(
    tmp_path: Path, change: Callable[[Any], None], told: str
) -> None:
    path = tmp_path / "p.json"
    write_profile(path, PROFILE)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=told):
        read_profile(path)


def test_an_operation_is_listed_once(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    write_profile(path, PROFILE)
    document = json.loads(path.read_text())
    document["operations"].append(document["operations"][0])
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"he\.add at level 1 is listed twice"):
        read_profile(path)


def test_every_primitive_says_what_it_is() -> None:
    assert all(OPERATIONS.values())
