"""Approximation of activations by polynomials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hecompile.errors import CompileError, PassError
from hecompile.fitting import (
    Fitter,
    Node,
    NodeFit,
    observe_nodes,
    substitute,
    widen_to_seen,
)
from hecompile.interpret.compare import out_of_range, output_error
from hecompile.interpret.samples import as_samples, observe_ranges, with_ranges
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Activation, tensor_type
from hecompile.ir.types import Interval, TensorType
from hecompile.passbase import APPROXIMATION_SHARE, Context, Pass, register_pass

DEGREES = (3, 7, 15, 31, 63, 127)
"""Degrees worth trying: 2**k - 1 is the most that k levels evaluate."""

BETWEEN = {7: 5, 15: 11, 31: 23, 63: 47, 127: 95}
"""A degree that takes as many levels as another, with fewer products."""

BEST_EFFORT_DEGREE = 7
"""Largest degree where no precision was asked for."""

BEST_EFFORT_SHARE = 0.02
"""Error aimed at where no precision was asked for, as a share of an output's observed range."""

NEGLIGIBLE_SHARE = 0.1
"""An error this much smaller than one that cannot be mended is left as it is."""

SEARCH_SAMPLES = 64
"""Samples that degrees are searched on; what is found is then judged on all of them."""

_REFITS = 3


@register_pass
@dataclass(frozen=True)
class Approximate(Pass):
    """Replace each activation by polynomials, one a segment, on the range that calibration saw.

    Least squares weighted by the observed distribution ("weighted"), interpolation at Chebyshev
    nodes ("chebyshev") or the smallest largest error ("minimax"). Where the approximated program
    itself drives a value out of a fitted range, that range is widened and fitted again.

    Without `degree`, every activation starts at degree 3. While the largest error of any output on
    the calibration samples exceeds a quarter of the precision asked for (unseen samples may double
    it, the rest is left to the ciphertexts' noise), the activation that alone causes the largest
    error goes on to 7, 15, 31, 63, 127.
    Without a precision the aim is 2 % of the outputs' observed range, at degree 7 at most, and the
    best that this gives is taken.

    Polynomials are fitted and kept in the Chebyshev basis of their range. Their operand is mapped
    to [-1, 1] by a product and a sum with constants that merge-linear takes into the linear map
    before. Up to degree 7 there are powers of the operand itself where no such map comes before,
    which saves the level.

    Requires: calibrate, on the same samples; unroll-recurrent; a tensor program.
    Ensures: no tensor.activation; each tensor.polynomial tells its functions, fitted ranges and fit
    error; ranges in types hold the exact program's values and the approximated one's.

    Attributes:
        degree: one degree for all; None to choose.
        method: "weighted", "chebyshev" or "minimax".
        margin: share of the observed range's width that is added on either side.
        max_degree: largest degree to choose where a precision was asked for.
    """

    name: ClassVar[str] = "approximate"
    after: ClassVar[tuple[str, ...]] = ("unroll-recurrent", "calibrate")
    tolerance: ClassVar[float | None] = None
    degree: int | None = None
    method: str = "weighted"
    margin: float = 0.1
    max_degree: int = 127

    def run(self, program: Program, context: Context) -> Program:
        """Fit, choose degrees, and report each fit.

        Raises:
            PassError: the program is not calibrated, or a fit is impossible.
            CompileError: no degree allowed meets the precision asked for.
        """
        activations = program.select(Activation)
        if not activations:
            return program
        blank = [op for op in activations if tensor_type(op.x).interval is None]
        if blank:
            raise PassError(
                f"approximate: the range of {blank[0].x} is not known; run calibrate first"
            )
        samples = as_samples(program, context.samples(f"the pass '{self.name}'"))
        search = _Search(program, samples, Fitter(self.method, self.margin), context.precision)
        if self.degree is not None:
            search.degrees = dict.fromkeys(search.nodes, self.degree)
        else:
            self._choose(search, context)
        approximated = search.settle()
        self._tell(search, approximated, context)
        return _with_both_ranges(program, approximated, samples)

    def _choose(self, search: _Search, context: Context) -> None:
        largest = self.max_degree
        if context.precision is None:
            largest = min(largest, BEST_EFFORT_DEGREE)
        steps = [d for d in DEGREES if d < largest] + [largest]
        if search.climb(steps):
            search.thin()
            return
        if context.precision is not None:
            search.degrees = dict.fromkeys(search.nodes, largest)
            search.settle()
            if search.met():
                return
            raise CompileError(_refusal(search, context.precision))
        context.note(
            f"approximate: the outputs are off by up to {search.error():.3g} on the calibration"
            f" samples at degree {largest}, more than {BEST_EFFORT_SHARE:.0%} of their range;"
            " ask for a precision, or retrain with polynomial activations"
        )

    def _tell(self, search: _Search, approximated: Program, context: Context) -> None:
        for node in search.nodes.values():
            context.note(f"approximate: {_describe(node, search.fit(node))}")
        context.note(
            f"approximate: polynomials change the outputs by up to {search.error():.3g} on the"
            " calibration samples"
        )
        for outside in out_of_range(approximated, search.samples):
            if outside.fraction:
                context.note(
                    f"approximate: {outside.fraction:.2%} of the values at"
                    f" '{outside.location or outside.value}' leave the fitted range on the"
                    f" calibration samples, by up to {outside.excess:.3g}; raise the margin"
                )


