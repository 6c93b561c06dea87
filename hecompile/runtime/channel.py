"""Messages between two processes over a pair of pipes, each with its kind and its length."""

from __future__ import annotations

import json
import os
import select
import struct
import time
import traceback
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from hecompile import errors
from hecompile.errors import HecompileError, IntegrityError

MAX_JSON_BYTES: Final = 1 << 20
MAX_BODY_BYTES: Final = 1 << 36
_PREFIX: Final = struct.Struct("<BQ")
_PIECE: Final = 1 << 20
_MOST_TOLD: Final = 2000


class Message(IntEnum):
    """Kinds of messages."""

    SETUP = 1
    PROGRAM = 2
    CONSTANTS = 3
    READY = 4
    INPUT = 5
    REFRESH_REQUEST = 6
    REFRESH_RESPONSE = 7
    OUTPUT = 8
    USAGE = 9
    PROGRESS = 10
    ERROR = 11
    END = 12
    MODEL = 13
    ADVANCE = 14
    OUTCOMES = 15
    PROFILE = 16


class ClosedError(HecompileError):
    """The other process has closed its end."""


class SilentError(HecompileError):
    """The other process has not answered in time."""


class Channel:
    """One end of a connection.

    Attributes:
        deadline: Moment, by `time.monotonic`, at which waiting ends; None to wait for ever.
    """

    def __init__(self, read_descriptor: int, write_descriptor: int) -> None:
        """Take two open pipe descriptors; the caller closes them."""
        self._in = read_descriptor
        self._out = write_descriptor
        self.deadline: float | None = None
        # A blocking write would not return before the whole message is taken.
        os.set_blocking(write_descriptor, False)

    def send(self, kind: Message, body: bytes = b"") -> None:
        """Send one message.

        Raises:
            ClosedError: The other end is closed.
            SilentError: The other end does not read.
        """
        for part in (_PREFIX.pack(kind, len(body)), body):
            view = memoryview(part)
            while view:
                self._wait(self._out, select.POLLOUT)
                try:
                    view = view[os.write(self._out, view[:_PIECE]) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise ClosedError("the other process has ended.") from None

    def send_json(self, kind: Message, content: dict[str, Any]) -> None:
        """Send a message whose body is JSON."""
        self.send(kind, json.dumps(content).encode("utf-8"))

    def receive(self, limit: int = MAX_BODY_BYTES) -> tuple[Message, bytes]:
        """Receive one message of at most `limit` bytes.

        Raises:
            ClosedError: The other end is closed.
            SilentError: Nothing came in time.
            IntegrityError: What came is no message, or too large.
        """
        kind, length = _PREFIX.unpack(self._read(_PREFIX.size))
        if kind not in tuple(Message) or length > limit:
            raise IntegrityError("the other process sent what is no message of this protocol.")
        return Message(kind), self._read(length)

    def _read(self, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            self._wait(self._in, select.POLLIN)
            piece = os.read(self._in, min(_PIECE, length - len(found)))
            if not piece:
                raise ClosedError("the other process has ended.")
            found += piece
        return bytes(found)

    def _wait(self, descriptor: int, event: int) -> None:
        if self.deadline is None:
            return self._poll(descriptor, event, None)
        left = self.deadline - time.monotonic()
        # Who keeps talking is not waited for longer than who is silent.
        if left <= 0:
            raise SilentError("the other process has not finished in time.")
        return self._poll(descriptor, event, left)

    @staticmethod
    def _poll(descriptor: int, event: int, seconds: float | None) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(None if seconds is None else seconds * 1000):
            raise SilentError("the other process has not answered in time.")


def read_json(body: bytes) -> dict[str, Any]:
    """The object in a JSON message.

    Raises:
        IntegrityError: There is none.
    """
    try:
        content = json.loads(body)
    except ValueError as error:
        raise IntegrityError("the other process sent what is not JSON.") from error
    if not isinstance(content, dict):
        raise IntegrityError("the other process sent JSON that is no object.")
    return content


def error_content(error: Exception) -> dict[str, str]:
    """What tells another process of an error, for `error_from` to raise it there.

    An error of this package keeps its text and its class, or the nearest one in
    `hecompile.errors`; any other is told by its kind, its text and its place.
    """
    if isinstance(error, HecompileError):
        known = (c for c in type(error).__mro__ if getattr(errors, c.__name__, None) is c)
        return {"type": next(known).__name__, "text": str(error)}
    if isinstance(error, MemoryError):
        text = (
            "a process of its own has not enough memory; allow it more with --memory-limit, or use"
            " fewer workers."
        )
        return {"type": HecompileError.__name__, "text": text}
    told = " ".join(str(error).split())[:_MOST_TOLD]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    text = (
        f"a process of its own failed with {type(error).__name__}: {told}{place}; mend what the"
        " system lacks, or report it where it lacks nothing."
    )
    return {"type": HecompileError.__name__, "text": text}


def error_from(content: Mapping[str, Any]) -> HecompileError:
    """The error that `error_content` told of, of its own class if that is one of ours."""
    found = getattr(errors, str(content.get("type")), None)
    text = str(content.get("text"))
    if isinstance(found, type) and issubclass(found, HecompileError):
        return found(text)
    return HecompileError(text)
