"""All parties in one go: client and key holder here, the evaluator in a process of its own.

The evaluator's process is started with the folder of the evaluation keys, program and ciphertexts
come to it over a pipe: neither its arguments nor its environment nor its memory hold the secret
key.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import hecompile
from hecompile.errors import HecompileError, IntegrityError
from hecompile.runtime.channel import (
    MAX_JSON_BYTES,
    Channel,
    ClosedError,
    Message,
    SilentError,
    error_from,
    read_json,
)
from hecompile.runtime.envelope import envelope_limit
from hecompile.runtime.keys import Progress, no_progress
from hecompile.runtime.machine import Timing
from hecompile.runtime.residues import SlowWarning
from hecompile.runtime.spec import ClientSpec
from hecompile.runtime.usage import Phase

_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_THREADS: Final = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
_TOLD_BYTES: Final = 2000
_GRACE_SECONDS: Final = 5.0

Answer = Callable[[bytes], bytes]
"""Turns a refresh request into its response."""

Note = Callable[[str], None]
"""Told once of each thing that makes evaluations slow."""


def warn_of(note: str) -> None:
    """Show a note as a warning of this process, on standard error where nobody catches it."""
    warnings.warn(note, SlowWarning, stacklevel=2)


class EvaluatorProcess:
    """An evaluator in a process of its own; use it in a `with` block, which ends it.

    Attributes:
        phases: Seconds of `load` and `evaluate` in the process, so far.
        peak_memory_bytes: Its largest resident memory so far.
        timings: Time per operation name.
        refresh_bytes: Bytes of refresh requests and responses so far.
        notes: What makes its evaluations slow, as far as it has said so.
    """

    def __init__(
        self,
        program: bytes,
        constants: bytes,
        spec: ClientSpec,
        keys: str | Path,
        *,
        model: bytes | None = None,
        memory_limit: int | None = None,
        timeout: float | None = None,
        progress: Progress = no_progress,
        workers: int = 1,
        weights_cache: str | Path | None = None,
        note: Note = warn_of,
    ) -> None:
        """Describe the process; it starts when the `with` block is entered.

        Args:
            program: Contents of `program.hir`.
            constants: Contents of `constants.npz`.
            spec: Of the same program; bounds the messages.
            keys: Folder of the evaluation keys.
            model: Envelope of the encrypted weights, for a program that has some.
            memory_limit: Most bytes of encoded weights.
            timeout: Seconds that loading or one evaluation may take; None for no limit.
            progress: Told what the process reports.
            workers: With 2 or more, a second process may share each evaluation.
            weights_cache: Folder where encoded weights are kept, in clear; None keeps none.
            note: Told of what makes evaluations slow.
        """
        self.phases: dict[str, Phase] = {}
        self.peak_memory_bytes = 0
        self.timings: dict[str, Timing] = {}
        self.refresh_bytes = 0
        self.notes: list[str] = []
        self._setup = {
            "memory_limit": memory_limit,
            "manifest": spec.manifest,
            "model": model is not None,
            "workers": workers,
            "weights_cache": None if weights_cache is None else str(Path(weights_cache).resolve()),
        }
        self._model = model
        self._program = (program, constants)
        self._keys = Path(keys)
        self._timeout = timeout
        self._progress = progress
        self._note = note
        rounds = [envelope_limit(spec.parameters, r.request) for r in spec.refreshes]
        outputs = envelope_limit(spec.parameters, spec.output_ciphertexts)
        self._limit = max(MAX_JSON_BYTES, outputs, *rounds, 0)

    def __enter__(self) -> Self:
        """Start the process, load keys and weights.

        Raises:
            HecompileError: What the process refuses, with its class and text.
        """
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        command = [sys.executable, "-P", "-m", "hecompile.runtime.worker", str(self._keys)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(),
            # Ctrl-C is for this process, which then ends the other.
            start_new_session=True,
        )
        try:
            if self._process.stdin is None or self._process.stdout is None:
                raise HecompileError("the evaluator process has no pipes.")
            self._channel = Channel(self._process.stdout.fileno(), self._process.stdin.fileno())
            program, constants = self._program
            self._arm()
            with self._explained():
                self._channel.send_json(Message.SETUP, self._setup)
                self._channel.send(Message.PROGRAM, program)
                self._channel.send(Message.CONSTANTS, constants)
                if self._model is not None:
                    self._channel.send(Message.MODEL, self._model)
                self._take(read_json(self._receive(Message.READY)))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        if kind is None:
            with contextlib.suppress(HecompileError):
                self._channel.deadline = time.monotonic() + _GRACE_SECONDS
                self._channel.send(Message.END)
                self._process.wait(_GRACE_SECONDS)
        self._end()

    def evaluate(self, data: bytes, answer: Answer) -> bytes:
        """Evaluate an input envelope.

        Args:
            data: The envelope.
            answer: Asks the key holder for each refresh.

        Returns:
            The output envelope.

        Raises:
            HecompileError: What the process refuses, with its class and text; or it crashed or
                took too long.
        """
        self._arm()
        with self._explained():
            self._channel.send(Message.INPUT, data)
            while True:
                kind, body = self._message()
                if kind is Message.REFRESH_REQUEST:
                    response = answer(body)
                    self.refresh_bytes += len(body) + len(response)
                    self._channel.send(Message.REFRESH_RESPONSE, response)
                elif kind is Message.USAGE:
                    self._take(read_json(body))
                elif kind is Message.OUTPUT:
                    return body
                else:
                    raise IntegrityError(f"the evaluator process sent {kind.name} out of turn.")

    def kill(self) -> None:
        """End the process at once, from any thread; whoever waits for it gets an error."""
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.kill()

    def _arm(self) -> None:
        self._channel.deadline = None if self._timeout is None else time.monotonic() + self._timeout

    def _receive(self, wanted: Message) -> bytes:
        kind, body = self._message()
        if kind is not wanted:
            raise IntegrityError(f"the evaluator process sent {kind.name}, not {wanted.name}.")
        return body

    def _message(self) -> tuple[Message, bytes]:
        """The next message that is neither progress nor an error."""
        while True:
            kind, body = self._channel.receive(self._limit)
            if kind is Message.PROGRESS:
                content = read_json(body)
                self._progress(
                    str(content.get("task")), int(content["done"]), int(content["total"])
                )
            elif kind is Message.ERROR:
                raise error_from(read_json(body))
            else:
                return kind, body

    def _take(self, content: Mapping[str, Any]) -> None:
        self.phases = {name: Phase(*pair) for name, pair in content["phases"].items()}
        self.peak_memory_bytes = int(content["peak_memory_bytes"])
        self.timings = {name: Timing(*pair) for name, pair in content["timings"].items()}
        for text in map(str, content["notes"]):
            if text not in self.notes:
                self.notes.append(text)
                self._note(text)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ClosedError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS)
            raise HecompileError(self._obituary()) from None
        except SilentError:
            raise HecompileError(
                f"the evaluator process did not finish within {self._timeout} seconds; allow it"
                " more time."
            ) from None

    def _obituary(self) -> str:
        code = self._process.returncode
        cause = f"ended with code {code}"
        if code is not None and code < 0:
            cause = f"was killed by signal {-code}"
            if code == -9:
                cause += ", perhaps for want of memory"
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - _TOLD_BYTES))
        told = self._errors.read().decode("utf-8", "replace").strip()
        last = told.splitlines()[-1] if told else "nothing"
        return f"the evaluator process {cause}; the last it said was: {last}."

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _environment() -> dict[str, str]:
    """What the evaluator's process may know of this one's environment."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # One thread for matrix products: the processors belong to whole processes.
    kept |= dict.fromkeys(_THREADS, "1")
    return kept | {"PYTHONPATH": str(Path(hecompile.__file__).resolve().parents[1])}
