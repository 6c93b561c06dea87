"""From exceptions to one sentence on stderr and an exit code; signals become exceptions."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

import click

from hecompile.cli import console
from hecompile.errors import AccessDeniedError, HecompileError

TRACEBACK_VARIABLE = "HECOMPILE_TRACEBACK"
INTERRUPTED, TERMINATED = 130, 143
_NOT_WRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class StoppedError(Exception):
    """A command was stopped by Ctrl-C or a signal; its text says what is left behind."""

    def __init__(self, code: int, left: str = "nothing was written") -> None:
        """Note the exit code and what is left behind."""
        word = "terminated" if code == TERMINATED else "interrupted"
        super().__init__(f"{word}; {left}")
        self.code = code


class _Terminated(KeyboardInterrupt):
    """SIGTERM, made to unwind the stack like Ctrl-C so that cleanup runs."""


def stopped_by(error: KeyboardInterrupt, left: str = "nothing was written") -> StoppedError:
    """The same stop with a sentence about what is left behind."""
    return StoppedError(TERMINATED if isinstance(error, _Terminated) else INTERRUPTED, left)


def guarded(command: Callable[[], object]) -> int:
    """Call a command and turn whatever it raises into a sentence and an exit code."""
    try:
        with _termination_unwinds():
            result = command()
    except BaseException as error:
        console.clear_line()
        sentence, code = _explain(error)
        if os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exc()
        if sentence:
            click.echo(sentence, err=True)
        return code
    return result if isinstance(result, int) else 0


def _explain(error: BaseException) -> tuple[str, int]:
    """The sentence and the exit code for whatever a command raised."""
    match error:
        case AccessDeniedError():
            return _one_line(str(error)), error.exit_code
        case HecompileError():
            return f"error: {_text(str(error))}", error.exit_code
        case StoppedError():
            return str(error), error.code
        case KeyboardInterrupt():
            stop = stopped_by(error)
            return str(stop), stop.code
        case click.Abort():
            return str(StoppedError(INTERRUPTED)), INTERRUPTED
        case click.exceptions.Exit():
            return "", error.exit_code
        case click.exceptions.NoArgsIsHelpError():
            return error.format_message(), 2
        case click.UsageError():
            return f"error: {_usage(error)}", 2
        case click.ClickException():
            return f"error: {_one_line(error.format_message())}", 1
        case MemoryError():
            return "error: the memory is full; use a machine with more, or a smaller --batch", 1
        case BrokenPipeError():
            # Whoever read the output has left.
            _give_up_stdout()
            return "", 1
        case OSError(filename=str() as name, strerror=str() as reason):
            return f"error: {name}: {reason}", 1
        case OSError(errno=number, strerror=str() as reason) if number in _NOT_WRITTEN:
            _give_up_stdout()
            return f"error: the output cannot be written: {reason}", 1
        case SystemExit():
            return "", error.code if isinstance(error.code, int) else 1
    told = _one_line(f"{type(error).__name__}: {error}")
    return (
        f"internal error: {told}; this is a fault of hecompile: set {TRACEBACK_VARIABLE}=1 to see "
        "where it arose, and report it"
    ), 1


def _give_up_stdout() -> None:
    """Let what stdout did not take go, so that Python's own flush at the end cannot complain."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _usage(error: click.UsageError) -> str:
    told = _one_line(error.format_message()).rstrip(".")
    path = error.ctx.command_path if error.ctx is not None else "hecompile"
    return f"{told}; see '{path} --help'"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(text: str) -> str:
    """Errors of programs and models show lines of the program; their layout is kept."""
    return text.rstrip()


@contextlib.contextmanager
def _termination_unwinds() -> Iterator[None]:
    """Let SIGTERM raise, so that half-written files are removed and child processes ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
