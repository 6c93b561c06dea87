"""Names of users, roles and purposes: such as cannot be mistaken for each other, or misprinted.

A name in a document is signed by its bytes and read by people. Two spellings that look alike would
be two users, so one script and one normal form are asked for (Unicode technical standard 39).
"""

from __future__ import annotations

import string
import unicodedata
from typing import Final

MAX_NAME_BYTES: Final = 128
"""Most bytes of a name in UTF-8, so that a file can be called after it."""

_PLAIN: Final = frozenset(string.ascii_letters + string.digits + " ._-@+")
_LATIN: Final = frozenset(string.ascii_letters)


def name_fault(name: str) -> str:
    """What is wrong with a name; empty for a usable one.

    Usable are ASCII letters, digits, blanks within and `._-@+`, and letters of one other script in
    their compatibility normal form.
    """
    if not name or name != name.strip():
        return "is empty, or has blanks at an end"
    if len(name) > MAX_NAME_BYTES or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"has more than {MAX_NAME_BYTES} bytes"
    for character in name:
        if character not in _PLAIN and not _is_letter(character):
            return f"holds {character!a}, which is no letter, digit or one of '._-@+'"
    if unicodedata.normalize("NFKC", name) != name:
        return "is not in Unicode's normal form NFKC"
    if len(scripts := sorted({_script(one) for one in name} - {""})) > 1:
        return f"mixes letters of {', '.join(scripts)}, which are mistaken for each other"
    return ""


def shown(text: str, most: int = 80) -> str:
    """A text of somebody else's for messages: short, and with nothing that steers a terminal."""
    return printable(text if len(text) <= most else f"{text[:most]}...")


def printable(text: str) -> str:
    """The text with everything escaped that does not print."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _script(character: str) -> str:
    """The script of a letter, as its Unicode name begins with it; empty for what has none."""
    if character in _LATIN:
        return "LATIN"
    return "" if character in _PLAIN else unicodedata.name(character, "UNKNOWN").split()[0]
