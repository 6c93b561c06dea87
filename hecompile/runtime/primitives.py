"""Times SEAL's primitives on this machine, for the cost model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal

from hecompile.numeric.parameters import Parameters
from hecompile.numeric.security import max_modulus_bits
from hecompile.runtime.context import Context
from hecompile.runtime.keys import Progress, no_progress
from hecompile.runtime.serial import ciphertext_from_bytes, galois_keys_from_bytes, to_bytes

Kernel = Callable[[], object]
Timer = Callable[[Kernel], float]
"""Returns the CPU seconds of one call of a kernel."""

Points = tuple[tuple[int, float], ...]

GRID: Final[Mapping[int, tuple[int, ...]]] = MappingProxyType(
    {4096: (1, 2, 3), 8192: (1, 2, 4, 6), 16384: (1, 4, 10), 32768: (1, 4, 12)}
)
"""Ring degree to the numbers of primes left that are measured; the last is the whole chain.

What lies beyond is extrapolated: keys of the longest chains alone would take half a minute.
"""

_ROUNDS: Final = 3
_ROUNDS_OF_LARGE_RINGS: Final = 2
_LARGE_RING: Final = 16384
_SCALE_BITS: Final = 12
"""Small enough that products fit one prime, large enough that no encoding rounds to zero."""
_SCALE: Final = 2.0**_SCALE_BITS
_FEW_PRIMES: Final = 2
_POOL_BYTES: Final = 16 << 20
_MOST_IN_POOL: Final = 24
_KERNEL_SECONDS: Final = 0.006
_LONG_SECONDS: Final = 0.05

SCALAR_MATRIX_SHARES: Final[Mapping[str, float]] = MappingProxyType(
    {"scalar_matrix": 0.014, "scalar_matrix_operand": 0.75, "scalar_matrix_result": 3.1}
)
"""Costs of matrices of scalars against SEAL's plaintext product and addition, as measured once.

They are means over primes of 28 bits (operands 0.5, results 3.0) and 54 bits (1.0, 3.6), on a
processor with AVX-512; `runtime.families` does the work.
"""


def cpu_timer(kernel: Kernel) -> float:
    """Median CPU seconds of a call, after one that warms up."""
    first = _once(kernel)
    if first >= _LONG_SECONDS:
        return min(first, _once(kernel))
    count = max(3, int(_KERNEL_SECONDS / max(first, 1e-6)))
    return statistics.median(_once(kernel) for _ in range(min(count, 200)))


def measure_primitives(
    grid: Mapping[int, tuple[int, ...]] = GRID,
    timer: Timer = cpu_timer,
    progress: Progress = no_progress,
) -> dict[str, dict[int, Points]]:
    """Measure every primitive of the cost model.

    The machine's pace may change meanwhile by a factor of two. So each kernel is timed next to one
    rotation on a small ring, the ratios' medians over some rounds are taken, and multiplied by
    the rotation's median over the whole measurement.

    Args:
        grid: Ring degrees, and for each the numbers of primes left.
        timer: Times one kernel.
        progress: Called for every ring and round.

    Returns:
        CPU seconds by primitive, ring degree and primes; they never fall with the primes.
    """
    yardstick = _Yardstick(timer)
    ratios: dict[tuple[str, int, int], list[float]] = {}
    for done, (degree, counts) in enumerate(grid.items()):
        progress("measuring ring", done, len(grid))
        for key, ratio in _ring_ratios(degree, counts, yardstick):
            ratios.setdefault(key, []).append(ratio)
    progress("measuring ring", len(grid), len(grid))
    pace = yardstick.seconds
    seconds = {key: statistics.median(found) * pace for key, found in ratios.items()}
    return _with_scalar_matrices(_tables(seconds))


def _once(kernel: Kernel) -> float:
    started = time.process_time()
    kernel()
    return time.process_time() - started


def _ring_ratios(
    degree: int, counts: tuple[int, ...], yardstick: _Yardstick
) -> Iterator[tuple[tuple[str, int, int], float]]:
    """Every measurement on one ring: primitive, ring and primes, and its yardsticks."""
    rings = [_Ring(degree, data) for data in sorted({min(_FEW_PRIMES, counts[-1]), counts[-1]})]
    for ring in rings:
        for name, kernel in ring.key_kernels():
            yield (name, degree, ring.data_primes), yardstick.ratio(kernel)
    for _ in range(_ROUNDS_OF_LARGE_RINGS if degree >= _LARGE_RING else _ROUNDS):
        for primes in counts:
            for name, kernel in rings[-1].kernels(primes - 1):
                yield (name, degree, primes), yardstick.ratio(kernel)


def _tables(seconds: Mapping[tuple[str, int, int], float]) -> dict[str, dict[int, Points]]:
    """Sort by primes, and let no cost fall where a prime is added: that is noise."""
    tables: dict[str, dict[int, Points]] = {}
    for (name, degree, primes), cost in sorted(seconds.items()):
        before = tables.setdefault(name, {}).get(degree, ())
        floor = before[-1][1] if before else 0.0
        tables[name][degree] = (*before, (primes, max(cost, floor)))
    return tables


def _with_scalar_matrices(tables: dict[str, dict[int, Points]]) -> dict[str, dict[int, Points]]:
    """Add the costs of matrices of scalars, which follow those of SEAL's own products."""
    whole: dict[int, Points] = {}
    for degree, points in tables["multiply_plain"].items():
        pairs = zip(points, tables["add"][degree], strict=True)
        whole[degree] = tuple((n, product + sum_) for (n, product), (_, sum_) in pairs)
    return tables | {
        name: {
            degree: tuple((n, share * seconds) for n, seconds in points)
            for degree, points in whole.items()
        }
        for name, share in SCALAR_MATRIX_SHARES.items()
    }


