"""Random damage to bytes, to protobuf messages and to text; and a limit of time."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np

_ODD_INTEGERS = (0, 1, -1, 2, 3, 7, 16, 255, 2**31 - 1, 2**40, -(2**62))
_ODD_FLOATS = (0.0, -1.0, 1e30, float("nan"), float("inf"))
_ODD_TEXTS = (
    "-1",
    "0",
    "1e400",
    "inf",
    "nan",
    "999999999999999999999",
    '"',
    "{",
    "}",
    "[",
    "%x",
    "@",
)


class TooLongError(Exception):
    """The time was up."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooLongError in what takes longer, CPU seconds."""

    def stop(number: int, frame: object) -> None:
        raise TooLongError(f"more than {seconds:g} CPU s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def damaged_bytes(data: bytes, random: np.random.Generator) -> bytes:
    """One to three bytes or runs flipped, overwritten, removed, inserted, repeated, or all cut."""
    found = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        if not found:
            break
        place, count = int(random.integers(len(found))), int(random.integers(1, 9))
        match int(random.integers(6)):
            case 0:
                found[place] ^= 1 << int(random.integers(8))
            case 1:
                found[place] = int(random.integers(256))
            case 2:
                del found[place : place + count]
            case 3:
                found[place:place] = random.bytes(count)
            case 4:
                other = int(random.integers(len(found)))
                found[place:place] = found[other : other + count]
            case _:
                del found[place:]
    return bytes(found)


def damaged_text(text: str, random: np.random.Generator) -> str:
    """Lines or words removed, repeated or exchanged, or words replaced by odd ones."""
    lines = text.splitlines(keepends=True)
    for _ in range(int(random.integers(1, 3))):
        one, other = (int(random.integers(len(lines))) for _ in range(2))
        match int(random.integers(5)):
            case 0:
                lines[one] = ""
            case 1:
                lines[one] += lines[one]
            case 2:
                lines[one], lines[other] = lines[other], lines[one]
            case _:
                lines[one] = _other_word(lines[one], lines[other], random)
    return "".join(lines)


def _other_word(line: str, source: str, random: np.random.Generator) -> str:
    words = list(re.finditer(r"[%@]?[\w.]+|\S", line))
    others: list[str] = re.findall(r"[%@]?[\w.]+|\S", source)
    if not words:
        return line
    word = words[int(random.integers(len(words)))]
    pool = [*others, *_ODD_TEXTS]
    return line[: word.start()] + pool[int(random.integers(len(pool)))] + line[word.end() :]


def damage_fields(message: Any, random: np.random.Generator) -> None:
    """Change one field somewhere in a protobuf message: repeat, exchange, remove or replace it."""
    fields = message.ListFields()
    inner = [
        one
        for field, content in fields
        if field.type == field.TYPE_MESSAGE
        for one in ([content] if hasattr(content, "ListFields") else content)
    ]
    if inner and random.random() < 0.8:
        damage_fields(inner[int(random.integers(len(inner)))], random)
    elif fields:
        field, content = fields[int(random.integers(len(fields)))]
        if isinstance(content, str | bytes | int | float) or hasattr(content, "ListFields"):
            _damage_single(message, field, content, random)
        else:
            _damage_repeated(field, content, random)


def _damage_single(message: Any, field: Any, content: Any, random: np.random.Generator) -> None:
    odd: tuple[float, ...] = ()
    if isinstance(content, int) and not isinstance(content, bool):
        odd = _ODD_INTEGERS
    elif isinstance(content, float):
        odd = _ODD_FLOATS
    # An enumeration or a short integer does not take every number; then it is left out.
    message.ClearField(field.name)
    if odd:
        with contextlib.suppress(ValueError):
            setattr(message, field.name, odd[int(random.integers(len(odd)))])


def _damage_repeated(field: Any, content: Any, random: np.random.Generator) -> None:
    one, other = (int(random.integers(len(content))) for _ in range(2))
    kind = int(random.integers(3))
    if kind == 0:
        del content[one]
    elif field.type != field.TYPE_MESSAGE:
        if isinstance(content[one], int):
            with contextlib.suppress(ValueError):
                content[one] = _ODD_INTEGERS[int(random.integers(len(_ODD_INTEGERS)))]
        elif kind == 1:
            content.append(content[one])
        else:
            content[one], content[other] = content[other], content[one]
    elif kind == 1:
        content.add().CopyFrom(content[one])
    else:
        first, second = type(content[one])(), type(content[one])()
        first.CopyFrom(content[one])
        second.CopyFrom(content[other])
        content[one].CopyFrom(second)
        content[other].CopyFrom(first)
