"""Pipelines as text and data, and how passes become known."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from hecompile import passbase
from hecompile.errors import PassError, PipelineError, ProgramError
from hecompile.ir.program import Program
from hecompile.passbase import Context, Pass, find_pass, load_file, register_pass, registered_passes
from hecompile.pipeline import Pipeline, build_pass, parse_pipeline
from tests.unit.passes_for_tests import Break, Idle, Refuse, Rename, tiny_program


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The passes of these tests are known only here."""
    known = dict(registered_passes())
    monkeypatch.setattr(passbase, "_REGISTRY", known)
    for cls in (Rename, Idle, Break, Refuse):
        register_pass(cls)


TEXTS = [
    "",
    "t-idle",
    "t-rename{to=a},t-idle",
    "t-rename{to=a times=2 strength=0.25 loud=true limit=3},t-rename{to=b}",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_round_trip(text: str) -> None:
    pipeline = parse_pipeline(text)
    assert str(pipeline) == text
    assert parse_pipeline(str(pipeline)) == pipeline


def test_every_registered_pass_round_trips_with_its_defaults() -> None:
    for name in registered_passes():
        if not name.startswith("t-"):
            assert str(build_pass(name)) == name


def test_spaces_and_defaults_do_not_matter() -> None:
    pipeline = parse_pipeline("  t-rename { to=a  times=1 limit=None } , t-idle  ")
    assert str(pipeline) == "t-rename{to=a},t-idle"
    assert pipeline.passes[0] == Rename("a")


def test_a_value_that_would_not_read_back_is_refused() -> None:
    with pytest.raises(PipelineError, match="no spaces and no braces: 'a b'"):
        str(Rename("a b"))


ERRORS = {
    "t-rename": "t-rename lacks the option to",
    "t-rename{to=a times=x}": "t-rename: option times is int, not 'x'",
    "t-rename{to=a times=2.5}": "t-rename: option times is int, not '2.5'",
    "t-rename{to=a strength=much}": "t-rename: option strength is float, not 'much'",
    "t-rename{to=a loud=1}": "t-rename: option loud is bool, not '1'",
    "t-rename{to=a limit=x}": "t-rename: option limit is int or NoneType, not 'x'",
    "t-rename{to=a to=b}": "t-rename: cannot use 'to=b'; it takes to, times",
    "t-rename{form=a}": "t-rename: cannot use 'form=a'; it takes to, times",
    "t-idle{loud}": "t-idle: cannot use 'loud'; it takes no options",
    "t-ilde": "there is no pass 't-ilde'; did you mean t-idle",
    "quux": "there is no pass 'quux'; see 'hecompile passes'",
    "t-idle,": "a pass is missing after the last comma",
    "t-idle,,t-idle": "column 8: cannot read ',t-idle'",
    "t-idle t-idle": "column 1: cannot read 't-idle t-idle'",
    "t-rename{to=a": "column 1: cannot read",
    "t-idle,t-rename{to=a}": "t-idle must run after t-rename; exchange them",
    "t-rename{to=a},t-idle,t-break": "t-idle must run after t-break; exchange them",
}


@pytest.mark.parametrize(("text", "message"), ERRORS.items())
def test_errors_in_the_text(text: str, message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        parse_pipeline(text)
    assert message in str(caught.value)


def test_a_pass_may_come_again_after_what_it_needs() -> None:
    text = "t-rename{to=a},t-idle,t-rename{to=b},t-idle"
    assert str(parse_pipeline(text)) == text


def test_run_applies_passes_in_order_and_notes() -> None:
    notes: list[str] = []
    pipeline = parse_pipeline("t-rename{to=a times=2},t-rename{to=b}")
    result = pipeline.run(tiny_program(), Context(note=notes.append))
    assert result.name == "b"
    assert notes == ["tiny becomes a", "aa becomes b"]
    assert Pipeline(()).run(tiny_program(), Context()) == tiny_program()


def test_a_broken_program_names_the_pass_that_left_it() -> None:
    with pytest.raises(PassError) as caught:
        Pipeline((Break(),)).run(tiny_program(), Context())
    assert str(caught.value).startswith("t-break left an invalid program: program 'tiny' breaks")
    broken = Break().run(tiny_program(), Context())
    with pytest.raises(ProgramError, match="used before it is defined"):
        Pipeline(()).run(broken, Context())


def test_a_pass_asks_for_samples() -> None:
    with pytest.raises(PassError, match="t-refuse needs calibration samples; give them with"):
        Pipeline((Refuse(),)).run(tiny_program(), Context())
    with pytest.raises(PassError, match="t-refuse: never"):
        Pipeline((Refuse(),)).run(tiny_program(), Context({"x": np.ones((1, 2))}))


def test_stop_after() -> None:
    pipeline = parse_pipeline("t-rename{to=a},t-rename{to=b},t-idle")
    assert str(pipeline.stop_after("t-rename")) == "t-rename{to=a},t-rename{to=b}"
    with pytest.raises(PipelineError, match="no pass 't-break' to stop after"):
        pipeline.stop_after("t-break")


@dataclass(frozen=True)
class Bare(Pass):
    name: ClassVar[str] = "t-bare"

    def run(self, program: Program, context: Context) -> Program:
        return program


class Undecorated(Pass):
    """Not a dataclass of its own."""

    name: ClassVar[str] = "t-undecorated"

    def run(self, program: Program, context: Context) -> Program:
        return program


def _named(label: str) -> type[Pass]:
    @dataclass(frozen=True)
    class Named(Pass):
        """Change nothing."""

        name: ClassVar[str] = label

        def run(self, program: Program, context: Context) -> Program:
            return program

    return Named


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Bare, "a pass states its contract in its docstring"),
        (Undecorated, "a pass is a frozen dataclass; add @dataclass"),
        (_named("Bad_Name"), "a pass is named in kebab-case, not 'Bad_Name'"),
        (_named(""), "a pass is named in kebab-case, not ''"),
        (_named("t-idle"), "the pass name 't-idle' is taken by tests.unit.passes_for_tests"),
    ],
)
def test_register_pass_checks_the_class(cls: type[Pass], message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        register_pass(cls)
    assert message in str(caught.value)
    assert cls.__qualname__ in str(caught.value)


def test_registering_a_class_again_is_harmless() -> None:
    assert register_pass(Idle) is Idle
    assert find_pass("t-idle") is Idle


def test_passes_are_listed_in_alphabetical_order() -> None:
    assert list(registered_passes()) == sorted(registered_passes())


def test_a_plug_in_that_cannot_be_imported_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("broken", "no_such_module_anywhere", passbase.ENTRY_POINT_GROUP)
    monkeypatch.setattr(passbase, "entry_points", lambda group: [entry])
    monkeypatch.setattr(passbase, "_loaded_entry_points", False)
    with pytest.raises(PipelineError) as caught:
        registered_passes()
    message = str(caught.value)
    assert message.startswith("the plug-in 'broken' (no_such_module_anywhere) cannot be imported:")
    assert message.endswith("mend or uninstall it")


SOURCE = '''
from dataclasses import dataclass
from typing import ClassVar
from hecompile.passbase import Pass, register_pass

@register_pass
@dataclass(frozen=True)
class Loaded(Pass):
    """Change nothing."""
    name: ClassVar[str] = "NAME"
    size: int = 2
    def run(self, program, context):
        return program
'''


def _write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_load_file_registers_its_passes(tmp_path: Path) -> None:
    path = _write(tmp_path, SOURCE.replace("NAME", "t-loaded"))
    load_file(path)
    load_file(path)
    assert str(parse_pipeline("t-loaded{size=3}")) == "t-loaded{size=3}"
    other = _write(tmp_path, SOURCE.replace("NAME", "t-loaded"), "elsewhere/mine.py")
    with pytest.raises(PipelineError, match="the pass name 't-loaded' is taken by"):
        load_file(other)


def test_load_file_may_not_take_a_known_name(tmp_path: Path) -> None:
    path = _write(tmp_path, SOURCE.replace("NAME", "t-idle"))
    with pytest.raises(PipelineError, match=r"mine\.py cannot be imported: PipelineError: .*taken"):
        load_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("def (", "cannot be imported: SyntaxError"),
        ("import no_such_module_anywhere", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_load_file_tells_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        load_file(_write(tmp_path, text))


@pytest.mark.parametrize("name", ["missing.py", "folder.py", "notes.txt"])
def test_load_file_wants_a_python_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    _write(tmp_path, "", "notes.txt")
    with pytest.raises(PipelineError, match=r"is no Python file; --load takes a \.py file"):
        load_file(tmp_path / name)


@dataclass(frozen=True)
class _Faulty(Pass):
    """Fails in a way of its own. Requires: nothing. Ensures: nothing."""

    name: ClassVar[str] = "t-faulty"
    how: str = "raise"

    def run(self, program: Program, context: Context) -> Program:
        if self.how == "raise":
            raise ZeroDivisionError("division by zero")
        if self.how == "none":
            return None  # type: ignore[return-value]
        return program.replace(operations=program.operations[:-1])


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("raise", r"the pass t-faulty \(.*test_pipeline\) failed: ZeroDivisionError: division by"),
        ("none", "the pass t-faulty returned NoneType, not a program"),
        ("drop", "t-faulty lost output '.*'; inputs and outputs must stay"),
    ],
)
def test_a_fault_of_a_pass_is_told_by_its_name(how: str, told: str) -> None:
    with pytest.raises(PassError, match=told):
        Pipeline((_Faulty(how),)).run(tiny_program(), Context())