class _Yardstick:
    """One rotation on a small ring, against which everything is timed."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._found: list[float] = []
        self._kernel = dict(_Ring(4096, 3).kernels(2))["rotate"]

    def ratio(self, kernel: Kernel) -> float:
        """Seconds of a kernel, in rotations timed just before and after it."""
        before = self._timer(self._kernel)
        measured = self._timer(kernel)
        after = self._timer(self._kernel)
        self._found += [before, after]
        return 2 * measured / (before + after)

    @property
    def seconds(self) -> float:
        """Median over all that was measured."""
        return statistics.median(self._found)


class _Ring:
    """SEAL's objects for one chain of equal primes, as long as the 128-bit table allows."""

    def __init__(self, degree: int, data_primes: int) -> None:
        bits = min(max_modulus_bits(degree) // (data_primes + 1), 60)
        self.data_primes = data_primes
        self._context = context = Context(
            Parameters(degree, (bits,) * (data_primes + 1), _SCALE_BITS)
        )
        self._generator: Any = seal.KeyGenerator(context.seal)
        public = seal.PublicKey()
        self._generator.create_public_key(public)
        self._encryptor: Any = seal.Encryptor(context.seal, public, self._generator.secret_key())
        self._decryptor: Any = seal.Decryptor(context.seal, self._generator.secret_key())
        self._evaluator: Any = seal.Evaluator(context.seal)
        self._element = context.galois_element(1)
        self._saved_key = to_bytes(self._generator.create_galois_keys([self._element]))
        self._galois = galois_keys_from_bytes(context, self._saved_key, 1, "a key just made")
        self._relin = seal.RelinKeys()
        self._generator.create_relin_keys(self._relin)

    def key_kernels(self) -> Iterator[tuple[str, Kernel]]:
        """What is done once for each Galois key."""
        yield (
            "galois_key",
            lambda: to_bytes(self._generator.create_galois_keys([self._element])),
        )
        yield (
            "galois_key_load",
            lambda: galois_keys_from_bytes(self._context, self._saved_key, 1, "a key just made"),
        )

    def kernels(self, level: int) -> Iterator[tuple[str, Kernel]]:
        """Every primitive on operands of a level, each call on others, so that caches are cold."""
        context, evaluator = self._context, self._evaluator
        values = np.random.default_rng(level).normal(size=context.slots)
        plains = [context.encode(values, level, _SCALE)]
        ciphers = [self._encrypted(plains[0])]
        size = context.parameters.ciphertext_bytes(level)
        for _ in range(min(max(2, _POOL_BYTES // size), _MOST_IN_POOL) - 1):
            plains.append(_copy(evaluator, plains[0], seal.Plaintext()))
            ciphers.append(_copy(evaluator, ciphers[0], seal.Ciphertext()))
        # Another encryption: a difference of copies would hide nothing, and SEAL refuses it.
        total = self._encrypted(plains[0])
        product = seal.Ciphertext()
        evaluator.square(ciphers[0], product)
        plain, cipher = cycle(plains).__next__, cycle(ciphers).__next__

        def fresh(method: Callable[..., object], *operands: Callable[[], Any]) -> Kernel:
            def call() -> None:
                method(*(operand() for operand in operands), seal.Ciphertext())

            return call

        yield "rotate", fresh(evaluator.rotate_vector, cipher, lambda: 1, lambda: self._galois)
        yield "relinearize", fresh(evaluator.relinearize, lambda: product, lambda: self._relin)
        yield "multiply", fresh(evaluator.multiply, cipher, lambda: total)
        yield "square", fresh(evaluator.square, cipher)
        yield "multiply_plain", fresh(evaluator.multiply_plain, cipher, plain)
        yield "add", lambda: evaluator.add_inplace(total, cipher())
        yield "sub", lambda: evaluator.sub_inplace(total, cipher())
        yield "add_plain", lambda: evaluator.add_plain_inplace(total, plain())
        yield "negate", lambda: evaluator.negate_inplace(total)
        if level:
            yield "rescale", fresh(evaluator.rescale_to_next, cipher)
            yield "drop_level", fresh(evaluator.mod_switch_to_next, cipher)
        yield "encode", lambda: context.encode(values, level, _SCALE)
        yield "encode_scalar", lambda: context.encode(0.5, level, _SCALE)
        yield "encrypt", lambda: self._encrypted(plain())
        yield "encrypt_symmetric", lambda: self._encryptor.encrypt_symmetric(plain())
        yield "decrypt", lambda: self._decryptor.decrypt(cipher(), seal.Plaintext())
        yield "decode", lambda: context.decode(plain())
        yield "save", lambda: to_bytes(cipher())
        saved = to_bytes(ciphers[0])
        yield (
            "load",
            lambda: ciphertext_from_bytes(context, saved, level, _SCALE, what="a copy"),
        )

    def _encrypted(self, plain: Any) -> Any:
        result = seal.Ciphertext()
        self._encryptor.encrypt(plain, result)
        return result


def _copy(evaluator: Any, value: Any, result: Any) -> Any:
    """A copy of a ciphertext or plaintext: switched to the modulus that it has."""
    evaluator.mod_switch_to(value, value.parms_id(), result)
    return result
