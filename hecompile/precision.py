"""Prediction of a program's ciphertext noise and of the room its values need in the modulus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import ProgramError
from hecompile.interpret.lanes import look_at_bounds, look_closely
from hecompile.interpret.slots import repeat_to
from hecompile.interpret.traced import Traced
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Value
from hecompile.ir.parcels import Parcel, parcels
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.numeric import noise
from hecompile.numeric.masking import NOISE_SHARE, Content, room_needed
from hecompile.numeric.parameters import Parameters
from hecompile.passbase import UNSEEN_FACTOR
from hecompile.runtime.packing import unpack
from hecompile.sensitivity import Errors, Sensitivity
from hecompile.variances import Variances, bound_of, level_of, scale_of

CORRELATION = 2.0
"""Allowance in the variance for shared noise where no samples tell how much there is."""

_SWEEP_ELEMENTS = 1 << 24
_MOST_SWEPT, _FEWEST_SWEPT = 64, 6
_FIRST_SLOTS = 4
_TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class OutputNoise:
    """Predicted noise of one output: largest standard deviation and bound of a slot's error."""

    label: str
    deviation: float
    bound: float


def predict_noise(program: Program, traced: Traced | None = None) -> tuple[OutputNoise, ...]:
    """Predict the error that encryption adds to each output, in units of the output.

    The average case in the canonical embedding (see `numeric.noise`). A forward walk over telling
    samples finds the output slots with most noise; for these the derivative by every source of
    noise gives the variance with all correlations (see `sensitivity`). The bound allows for the
    tails in all elements of an output at once, with a failure probability of `noise.FAILURE` in
    that model; it is no proof. A trace keeps what follows from values and constants alone, for
    other plans of one program, and the latest answer.

    Args:
        program: with levels, scales and bounds.
        traced: the program on representative samples, or the one it was planned from; without it
            every slot counts as large as its ciphertext's bound.

    Raises:
        ProgramError: a value has no level, scale or bound.
    """
    return _predicted(program, traced)[0]


def mask_noise(program: Program, traced: Traced | None = None) -> dict[str, float]:
    """How much noise each value carries up to the key holder, over what its mask is sized for.

    Masks are sized for a root mean square of `masking.NOISE_SHARE` of the value's bound; beyond 1
    they hide fewer bits than they promise.

    Args:
        program: see `predict_noise`.
        traced: see `predict_noise`.

    Returns:
        By the value's name; without what goes up unmasked.
    """
    return _predicted(program, traced)[1]


_Predicted = tuple[tuple[OutputNoise, ...], dict[str, float]]


def _predicted(program: Program, traced: Traced | None) -> _Predicted:
    if traced and traced.told is not None and traced.told[0] is program:
        told: _Predicted = traced.told[1]
        return told
    # Where noise feeds on itself it may grow past all numbers; the bound then is infinite.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        prediction = _Prediction(program, traced)
        found = tuple(prediction.output(op) for op in program.select(he.Output))
        shares = prediction.shares()
    if traced:
        traced.told = program, (found, shares)
    return found, shares


