"""What a compilation promises and predicts, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from hecompile.estimate import Estimate
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Polynomial
from hecompile.numeric import noise
from hecompile.numeric.parameters import Parameters
from hecompile.packing.depth import Levels
from hecompile.segments import Line, Segment

ERROR_HOLDS_FOR: Final = "samples like those of calibration"
"""What the predicted error is a bound for."""


@dataclass(frozen=True)
class FitReport:
    """One activation's polynomial: what it replaces, where it was fitted, how well."""

    node: str
    functions: tuple[str, ...]
    degree: int
    lower: float
    upper: float
    fit_error: float
    outside: float


@dataclass(frozen=True)
class Report:
    """The facts of a compiled program.

    Attributes:
        program: the model's name.
        parameters: encryption parameters.
        batch: samples in one evaluation.
        depth: multiplicative depth of the whole program, levels.
        levels: levels that the parameters give between refreshes.
        estimate: predicted operations, keys, bytes and seconds.
        mask_bits: statistical hiding of all refreshes of an evaluation together, bits; 0 without
            refreshes.
        approximation_error: bound of the polynomials' error on an output, from calibration.
        noise_error: bound of the ciphertext noise on an output.
        reference_error: room for the rounding of the model's own float32 arithmetic.
        predicted_error: bound on the distance between a decrypted output and the model's, on
            samples like those of calibration, in all evaluations but a share of `noise.FAILURE`.
        precision: what was asked for; None for no promise.
        fits: the polynomials.
        calibration_samples: samples fitted on.
        line: what rounds with the key holder were priced by.
    """

    program: str
    parameters: Parameters
    batch: int
    depth: int
    levels: int
    estimate: Estimate
    mask_bits: int
    approximation_error: float
    noise_error: float
    reference_error: float
    precision: float | None
    fits: tuple[FitReport, ...]
    calibration_samples: int
    line: Line = field(default_factory=Line)

    @property
    def predicted_error(self) -> float:
        """Bound on the distance between a decrypted output and the model's."""
        return self.approximation_error + self.noise_error + self.reference_error

    def to_json(self) -> dict[str, object]:
        """The report as plain JSON values; seconds, bytes, bits and levels as named."""
        predicted = self.estimate
        return {
            "program": self.program,
            "parameters": self.parameters.to_json(),
            "batch": self.batch,
            "depth": self.depth,
            "levels": self.levels,
            "op_counts": predicted.op_counts,
            "op_counts_by_level": {str(k): v for k, v in predicted.op_counts_by_level.items()},
            "key_switches": predicted.key_switches,
            "galois_keys": len(predicted.rotation_steps),
            "rotation_steps": list(predicted.rotation_steps),
            "galois_key_bytes": predicted.galois_key_bytes,
            "refreshes": predicted.refreshes,
            "refreshed_ciphertexts": predicted.refreshed_ciphertexts,
            "refresh_bytes": predicted.refresh_bytes,
            "segments": [self._segment(one) for one in predicted.segments],
            "mask_bits": self.mask_bits,
            "rtt_seconds": self.line.rtt,
            "bandwidth_bits_per_second": self.line.bandwidth,
            "predicted_error": self.predicted_error,
            "predicted_error_parts": {
                "approximation": self.approximation_error,
                "noise": self.noise_error,
                "reference": self.reference_error,
            },
            "error_holds_for": ERROR_HOLDS_FOR,
            "error_failure_probability": noise.FAILURE,
            "precision": self.precision,
            "cost_model": predicted.cost_model,
            "predicted_seconds": predicted.evaluator_seconds,
            "predicted_client_seconds": predicted.client_seconds,
            "predicted_line_seconds": predicted.line_seconds(self.line),
            "predicted_memory_bytes": predicted.memory_bytes,
            "predicted_keygen_seconds": predicted.keygen_seconds,
            "predicted_load_seconds": predicted.load_seconds,
            "evaluation_key_bytes": predicted.evaluation_key_bytes,
            "evaluation_key_file_bytes": predicted.evaluation_key_file_bytes,
            "upload_bytes": predicted.upload_bytes,
            "download_bytes": predicted.download_bytes,
            "weight_bytes": predicted.weight_bytes,
            "input_bytes": predicted.input_bytes,
            "output_bytes": predicted.output_bytes,
            "activations": [asdict(fit) for fit in self.fits],
            "calibration_samples": self.calibration_samples,
        }

    def _segment(self, segment: Segment) -> dict[str, object]:
        return asdict(segment) | {"line_seconds": self.line.round_seconds(segment)}

    def to_text(self) -> str:
        """The report as indented JSON text, ending in a line break."""
        return json.dumps(self.to_json(), indent=2) + "\n"


@dataclass(frozen=True)
class Stage:
    """One step of a tensor program that consumes levels, and the depth reached after it."""

    name: str
    levels: int
    total: int


def deepest_chain(program: Program) -> tuple[Stage, ...]:
    """The stages of a deepest chain of a polynomial tensor program that take levels, in order.

    An affine map and a product take one level, a polynomial what its evaluation takes.
    """
    levels = Levels(program)
    reached = levels.used()
    definitions = {op.result.name: op for op in program if op.result is not None}
    found: list[Stage] = []
    name = max(reached, key=lambda value: reached[value], default="")
    while name:
        op = definitions[name]
        if own := levels.of(op):
            found.append(Stage(op.location or f"{op.name} {op.result}", own, reached[name]))
        before = (value.name for value in op.operands)
        name = max(before, key=lambda value: reached[value], default="")
    return tuple(reversed(found))


def fit_reports(program: Program, outside: Mapping[str, float]) -> tuple[FitReport, ...]:
    """One report a polynomial; `outside` gives the fraction of values beyond its range."""
    return tuple(
        FitReport(
            op.location or str(op.result),
            op.functions,
            op.degree,
            min(op.lower, default=0.0),
            max(op.upper, default=0.0),
            op.fit_error,
            outside.get(op.defined.name, 0.0),
        )
        for op in program.select(Polynomial)
        if op.functions
    )
