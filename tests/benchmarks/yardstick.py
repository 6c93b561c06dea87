"""How fast this machine is right now: one rotation, beside what the cost model takes for it."""

from __future__ import annotations

import statistics
import time

import numpy as np
import tenseal.sealapi as seal

from hecompile.numeric.cost import DEFAULT_COST_MODEL
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.context import Context

PARAMETERS = Parameters(8192, (32, 24, 24, 24, 24, 24, 42), 24)


class Yardstick:
    """A rotation at the top level, to be timed again and again."""

    def __init__(self) -> None:
        context = Context(PARAMETERS).seal
        generator = seal.KeyGenerator(context)
        self._keys = seal.GaloisKeys()
        generator.create_galois_keys([3], self._keys)
        encoder, plain = seal.CKKSEncoder(context), seal.Plaintext()
        encoder.encode(np.ones(PARAMETERS.slots).tolist(), 2.0**PARAMETERS.scale_bits, plain)
        self._value, public = seal.Ciphertext(), seal.PublicKey()
        generator.create_public_key(public)
        seal.Encryptor(context, public).encrypt(plain, self._value)
        self._evaluator = seal.Evaluator(context)
        self._rotated = seal.Ciphertext()

    def seconds(self, repetitions: int = 30) -> float:
        """CPU seconds of the rotation, the median of some."""
        spent = []
        for _ in range(repetitions):
            began = time.process_time()
            self._evaluator.rotate_vector(self._value, 1, self._keys, self._rotated)
            spent.append(time.process_time() - began)
        return statistics.median(spent)

    def factor(self, repetitions: int = 15) -> float:
        """How many times slower the machine is than the shipped cost table's."""
        return self.seconds(repetitions) / predicted_seconds()


def predicted_seconds() -> float:
    """What the shipped cost model takes for the same rotation."""
    degree, primes = PARAMETERS.poly_modulus_degree, len(PARAMETERS.data_primes)
    return DEFAULT_COST_MODEL.seconds("rotate", degree, primes)
