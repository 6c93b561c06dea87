"""Ten thousand random corruptions of envelopes: no crash, and none is taken."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hecompile.errors import HecompileError
from hecompile.runtime.framing import PREFIX_BYTES
from hecompile.runtime.gateway import Gateway
from tests.attacks.senders import HUGE, Pieces, forbid_seal, make_world

COUNT = 10_000


def flipped(random_: random.Random, data: bytes, _other: bytes, head: int) -> bytes:
    found = bytearray(data)
    for _ in range(random_.randint(1, 4)):
        end = head if random_.random() < 0.8 else len(data)
        found[random_.randrange(end)] ^= 1 << random_.randrange(8)
    return bytes(found)


def inserted(random_: random.Random, data: bytes, _other: bytes, head: int) -> bytes:
    place = random_.randrange(head if random_.random() < 0.8 else len(data))
    return data[:place] + random_.randbytes(random_.randint(1, 40)) + data[place:]


def deleted(random_: random.Random, data: bytes, _other: bytes, head: int) -> bytes:
    place = random_.randrange(head if random_.random() < 0.8 else len(data))
    return data[:place] + data[place + random_.randint(1, 40) :]


def spliced(random_: random.Random, data: bytes, other: bytes, head: int) -> bytes:
    place = random_.randrange(PREFIX_BYTES, head + 1)
    return data[:place] + other[random_.randrange(PREFIX_BYTES, head + 1) :]


VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**63, 1e308, "", "x", "0" * 32, "0" * 64, "anna", "input", "output",
    [], {}, [[]], "2999-01-01T00:00:00Z", "input:y", "\ud800", "../../etc/passwd", HUGE, [HUGE],
)  # fmt: skip


def edited(random_: random.Random, data: bytes, other: bytes, _head: int) -> bytes:
    """A field of the header changed, removed, added or taken from another valid envelope."""
    pieces = Pieces.of(data)
    header = {**pieces.header, "ciphertexts": [dict(c) for c in pieces.header["ciphertexts"]]}
    target = header if random_.random() < 0.7 else header["ciphertexts"][0]
    field = random_.choice(sorted(target))
    match random_.randrange(4):
        case 0:
            del target[field]
        case 1:
            target[random_.choice(["extra", "Kind", "signature", ""])] = random_.choice(VALUES)
        case 2:
            theirs = Pieces.of(other).header
            theirs = theirs if target is header else theirs["ciphertexts"][0]
            field = random_.choice(["nonce", "session"] if target is header else ["sha256"])
            target[field] = theirs[field]
        case _:
            value = random_.choice(VALUES)
            target[field] = "changed" if value == target[field] else value
    return replace(pieces, header=header).joined()


def test_random_corruptions_never_crash_and_are_never_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path)
    envelope, second = world.input(), world.input()
    head = len(envelope) - len(Pieces.of(envelope).body)
    forbid_seal(monkeypatch)
    gateway = Gateway(world.spec, world.ring.key_id, None, world.inspector())
    random_ = random.Random(7)
    kinds = (flipped, inserted, deleted, spliced, edited)
    started = time.monotonic()
    refused = dict.fromkeys((kind.__name__ for kind in kinds), 0)
    for number in range(COUNT):
        corrupt = kinds[number % len(kinds)]
        data = corrupt(random_, envelope, second, head)
        if data in (envelope, second):
            continue
        with pytest.raises(HecompileError):
            gateway.check_input(data)
        refused[corrupt.__name__] += 1
    assert min(refused.values()) > COUNT / len(kinds) * 0.95
    assert not world.state.exists()
    assert time.monotonic() - started < 30
