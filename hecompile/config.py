"""Options of a compilation, checked when they are made."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hecompile.errors import CompileError, UsageError
from hecompile.estimate import ROUND_TRIP_SECONDS, Estimate
from hecompile.numeric.fit import MAX_DEGREE, METHODS
from hecompile.numeric.security import MAX_MODULUS_BITS

MOST_SAMPLES = max(MAX_MODULUS_BITS) // 2
"""Samples that one evaluation can hold at most."""

SMALLEST_MARGIN = 0.1
MOST_MARGIN = 10.0

REFRESH_MODES = ("auto", "never", "client")

OBJECTIVES = ("latency", "throughput", "client", "keys")

CLIENT_BYTES_PER_SECOND = 12.5e6
"""A line of 100 Mbit/s, at which bytes are priced where the client counts."""

_LITTLE = 0.01
"""Weight of what hardly counts."""

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class CompileOptions:
    """Choices that most users leave to the compiler.

    Attributes:
        batch: samples packed into one evaluation.
        refresh: "auto" inserts round trips to the key holder where they are cheaper or needed,
            "never" refuses programs that need them, "client" ignores the price of rounds.
        mask_bits: statistical hiding of each refresh, bits.
        degree: degree of every fitted polynomial; None to choose by precision.
        method: how polynomials are fitted; see `numeric.fit`.
        margin: widening of observed ranges, as a fraction of their width, on either side; None for
            0.1, and as much again for each power of ten in the batch, because one sample beyond a
            fitted range can spoil all that share its ciphertexts.
        max_degree: largest degree that the compiler may choose.
        input_shapes: shapes of inputs whose axes the model leaves open, by name.
        ring: polynomial modulus degree; None to choose.
        optimize: what `price` weighs: "latency", "throughput", "client" or "keys".
        max_key_memory: most bytes that the evaluation keys may take in the evaluator's memory.
        max_client_bytes: most bytes that the client may send and receive for one evaluation.
        encrypt_model: encrypt the weights too, so that the evaluator does not see the model.
    """

    batch: int = 1
    refresh: str = "auto"
    mask_bits: int = 30
    degree: int | None = None
    method: str = "weighted"
    margin: float | None = None
    max_degree: int | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ring: int | None = None
    optimize: str = "latency"
    max_key_memory: int | None = None
    max_client_bytes: int | None = None
    encrypt_model: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no compilation could use.

        Raises:
            UsageError: naming the option and what it takes.
        """
        if self.batch < 1:
            raise UsageError(f"--batch is 1 or more, not {self.batch}")
        if self.batch > MOST_SAMPLES:
            raise UsageError(f"--batch is {MOST_SAMPLES} at most, for no ring has more slots")
        if self.degree is not None and not 1 <= self.degree <= MAX_DEGREE:
            raise UsageError(f"--degree is between 1 and {MAX_DEGREE}, not {self.degree}")
        if self.max_degree is not None and not 1 <= self.max_degree <= MAX_DEGREE:
            raise UsageError(f"--max-degree is between 1 and {MAX_DEGREE}, not {self.max_degree}")
        if self.margin is not None and not 0 <= self.margin <= MOST_MARGIN:
            raise UsageError(f"--margin is between 0 and {MOST_MARGIN:g}, not {self.margin:g}")
        if self.refresh not in REFRESH_MODES:
            raise UsageError(f"--refresh is {', '.join(REFRESH_MODES)}, not '{self.refresh}'")
        if not 0 <= self.mask_bits <= 48:
            raise UsageError(f"--mask-bits is between 0 and 48, not {self.mask_bits}")
        if self.method not in METHODS:
            raise UsageError(f"--method is one of {', '.join(METHODS)}, not '{self.method}'")
        if self.ring is not None and self.ring not in MAX_MODULUS_BITS:
            raise UsageError(f"--ring is one of {', '.join(map(str, MAX_MODULUS_BITS))}")
        if self.optimize not in OBJECTIVES:
            raise UsageError(f"--optimize is {', '.join(OBJECTIVES)}, not '{self.optimize}'")
        for name in ("max_key_memory", "max_client_bytes"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is 1 byte or more, not {limit}")

    @property
    def fitting_margin(self) -> float:
        """The margin that ranges are fitted with."""
        if self.margin is not None:
            return self.margin
        return round(SMALLEST_MARGIN * (1.0 + math.log10(self.batch)), 3)

    def shapes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Input shapes, or None if none was given."""
        return self.input_shapes or None

    def rings(self) -> tuple[int, ...]:
        """Rings to try, smallest first."""
        return (self.ring,) if self.ring is not None else tuple(sorted(MAX_MODULUS_BITS))

    def price(self, predicted: Estimate) -> float:
        """What a plan costs; plans compare by it, the unit depends on `optimize`.

        - latency: the evaluator's seconds, a tenth of the client's, 0.05 s a refresh round; with
          `refresh="client"` the evaluator's seconds alone;
        - throughput: the evaluator's seconds, a hundredth of the client's and of the transfer's;
        - client: the client's seconds, its bytes at 12.5 MB/s, a twentieth of the evaluator's;
        - keys: bytes of the evaluation keys; the latency breaks ties, as a fraction of a byte.

        Returns:
            Infinity for a plan beyond a limit.
        """
        if self._excesses(predicted):
            return math.inf
        server, client = predicted.evaluator_seconds, predicted.client_seconds
        transfer = predicted.client_bytes / CLIENT_BYTES_PER_SECOND
        if self.optimize == "throughput":
            return server + _LITTLE * (client + transfer)
        if self.optimize == "client":
            return client + transfer + 0.05 * server
        latency = server
        if self.refresh != "client":
            latency += 0.1 * client + predicted.refreshes * ROUND_TRIP_SECONDS
        if self.optimize == "keys":
            return predicted.evaluation_key_bytes + latency / (1.0 + latency)
        return latency

    def check_limits(self, plans: Iterable[Estimate]) -> None:
        """Refuse unless one of several plans keeps within the limits.

        Raises:
            CompileError: with the least that was reached, and the option it was too much for.
        """
        tried = list(plans)
        if not tried or any(not self._excesses(plan) for plan in tried):
            return
        told = [
            f"--{name.replace('_', '-')} is {_megabytes(limit)}, and the least reached is "
            f"{_megabytes(min(_LIMITED[name](plan) for plan in tried))} {what}"
            for name, (limit, what) in self._limits().items()
            if any(name in self._excesses(plan) for plan in tried)
        ]
        raise CompileError(
            f"no plan keeps within the limits: {'; '.join(told)}; raise the limit, ask for a "
            "larger --precision, or try another --optimize or a smaller --batch"
        )

    def _limits(self) -> dict[str, tuple[int, str]]:
        given = {
            "max_key_memory": (self.max_key_memory, "of keys"),
            "max_client_bytes": (self.max_client_bytes, "sent and received"),
        }
        return {name: (limit, what) for name, (limit, what) in given.items() if limit is not None}

    def _excesses(self, predicted: Estimate) -> list[str]:
        """The limits that a plan breaks."""
        return [n for n, (limit, _) in self._limits().items() if _LIMITED[n](predicted) > limit]


def _megabytes(count: int) -> str:
    """A number of bytes, exactly."""
    return f"{count / 1e6:.6f}".rstrip("0").rstrip(".") + " MB"


_LIMITED = {
    "max_key_memory": lambda plan: plan.evaluation_key_bytes,
    "max_client_bytes": lambda plan: plan.client_bytes,
}


def parse_size(option: str, text: str) -> int:
    """Read a size as in `500MB`: digits, perhaps a decimal point, and B, kB, MB or GB.

    Args:
        option: The option's name, for the message.
        text: What was given.

    Returns:
        Bytes, 1 or more.

    Raises:
        UsageError: It is no such size.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(B|kB|MB|GB)", text)
    size = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < 1:
        raise UsageError(f"{option} is a size such as 500MB (B, kB, MB or GB), not '{text}'")
    return size