class _Prediction:
    def __init__(self, program: Program, traced: Traced | None) -> None:
        if program.parameters is None:
            raise ProgramError(f"program '{program.name}' has no parameters; run choose-parameters")
        self._program = program
        self._parameters: Parameters = program.parameters
        self._seen = look_closely(program, traced) if traced else look_at_bounds(program)
        self._variances = Variances(program, self._parameters, self._seen)
        self._sampled = bool(traced)

    def shares(self) -> dict[str, float]:
        """See `mask_noise`."""
        return {
            name: rms / (NOISE_SHARE * bound_of(self._program.definitions[name].defined))
            for name, rms in self._variances.handed.items()
        }

    def output(self, op: he.Output) -> OutputNoise:
        """Noise of the worst elements of an output on the worst runs."""
        count = math.prod(op.dims) * self._program.batch
        decoding = max(noise.float_rounding(self._parameters, bound_of(v)) for v in op.xs)
        estimates = [self._estimate(v) for v in op.xs]
        flat = np.concatenate([variance.ravel() for _, variance in estimates])
        if not np.all(np.isfinite(flat)):
            return OutputNoise(op.label, math.inf, math.inf)
        if not self._sampled:
            variance = CORRELATION * (float(flat.max()) + decoding)
            return OutputNoise(op.label, math.sqrt(variance), noise.bound(variance, count))
        rows, rest = self._worst(estimates)
        errors = self._sweep(op, [(p, len(v)) for p, v in estimates], rows)
        square = errors.variance + errors.known**2
        if not np.all(np.isfinite(square)):
            return OutputNoise(op.label, math.inf, math.inf)
        # Elements left out are taken to exceed their estimates as the worst of the others do.
        left = rest * max(1.0, float(np.max(square / np.maximum(flat[rows], _TINY))))
        scale = math.sqrt(max(1.0, left / max(float(square.max()), _TINY)))
        # Known errors follow the values of the samples, and unseen ones may be larger.
        bound = max(
            UNSEEN_FACTOR * abs(known) + noise.bound(variance + decoding, count, terms=terms)
            for known, variance, terms in zip(
                errors.known, errors.variance, errors.terms, strict=True
            )
        )
        return OutputNoise(
            op.label, scale * math.sqrt(float(square.max()) + decoding), scale * float(bound)
        )

    def _worst(
        self, estimates: Sequence[tuple[NDArray[np.int64], Array]]
    ) -> tuple[NDArray[np.int64], float]:
        """What to sweep: rows of the listed (run, element) pairs, and the largest estimate left.

        Each element comes with its worst run before any comes twice, for noise that adds up
        coherently escapes the estimates, and not alike in all elements. The first slots always
        come, where the part of key-switch noise that repeats is largest.
        """
        flat = np.concatenate([variance.ravel() for _, variance in estimates])
        sizes = np.cumsum([0, *(len(places) for places, _ in estimates)])
        element = np.concatenate(
            [
                np.tile(np.arange(len(p)), len(v)) + n
                for (p, v), n in zip(estimates, sizes, strict=False)
            ]
        )
        place = np.concatenate([np.tile(p, len(v)) for p, v in estimates])
        order = np.argsort(-flat, kind="stable")
        _, first = np.unique(element[order], return_index=True)
        leading = order[np.sort(first)]
        foremost = leading[np.argsort(place[leading], kind="stable")][:_FIRST_SLOTS]
        again = np.setdiff1d(order, leading, assume_unique=True)
        again = again[np.argsort(-flat[again], kind="stable")]
        middle = leading[~np.isin(leading, foremost)]
        ranked = np.concatenate([foremost, middle, again])[: self._rows()]
        unswept = ~np.isin(element, element[ranked])
        return ranked, float(flat[unswept].max(initial=0.0))

    def _rows(self) -> int:
        size = self._seen.lanes.width * len(self._program.operations)
        return min(max(_SWEEP_ELEMENTS // size, _FEWEST_SWEPT), _MOST_SWEPT)

    def _estimate(self, value: Value) -> tuple[NDArray[np.int64], Array]:
        """Where a ciphertext's elements are, and a first estimate: (runs or 1, elements)."""
        lanes, facts = self._seen.lanes, he.cipher_type(value)
        slots = np.arange(facts.period)
        if facts.layout is not None:
            held = unpack(slots[None].astype(float), facts.layout, self._program.batch)
            slots = np.unique(held).astype(np.int64)
        places = lanes.places(slots)
        variance = repeat_to(self._variances.of[value.name].total(), lanes.width_of(facts.period))
        return places, variance[:, places]

    def _sweep(
        self, op: he.Output, shapes: list[tuple[NDArray[np.int64], int]], rows: NDArray[np.int64]
    ) -> Errors:
        """Errors of some of the elements that `_estimate` lists, value by value."""
        values, places, runs = [], [], []
        ends = np.cumsum([len(p) * count for p, count in shapes])
        for row in rows:
            which = int(np.searchsorted(ends, row, side="right"))
            own, count = shapes[which]
            run, element = divmod(int(row - ends[which]) + len(own) * count, len(own))
            values.append(op.xs[which])
            places.append(int(own[element]))
            runs.append(run)
        sensitivity = Sensitivity(self._program, self._seen, self._variances)
        return sensitivity.errors(values, np.array(places), np.array(runs))


def missing_headroom(program: Program) -> dict[str, float]:
    """Bits that the modulus lacks for each ciphertext's largest value; negative where it has more.

    A slot value times its scale must stay below half the modulus of its level, with one bit to
    spare; what is handed over for a refresh carries its mask too, with slots that are computed
    with exactly.

    Raises:
        ProgramError: a value has no level, scale or bound.
    """
    if program.parameters is None:
        raise ProgramError(f"program '{program.name}' has no parameters; run choose-parameters")
    missing: dict[str, float] = {}
    for op in program:
        if op.result is not None and isinstance(op.result.type, CipherType):
            missing[op.result.name] = _lacking(program.parameters, op.defined)
    carried = parcels(program)
    for op in program.select(he.Refresh):
        for parcel in carried[op.group]:
            if set(parcel.values) & set(op.xs):
                masked = _lacking_for_mask(program.parameters, parcel, scale_of(op.defined))
                for x in parcel.values:
                    missing[x.name] = max(missing[x.name], masked)
    return missing


def _lacking(parameters: Parameters, value: Value) -> float:
    needed = math.log2(bound_of(value)) + math.log2(scale_of(value)) + 2
    return needed - math.log2(parameters.modulus(level_of(value)))


def _lacking_for_mask(parameters: Parameters, parcel: Parcel, scale: float) -> float:
    contents = [Content(he.cipher_type(x).period, bound_of(x) * scale_of(x)) for x in parcel.values]
    growth = math.log2(scale / min(map(scale_of, parcel.values)))
    room = room_needed(parameters.poly_modulus_degree, contents, parcel.mask_bits, growth)
    return room.lacking(math.log2(parameters.modulus(level_of(parcel.values[0]))))
