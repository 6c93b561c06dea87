"""CPU seconds, wall seconds and memory of a process."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Phase:
    """Seconds that a phase took: of the processor (user and system), and on the clock."""

    cpu: float = 0.0
    wall: float = 0.0

    def __add__(self, other: Phase) -> Phase:
        """Both, one after the other."""
        return Phase(self.cpu + other.cpu, self.wall + other.wall)


def cpu_seconds() -> float:
    """Processor seconds so far of this process and of those it started that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


class Stopwatch:
    """Adds up phases by name.

    Attributes:
        phases: What was measured so far.
    """

    def __init__(self) -> None:
        """Start with nothing measured."""
        self.phases: dict[str, Phase] = {}

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add what the block takes to the phase `name`."""
        cpu, wall = cpu_seconds(), time.perf_counter()
        try:
            yield
        finally:
            self.add(name, Phase(cpu_seconds() - cpu, time.perf_counter() - wall))

    def add(self, name: str, phase: Phase) -> None:
        """Add a phase that was measured elsewhere."""
        self.phases[name] = self.phases.get(name, Phase()) + phase


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far, in bytes.

    Where the kernel tells it, the number is this program's own: `ru_maxrss` of a started process
    begins with its parent's.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
