"""Damaged program text is refused with a position, or is another well-formed program."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from hecompile.cli import main
from hecompile.errors import HecompileError
from hecompile.interpret.slots import run_program_slots
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.parser import parse
from hecompile.ir.printer import print_program
from hecompile.ir.program import Program
from hecompile.ir.verifier import verify
from tests.differential.damage import damaged_bytes, damaged_text, within
from tests.golden.cases import random_inputs

GOLDEN = Path(__file__).parents[1] / "golden"
SECONDS = 10.0
LONGEST = 4000


def texts() -> list[tuple[str, Program]]:
    """The programs of the golden tests, before and after their passes, with what they mean."""
    found = []
    for path in sorted(GOLDEN.rglob("*.hir")):
        for part in path.read_text(encoding="utf-8").split("// -----"):
            try:
                found.append((part, parse(part)))
            except HecompileError:
                continue
    return found


TEXTS = texts()


def damaged(number: int) -> tuple[str, Program]:
    """A text with damage, and the program without."""
    random = np.random.default_rng(number)
    text, program = TEXTS[int(random.integers(len(TEXTS)))]
    if random.random() < 0.3:
        return damaged_bytes(text.encode(), random).decode(errors="replace"), program
    return damaged_text(text, random), program


def outcome(text: str, original: Program) -> str:
    """What becomes of a text; an assertion fails if that is not allowed."""
    try:
        program = parse(text)
    except HecompileError as error:
        told = str(error)
        assert told
        assert "Traceback" not in told
        assert len(told) < LONGEST, told
        return "refused"
    if program == original:
        return "the same"
    verify(program)
    arrays = {symbol: constant.array for symbol, constant in program.constants.items()}
    assert parse(print_program(program), arrays) == program
    run = run_tensor if program.dialect == "tensor" else run_program_slots
    with np.errstate(all="ignore"):
        try:
            run(program, random_inputs(program, program.batch, seed=1))
        except HecompileError:
            return "another, which does not run"
    return "another"


def check_many(count: int, number: int) -> Counter[str]:
    found: Counter[str] = Counter()

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32 - 1))
    def check(choice: int) -> None:
        text, original = damaged(choice)
        try:
            with within(SECONDS):
                found[outcome(text, original)] += 1
        except Exception as error:
            error.add_note(text[:3000])
            raise

    check()
    print(dict(found))
    return found


def test_damaged_texts() -> None:
    found = check_many(600, 0)
    assert found["refused"] >= 300
    assert found["another"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 11))
def test_many_damaged_texts(number: int) -> None:
    check_many(3000, number)


@pytest.mark.parametrize("number", range(12))
def test_damaged_texts_by_the_command_line(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, _ = damaged(number)
    (tmp_path / "p.hir").write_text(text)
    code = main(["opt", str(tmp_path / "p.hir"), "--passes", "cse,dce"])
    told = capsys.readouterr().err
    assert code in (0, 1)
    assert "internal error" not in told
    assert (code == 1) == ("error: " in told)
