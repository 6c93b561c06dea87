"""Polynomials of integers to SEAL plaintexts and back, exactly."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal

from hecompile.runtime.context import Context
from hecompile.runtime.ntt import Residues, Transform, transform
from hecompile.runtime.plaintexts import PlaintextAccess, load_plaintext
from hecompile.runtime.rawmemory import LayoutError, load_stream
from hecompile.runtime.residues import ResidueAccess, residue_access, warn_slow
from hecompile.runtime.wide import Double, Wide

# What seal::Ciphertext::save_members writes before the residues.
_MEMBERS: Final = struct.Struct("<4Q?3QdQ")
_LONG: Final = 1024
"""From this length on SEAL's transform is quicker, where its results can be read."""
_MOST: Final = 16
"""Polynomials that SEAL allows in a ciphertext."""


class RingValues:
    """Converts between integer polynomials and plaintexts of one context."""

    def __init__(self, context: Context) -> None:
        """Prepare for the context."""
        self._context = context
        self._degree = context.parameters.poly_modulus_degree
        self._evaluator: Any = seal.Evaluator(context.seal)
        self._access: PlaintextAccess | None = None
        self._tried = False

    def prepare(self, level: int, size: int) -> None:
        """Compute now what polynomials of that level and length will need."""
        if size < _LONG:
            self._transform(level, size)

    def plaintexts(self, polynomials: list[Wide], level: int, scales: list[float]) -> list[Any]:
        """Plaintexts of polynomials in X**(N/n), for any n that divides N.

        Args:
            polynomials: The n coefficients of each.
            level: The plaintexts' level.
            scales: Their scales.
        """
        found: dict[int, Any] = {}
        sizes = [len(one.low) for one in polynomials]
        for size in dict.fromkeys(sizes):
            chosen = [n for n, other in enumerate(sizes) if other == size]
            stacked = Wide(
                np.stack([polynomials[n].high for n in chosen]),
                np.stack([polynomials[n].low for n in chosen]),
            )
            values = self._values(stacked, level)
            for place, n in enumerate(chosen):
                found[n] = load_plaintext(self._context, values[:, place], level, scales[n])
        return [found[n] for n in range(len(polynomials))]

    def coefficients(self, plain: Any, level: int, size: int) -> Double:
        """The coefficients of X**(kN/size), whatever the others are.

        Args:
            plain: A plaintext.
            level: Its level.
            size: How many coefficients.

        Returns:
            Shape (size,), each the integer of least absolute value that it can be.
        """
        values = self._residues(plain, level)
        if size >= _LONG:
            try:
                return self._coefficients_by_seal(values, level, size)
            except LayoutError as error:
                warn_slow(f"masked values take about 10 times longer to read: {error}.")
        change = self._transform(level, size)
        found = change.moduli.integers(change.project(values[:, None]))
        return Double(found.high[0], found.low[0])

    def _coefficients_by_seal(self, values: Residues, level: int, size: int) -> Double:
        access, moduli = residue_access(self._context), self._transform(level, 1).moduli
        # A ciphertext has two polynomials or more.
        both = np.stack([values, values])
        members = _MEMBERS.pack(
            *self._context.parms_ids[level], True, 2, self._degree, level + 1, 1.0, 1
        )
        value = load_stream(self._context, seal.Ciphertext(), members, both)
        self._evaluator.transform_from_ntt_inplace(value)
        return moduli.integers(access.view(value)[0, :, :: self._degree // size])

    def _transform(self, level: int, size: int) -> Transform:
        return transform(self._context.parameters.data_primes[: level + 1], self._degree, size)

    def _values(self, polynomials: Wide, level: int) -> Residues:
        """Values in all N places, shape (primes, polynomials, N)."""
        size = polynomials.low.shape[1]
        if size >= _LONG:
            try:
                return self._values_by_seal(polynomials, level)
            except LayoutError as error:
                warn_slow(f"masks take about 10 times longer: {error}.")
        change = self._transform(level, size)
        return change.spread(change.forward(change.moduli.residues(polynomials)))

    def _values_by_seal(self, polynomials: Wide, level: int) -> Residues:
        access = residue_access(self._context)
        count, size = polynomials.low.shape
        residues = self._transform(level, 1).moduli.residues(polynomials)
        if size == self._degree and 1 < count <= _MOST and residues[:, 1].any():
            return self._by_seal(residues.swapaxes(0, 1), level, access)
        found = []
        for start in range(0, count, _MOST - 1):
            part = residues[:, start : start + _MOST - 1].swapaxes(0, 1)
            # A ciphertext has two polynomials or more, the first of which may be zero.
            whole = np.ones((1 + len(part), level + 1, self._degree), dtype=np.uint64)
            whole[:-1] = 0
            whole[:-1, :, :: self._degree // size] = part
            found.append(self._by_seal(whole, level, access)[:, :-1])
        return np.concatenate(found, axis=1)

    def _by_seal(self, residues: Residues, level: int, access: ResidueAccess) -> Residues:
        """Values of polynomials, shape (polynomials, primes, N), with primes first."""
        count, primes, degree = residues.shape
        identity = self._context.parms_ids[level]
        members = _MEMBERS.pack(*identity, False, count, degree, primes, 1.0, 1)
        value = load_stream(self._context, seal.Ciphertext(), members, residues)
        self._evaluator.transform_to_ntt_inplace(value)
        # The view keeps the ciphertext alive, and nothing changes it.
        return access.view(value).swapaxes(0, 1)

    def _residues(self, plain: Any, level: int) -> Residues:
        """A plaintext's residues, shape (primes, N)."""
        if not self._tried:
            self._tried = True
            try:
                self._access = PlaintextAccess(self._context)
            except LayoutError as error:
                warn_slow(f"plaintexts take about 10 times longer to read: {error}.")
        if self._access is not None:
            return np.array(self._access.view(plain))
        count = (level + 1) * self._degree
        words = np.fromiter(map(plain.data, range(count)), dtype=np.uint64, count=count)
        return words.reshape(level + 1, self._degree)
