"""What a command says: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

_BAR = 24
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 5.0
_on_line = False


def result(document: Mapping[str, object], text: str, as_json: bool) -> None:
    """Print a command's result: one JSON document, or the text for people."""
    if as_json:
        text = json.dumps(document, indent=2, allow_nan=False, default=_plain)
    clear_line()
    if text:
        click.echo(text.rstrip("\n"))


def say(message: str) -> None:
    """Tell one thing on stderr."""
    clear_line()
    click.echo(message, err=True)


def warn(message: object) -> None:
    """Tell one thing on stderr that needs attention."""
    say(f"warning: {message}")


def clear_line() -> None:
    """Wipe a progress bar off the terminal's line."""
    global _on_line
    if _on_line:
        click.echo("\r\033[K", nl=False, err=True)
        _on_line = False


class Progress:
    """Shows how far work has come: a bar on a terminal, else a line now and then.

    It is called with the task, how much of it is done, and how much there is. Tasks that differ
    in a number only ("sample group 2 of 9") are one task, told of now and then.
    """

    def __init__(self) -> None:
        """Start the clock."""
        self._bar = sys.stderr.isatty()
        self._seen: set[str] = set()
        self._told = 0.0

    def __call__(self, task: str, done: int = 0, total: int = 0) -> None:
        """Show that `done` of `total` steps of a task are done; no total means unknown."""
        now = time.monotonic()
        passed = now - self._told
        kind = re.sub(r"\d+", "#", task)
        if self._bar:
            if kind not in self._seen or passed >= _REDRAW_SECONDS or done == total:
                self._draw(task, done, total)
                self._told = now
        elif kind not in self._seen:
            say(f"{task} ...")
            self._told = now
        elif total and passed >= _LINE_SECONDS:
            say(f"{task}: {done} of {total}")
            self._told = now
        self._seen.add(kind)

    def _draw(self, task: str, done: int, total: int) -> None:
        global _on_line
        filled = _BAR * done // total if total else 0
        bar = f" [{'#' * filled}{'.' * (_BAR - filled)}] {done}/{total}" if total else " ..."
        click.echo(f"\r\033[K{task}{bar}", nl=False, err=True)
        _on_line = True


def table(rows: Sequence[Sequence[object]], head: Sequence[str] = (), indent: str = "  ") -> str:
    """Lay rows out in columns: numbers to the right, texts to the left."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    every = [list(head), *texts] if head else texts
    if not every:
        return ""
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))]
    right = [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        for i in range(len(widths))
    ]
    lines = []
    for row in every:
        cells = [
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(row, widths, right, strict=True)
        ]
        lines.append(f"{indent}{'  '.join(cells)}".rstrip())
    return "\n".join(lines) + "\n"


def counted(number: int, noun: str) -> str:
    """`1 round`, `2 rounds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> object:
    """Arrays and numpy's numbers as JSON values; paths as text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