class _Search:
    """Degrees of a program's activations, and what they do to its outputs.

    Attributes:
        nodes: the activations by the name of their result.
        samples: calibration samples.
        degrees: the degree of each activation, for now.

    Errors are searched on at most `SEARCH_SAMPLES` of the samples until those meet the targets,
    then on all; ranges and reported errors are always those of all samples.
    """

    def __init__(
        self,
        program: Program,
        samples: Mapping[str, Array],
        fitter: Fitter,
        precision: float | None,
    ) -> None:
        self.samples = samples
        self.nodes = observe_nodes(program, samples)
        self.degrees: dict[str, int] = {}
        self._program = program
        self._fitter = fitter
        self._expected = run_tensor(program, samples)
        count = len(next(iter(samples.values())))
        self._stride = max(1, -(-count // SEARCH_SAMPLES))
        self._targets = {
            label: BEST_EFFORT_SHARE * float(np.ptp(array))
            if precision is None
            else precision * APPROXIMATION_SHARE
            for label, array in self._expected.items()
        }

    def fit(self, node: Node) -> NodeFit:
        """The polynomials of one activation at its present degree."""
        return self._fitter.fit(node, self.degrees[node.name])

    def program(self, names: Mapping[str, object] | None = None) -> Program:
        """The program with all activations, or those named, approximated."""
        chosen = self.nodes if names is None else names
        return substitute(self._program, {name: self.fit(self.nodes[name]) for name in chosen})

    def error(self, names: Mapping[str, object] | None = None) -> float:
        """Largest error of any output, all activations, or those named, approximated."""
        return output_error(self._expected, _run(self.program(names), self.samples)).max

    def met(self) -> bool:
        """Whether every output meets its target, all activations approximated."""
        if self._excess(self.nodes) > 1.0:
            return False
        if self._stride > 1:
            self._stride = 1
            return self.met()
        return True

    def settle(self) -> Program:
        """Approximate; widen domains that the approximated program leaves, and fit again."""
        program = self.program()
        for _ in range(_REFITS):
            if not widen_to_seen(program, self.samples, self.nodes):
                break
            program = self.program()
        return program

    def climb(self, steps: list[int]) -> bool:
        """Raise degrees until every output meets its target; whether that worked.

        Where an activation misses the target by itself at the last step, activations that matter
        little beside it keep their degrees.
        """
        self.degrees = dict.fromkeys(self.nodes, steps[0])
        if self.met():
            self.settle()
            if self.met():
                return True
        alone = {name: self._excess({name: None}) for name in self.nodes}
        settled = False
        while True:
            # An activation that misses the target by itself spares the look at all together.
            if max(alone.values()) <= 1.0 and self.met():
                if settled:
                    return True
                self.settle()
                settled = True
                continue
            open_ = [name for name, degree in self.degrees.items() if degree < steps[-1]]
            stuck = max((alone[name] for name in self.nodes.keys() - open_), default=0.0)
            least = NEGLIGIBLE_SHARE * stuck if stuck > 1.0 else 0.0
            worst = max(open_, key=lambda name: alone[name], default=None)
            if worst is None or alone[worst] < least:
                return False
            self.degrees[worst] = steps[steps.index(self.degrees[worst]) + 1]
            alone[worst] = self._excess({worst: None})
            settled = False

    def thin(self) -> None:
        """Lower degrees that cost products but no levels, the last first, while targets are met."""
        known, domains = dict(self.degrees), dict(self.nodes)
        for name in reversed(list(self.nodes)):
            lower = BETWEEN.get(self.degrees[name])
            if lower is None:
                continue
            self.degrees[name] = lower
            if self._excess(self.nodes) > 1.0:
                self.degrees[name] = known[name]
        if self.degrees != known:
            self.settle()
            if self._excess(self.nodes) > 1.0:
                self.degrees, self.nodes = known, domains

    def _excess(self, names: Mapping[str, object]) -> float:
        """Largest error over target of any output, these activations approximated."""
        some = {label: array[:: self._stride] for label, array in self.samples.items()}
        expected = {label: array[:: self._stride] for label, array in self._expected.items()}
        found = output_error(expected, _run(self.program(names), some))
        ratios = [
            error.max / self._targets[label] if self._targets[label] else np.inf
            for label, error in found.outputs.items()
            if error.max
        ]
        return max(ratios, default=0.0)


def _run(program: Program, samples: Mapping[str, Array]) -> dict[str, Array]:
    with np.errstate(all="ignore"):
        return run_tensor(program, samples)


def _describe(node: Node, known: NodeFit) -> str:
    parts = ", ".join(
        f"{text} on [{one.domain[0]:.4g}, {one.domain[1]:.4g}] (error {one.max_error:.2g})"
        for text, one in zip(node.functions, known.fits, strict=True)
    )
    return f"'{node.op.location or node.name}' %{node.name}, degree {known.degree}: {parts}"


def _refusal(search: _Search, precision: float) -> str:
    lines = [
        f"approximate: a precision of {precision:g} leaves {precision * APPROXIMATION_SHARE:.3g}"
        " to the polynomials,"
        f" but the outputs are off by {search.error():.3g} on the calibration samples with:"
    ]
    alone = {name: search.error({name: None}) for name in search.nodes}
    for name in sorted(alone, key=lambda name: -alone[name]):
        node = search.nodes[name]
        lines.append(f"  {_describe(node, search.fit(node))}; alone off by {alone[name]:.3g}")
    lines.append(
        "remedy: ask for a larger --precision, allow a larger max_degree, retrain with polynomial"
        " activations (x*x), or scale the inputs so that the ranges above become narrower"
    )
    return "\n".join(lines)


def _with_both_ranges(
    original: Program, approximated: Program, samples: Mapping[str, Array]
) -> Program:
    """The approximated program with ranges that hold both programs' values."""
    ranges = observe_ranges(approximated, samples)
    for name, known in ranges.items():
        exact = _interval(original.definitions[name]) if name in original.definitions else None
        if exact is not None:
            lower, upper = min(known.lower, exact.lower), max(known.upper, exact.upper)
            ranges[name] = Interval(lower, upper)
    return with_ranges(approximated, ranges)


def _interval(op: Operation) -> Interval | None:
    return op.defined.type.interval if isinstance(op.defined.type, TensorType) else None
