"""What a generated program.py holds besides, where it refreshes ciphertexts.

`hecompile.runtime.rounds` says how masks work. It stands here so that it is checked like the rest.
"""

import os
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from hecompile.backends.program_support import Machine
from hecompile.runtime.ntt import Residues, transform
from hecompile.runtime.relayout import Pool, Taken, separated
from hecompile.runtime.wide import Wide, double_of, uniform

Ask = Callable[[int, list[Any]], Sequence[Any]]
Request = tuple[int, list[tuple[Any, int]]]
Response = tuple[int, float, str | None, list[int]]


def refresh(
    he: Machine, ask: Ask, group: int, request: list[Request], response: list[Response]
) -> list[Any]:
    """Return fresh ciphertexts, which the key holder made of masked ones.

    `request` holds (largest mask, one or two ciphertexts with their periods) for each that goes up,
    `response` holds (level, scale, constant that names an operand and a slot for each slot, the
    operands' places among those ciphertexts) of each that comes back. Masks come from the operating
    system's random numbers.
    """
    masks, masked = [], []
    zeros = seal.Encryptor(he.context, he.relin_keys.key(2)[-1])
    for size, values in request:
        words = np.frombuffer(os.urandom(32 * 2 * he.slots), dtype="<u8").reshape(4, -1)
        mask = uniform(words, size)
        level = he.levels.index(values[0][0].parms_id())
        x = packed(he, [value for value, _ in values], level)
        masked.append(seal.Ciphertext())
        he.evaluator.add_plain(x, integer_plain(he, mask, level, x.scale), masked[-1])
        # That part of the key encrypts zero below the two highest levels.
        if level + 2 < len(he.levels):
            zero = seal.Ciphertext()
            zeros.encrypt_zero(he.levels[level], zero)
            zero.scale = x.scale
            he.evaluator.add_inplace(masked[-1], zero)
        masks += separated(double_of(mask), [period for _, period in values])
    fresh = list(ask(group, masked))
    every = [value for _, values in request for value in values]
    taken = [taken_slots(he, one, every) for one in response]
    for x, found, one in zip(fresh, Pool(masks).gather(taken), response, strict=True):
        he.settled(x, one[1])
        he.evaluator.sub_plain_inplace(x, integer_plain(he, found, one[0], one[1]))
    return fresh


def packed(he: Machine, values: list[Any], level: int) -> Any:
    """Return one ciphertext of one value, or of two as x + X**(N/2) * y."""
    if len(values) == 1:
        return values[0]
    unit = Wide(np.zeros(2, dtype=np.int64), np.array([0, 1]))
    both = seal.Ciphertext()
    he.evaluator.multiply_plain(values[1], integer_plain(he, unit, level, 1.0), both)
    both.scale = values[0].scale
    he.evaluator.add_inplace(both, values[0])
    return both


def taken_slots(he: Machine, one: Response, values: list[tuple[Any, int]]) -> Taken:
    """Which slots a fresh ciphertext takes."""
    _, scale, table, operands = one
    if table is None:
        period = values[operands[0]][1]
        source, place = np.full(period, operands[0]), np.arange(period)
    else:
        named, place = he.constants[table].astype(np.int64)
        source = np.array([*operands, -1])[named]
        place = np.where(source < 0, 0, place)
    return Taken(source, place, tuple(scale / value.scale for value, _ in values))


def integer_plain(he: Machine, polynomial: Wide, level: int, scale: float) -> Any:
    """Return the plaintext of a polynomial of integers in X**(N/n)."""
    change = transform(he.primes[: level + 1], 2 * he.slots, len(polynomial.low))
    one = Wide(polynomial.high[None], polynomial.low[None])
    values = change.spread(change.forward(change.moduli.residues(one)))
    return residue_plain(he, np.ascontiguousarray(values), level, scale)


def residue_plain(he: Machine, residues: Residues, level: int, scale: float) -> Any:
    """Return the plaintext with these residues: SEAL reads and checks a stream of them."""
    own = seal.Serialization.SEALHeader()

    def headed(body: bytes) -> bytes:
        numbers = (0xA15E, 16, own.version_major, own.version_minor, 0, 0, 16 + len(body))
        return struct.pack("<HBBBBHQ", *numbers) + body

    array = headed(struct.pack("<Q", residues.size) + residues.tobytes())
    head = struct.pack("<4QQd", *he.levels[level], residues.size, scale)
    result, descriptor = seal.Plaintext(), os.memfd_create("plaintext")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(headed(head + array))
        result.load(he.context, f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return result
