"""Every golden file says what its pipeline makes of its program; every pass has golden files."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from hecompile.ir.parser import parse
from hecompile.passbase import Pass, registered_passes
from hecompile.pipeline import parse_pipeline
from tests.golden.cases import FOLDER, SEPARATOR, Case, collect_cases, same_text

CASES = collect_cases()
BUILT_IN = {
    name: cls
    for name, cls in registered_passes().items()
    if cls.__module__.startswith("hecompile.passes.")
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_golden(case: Case, update_golden: bool) -> None:
    if update_golden:
        case.update()
    outcome = case.outcome()
    if not same_text(outcome, case.expected):
        # A plain comparison, so that pytest shows the difference.
        assert outcome == case.expected, f"{case}; `pytest --update-golden` rewrites it"
    assert outcome.startswith("// error: ") == (case.kind == "refuses")
    if case.kind != "refuses":
        assert parse(outcome) == case.run()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case_belongs_to_its_folder(case: Case) -> None:
    passes = parse_pipeline(case.headers["pipeline"]).passes
    assert case.folder in {one.name for one in passes}


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_pass_has_golden_files(name: str) -> None:
    kinds = {case.kind for case in CASES if case.folder == name}
    assert required_kinds(BUILT_IN[name]) <= kinds


def test_no_folder_without_a_pass() -> None:
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders <= BUILT_IN.keys()


def required_kinds(cls: type[Pass]) -> set[str]:
    """Which outcomes a pass must show: a check never fires, a pass that cannot raise never refuses.

    A pass can raise if its own module has a `raise` or asks for calibration samples.
    """
    tree = ast.parse(inspect.getsource(inspect.getmodule(cls)))  # type: ignore[arg-type]
    raises = any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Attribute) and node.attr in ("samples", "need"))
        for node in ast.walk(tree)
    )
    if cls.name.startswith(("check-", "require-")):
        return {"keeps", "refuses"}
    return {"fires", "keeps", "refuses"} if raises else {"fires", "keeps"}


def test_numbers_may_differ_in_their_last_digits_only() -> None:
    assert same_text("a [0.1, -2.5e-07] @c1", "a [0.10000000000000002, -2.5e-07] @c1")
    assert not same_text("a [0.1]", "a [0.2]")
    assert not same_text("a = 1", "a = 2")
    assert not same_text("a @c1", "a @c2")
    assert not same_text("%v1", "%v2")


def test_update_rewrites_the_second_half(tmp_path: Path) -> None:
    folder = tmp_path / "dce"
    folder.mkdir()
    path = folder / "keeps_all.hir"
    head = '// pipeline: \nprogram "m" batch=1 {\n'
    head += '  %x = tensor.input() {label = "x", dims = [2]} : tensor<2, secret>\n'
    head += '  tensor.output(%x) {label = "y", post = []}\n}\n'
    path.write_text(head, encoding="utf-8")
    (case,) = collect_cases(tmp_path)
    case.update()
    text = path.read_text(encoding="utf-8")
    assert text == head + SEPARATOR + head.removeprefix("// pipeline: \n")
    case.update()
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("stem", ["fires_never", "odd_name"])
def test_a_name_must_tell_the_outcome(tmp_path: Path, stem: str) -> None:
    folder = tmp_path / "dce"
    folder.mkdir()
    path = folder / f"{stem}.hir"
    path.write_text('// pipeline: \nprogram "m" batch=1 {\n}\n', encoding="utf-8")
    with pytest.raises((AssertionError, ValueError), match=f"dce/{stem}"):
        Case(path).outcome()
