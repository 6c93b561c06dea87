"""All parties in one go: client and key holder here, the evaluator in a process of its own.

The evaluator's process is started with the folder of the evaluation keys and its limits; program
and ciphertexts come to it over a pipe: neither its arguments nor its environment nor its memory
hold the secret key, or a key that signs. What it gets was looked at here before, and what it makes
is signed here.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import hecompile
from hecompile.access.identity import Identity
from hecompile.costs import Profile, Spent
from hecompile.errors import HecompileError, IntegrityError
from hecompile.runtime.channel import (
    MAX_BODY_BYTES,
    MAX_JSON_BYTES,
    Channel,
    ClosedError,
    Message,
    SilentError,
    error_from,
    read_json,
)
from hecompile.runtime.crew import Outcome, unpack_outcomes
from hecompile.runtime.envelope import LIFETIME, Admission, envelope_limit
from hecompile.runtime.framing import pack_parts
from hecompile.runtime.gateway import Gateway
from hecompile.runtime.inspection import admission_of
from hecompile.runtime.key_folders import CardCheck, open_folder
from hecompile.runtime.keycard import Role
from hecompile.runtime.keys import Progress, no_progress
from hecompile.runtime.machine import Timing
from hecompile.runtime.residues import SlowWarning
from hecompile.runtime.sandbox import Limits
from hecompile.runtime.spec import ClientSpec
from hecompile.runtime.usage import Phase

_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_THREADS: Final = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
_TOLD_BYTES: Final = 2000
_GRACE_SECONDS: Final = 5.0

_WORKER: Final = "hecompile.runtime.worker"

Answer = Callable[[bytes], bytes]
"""Turns a refresh request into its response."""

Note = Callable[[str], None]
"""Told once of each thing that makes evaluations slow."""


def warn_of(note: str) -> None:
    """Show a note as a warning of this process, on standard error where nobody catches it."""
    warnings.warn(note, SlowWarning, stacklevel=2)


@dataclass(frozen=True)
class Tasks:
    """How a process works on evaluations that go on from where others stopped.

    Attributes:
        crew: Most evaluations that run at a time, each in a process of its own.
        profile: Measure every operation; the process alone runs them then.
    """

    crew: int = 1
    profile: bool = False


class EvaluatorProcess:
    """An evaluator in a process of its own; use it in a `with` block, which ends it.

    Attributes:
        phases: Seconds of `load` and `evaluate` in the process, so far.
        peak_memory_bytes: Its largest resident memory so far.
        timings: Time per operation name.
        refresh_bytes: Bytes of refresh requests and responses so far.
        notes: What makes its evaluations slow, as far as it has said so.
        profile: What `advance` measured, if that was asked for.
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
        identity: Identity | None = None,
        inspector: Admission | None = None,
        lifetime: int = LIFETIME,
        limits: Limits | None = None,
        tasks: Tasks | None = None,
        cards: CardCheck | None = None,
    ) -> None:
        """Describe the process; it starts when the `with` block is entered.

        Args:
            program: Contents of `program.hir`.
            constants: Contents of `constants.npz`.
            spec: Of the same program; bounds the messages.
            keys: Folder of the evaluation keys.
            model: Envelope of the encrypted weights, for a program that has some, once
                `check_model` has let it pass.
            memory_limit: Most bytes of encoded weights.
            timeout: Seconds that loading or one evaluation may take; None for no limit.
            progress: Told what the process reports.
            workers: With 2 or more, a second process may share each evaluation.
            weights_cache: Folder where encoded weights are kept, in clear; None keeps none.
            note: Told of what makes evaluations slow.
            identity: Who signs outputs and requests; None leaves them unsigned.
            inspector: Looks at envelopes; a program of a bundle must have one.
            lifetime: Seconds for which what is signed holds.
            limits: What the process may take; None for the machine's memory and any time.
            tasks: How `advance` works; None where only `evaluate` is used.
            cards: Knows who may sign the keys; a program in no bundle needs none.

        Raises:
            UsageError: A program of a bundle has no inspector.
        """
        self._spec = spec
        self._identity = identity
        self._inspector = admission_of(inspector, spec.manifest)
        self._lifetime = lifetime
        self._limits = limits if limits is not None else Limits.of_machine()
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
        if tasks is not None:
            self._setup |= {"crew": tasks.crew, "profile": tasks.profile, "rehearse": False}
        self.profile: Profile | None = None
        self._model = model
        self._program = (program, constants)
        self._keys = Path(keys)
        self._cards = cards
        self._timeout = timeout
        self._progress = progress
        self._note = note
        rounds = [envelope_limit(spec.parameters, r.request) for r in spec.refreshes]
        outputs = envelope_limit(spec.parameters, spec.output_ciphertexts)
        self._limit = max(MAX_JSON_BYTES, outputs, *rounds)

    def __enter__(self) -> Self:
        """Look at the keys' card, start the process, load keys and weights.

        Raises:
            HecompileError: Nobody vouches for the keys; or what the process refuses, with its class
                and text.
        """
        spec = self._spec
        source = open_folder(
            self._keys, Role.EVALUATION, spec.parameters, spec.program, spec.manifest, self._cards
        )
        self._setup["card"] = source.digest
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        command = [sys.executable, "-P", "-m", _WORKER, str(self._keys), *self._limits.words]
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
                ready = read_json(self._receive(Message.READY))
                self._take(ready)
        except BaseException:
            self._end()
            raise
        self._gateway = Gateway(
            self._spec, str(ready["key_id"]), self._identity, self._inspector, self._lifetime
        )
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
            AccessDeniedError: Whoever sent an envelope may not.
            IntegrityError: An envelope is refused.
            HecompileError: What the process refuses, with its class and text; or it crashed, met a
                limit or took too long.
        """
        header = self._gateway.check_input(data)
        self._gateway.take(header)
        self._arm()
        with self._explained():
            self._channel.send(Message.INPUT, data)
            while True:
                kind, body = self._message()
                if kind is Message.REFRESH_REQUEST:
                    request = self._gateway.sign(body, header)
                    response = answer(request)
                    self._gateway.take(self._gateway.check_response(response, header.session))
                    self.refresh_bytes += len(request) + len(response)
                    self._channel.send(Message.REFRESH_RESPONSE, response)
                elif kind is Message.USAGE:
                    self._take(read_json(body))
                elif kind is Message.OUTPUT:
                    return self._gateway.sign(body, header)
                else:
                    raise IntegrityError(f"the evaluator process sent {kind.name} out of turn.")

    def advance(self, items: Sequence[tuple[bytes, bytes]]) -> list[Outcome]:
        """Run evaluations to their next refresh or to the end.

        Args:
            items: An input envelope and nothing, or a state and the response that it waited for;
                all of them let pass and taken by a gateway.

        Returns:
            What each came to; requests and outputs are still to be signed by a gateway.

        Raises:
            HecompileError: As `evaluate`.
        """
        self._arm()
        with self._explained():
            self._channel.send(
                Message.ADVANCE, pack_parts([part for item in items for part in item])
            )
            while True:
                kind, body = self._message(MAX_BODY_BYTES)
                if kind is Message.PROFILE:
                    self.profile = _profile(read_json(body))
                elif kind is Message.USAGE:
                    self._take(read_json(body))
                elif kind is Message.OUTCOMES:
                    return unpack_outcomes(body)
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

    def _message(self, limit: int = 0) -> tuple[Message, bytes]:
        """The next message that is neither progress nor an error."""
        while True:
            kind, body = self._channel.receive(limit or self._limit)
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
                f"the evaluator process did not finish within {self._timeout:g} seconds; allow it"
                " more with --timeout (or timeout=...)."
            ) from None

    def _obituary(self) -> str:
        code = self._process.returncode
        if told := self._limits.death_told(code or 0):
            return told
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


def _profile(content: Mapping[str, Any]) -> Profile:
    """What the process measured of its operations."""
    rows = {
        (str(name), int(level)): Spent(int(n), float(s)) for name, level, n, s in content["rows"]
    }
    return Profile(str(content["program"]), int(content["evaluations"]), rows)


def _environment() -> dict[str, str]:
    """What the evaluator's process may know of this one's environment."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # One thread for matrix products: the processors belong to whole processes.
    kept |= dict.fromkeys(_THREADS, "1")
    return kept | {"PYTHONPATH": str(Path(hecompile.__file__).resolve().parents[1])}
