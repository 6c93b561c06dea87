"""The TenSEAL program that a user would write by hand, in a process of its own.

`python -m tests.benchmarks.plain PROGRAM FOLDER` makes keys, then evaluates the sample whose number
comes on a line of standard input, until that ends; each answer is a line of JSON. The programs
follow TenSEAL's own tutorials: `CKKSVector.mm` for dense layers, `im2col_encoding`,
`conv2d_im2col` and `pack_vectors` for a convolution, `square` between them. The parameters are
those of the tutorials too, as many primes as the depth needs.

`mm` reads copies of its operand behind the vector's end, and a bias added before is not in those
copies: the results are a little off, with any parameters. The error is reported as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tenseal as ts

from hecompile.runtime.usage import Stopwatch, peak_memory_bytes

WEIGHTS_FILE, SAMPLES_FILE = "weights.npz", "samples.npy"

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Ring:
    """Parameters of a plain program.

    Attributes:
        degree: polynomial modulus degree N.
        outer: bits of the first prime and the special prime.
        inner: bits of the scale and of each prime between, one a level.
    """

    degree: int
    outer: int
    inner: int

    def bits(self, depth: int) -> list[int]:
        """Sizes of all primes for a depth."""
        return [self.outer, *[self.inner] * depth, self.outer]


RINGS = (Ring(8192, 31, 26), Ring(16384, 60, 40), Ring(16384, 31, 26), Ring(32768, 60, 40))
"""The tutorial on encrypted convolutions takes the first, the one on training the second's bits."""

LARGEST = {8192: 218, 16384: 438, 32768: 881}
"""Modulus bits that SEAL's default table allows for 128 bits of security."""


def choose_ring(depth: int, slots: int) -> Ring:
    """The first ring that is deep and large enough.

    Args:
        depth: multiplications that follow one another.
        slots: slots needed at once.

    Raises:
        ValueError: none is.
    """
    for ring in RINGS:
        if sum(ring.bits(depth)) <= LARGEST[ring.degree] and slots <= ring.degree // 2:
            return ring
    raise ValueError(f"no ring has a depth of {depth} and {slots} slots")


class Dense:
    """Dense layers with squares between them, by `mm`.

    Attributes:
        ring: parameters.
        depth: levels.
    """

    def __init__(self, weights: Weights) -> None:
        self._layers = dense_layers(weights)
        self.depth = 2 * len(self._layers) - 1
        self.ring = choose_ring(self.depth, max(sum(np.shape(w)) for w, _ in self._layers))

    def encrypt(self, context: Any, sample: np.ndarray) -> Any:
        return ts.ckks_vector(context, sample.ravel().tolist())

    def evaluate(self, value: Any) -> Any:
        for i, (weight, bias) in enumerate(self._layers):
            if i:
                value.square_()
            value = value.mm(weight) + bias
        return value


class Convolution:
    """One convolution of one channel, then dense layers, squares between them.

    Attributes:
        ring: parameters.
        depth: levels: the convolution, packing its maps, and each square and dense layer.
    """

    def __init__(self, weights: Weights) -> None:
        self._kernels = weights["kernels"][:, 0].tolist()
        self._bias = weights["kernel_bias"].tolist()
        self._stride, self._padding = (int(n) for n in weights["stride_padding"])
        self._layers = dense_layers(weights)
        self.depth = 2 + 2 * len(self._layers)
        taps = weights["kernels"][0, 0].size
        windows = np.shape(self._layers[0][0])[0] // len(self._kernels)
        # A window takes a power of two of slots.
        self.ring = choose_ring(self.depth, windows * (1 << (taps - 1).bit_length()))
        self._windows = 0

    def encrypt(self, context: Any, sample: np.ndarray) -> Any:
        image = np.pad(sample.reshape(sample.shape[-2:]), self._padding)
        rows, columns = np.shape(self._kernels[0])
        value, self._windows = ts.im2col_encoding(
            context, image.tolist(), rows, columns, self._stride
        )
        return value

    def evaluate(self, value: Any) -> Any:
        maps = [
            value.conv2d_im2col(kernel, self._windows) + bias
            for kernel, bias in zip(self._kernels, self._bias, strict=True)
        ]
        value = ts.CKKSVector.pack_vectors(maps)
        for weight, bias in self._layers:
            value.square_()
            value = value.mm(weight) + bias
        return value


PROGRAMS: dict[str, Callable[[Weights], Dense | Convolution]] = {
    "dense": Dense,
    "convolution": Convolution,
}


def dense_layers(weights: Weights) -> list[tuple[list[list[float]], list[float]]]:
    """Matrices, inputs by outputs, and biases, in order, as TenSEAL takes them."""
    count = sum(name.startswith("weight") for name in weights)
    return [(weights[f"weight{i}"].T.tolist(), weights[f"bias{i}"].tolist()) for i in range(count)]


def serve(program: Dense | Convolution, samples: np.ndarray, wanted: Iterator[str]) -> None:
    """Make keys, then evaluate the samples asked for, one answer a line."""
    watch = Stopwatch()
    ring, bits = program.ring, program.ring.bits(program.depth)
    with watch.measure("keygen"):
        context = ts.context(
            ts.SCHEME_TYPE.CKKS, ring.degree, coeff_mod_bit_sizes=bits, n_threads=1
        )
        context.global_scale = 2.0**ring.inner
        context.generate_galois_keys()
    keygen = asdict(watch.phases["keygen"])
    _answer({"keygen": keygen, "poly_modulus_degree": ring.degree, "coeff_modulus_bits": bits})
    for line in wanted:
        watch = Stopwatch()
        with watch.measure("encrypt"):
            value = program.encrypt(context, samples[int(line)])
        with watch.measure("evaluate"):
            result = program.evaluate(value)
        with watch.measure("decrypt"):
            output = result.decrypt()
        phases = {name: asdict(spent) for name, spent in watch.phases.items()}
        _answer({"phases": phases, "output": output, "peak_memory_bytes": peak_memory_bytes()})


def _answer(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def main(arguments: list[str]) -> int:
    """Serve the program named first with the weights and samples in the folder named second."""
    name, folder = arguments[0], Path(arguments[1])
    with np.load(folder / WEIGHTS_FILE, allow_pickle=False) as stored:
        weights = dict(stored)
    samples = np.load(folder / SAMPLES_FILE, allow_pickle=False)
    serve(PROGRAMS[name](weights), samples, iter(sys.stdin))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
