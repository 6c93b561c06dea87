"""Observers of pipelines, from the options that ask for them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hecompile.cli import console

if TYPE_CHECKING:
    from hecompile.ir.program import Program
    from hecompile.observe import Observer, Timing
    from hecompile.passbase import Pass


@dataclass
class Watching:
    """The observers that a call asked for.

    Attributes:
        observers: To be given to a pipeline.
        timing: The one that measures, or None.
    """

    observers: tuple[Observer, ...]
    timing: Timing | None

    def tell(self) -> None:
        """Print the seconds of the passes, if they were asked for."""
        if self.timing is not None:
            console.say(self.timing.table().rstrip("\n"))

    def rows(self) -> list[dict[str, object]]:
        """The seconds of the passes as JSON values."""
        measured = self.timing.rows if self.timing is not None else []
        return [{"pass": n, "seconds": s, "changed": c} for n, s, c in measured]


@dataclass(frozen=True)
class WatchOptions:
    """What a call wants to see of a pipeline.

    Attributes:
        print_after_all: Print after every pass.
        print_after: Print after the passes of these names.
        dump_dir: Write the program after every pass there.
        timing: Measure the passes.
    """

    print_after_all: bool
    print_after: tuple[str, ...]
    dump_dir: Path | None
    timing: bool

    def start(self) -> Watching:
        """Make the observers, once all passes are known.

        Raises:
            PipelineError: A pass to print after does not exist.
        """
        from hecompile.observe import DumpDirectory, PrintAfter, Timing
        from hecompile.passbase import find_pass

        found: list[Observer] = []
        if self.print_after_all:
            found.append(PrintAfter(sys.stderr))
        else:
            found += [PrintAfter(sys.stderr, find_pass(name).name) for name in self.print_after]
        if self.dump_dir is not None:
            found.append(_Counting(DumpDirectory(self.dump_dir)))
        clock = Timing() if self.timing else None
        if clock is not None:
            found.append(clock)
        return Watching(tuple(found), clock)


@dataclass
class _Counting:
    """Numbers the passes of several pipelines through, so that no file is written twice."""

    inner: Observer
    _position: int = 0

    def before(self, position: int, one: Pass, program: Program) -> None:
        """Pass on, with the number over all pipelines."""
        self.inner.before(self._position, one, program)

    def after(self, position: int, one: Pass, before: Program, after: Program) -> None:
        """Pass on, with the number over all pipelines."""
        self.inner.after(self._position, one, before, after)
        self._position += 1
