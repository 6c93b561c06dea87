"""Both sides of a refresh: masks put on and taken off, and slots put in another order.

The evaluator adds a polynomial r of random integers to each ciphertext that goes up. The key holder
decrypts m + r, an exact integer in each coefficient, and sends back round(f(m + r)), encrypted,
where f keeps the slots' mean over their repetitions, gathers them and brings them to another scale.
The evaluator subtracts round(f(r)). As f is linear to within 2**-100 of the mask, what remains is
f(m) and two roundings of half an integer each, no matter how large r was, and even where f(m + r)
is beyond the modulus: both sides are exact modulo each prime.

The key holder sees m + r, where m is the values and all of the noise, and the second polynomial of
each ciphertext. Left as it is, that one would give values away: where a fresh ciphertext, which the
key holder made, is multiplied and comes back, its coefficients solve for the masked value. So the
evaluator adds a fresh encryption of zero, which makes it pseudorandom whatever it was. The public
key for that is the last of the relinearization key's parts: it encrypts zero modulo all primes but
one, which is in use at the two highest levels: no program hands masked values over from there.
Rounds without mask bits are not hidden so.

Two values travel in one ciphertext where there are two, as `hecompile.ir.parcels` says.

The key holder answers each request alike, whatever it decrypts, so that no refusal tells of the
secret key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from hecompile.ir import he_ops as he
from hecompile.ir.parcels import parcels
from hecompile.ir.program import Program
from hecompile.numeric.masking import mask_bits_needed
from hecompile.runtime.admission import masked_contents
from hecompile.runtime.context import Context
from hecompile.runtime.masks import MaskSource, mask_size
from hecompile.runtime.relayout import Pool, Taken, fourier, separated
from hecompile.runtime.ringvalues import RingValues
from hecompile.runtime.spec import CipherSpec, RefreshSpec
from hecompile.runtime.wide import Double, Wide, double_of


class Relayout:
    """What happens to the slots in one round, the same on both sides."""

    def __init__(self, round_: RefreshSpec) -> None:
        """Take the round of a specification that was checked."""
        self.round = round_
        self._taken = []
        for cipher, runs in zip(round_.response, round_.taken, strict=True):
            gather = runs.gather()
            ratios = tuple(cipher.scale / source.scale for source in round_.values)
            self._taken.append(Taken(gather.source, gather.place, ratios))

    def prepare(self, ring: RingValues) -> None:
        """Compute tables now, so that the first evaluation is as quick as others."""
        for cipher in (*self.round.values, *self.round.response):
            fourier(cipher.period)
        for cipher in self.round.response:
            ring.prepare(cipher.level, 2 * cipher.period)

    def results(self, polynomials: Sequence[Double]) -> list[Wide]:
        """The results' coefficients, from those of what came, as long as `lengths` says."""
        pairs = zip(polynomials, self.round.parcels, strict=True)
        values = [separated(x, [value.period for value in parcel]) for x, parcel in pairs]
        return Pool([value for parts in values for value in parts]).gather(self._taken)

    @property
    def lengths(self) -> list[int]:
        """How many coefficients of each polynomial of the request tell of its values."""
        return [2 * max(value.period for value in parcel) for parcel in self.round.parcels]

    def plaintexts(self, ring: RingValues, polynomials: Sequence[Double]) -> list[Any]:
        """The results as plaintexts at their levels and scales."""
        return _at_levels(ring, self.results(polynomials), self.round.response)


def mask_sizes(program: Program) -> dict[tuple[int, str], int]:
    """How large the masks are, of an admitted program.

    Returns:
        M by group and name of the first value in each ciphertext that goes up.
    """
    degree = program.parameters.poly_modulus_degree if program.parameters is not None else 0
    return {
        (group, one.values[0].name): mask_size(
            mask_bits_needed(degree, masked_contents(one), one.mask_bits)
        )
        for group, found in parcels(program).items()
        for one in found
    }


