"""Printer and parser: exact round trip, errors with positions, and no crash on damaged text."""

from __future__ import annotations

import contextlib
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hecompile.errors import ProgramError
from hecompile.ir.operation import OPERATIONS
from hecompile.ir.parser import parse
from hecompile.ir.printer import print_operation, print_program
from hecompile.ir.program import Program
from hecompile.ir.verifier import verify
from tests.unit.ir_programs import cipher_programs, tensor_programs

PROGRAMS = tensor_programs() | cipher_programs()
SLOW = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

TEXT = """program "small" batch=2 {
  const @c : f64<2> = [1.0, -0.5]
  %x = tensor.input() {label = "x", dims = [2]} : tensor<2, secret, [-1.0, 1.0]> loc("in")
  %c = tensor.constant() {value = @c, dims = [2]} : tensor<2, clear>
  %y = tensor.add(%x, %c) : tensor<2, secret>
  %z = tensor.neg(%y) : tensor<2, secret>
  tensor.output(%z) {label = "y", post = ["softmax(axis=0)"]}
}
"""
CIPHER = """program "c" batch=1 {
  parameters n=8192 bits=[50, 30, 30, 50] scale_bits=30
  const @w : f64<2x4> = [1.0, 2.0, 3.0, 4.0, 0.0, 0.5, 0.0, 1e-09]
  %x = he.input() {label = "x", dims = [4], period = 8, first = 0, count = 4, stride = 2} : \
ct<8, 0+4 stride=2 offset=0 rest=zero, bound=1.0, level=2, scale=1073741824.0>
  %r = he.rotate(%x) {steps = 3} : ct<8, level=2, scale=1073741824.0>
  %s = he.sum_mul_plain(%x, %r) {weights = @w, period = 4} : ct<8, level=2, scale=2.5e+17>
  %t = he.rescale(%s) : ct<8, 0+4 stride=1 offset=1 rest=garbage, level=1, scale=1073741824.0>
  he.output(%t) {label = "y", dims = [4], post = []}
}
"""


@pytest.mark.parametrize("text", [TEXT, CIPHER])
def test_text_round_trip(text: str) -> None:
    assert print_program(parse(text)) == text


@SLOW
@given(PROGRAMS)
def test_program_round_trip(program: Program) -> None:
    verify(program)
    text = print_program(program, inline_elements=10_000)
    again = parse(text)
    assert again == program
    assert print_program(again, inline_elements=10_000) == text
    assert [op.location for op in again] == [op.location for op in program]


@SLOW
@given(PROGRAMS)
def test_round_trip_with_constants_beside_the_text(program: Program) -> None:
    arrays = {name: constant.array for name, constant in program.constants.items()}
    assert parse(print_program(program, inline_elements=-1), arrays) == program


def test_random_programs_reach_most_operations() -> None:
    """The round trips above are worth as much as the programs they see."""
    seen: set[str] = set()

    @settings(SLOW, max_examples=300, database=None, derandomize=True)
    @given(PROGRAMS)
    def collect(program: Program) -> None:
        seen.update(op.name for op in program)

    collect()
    assert len(OPERATIONS.keys() - seen) <= len(OPERATIONS) // 5


def test_comments_and_layout_of_the_text_do_not_matter() -> None:
    text = TEXT.replace("  ", "\t ").replace("{\n", "{ // a comment\n\n// another\n")
    assert parse(text) == parse(TEXT)


def test_an_integer_where_a_float_is_declared_is_that_float() -> None:
    text = """program "m" batch=1 {
  %x = tensor.input() {label = "x", dims = [2]} : tensor<2, secret>
  %y = tensor.pad(%x) {pads = [0, 1], fill = 3} : tensor<3, secret>
  tensor.output(%y) {label = "y", post = []}
}
"""
    assert "fill = 3.0" in print_program(parse(text))


