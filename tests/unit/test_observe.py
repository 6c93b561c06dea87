"""Observers: print after passes, dump to a folder, measure time."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from hecompile.ir.parser import parse
from hecompile.ir.printer import print_program
from hecompile.observe import DumpDirectory, Observer, PrintAfter, Timing
from hecompile.passbase import Context
from hecompile.pipeline import Pipeline
from tests.unit.passes_for_tests import Break, Idle, Rename, tiny_program

PIPELINE = Pipeline((Rename("a"), Idle(), Rename("b", times=2)))


def _run(observer: Observer) -> None:
    PIPELINE.run(tiny_program(), Context(), [observer])


def test_print_after_every_pass() -> None:
    stream = io.StringIO()
    _run(PrintAfter(stream))
    parts = re.split(r"(?m)^(?=// after)", stream.getvalue())[1:]
    assert [p.splitlines()[0] for p in parts] == [
        "// after 0: t-rename{to=a}",
        "// after 1: t-idle",
        "// after 2: t-rename{to=b times=2}",
    ]
    assert parts[1].splitlines()[1:] == ["(unchanged)"]
    assert parse(parts[2]) == tiny_program().replace(name="bb")


def test_print_after_one_pass() -> None:
    stream = io.StringIO()
    _run(PrintAfter(stream, only="t-idle"))
    assert stream.getvalue() == "// after 1: t-idle\n(unchanged)\n"


def test_dump_directory(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "dump"
    _run(DumpDirectory(folder))
    assert sorted(p.name for p in folder.iterdir()) == [
        "00-input.hir",
        "01-t-rename.hir",
        "02-t-idle.hir",
        "03-t-rename.hir",
    ]
    text = (folder / "00-input.hir").read_text(encoding="utf-8")
    assert text == print_program(tiny_program())
    assert 'program "bb"' in (folder / "03-t-rename.hir").read_text(encoding="utf-8")


def test_dump_directory_shows_what_led_to_a_failure(tmp_path: Path) -> None:
    pipeline = Pipeline((Rename("a"), Break()))
    with pytest.raises(Exception, match="t-break left"):
        pipeline.run(tiny_program(), Context(), [DumpDirectory(tmp_path)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00-input.hir", "01-t-rename.hir"]


def test_timing() -> None:
    timing = Timing()
    _run(timing)
    assert [(name, changed) for name, _, changed in timing.rows] == [
        ("t-rename{to=a}", True),
        ("t-idle", False),
        ("t-rename{to=b times=2}", True),
    ]
    assert all(seconds >= 0 for _, seconds, _ in timing.rows)
    lines = timing.table().splitlines()
    assert re.fullmatch(r" +\d+\.\d{4} s  changed  t-rename\{to=a\}", lines[0])
    assert re.fullmatch(r" +\d+\.\d{4} s  -        t-idle", lines[1])


def test_several_observers_watch_together() -> None:
    stream, timing = io.StringIO(), Timing()
    observers: list[Observer] = [PrintAfter(stream), timing]
    PIPELINE.run(tiny_program(), Context(), iter(observers))
    assert len(timing.rows) == 3
    assert stream.getvalue().count("// after") == 3
