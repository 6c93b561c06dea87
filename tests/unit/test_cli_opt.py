from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.unit.cli_calls import Caller

PROGRAM = """\
program "twice" batch=1 {
  %x = tensor.input() {label = "x", dims = [1, 4]} : tensor<1x4, secret>
  %a = tensor.neg(%x) : tensor<1x4, secret>
  %b = tensor.neg(%x) : tensor<1x4, secret>
  %c = tensor.add(%a, %b) : tensor<1x4, secret>
  tensor.output(%c) {label = "y", post = []}
}
"""
PASS = '''
from dataclasses import dataclass
from typing import ClassVar
from hecompile.passbase import Pass, register_pass

@register_pass
@dataclass(frozen=True)
class Nothing(Pass):
    """Change nothing. Really.

    Requires: nothing.
    """

    name: ClassVar[str] = "nothing-at-all"
    times: int = 1

    def run(self, program, context):
        return program
'''


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "in.hir"
    path.write_text(PROGRAM)
    return path


def test_passes_run_and_the_program_is_printed(program: Path, call: Caller) -> None:
    found = call("opt", program, "--passes", "cse,dce")
    assert found.out.count("tensor.neg") == 1
    assert found.out.startswith('program "twice"')


def test_no_passes_print_the_program_as_it_is(program: Path, call: Caller) -> None:
    assert call("opt", program).out == PROGRAM


def test_stdin_and_json(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(PROGRAM.encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    document = call("opt", "-", "--passes", "cse", "--timing", "--json").document
    assert document["changed"] is True
    assert document["pipeline"] == "cse"
    assert [row["pass"] for row in document["timing"]] == ["cse"]


def test_observers(program: Path, call: Caller, tmp_path: Path) -> None:
    dumps = tmp_path / "dumps"
    found = call(
        "opt", program, "--passes", "cse,dce,cse", "--print-after-all", "--timing",
        "--stop-after", "dce", "--dump-dir", dumps,
    )  # fmt: skip
    assert "// after 0: cse" in found.err
    assert "// after 1: dce" in found.err
    assert "after 2" not in found.err
    assert " s  changed  cse" in found.err
    assert sorted(p.name for p in dumps.iterdir()) == ["00-input.hir", "01-cse.hir", "02-dce.hir"]
    only = call("opt", program, "--passes", "cse,dce", "--print-after", "dce")
    assert "after 1: dce" in only.err
    assert "after 0" not in only.err


def test_large_constants_travel_beside_the_text(tmp_path: Path, call: Caller) -> None:
    source = tmp_path / "big.hir"
    values = ", ".join(map(repr, map(float, range(96))))
    source.write_text(
        'program "big" batch=1 {\n'
        f"  const @w : f64<1x96> = [{values}]\n"
        '  %x = tensor.input() {label = "x", dims = [1, 96]} : tensor<1x96, secret>\n'
        "  %w = tensor.constant() {value = @w, dims = [1, 96]} : tensor<1x96, clear>\n"
        "  %y = tensor.add(%x, %w) : tensor<1x96, secret>\n"
        '  tensor.output(%y) {label = "y", post = []}\n'
        "}\n"
    )
    out = tmp_path / "out.hir"
    found = call("opt", source)
    assert "named by digest" in found.err
    call("opt", source, "--passes", "cse", "-o", out)
    assert "sha256:" in out.read_text()
    assert (tmp_path / "out.constants.npz").is_file()
    assert call("opt", out).out == out.read_text()
    moved = tmp_path / "elsewhere.npz"
    (tmp_path / "out.constants.npz").rename(moved)
    assert "@w" in call("opt", out, code=1).err
    assert call("opt", out, "--constants", moved).out == out.read_text()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--passes", "cze"], 1, "did you mean"),
        (["--passes", "cse{a=1}"], 1, "cannot use 'a=1'"),
        (["--passes", "cse", "--stop-after", "dce"], 1, "no pass 'dce'"),
        (["--passes", "calibrate"], 1, "--calibration"),
        (["--load", "missing.py"], 1, "missing.py"),
        (["--constants", "missing.npz"], 1, "missing.npz"),
    ],
)
def test_refusals(program: Path, words: list[str], code: int, told: str, call: Caller) -> None:
    assert told in call("opt", program, *words, code=code).err


def test_a_program_that_is_none(tmp_path: Path, call: Caller) -> None:
    path = tmp_path / "in.hir"
    assert "cannot read" in call("opt", path, code=1).err
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in call("opt", path, code=1).err
    path.write_text("program {")
    assert "in.hir" in call("opt", path, code=1).err


def test_passes_list_and_page(call: Caller, tmp_path: Path) -> None:
    listed = call("passes").out
    assert "\ncse " in listed
    page = call("passes", "approximate")
    assert "Requires:" in page.out
    assert "degree=" in page.out
    file = tmp_path / "mine.py"
    file.write_text(PASS)
    document = call("passes", "nothing-at-all", "--load", file, "--json").document
    assert document["summary"] == "Change nothing"
    assert document["options"] == [
        {"name": "times", "type": "int", "required": False, "default": 1}
    ]
    assert len(call("passes", "--json").document["passes"]) > 10
    assert "did you mean" in call("passes", "aproximate", code=1).err