ERRORS = [
    ("program", "%y = tensor.add(%x, %c)", "%y = tensor.add(%x, %q)", "5:23: %q is used before"),
    ("operation", "tensor.add(", "tensor.plus(", "5:8: 'tensor.plus' is no operation"),
    ("operand count", "tensor.neg(%y)", "tensor.neg(%y, %x)", "6:18: tensor.neg takes 1 operands"),
    ("missing operand", "tensor.neg(%y)", "tensor.neg()", "6:3: tensor.neg lacks x"),
    ("left out", "tensor.neg(%y)", "tensor.neg(_)", "6:18: tensor.neg needs its operand 'x'"),
    ("attribute", 'label = "x"', 'lable = "x"', "3:24: tensor.input takes no attribute 'lable'"),
    ("twice", "dims = [2]} :", "dims = [2], dims = [2]} :", "3:49: tensor.input takes no"),
    ("kind", "dims = [2]", "dims = [2.5]", "3:37: tensor.input: attribute 'dims' is of another"),
    ("nested", "dims = [2]", "dims = [[2]]", "3:45: a list holds no lists"),
    ("redefined", "%y = ", "%x = ", "5:3: %x is defined twice"),
    ("type", "tensor<2, clear>", "matrix<2, clear>", "4:53: 'matrix' is no type"),
    ("interval", "[-1.0, 1.0]>", "[2.0, 1.0]>", "3:51: a range runs upwards"),
    ("extent", "tensor<2, clear>", "tensor<-2, clear>", "4:53: a tensor has no negative extents"),
    ("constant", "f64<2>", "f64<3>", "2:9: the constant @c does not fill its shape"),
    ("text in it", "[1.0, -0.5]", '[1.0, "a"]', "2:9: the constant @c holds something"),
    ("digest", "[1.0, -0.5]", "sha256:" + "0" * 64, "2:9: the constant @c is not beside the text"),
    ("character", "batch=2", "batch=?", "1:23: '?' starts no token"),
    ("long number", "batch=2", "batch=" + "2" * 2000, "1:23: a number is too long"),
    ("real batch", "batch=2", "batch=2.0", "1:23: expected the batch, found '2.0'"),
    ("end", "\n}\n", "\n", "8:1: expected an operation, found 'end of text'"),
    ("more", "\n}\n", "\n}}\n", "8:2: '}' after the end of the program"),
]


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case[0])
def test_parser_errors_tell_the_position(case: tuple[str, str, str, str]) -> None:
    _, old, new, message = case
    assert old in TEXT
    with pytest.raises(ProgramError) as caught:
        parse(TEXT.replace(old, new, 1), source="f.hir")
    assert str(caught.value).startswith(f"f.hir:{message}")


CIPHER_ERRORS = [
    ("layout", "0+4 stride=2", "0+4 stride=3", "the stride must be a power of two"),
    ("fit", "stride=2 offset=0", "stride=2 offset=1", "does not fit a period of 8 slots"),
    ("period", ": ct<8, level=2, scale=1073741824.0>", ": ct<6>", "power of two, not 6"),
    ("level", "ct<8, level=2, scale=2.5e+17", "ct<8, level=-2", "level is 0 or more, not -2"),
    ("scale", "scale=2.5e+17", "scale=inf", "scale is a finite positive number"),
    ("bound", "bound=1.0", "bound=-1.0", "bound is finite and not below 0"),
    ("polynomials", "scale=2.5e+17", "polynomials=4", "2 or 3 polynomials, not 4"),
    ("fact", "scale=2.5e+17", "weight=2", "'weight' is no fact of this type"),
    ("rest", "rest=garbage", "rest=rubbish", "the rest is 'zero' or 'garbage'"),
    ("security", "bits=[50, 30", "bits=[60, 60, 60, 60, 30", "2:14: "),
    ("parameters", "bits=[50", "bits=[true", "2:14: the prime sizes are a list of integers"),
]


@pytest.mark.parametrize("case", CIPHER_ERRORS, ids=lambda case: case[0])
def test_errors_in_ciphertext_types(case: tuple[str, str, str, str]) -> None:
    _, old, new, message = case
    assert old in CIPHER
    with pytest.raises(ProgramError) as caught:
        parse(CIPHER.replace(old, new, 1))
    assert str(caught.value).startswith("<program>:")
    assert message in str(caught.value)


def test_a_constant_beside_the_text_must_be_the_same() -> None:
    text = print_program(parse(TEXT), inline_elements=0)
    assert parse(text, {"c": np.array([1.0, -0.5])}) == parse(TEXT)
    for other in (np.array([1.0, 0.5]), np.array([[1.0, -0.5]])):
        with pytest.raises(ProgramError, match="@c beside the text is another one"):
            parse(text, {"c": other})


TOKENS = [*'[]{}_,<>="', "0", "-1", "7", "inf", "1e999", "%x", "@c", "2x2", "true", "loc("]


@settings(SLOW, max_examples=150)
@given(st.data(), st.sampled_from([TEXT, CIPHER]) | PROGRAMS.map(print_program))
def test_damaged_text_gives_a_program_or_a_program_error(data: st.DataObject, text: str) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 6))
        added = data.draw(st.sampled_from(TOKENS) | st.text(max_size=4))
        text = text[:at] + added + text[at + cut :]
    try:
        program = parse(text)
    except ProgramError:
        return
    assert parse(print_program(program, inline_elements=10_000)) == program


@settings(SLOW, max_examples=100)
@given(st.data())
def test_damaged_numbers_give_a_program_or_a_program_error(data: st.DataObject) -> None:
    """Numbers are where shape rules divide, multiply and index."""
    text = print_program(data.draw(PROGRAMS), inline_elements=10_000)
    spots = list(re.finditer(r"(?<![\w.%@])-?\d+(?![\w.])", text))
    for spot in data.draw(st.lists(st.sampled_from(spots), max_size=2, unique=True)):
        new = str(data.draw(st.integers(-3, 9) | st.just(10**30)))
        text = text[: spot.start()] + new + text[spot.end() :]
    with contextlib.suppress(ProgramError):
        parse(text)


def test_every_operation_prints_on_one_line() -> None:
    program = parse(TEXT)
    lines = [print_operation(op) for op in program]
    assert lines[0] == (
        '%x = tensor.input() {label = "x", dims = [2]} : tensor<2, secret, [-1.0, 1.0]> loc("in")'
    )
    assert not any("\n" in line for line in lines)
