"""What wraps the data key of an encrypted secret key, as key.json says it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from hecompile.access.records import Record

MOST_WRAPPED: Final = 16 << 10
"""Most bytes that a wrapped data key may have."""

_MOST_MEMORY: Final = 1 << 29
_LEAST_N: Final = 1 << 14
_MOST_N: Final = 1 << 20
_MOST_R: Final = 32
_MOST_P: Final = 16


class Method(StrEnum):
    """What wraps a data key."""

    PASSPHRASE = "scrypt"
    KMS = "kms"
    MACHINE = "machine"


@dataclass(frozen=True)
class Wrapped:
    """A data key in its wrapped form, as it stands in key.json.

    Attributes:
        method: What wraps it.
        key: The wrapped key.
        salt: Of scrypt; empty for other methods.
        cost: Parameters n, r and p of scrypt; zeros for other methods.
    """

    method: Method
    key: bytes = field(repr=False)
    salt: bytes = b""
    cost: tuple[int, int, int] = (0, 0, 0)

    def to_json(self) -> dict[str, object]:
        """As plain JSON values; `wrapped_from_record` gives an equal one back."""
        n, r, p = self.cost
        facts: dict[str, object] = {
            "method": self.method.value,
            "key": base64.b64encode(self.key).decode("ascii"),
        }
        if self.method is Method.PASSPHRASE:
            facts |= {"salt": base64.b64encode(self.salt).decode("ascii"), "n": n, "r": r, "p": p}
        return facts


def wrapped_from_record(record: Record) -> Wrapped:
    """Read what `Wrapped.to_json` gave.

    Raises:
        HecompileError: As the record complains: a field is missing, or scrypt would cost more
            memory or time than any key written here asks for.
    """
    if record.text("method") not in tuple(Method):
        raise record.wrong("method", f"must be one of {', '.join(Method)}")
    method = Method(record.text("method"))
    known = ("method", "key", "salt", "n", "r", "p")
    fields = known if method is Method.PASSPHRASE else known[:2]
    Record.of(record.fields, record.place, record.complain, fields)
    key = _bytes(record, "key", MOST_WRAPPED)
    if method is not Method.PASSPHRASE:
        return Wrapped(method, key)
    n, r, p = (record.integer(name, 1) for name in ("n", "r", "p"))
    fits = _LEAST_N <= n <= _MOST_N and not n & (n - 1) and r <= _MOST_R and p <= _MOST_P
    if not fits or 128 * n * r * p > _MOST_MEMORY:
        raise record.wrong(
            "n", "asks for more work than a key of hecompile does, or for too little"
        )
    return Wrapped(method, key, _bytes(record, "salt", 64), (n, r, p))


def _bytes(record: Record, field: str, limit: int) -> bytes:
    try:
        data = base64.b64decode(record.text(field), validate=True)
    except (binascii.Error, ValueError):
        raise record.wrong(field, "must be base64") from None
    if not 0 < len(data) <= limit:
        raise record.wrong(field, f"must hold 1 to {limit} bytes")
    return data
