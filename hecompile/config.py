"""Options of a compilation, checked when they are made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hecompile.errors import CompileError, UsageError
from hecompile.estimate import Estimate
from hecompile.numeric.fit import MAX_DEGREE, METHODS
from hecompile.numeric.masking import FEWEST_MASK_BITS, MOST_MASK_BITS
from hecompile.numeric.security import MAX_MODULUS_BITS
from hecompile.segments import Line

MOST_SAMPLES = max(MAX_MODULUS_BITS) // 2
"""Samples that one evaluation can hold at most."""

SMALLEST_MARGIN = 0.1
MOST_MARGIN = 10.0

REFRESH_MODES = ("auto", "never", "client")

OBJECTIVES = ("latency", "throughput", "client", "keys")

_LITTLE = 0.01
"""Weight of what hardly counts."""

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}

_BIT_UNITS = {"kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}


@dataclass(frozen=True)
class CompileOptions:
    """Choices that most users leave to the compiler.

    Attributes:
        batch: samples packed into one evaluation.
        refresh: "auto" inserts round trips to the key holder where they are cheaper or needed,
            "never" refuses programs that need them, "client" takes rounds, their bytes and the
            key holder's time to cost nothing.
        mask_bits: statistical hiding of an evaluation, bits; below 20 is for policies under
            which every holder of the key owns the model.
        rtt: seconds of a round trip between evaluator and key holder.
        bandwidth: bits per second of the client's and key holder's line.
        max_refreshes: most rounds with the key holder in one evaluation.
        degree: degree of every fitted polynomial; None to choose by precision.
        method: how polynomials are fitted; see `numeric.fit`.
        margin: widening of observed ranges, as a fraction of their width, on either side; None for
            0.1, and as much again for each power of ten in the batch, because one sample beyond a
            fitted range can spoil all that share its ciphertexts.
        max_degree: largest degree that the compiler may choose.
        input_shapes: shapes of inputs whose axes the model leaves open, by name.
        ring: polynomial modulus degree; None to choose.
        optimize: what `price` weighs: "latency", "throughput", "client" or "keys".
        max_key_memory: most bytes that the evaluation keys may take in the evaluator's memory; if
            none is given, plans of more than 4 GB get by with fewer keys, where that is possible.
        max_client_bytes: most bytes that the client may send and receive for one evaluation.
        encrypt_model: encrypt the weights too, so that the evaluator does not see the model.
    """

    batch: int = 1
    refresh: str = "auto"
    mask_bits: int = 40
    rtt: float = Line.rtt
    bandwidth: float = Line.bandwidth
    max_refreshes: int | None = None
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
        if not 0 <= self.mask_bits <= MOST_MASK_BITS:
            raise UsageError(f"--mask-bits is between 0 and {MOST_MASK_BITS}, not {self.mask_bits}")
        if not 0 <= self.rtt < math.inf:
            raise UsageError(f"--rtt is 0 seconds or more, not {self.rtt:g}")
        if not 0 < self.bandwidth < math.inf:
            raise UsageError(f"--bandwidth is above 0 bits per second, not {self.bandwidth:g}")
        if self.max_refreshes is not None and self.max_refreshes < 0:
            raise UsageError(f"--max-refreshes is 0 or more, not {self.max_refreshes}")
        if self.max_refreshes and self.refresh == "never":
            raise UsageError(
                f"--max-refreshes {self.max_refreshes} allows refreshes, and --refresh never does "
                "not; give one of them"
            )
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

    @property
    def line(self) -> Line:
        """The line between evaluator and key holder."""
        return Line(self.rtt, self.bandwidth)

    @property
    def unmasked(self) -> bool:
        """Whether refreshes may hand values with no masks, or too small ones, to the key holder."""
        return self.refresh != "never" and self.mask_bits < FEWEST_MASK_BITS

    def shapes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Input shapes, or None if none was given."""
        return self.input_shapes or None

    def rings(self) -> tuple[int, ...]:
        """Rings to try, smallest first."""
        return (self.ring,) if self.ring is not None else tuple(sorted(MAX_MODULUS_BITS))

    def price(self, predicted: Estimate) -> float:
        """What a plan costs; plans compare by it, the unit depends on `optimize`.

        - latency: the evaluator's seconds, a tenth of the client's, `rtt` for each refresh round
          and the bytes of refreshes at `bandwidth`; with `refresh="client"` the evaluator's
          seconds alone;
        - throughput: the evaluator's seconds, a hundredth of the client's and of the seconds that
          all its bytes take at `bandwidth`;
        - client: the client's seconds, those of all its bytes, a twentieth of the evaluator's;
        - keys: bytes of the evaluation keys; the latency breaks ties, as a fraction of a byte.

        Returns:
            Infinity for a plan beyond a limit.
        """
        if self._excesses(predicted):
            return math.inf
        server, client = predicted.evaluator_seconds, predicted.client_seconds
        transfer = self.line.transfer(predicted.client_bytes)
        if self.optimize == "throughput":
            return server + _LITTLE * (client + transfer)
        if self.optimize == "client":
            return client + transfer + 0.05 * server
        latency = server
        if self.refresh != "client":
            latency += 0.1 * client + predicted.line_seconds(self.line)
        if self.optimize == "keys":
            return predicted.evaluation_key_bytes + latency / (1.0 + latency)
        return latency

    def check_limits(self, plans: Iterable[Estimate], asked: bool = False) -> None:
        """Refuse unless one of several plans keeps within the limits.

        Args:
            plans: what they take.
            asked: whether a precision was asked for.

        Raises:
            CompileError: with the least that was reached, and the option it was too much for.
        """
        tried = list(plans)
        if not tried or any(not self._excesses(plan) for plan in tried):
            return
        broken = [
            (limit, given)
            for limit, given in self._limits()
            if any(limit.reached(plan) > given for plan in tried)
        ]
        told = "; ".join(
            f"--{limit.option} is {limit.shown(given)}, and the {limit.least} reached is "
            f"{limit.shown(min(map(limit.reached, tried)))}{limit.what}"
            for limit, given in broken
        )
        remedies = ", ".join(dict.fromkeys(limit.remedy for limit, _ in broken))
        raise CompileError(
            f"no plan keeps within the limits: {told}; raise the limit, {precision_remedy(asked)}, "
            f"or try {remedies}"
        )

    def _limits(self) -> list[tuple[_Limit, int]]:
        """The limits that are given."""
        all_ = ((limit, getattr(self, limit.option.replace("-", "_"))) for limit in _LIMITS)
        return [(limit, given) for limit, given in all_ if given is not None]

    def _excesses(self, predicted: Estimate) -> list[str]:
        """The options whose limits a plan breaks."""
        return [one.option for one, given in self._limits() if one.reached(predicted) > given]