class MaskedRounds:
    """The evaluator's side of a program's refreshes."""

    def __init__(
        self, program: Program, rounds: Sequence[RefreshSpec], context: Context, relin: Any
    ) -> None:
        """Find out how large the masks of a program are that was admitted.

        Args:
            program: The program.
            rounds: Its rounds.
            context: Its context.
            relin: SEAL's relinearization key.
        """
        self._context = context
        self._evaluator: Any = seal.Evaluator(context.seal)
        # The parts lie in the key's own memory; SEAL copies the one that it encrypts with.
        self._zeros: Any = seal.Encryptor(context.seal, relin.key(2)[-1])
        self._hidden = {op.group for op in program.select(he.Refresh) if op.mask_bits}
        degree = context.parameters.poly_modulus_degree
        self._degree = degree
        self._ring = RingValues(context)
        self._rounds = {one.group: Relayout(one) for one in rounds}
        self._sizes = mask_sizes(program)
        self._units: dict[int, Any] = {}
        for relayout in self._rounds.values():
            relayout.prepare(self._ring)

    def packed(self, live: Mapping[str, Any], group: int) -> list[Any]:
        """The ciphertexts of a round's request before they are masked, from values by name."""
        return [
            self._packed([live[value.name] for value in parcel], parcel[0].level)
            for parcel in self._rounds[group].round.parcels
        ]

    def _packed(self, values: Sequence[Any], level: int) -> Any:
        if len(values) == 1:
            return values[0]
        if level not in self._units:
            # X**(N/2), the imaginary unit or its opposite in each slot.
            unit = Wide(np.zeros(2, dtype=np.int64), np.array([0, 1]))
            (self._units[level],) = self._ring.plaintexts([unit], level, [1.0])
        real, imaginary = values
        both = seal.Ciphertext()
        self._evaluator.multiply_plain(imaginary, self._units[level], both)
        # Integers are added: the key holder knows the scale of either part.
        both.scale = real.scale
        self._evaluator.add_inplace(both, real)
        return both

    def masks(self, source: MaskSource, group: int) -> list[Any]:
        """Plaintexts to add to the ciphertexts of a round's request."""
        request = self._rounds[group].round.request
        polynomials = [self._mask(source, group, cipher) for cipher in request]
        return _at_levels(self._ring, polynomials, request)

    def hide(self, group: int, cipher: CipherSpec, masked: Any) -> None:
        """Make the second polynomial of a masked ciphertext pseudorandom, in place."""
        if group not in self._hidden:
            return
        zero = seal.Ciphertext()
        self._zeros.encrypt_zero(self._context.parms_ids[cipher.level], zero)
        zero.scale = masked.scale
        self._evaluator.add_inplace(masked, zero)

    def unmasks(self, source: MaskSource, group: int) -> list[Any]:
        """Plaintexts to subtract from the ciphertexts of its response."""
        relayout = self._rounds[group]
        kept = [
            double_of(self._mask(source, group, cipher, self._degree // length))
            for cipher, length in zip(relayout.round.request, relayout.lengths, strict=True)
        ]
        return relayout.plaintexts(self._ring, kept)

    def _mask(self, source: MaskSource, group: int, cipher: CipherSpec, every: int = 1) -> Wide:
        # A value that goes up in two rounds must not have the same mask in both.
        size = self._sizes[group, cipher.name]
        return source.mask(f"{group}/{cipher.name}", self._degree, size, every)


class KeyHolder:
    """The key holder's side of refreshes."""

    def __init__(self, context: Context, key: Any) -> None:
        """Take SEAL's secret key of a context."""
        self._ring = RingValues(context)
        self._decryptor: Any = seal.Decryptor(context.seal, key)
        self._encryptor: Any = seal.Encryptor(context.seal, key)
        self._rounds: dict[int, Relayout] = {}

    def answer(self, round_: RefreshSpec, request: Sequence[Any]) -> list[Any]:
        """Fresh ciphertexts of a round's results, from the masked ones of its request."""
        known = self._rounds.get(round_.group)
        if known is None or known.round != round_:
            known = self._rounds[round_.group] = Relayout(round_)
        seen = [
            self._seen(*one) for one in zip(request, round_.request, known.lengths, strict=True)
        ]
        results = []
        for plain in known.plaintexts(self._ring, seen):
            results.append(seal.Ciphertext())
            self._encryptor.encrypt_symmetric(plain, results[-1])
        return results

    def _seen(self, value: Any, cipher: CipherSpec, length: int) -> Double:
        plain = seal.Plaintext()
        self._decryptor.decrypt(value, plain)
        return self._ring.coefficients(plain, cipher.level, length)


def _at_levels(
    ring: RingValues, polynomials: Sequence[Wide], ciphers: Sequence[CipherSpec]
) -> list[Any]:
    found: dict[int, Any] = {}
    levels = [cipher.level for cipher in ciphers]
    for level in dict.fromkeys(levels):
        chosen = [n for n, other in enumerate(levels) if other == level]
        scales = [ciphers[n].scale for n in chosen]
        plains = ring.plaintexts([polynomials[n] for n in chosen], level, scales)
        found |= dict(zip(chosen, plains, strict=True))
    return [found[n] for n in range(len(ciphers))]
