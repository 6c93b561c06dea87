"""Policies made to hurt: slow to read, or with messages that mislead."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest

from hecompile.access.policy_io import parse_policy
from hecompile.errors import InputError

SMALL = """\
format = 2
[roles.cloud]
[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]
"""


def change(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new, 1)


def refuse(text: str, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_policy(text, "p.toml")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    for word in words:
        assert word in str(caught.value)


def listed(field: str, items: Iterable[object]) -> str:
    return f"{field} = [{', '.join(repr(str(item)) for item in items)}]\n"


MANY = [f"input:x{number}" for number in range(1000)]
HEAVY = "".join(
    f"[[permissions]]\nrole = 'r{number}'\n{listed('actions', ['submit'])}{listed('objects', MANY)}"
    for number in range(30)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (change('actions = ["evaluate"]', listed("actions", ["evaluate"] * 1000)), "twice"),
        (change('actions = ["evaluate"]', listed("actions", ["evaluate"] * 40000)), "more than"),
        (change("[roles.cloud]", "[roles.cloud]\n" + listed("inherits", ["a", "a"])), "twice"),
        (change("[roles.cloud]", "[roles.cloud]\n" + listed("inherits", range(1001))), "more than"),
        ("format = 2\n" + listed("purposes", range(20000)), "no roles"),
        (
            "format = 2\n" + listed("purposes", range(20000)) + "[roles.a]\n" + HEAVY,
            "purposes has 20000 entries",
        ),
        (
            "format = 2\n" + "".join(f"[roles.r{n}]\n" for n in range(30)) + HEAVY,
            "more than 20000 actions on objects",
        ),
        (
            "format = 2\n"
            + "".join(
                f"[roles.r{n}]\n" + listed("inherits", [f"r{m}" for m in range(n)])
                for n in range(200)
            )
            + HEAVY,
            "the roles inherit 19900 times",
        ),
    ],
)
def test_policies_that_would_take_long_are_refused_at_once(text: str, words: str) -> None:
    start = time.process_time()
    refuse(text, words)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\u2029"])
def test_odd_separators_in_a_comment_shift_no_line(character: str) -> None:
    text = f"# one{character}two{character}three\n" + change("evaluate", "evaluat")
    refuse(text, "p.toml, line 6: unknown action 'evaluat' (did you mean 'evaluate'?)")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("format = 2", 'format = 2\n"\\u001b[31mx" = 1', r"unknown key '\x1b[31mx'"),
        ('"evaluate"', '"\\u001b[31mx"', r"unknown action '\x1b[31mx'"),
        ('"program"', '"input\\u001b[31mx"', r"\x1b[31mx"),
        ('"program"]', '"program"]\npurpose = ["\\u001b[31mx"]', r"purpose '\x1b[31mx'"),
        (
            "[roles.cloud]",
            '[roles.cloud]\nclearance = ["\\u001b[31mx"]',
            r"'\x1b[31mx' is no label",
        ),
        ("[roles.cloud]", '[roles."c\\u001b[31mx"]', r"'c\x1b[31mx' is not a usable name"),
        ("[roles.cloud]", '[roles."cl\\u043eud"]', "mixes letters of CYRILLIC, LATIN"),
        ('"evaluate"', f'"{"e" * 9999}"', "eee...'; use one of"),
    ],
)
def test_nothing_of_a_policy_steers_a_terminal(old: str, new: str, words: str) -> None:
    refuse(change(old, new), words)
