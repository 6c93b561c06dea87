"""The secret key from two ciphertexts and what was decrypted of them.

B. Li and D. Micciancio, "On the Security of Homomorphic Encryption on Approximate Numbers",
Eurocrypt 2021: a CKKS decryption is m = c0 + c1 s modulo q, exactly, and encoding the decrypted
values again gives m, exactly: errors and all. Decrypted values are real, so that they give only
m(X) + m(1/X), half of the N equations for the N coefficients of s; two ciphertexts give all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hecompile.ir.constants import Array
from hecompile.runtime.context import Context
from hecompile.runtime.header import split_envelope
from hecompile.runtime.ntt import Residues, transform
from hecompile.runtime.packing import pack
from hecompile.runtime.plaintexts import PlaintextAccess, load_plaintext
from hecompile.runtime.residues import residue_access
from hecompile.runtime.serial import ciphertext_from_bytes
from hecompile.runtime.spec import CipherSpec, ClientSpec

TERNARY = (-1, 0, 1)


@dataclass(frozen=True)
class Attacker:
    """Knows the program and sees ciphertexts; has no key."""

    spec: ClientSpec
    context: Context

    @property
    def cipher(self) -> CipherSpec:
        """The only ciphertext of the program's output."""
        (cipher,) = self.spec.output_ciphertexts
        return cipher

    @property
    def prime(self) -> int:
        """The last prime left, in which all is computed."""
        assert self.cipher.level == 0
        return self.spec.parameters.data_primes[0]

    def ciphertext(self, envelope: bytes) -> Residues:
        """Both polynomials of an envelope's ciphertext, shape (2, N)."""
        blob = envelope[split_envelope(envelope, "envelope").end :]
        value = ciphertext_from_bytes(
            self.context, blob, self.cipher.level, self.cipher.scale, what="ciphertext"
        )
        return np.array(residue_access(self.context).view(value)[:, 0])

    def doubled(self, raw: Array) -> Residues:
        """The values of m(X) + m(1/X) of an output, shape (N,).

        Args:
            raw: Shape (batch, elements), as decrypted.
        """
        assert self.cipher.layout is not None
        # Halves of integers would be rounded: twice the real part has none.
        slots = 2.0 * pack(raw, self.cipher.layout, self.cipher.period)
        plain = self.context.encode(slots, self.cipher.level, self.cipher.scale)
        return np.array(PlaintextAccess(self.context).view(plain)[0])

    def solve(self, envelopes: Sequence[bytes], raws: Sequence[Array]) -> list[int]:
        """Coefficients of the key that explains two ciphertexts' decryptions, were they exact."""
        q = self.prime
        first, second = (self.ciphertext(envelope).tolist() for envelope in envelopes)
        sums = [self.doubled(raw).tolist() for raw in raws]
        values = [0] * self.spec.parameters.poly_modulus_degree
        for i, j in self._conjugates():
            # a s(x) + b s(1/x) = w in each, at a root x and its inverse.
            (a, b, w), (c, d, v) = (
                (c1[i], c1[j], m[i] - c0[i] - c0[j])
                for (c0, c1), m in zip((first, second), sums, strict=True)
            )
            inverse = pow(a * d - b * c, -1, q)
            values[i] = (w * d - b * v) * inverse % q
            values[j] = (a * v - w * c) * inverse % q
        return self._coefficients(np.array(values, dtype=np.uint64))

    def _conjugates(self) -> list[tuple[int, int]]:
        """Pairs of places whose roots are each other's inverse."""
        q, degree = self.prime, self.spec.parameters.poly_modulus_degree
        x = np.zeros((1, 1, degree), dtype=np.uint64)
        x[0, 0, 1] = 1
        roots = transform((q,), degree, degree).forward(x)[0, 0].tolist()
        places = {root: place for place, root in enumerate(roots)}
        pairs = ((places[root], places[pow(root, -1, q)]) for root in roots)
        return [(i, j) for i, j in pairs if i < j]

    def decrypt(self, key: Sequence[int], envelope: bytes) -> Array:
        """Slots of a ciphertext under a key that was found."""
        q, degree = self.prime, self.spec.parameters.poly_modulus_degree
        change = transform((q,), degree, degree)
        reduced = np.array([c % q for c in key], dtype=np.uint64)
        s = change.forward(reduced[None, None])[0, 0].tolist()
        c0, c1 = (row.tolist() for row in self.ciphertext(envelope))
        m = np.array([(a + b * k) % q for a, b, k in zip(c0, c1, s, strict=True)], dtype=np.uint64)
        plain = load_plaintext(self.context, m[None], self.cipher.level, self.cipher.scale)
        return self.context.decode(plain)

    def _coefficients(self, values: Residues) -> list[int]:
        q, degree = self.prime, len(values)
        change = transform((q,), degree, degree)
        found = change.project(values[None, None])[0, 0].tolist()
        return [c - q if c > q // 2 else c for c in found]


def is_key(coefficients: Sequence[int]) -> bool:
    """Whether this can be a secret key at all: SEAL's are ternary."""
    return all(c in TERNARY for c in coefficients)


def kolmogorov_smirnov(first: Array, second: Array) -> float:
    """How sure one may be that two samples are of the same distribution, about from 0 to 1.

    The two-sample test with Kolmogorov's asymptotic distribution (N. Smirnov, 1948).
    """
    a, b = np.sort(first.ravel()), np.sort(second.ravel())
    places = np.concatenate([a, b])
    below = np.searchsorted(a, places, "right") / len(a)
    gaps = np.abs(below - np.searchsorted(b, places, "right") / len(b))
    x = float(gaps.max() * np.sqrt(len(a) * len(b) / (len(a) + len(b))))
    terms = ((-1) ** (k - 1) * np.exp(-2.0 * (k * x) ** 2) for k in range(1, 101))
    return float(min(1.0, 2.0 * sum(terms)))
