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


def rotation_seconds(repetitions: int = 30) -> float:
    """CPU seconds of a rotation at the top level, the median of some."""
    context = Context(PARAMETERS).seal
    generator = seal.KeyGenerator(context)
    keys = seal.GaloisKeys()
    generator.create_galois_keys([3], keys)
    encoder, plain, rotated = seal.CKKSEncoder(context), seal.Plaintext(), seal.Ciphertext()
    encoder.encode(np.ones(PARAMETERS.slots).tolist(), 2.0**PARAMETERS.scale_bits, plain)
    value, public = seal.Ciphertext(), seal.PublicKey()
    generator.create_public_key(public)
    seal.Encryptor(context, public).encrypt(plain, value)
    evaluator = seal.Evaluator(context)
    spent = []
    for _ in range(repetitions):
        began = time.process_time()
        evaluator.rotate_vector(value, 1, keys, rotated)
        spent.append(time.process_time() - began)
    return statistics.median(spent)


def predicted_seconds() -> float:
    """What the cost model takes for the same rotation."""
    degree, primes = PARAMETERS.poly_modulus_degree, len(PARAMETERS.data_primes)
    return DEFAULT_COST_MODEL.seconds("rotate", degree, primes)
