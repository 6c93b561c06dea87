"""The state of an evaluation that waits for the key holder, as bytes for the evaluator alone.

    "HECS" | version, 2 bytes | header length, 4 bytes | header | ciphertexts | SHA-256, 32 bytes

The digest finds damage, not malice: the state holds the seed of the masks of the request that
waits, so whoever can change it can also read it. It belongs in a file of mode 0600.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, Self

from hecompile.access.records import Record, canonical_json, parse_json
from hecompile.errors import HecompileError, IntegrityError
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.runtime.context import Context
from hecompile.runtime.framing import PREFIX_BYTES, pack_prefix, read_prefix
from hecompile.runtime.header import MAX_HEADER_BYTES, read_session
from hecompile.runtime.masks import SEED_BYTES, MaskSource
from hecompile.runtime.serial import ciphertext_from_bytes
from hecompile.runtime.wire import ciphertext_bytes

MAGIC: Final = b"HECS"
VERSION: Final = 2
_FIELDS: Final = (
    "program",
    "key_id",
    "session",
    "samples",
    "position",
    "seed",
    "live",
    "outputs",
)
_WHAT: Final = "the saved evaluation"


@dataclass(frozen=True)
class Checkpoint:
    """Where an evaluation is.

    Attributes:
        program: Identity of the program.
        key_id: Identifier of the key.
        session: Identifier of the evaluation.
        samples: Number of samples in it.
        position: Operations done.
        masks: The masks of the round that waits or comes next, and of no other: whoever goes on
            from one state twice draws the masks of what follows anew.
    """

    program: str
    key_id: str
    session: str
    samples: int
    position: int
    masks: MaskSource

    def at(self, position: int) -> Self:
        """The same evaluation at another position."""
        return replace(self, position=position)

    def with_new_masks(self) -> Self:
        """The same evaluation with masks that nobody has seen, for its next round."""
        return replace(self, masks=MaskSource())

    def to_bytes(self, context: Context, live: Mapping[str, Any], outputs: list[bytes]) -> bytes:
        """Write the checkpoint.

        Args:
            context: Their context.
            live: SEAL ciphertexts by value name.
            outputs: Serialised ciphertexts of the outputs so far.
        """
        blobs = {name: ciphertext_bytes(context, value) for name, value in live.items()}
        header = canonical_json(
            {
                "program": self.program,
                "key_id": self.key_id,
                "session": self.session,
                "samples": self.samples,
                "position": self.position,
                "seed": self.masks.seed.hex(),
                "live": [{"name": name, "size": len(data)} for name, data in blobs.items()],
                "outputs": [len(data) for data in outputs],
            }
        )
        body = b"".join(
            (pack_prefix(MAGIC, VERSION, len(header)), header, *blobs.values(), *outputs)
        )
        return body + sha256(body).digest()


def checkpoint_from_bytes(
    data: bytes, program: Program, context: Context, identity: str, key_id: str
) -> tuple[Checkpoint, dict[str, Any], list[bytes]]:
    """Read a checkpoint that must be of a given program and key.

    Returns:
        The checkpoint, the live ciphertexts by value name, and the outputs so far.

    Raises:
        IntegrityError: It is of another one, cut off or changed.
    """
    record, body, start = _opened(data, identity, key_id)
    live = {}
    for item in record.records("live", ("name", "size")):
        name, size = item.text("name"), item.integer("size", 1)
        live[name] = _value(program, context, name, body[start : start + size])
        start += size
    outputs = []
    for size in record.integers("outputs", 1):
        outputs.append(body[start : start + size])
        start += size
    seed = record.text("seed")
    if start != len(body) or len(seed) != 2 * SEED_BYTES:
        raise IntegrityError(f"{_WHAT} is cut off; start the evaluation anew.")
    position = record.integer("position")
    if position >= len(program.operations):
        raise IntegrityError(f"{_WHAT} is beyond the end of the program; start anew.")
    return (
        Checkpoint(
            identity,
            key_id,
            read_session(record),
            record.integer("samples", 1),
            position,
            MaskSource(bytes.fromhex(seed)),
        ),
        live,
        outputs,
    )


def waiting_session(data: bytes, identity: str, key_id: str) -> str:
    """The session of a saved evaluation of a program under a key; no ciphertext is looked at.

    Raises:
        IntegrityError: It is of another one, cut off or changed.
    """
    return read_session(_opened(data, identity, key_id)[0])


def _opened(data: bytes, identity: str, key_id: str) -> tuple[Record, bytes, int]:
    """The header's fields, all bytes but the digest, and where the ciphertexts start."""
    body, digest = data[:-32], data[-32:]
    if sha256(body).digest() != digest:
        raise IntegrityError(f"{_WHAT} is damaged or none at all; start the evaluation anew.")
    start = PREFIX_BYTES + read_prefix(body, MAGIC, VERSION, _WHAT, "a saved evaluation")
    content = parse_json(body[PREFIX_BYTES:start], f"the header of {_WHAT}", MAX_HEADER_BYTES)
    record = Record.of(content, (), _complain, _FIELDS)
    if (record.text("program"), record.text("key_id")) != (identity, key_id):
        raise IntegrityError(f"{_WHAT} is of another program or key; start the evaluation anew.")
    return record, body, start


def _value(program: Program, context: Context, name: str, data: bytes) -> Any:
    op = program.definitions.get(name)
    type_ = op.defined.type if op is not None else None
    if not isinstance(type_, CipherType) or type_.level is None or type_.scale is None:
        raise IntegrityError(f"{_WHAT} holds {name}, which the program does not define.")
    return ciphertext_from_bytes(
        context, data, type_.level, type_.scale, type_.polynomials, what=f"ciphertext {name}"
    )


def _complain(_place: tuple[str, ...], message: str) -> HecompileError:
    return IntegrityError(f"{_WHAT}: {message}; start the evaluation anew.")
