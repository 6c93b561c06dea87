"""The default pipelines, as text that `hecompile opt` takes too."""

from __future__ import annotations

from collections.abc import Sequence

from hecompile.config import CompileOptions
from hecompile.passbase import Pass
from hecompile.pipeline import Pipeline, parse_pipeline

_SIMPLIFY = "normalise,fold-constants,fold-batchnorm,unroll-recurrent,normalise,cse,dce,drop-unread"
_FINISH_TENSOR = (
    "complete-square,merge-linear,cse,dce,join-maps,regroup-products,cse,dce,propagate-labels,"
    "require-polynomial"
)


def tensor_pipeline(options: CompileOptions, extra: Sequence[Pass] = ()) -> Pipeline:
    """From the imported model to affine maps, products and polynomials."""
    fit = [f"margin={options.fitting_margin!r}", f"method={options.method}"]
    if options.degree is not None:
        fit.append(f"degree={options.degree}")
    if options.max_degree is not None:
        fit.append(f"max_degree={options.max_degree}")
    approximate = f"calibrate,approximate{{{' '.join(fit)}}}"
    return _joined(_SIMPLIFY, extra, f"{approximate},{_FINISH_TENSOR}")


_WEIGHING = {
    "latency": "client=0.1",
    "throughput": "client=0.01",
    "client": "client=20.0 byte=1.6e-06",
    "keys": "key=1.0",
}
"""What counts in the search for layouts, beside the evaluator's seconds, by objective."""


def slot_planning(
    ring: int,
    options: CompileOptions,
    extra: Sequence[Pass] = (),
    keys: int | None = None,
    levels: int | None = None,
) -> Pipeline:
    """From tensors to slot operations with planned rotations, without levels.

    `keys` limits the number of Galois keys; 0 for as few as rotations in two hops allow. `levels`
    is what a segment between refreshes may use; None for no refreshes.
    """
    line = 0.0 if options.refresh == "client" else options.line.transfer(1)
    weighing = f"{_WEIGHING[options.optimize]} line={line!r}"
    text = ""
    if levels is not None:
        text = f"insert-refresh{{levels={levels} mask_bits={options.mask_bits}}},dce,"
    text += f"lower-to-slots{{slots={ring // 2} {weighing}}},cse,plan-rotations,cse,dce"
    if keys is not None:
        text += f",limit-rotation-keys{{keys={keys}}},cse,dce"
    if options.encrypt_model:
        text += ",encrypt-weights,cse,dce"
    return _joined(text, extra, "")


def calibration(samples: int | None = None) -> Pipeline:
    """Bounds of the slots; `samples` limits the samples on which they are observed."""
    return parse_pipeline(f"calibrate-slots{{samples={samples}}}" if samples else "calibrate-slots")


def slot_pipeline(
    ring: int,
    options: CompileOptions,
    samples: int | None = None,
    noise: float | None = None,
) -> Pipeline:
    """From slot operations to levels, scales and parameters.

    `samples` as in `calibration`; `noise` is the largest allowed on an output, None for the pass's
    own choice.
    """
    observed = f" samples={samples}" if samples else ""
    observed += f" noise={noise!r}" if noise is not None else ""
    return parse_pipeline(
        f"choose-parameters{{ring={ring}{observed}}},insert-management,assign-scales,cse,dce"
    )


CHECKS = "check-levels,check-scales,check-parameters,check-precision"
"""Checks of a finished program."""


def checks(noise: float | None = None) -> Pipeline:
    """Every check of a finished program; `noise` as in `slot_pipeline`."""
    return parse_pipeline(CHECKS if noise is None else f"{CHECKS}{{noise={noise!r}}}")


def _joined(first: str, extra: Sequence[Pass], last: str) -> Pipeline:
    head, tail = parse_pipeline(first), parse_pipeline(last) if last else Pipeline(())
    return Pipeline((*head.passes, *extra, *tail.passes))