def precision_remedy(asked: bool) -> str:
    """What takes fewer bits and smaller degrees.

    Args:
        asked: whether a precision was asked for.
    """
    return "ask for a larger --precision" if asked else "give a --precision that is enough"


def _megabytes(count: int) -> str:
    """A number of bytes, exactly."""
    return f"{count / 1e6:.6f}".rstrip("0").rstrip(".") + " MB"


@dataclass(frozen=True)
class _Limit:
    """Something of which a plan may take so much and no more.

    Attributes:
        option: Its option, without the dashes in front.
        what: What there is too much of.
        remedy: What takes less of it, apart from a larger precision.
        reached: How much a plan takes.
        shown: How a number of it is written.
        least: What the smallest number of it is called.
    """

    option: str
    what: str
    remedy: str
    reached: Callable[[Estimate], int]
    shown: Callable[[int], str] = _megabytes
    least: str = "least"


_OTHERS = "another --optimize or a smaller --batch"

_LIMITS = (
    _Limit("max-key-memory", " of keys", _OTHERS, lambda plan: plan.evaluation_key_bytes),
    _Limit("max-client-bytes", " sent and received", _OTHERS, lambda plan: plan.client_bytes),
    _Limit(
        "max-refreshes",
        "",
        "a smaller --degree, fewer --mask-bits or, if you named one, a larger --ring",
        lambda plan: plan.refreshes,
        str,
        "smallest number of rounds",
    ),
)


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


def parse_bandwidth(option: str, text: str) -> float:
    """Read bits per second as in `100Mbit`: digits, perhaps a decimal point, a unit.

    Args:
        option: The option's name, for the message.
        text: What was given.

    Returns:
        Bits per second, above 0.

    Raises:
        UsageError: It is no such number.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(kbit|Mbit|Gbit)", text)
    bits = float(found[1]) * _BIT_UNITS[found[2]] if found else 0.0
    if bits <= 0:
        raise UsageError(
            f"{option} is bits per second such as 100Mbit (kbit, Mbit or Gbit), not '{text}'"
        )
    return bits
