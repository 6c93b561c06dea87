"""Names that can be mistaken for each other, cannot be a file's, or steer a terminal."""

from __future__ import annotations

import pytest

from hecompile.access.names import MAX_NAME_BYTES, name_fault, printable, shown


@pytest.mark.parametrize(
    "name",
    [
        "anna",
        "dr. anna-maria_2+x@clinic.example",
        "café",
        "Łukasz Żak",
        "Ελένη",
        "Ольга 2",
        "李娜",
        "محمد",
        "प्रिया",
        "a" * MAX_NAME_BYTES,
        "é" * (MAX_NAME_BYTES // 2),
    ],
)
def test_usable_names(name: str) -> None:
    assert name_fault(name) == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is empty"),
        (" anna", "blanks at an end"),
        ("anna\u00a0", "blanks at an end"),
        ("a" * (MAX_NAME_BYTES + 1), "more than 128 bytes"),
        ("é" * MAX_NAME_BYTES, "more than 128 bytes"),
        ("\N{CYRILLIC SMALL LETTER O}wner", "mixes letters of CYRILLIC, LATIN"),
        ("\N{GREEK SMALL LETTER OMICRON}wner", "mixes letters of GREEK, LATIN"),
        ("cafe\N{COMBINING ACUTE ACCENT}", "NFKC"),
        ("\uff4f\uff57\uff4e\uff45\uff52", "NFKC"),
        ("\N{LATIN SMALL LIGATURE FI}ona", "NFKC"),
        ("\N{MATHEMATICAL BOLD SMALL A}nna", "NFKC"),
        ("x\N{COMBINING MACRON BELOW}", "mixes letters of COMBINING, LATIN"),
        ("an\N{ZERO WIDTH SPACE}na", "holds"),
        ("an\N{RIGHT-TO-LEFT OVERRIDE}na", "holds"),
        ("an\N{SOFT HYPHEN}na", "holds"),
        ("an\N{NO-BREAK SPACE}na", "holds"),
        ("anna\N{ARABIC-INDIC DIGIT TWO}", "holds"),
        ("an\x1b[2Jna", "holds"),
        ("an\nna", "holds"),
        ("an\x00na", "holds"),
        ("an/na", "holds"),
        ("..\\anna", "holds"),
        ('an"na', "holds"),
        ("an\ud800na", "holds"),
    ],
)
def test_names_that_are_refused(name: str, words: str) -> None:
    assert words in name_fault(name)
    assert name_fault(name).isascii()


def test_what_is_shown_is_short_and_prints() -> None:
    assert shown("clinician, café") == "clinician, café"
    assert shown("\x1b]0;x\x07\u202e\n") == r"\x1b]0;x\x07\u202e\n"
    assert shown("a" * 4000) == "a" * 80 + "..."
    assert printable("a'b\x7f") == r"a'b\x7f"
