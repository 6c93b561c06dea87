"""What the evaluator's process may take of the machine: limits that the kernel keeps.

They hold for the process and for each one that it forks (getrlimit(2)). SEAL does not always
survive memory that is refused: it takes it for damage, or waits for a lock of its own for ever. So
the process looks at its size between one step and the next and stops short of the limit.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from hecompile.errors import HecompileError, UsageError

BASE_MEMORY: Final = 1 << 30
"""Address space of the interpreter and its libraries, with room, bytes."""
LEAST_MEMORY: Final = 256 << 20
CPU_SECONDS: Final = 3600
"""Processor seconds that loading and each evaluation may take where nothing else is said."""
WALL_SECONDS: Final = 3600
"""Seconds by the clock for each evaluation where nothing else is said: whoever waits for a process
that is stopped, or sleeps, would not be helped by a limit of processor seconds."""
LEAST_RESERVE: Final = 16 << 20
MOST_FILES: Final = 1024
_LARGEST_AT_ONCE: Final = 3
_FACTOR: Final = 2
_GRACE_SECONDS: Final = 5


@dataclass(frozen=True)
class Limits:
    """Limits of one process.

    Attributes:
        memory: Most bytes of address space; the largest file that it may write is as large.
        cpu: Most processor seconds; None where it is not known how much there will be to do.
        files: Most open files.
    """

    memory: int
    cpu: int | None
    files: int = MOST_FILES

    def __post_init__(self) -> None:
        """Refuse limits under which nothing can start.

        Raises:
            UsageError: One is too small.
        """
        if self.memory < LEAST_MEMORY:
            raise UsageError(
                f"a process with {self.memory} bytes of memory cannot start; allow at least"
                f" {LEAST_MEMORY >> 20} MiB"
            )
        if self.cpu is not None and self.cpu < 1:
            raise UsageError("a process needs at least one second of processor time")

    @classmethod
    def of_machine(cls) -> Self:
        """No more memory than the machine has, for any number of evaluations."""
        return cls(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None)

    @classmethod
    def predicted(cls, memory: int, evaluations: int = 1) -> Self:
        """Twice what is predicted, so that an honest evaluation never meets its limit.

        Args:
            memory: Bytes of keys, encoded weights and ciphertexts that are predicted.
            evaluations: How many there will be, one after the other at worst.
        """
        return cls(BASE_MEMORY + _FACTOR * memory, CPU_SECONDS * (1 + evaluations))

    @property
    def words(self) -> tuple[str, str, str]:
        """The limits as arguments of the process; `from_words` reads them."""
        return str(self.memory), str(self.cpu or 0), str(self.files)

    @classmethod
    def from_words(cls, words: tuple[str, ...] | list[str]) -> Self:
        """Read what `words` gave.

        Raises:
            UsageError: They are something else.
        """
        try:
            memory, cpu, files = map(int, words)
        except ValueError:
            raise UsageError("the limits of the evaluator process are three numbers") from None
        return cls(memory, cpu or None, files)

    def apply(self) -> None:
        """Let them hold for this process from now on; they cannot be raised again.

        There is no core dump: it would hold the masks.
        """
        if self.cpu is not None:
            # With the soft limit a signal comes that ends the process and names the cause.
            _lower(resource.RLIMIT_CPU, self.cpu, self.cpu + _GRACE_SECONDS)
        _lower(resource.RLIMIT_AS, self.memory, self.memory)
        _lower(resource.RLIMIT_FSIZE, self.memory, self.memory)
        _lower(resource.RLIMIT_NOFILE, self.files, self.files)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    @property
    def memory_told(self) -> str:
        """What to say where the memory did not suffice."""
        return (
            f"the evaluation needs more memory than its limit of {self.memory >> 20} MiB; allow it"
            " more with --memory-limit, or use fewer workers."
        )

    def death_told(self, code: int) -> str:
        """What to say of a process that ended with this code, if a limit was the cause; or ''."""
        if code == -signal.SIGXCPU:
            return (
                f"the evaluation took more than its limit of {self.cpu} processor seconds; allow it"
                " more with --cpu-limit."
            )
        return ""


class MemoryWatch:
    """Stops this process short of its limit of memory.

    Attributes:
        reserve: Bytes that must be left for the next step.
    """

    def __init__(self, limits: Limits) -> None:
        """Watch over the memory of `limits`, which were applied."""
        self.reserve = LEAST_RESERVE
        self._limits = limits

    def provide(self, largest: int) -> None:
        """Leave room for steps that take a few objects of at most `largest` bytes."""
        self.reserve = max(LEAST_RESERVE, _LARGEST_AT_ONCE * largest)

    def check(self) -> None:
        """Refuse to go on where the next step may not find the memory that it needs.

        Raises:
            HecompileError: The limit is too near.
        """
        if _status("VmSize") > self._limits.memory - self.reserve:
            raise HecompileError(self._limits.memory_told)

    @property
    def met(self) -> bool:
        """Whether the limit was met, so that any error may be for want of memory."""
        return _status("VmPeak") > self._limits.memory - LEAST_RESERVE


def _status(name: str) -> int:
    """A size of this process's memory, bytes; 0 where the kernel does not tell it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def _lower(kind: int, soft: int, hard: int) -> None:
    """Set a limit, no higher than one that holds already."""
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(kind, (soft, hard))
