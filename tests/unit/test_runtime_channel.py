from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from hecompile.errors import IntegrityError
from hecompile.runtime.channel import Channel, ClosedError, Message, SilentError, read_json


class Pair:
    """Two channels that face each other."""

    def __init__(self) -> None:
        self.descriptors = [*os.pipe(), *os.pipe()]
        here_in, there_out, there_in, here_out = self.descriptors
        self.here = Channel(here_in, here_out)
        self.there = Channel(there_in, there_out)

    def close_there(self) -> None:
        for index in (1, 2):
            os.close(self.descriptors[index])
            self.descriptors[index] = -1


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    with ExitStack() as stack:
        yield made
        for descriptor in made.descriptors:
            if descriptor >= 0:
                stack.callback(os.close, descriptor)


def test_messages_arrive_in_order_and_whole(pair: Pair) -> None:
    large = os.urandom(3 << 20)

    def send() -> None:
        pair.here.send(Message.INPUT, large)
        pair.here.send(Message.END)

    sender = threading.Thread(target=send)
    sender.start()
    assert pair.there.receive() == (Message.INPUT, large)
    assert pair.there.receive() == (Message.END, b"")
    sender.join()


def test_json_goes_both_ways(pair: Pair) -> None:
    pair.there.send_json(Message.USAGE, {"a": [1, 2.5]})
    kind, body = pair.here.receive()
    assert (kind, read_json(body)) == (Message.USAGE, {"a": [1, 2.5]})


def test_an_end_is_noticed_by_reader_and_writer(pair: Pair) -> None:
    pair.close_there()
    with pytest.raises(ClosedError):
        pair.here.receive()
    with pytest.raises(ClosedError):
        pair.here.send(Message.END)


def test_waiting_ends_at_the_deadline(pair: Pair) -> None:
    pair.here.deadline = time.monotonic() + 0.05
    with pytest.raises(SilentError):
        pair.here.receive()
    pair.here.deadline = time.monotonic() + 0.05
    with pytest.raises(SilentError):
        pair.here.send(Message.INPUT, bytes(4 << 20))


def test_a_message_that_is_too_large_is_refused_unread(pair: Pair) -> None:
    pair.there.send(Message.OUTPUT, bytes(100))
    with pytest.raises(IntegrityError, match="no message"):
        pair.here.receive(99)


def test_what_is_no_message_is_refused(pair: Pair) -> None:
    os.write(pair.descriptors[1], b"\xee" + bytes(8))
    with pytest.raises(IntegrityError, match="no message"):
        pair.here.receive()


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(IntegrityError):
        read_json(body)
