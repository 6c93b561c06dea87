"""Observers of a pipeline: print after each pass, dump to a folder, measure time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from hecompile.files import atomic_write_bytes, atomic_write_text
from hecompile.ir.printer import INLINE_ELEMENTS, print_program
from hecompile.ir.program import Program
from hecompile.npz import npz_bytes

if TYPE_CHECKING:
    from hecompile.passbase import Pass


class Observer(Protocol):
    """Called around every pass of a pipeline."""

    def before(self, position: int, one: Pass, program: Program) -> None:
        """`one` is about to run on `program`."""

    def after(self, position: int, one: Pass, before: Program, after: Program) -> None:
        """`one` has run; `after != before` tells whether it changed anything."""


@dataclass
class PrintAfter:
    """Prints the program after each pass, or after one pass only (`only`)."""

    stream: TextIO
    only: str | None = None

    def before(self, position: int, one: Pass, program: Program) -> None:
        """Nothing to do."""

    def after(self, position: int, one: Pass, before: Program, after: Program) -> None:
        """Print the program, or that it did not change."""
        if self.only in (None, one.name):
            body = print_program(after) if after != before else "(unchanged)\n"
            self.stream.write(f"// after {position}: {one}\n{body}")


@dataclass
class DumpDirectory:
    """Writes the program after each pass to `folder/NN-pass.hir`, large constants beside it."""

    folder: Path

    def before(self, position: int, one: Pass, program: Program) -> None:
        """Write the program that the first pass sees."""
        if position == 0:
            self._write("00-input", program)

    def after(self, position: int, one: Pass, before: Program, after: Program) -> None:
        """Write the program that the pass left."""
        self._write(f"{position + 1:02d}-{one.name}", after)

    def _write(self, stem: str, program: Program) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        large = {s: c.array for s, c in program.constants.items() if c.array.size > INLINE_ELEMENTS}
        if large:
            atomic_write_bytes(self.folder / f"{stem}.constants.npz", npz_bytes(large))
        atomic_write_text(self.folder / f"{stem}.hir", print_program(program))


@dataclass
class Timing:
    """Measures the wall seconds of each pass and whether it changed the program."""

    rows: list[tuple[str, float, bool]] = field(default_factory=list)
    _started: float = 0.0

    def before(self, position: int, one: Pass, program: Program) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def after(self, position: int, one: Pass, before: Program, after: Program) -> None:
        """Stop the clock."""
        seconds = time.perf_counter() - self._started
        self.rows.append((str(one), seconds, after != before))

    def table(self) -> str:
        """A line a pass: seconds, whether it changed anything, the pass."""
        return "".join(
            f"{seconds:9.4f} s  {'changed' if changed else '-':7}  {name}\n"
            for name, seconds, changed in self.rows
        )
