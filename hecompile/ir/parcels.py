"""Which values of a round of refreshes share a ciphertext on their way to the key holder.

Two values x and y go as x + X**(N/2) * y, which is exact and takes no level: X**(N/2) is i or -i in
every slot, and slots are real, so that the two lie in orthogonal halves of the coefficients. What
one of them has of noise in imaginary parts comes out as noise of the other.

The mask_bits of refreshes are about all that goes up in an evaluation: statistical distances add
up, so each of n masked ciphertexts is masked with ceil(log2(n)) bits more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hecompile.ir import he_ops as he
from hecompile.ir.operation import Value
from hecompile.ir.program import Program


@dataclass(frozen=True)
class Parcel:
    """A ciphertext that goes up to the key holder.

    Attributes:
        values: One, or two at one level: the real part, then the imaginary.
        bounds: The largest absolute slot of each; None where it is not known.
        mask_bits: Bits of its own mask: the most that a refresh of one of them asks for, and those
            that make up for the number of ciphertexts; 0 where none is asked for.
    """

    values: tuple[Value, ...]
    bounds: tuple[float | None, ...]
    mask_bits: int


def parcels(program: Program) -> dict[int, tuple[Parcel, ...]]:
    """What goes up in the round of each group, in the order in which refreshes read it."""
    single: dict[int, dict[Value, Parcel]] = {}
    for op in program.select(he.Refresh):
        known = single.setdefault(op.group, {})
        for x in op.xs:
            bound = he.cipher_type(x).bound
            if bound is None and op.gather is None:
                bound = he.cipher_type(op.defined).bound
            before = known.get(x)
            bits = max(op.mask_bits, before.mask_bits if before else 0)
            known[x] = Parcel((x,), (bound,), bits)
    joined = {group: _joined(known.values()) for group, known in single.items()}
    masked = sum(parcel.mask_bits > 0 for found in joined.values() for parcel in found)
    more = (masked - 1).bit_length() if masked else 0
    return {group: tuple(_with_more(one, more) for one in found) for group, found in joined.items()}


def _with_more(parcel: Parcel, bits: int) -> Parcel:
    return replace(parcel, mask_bits=parcel.mask_bits + bits) if parcel.mask_bits else parcel


def _joined(single: Iterable[Parcel]) -> tuple[Parcel, ...]:
    """Pairs of values at one level, each with the next one there is."""
    found: list[Parcel] = []
    alone: dict[int | None, int] = {}
    for own in single:
        level = he.cipher_type(own.values[0]).level
        if level in alone:
            place = alone.pop(level)
            first = found[place]
            bits = max(first.mask_bits, own.mask_bits)
            found[place] = Parcel(first.values + own.values, first.bounds + own.bounds, bits)
        else:
            alone[level] = len(found)
            found.append(own)
    return tuple(found)


def partners(program: Program) -> dict[tuple[int, str], Value]:
    """The other value of each that travels with another one, by group and name."""
    return {
        (group, value.name): other
        for group, found in parcels(program).items()
        for parcel in found
        for value, other in zip(parcel.values, reversed(parcel.values), strict=True)
        if value is not other
    }
