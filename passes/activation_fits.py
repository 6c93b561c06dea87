"""Polynomials for the activations of a program: what they see, how they are fitted and put in.

No pass of its own; the pass approximate chooses degrees and reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from hecompile.errors import HecompileError, PassError
from hecompile.interpret.compare import segments
from hecompile.interpret.tensor import trace_tensor
from hecompile.ir.constants import Array
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import Activation, Polynomial
from hecompile.numeric.activations import parse_activation
from hecompile.numeric.fit import Fit, fit, widen

Domain = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Node:
    """An activation and what it sees.

    Attributes:
        op: the activation.
        seen: values observed in each segment, flattened.
        domains: range of each segment that a polynomial must hold on, before the margin.
    """

    op: Activation
    seen: tuple[Array, ...]
    domains: tuple[Domain, ...]

    @property
    def name(self) -> str:
        """Name of the value that the activation gives."""
        return self.op.defined.name

    @property
    def functions(self) -> tuple[str, ...]:
        """The function of each segment."""
        return self.op.functions


@dataclass(frozen=True, eq=False)
class NodeFit:
    """Polynomials of one degree for the segments of one activation."""

    degree: int
    fits: tuple[Fit, ...]

    @property
    def max_error(self) -> float:
        """Largest distance from the functions over the fitted domains."""
        return max(one.max_error for one in self.fits)

    @property
    def table(self) -> Array:
        """Coefficients in ascending powers: (degree + 1, segments), no row of zeros at the end."""
        reached = max(one.polynomial.degree for one in self.fits)
        table = np.zeros((reached + 1, len(self.fits)))
        for i, one in enumerate(self.fits):
            coefficients = one.polynomial.coefficients
            table[: len(coefficients), i] = coefficients
        return table


def observe_nodes(program: Program, samples: Mapping[str, Array]) -> dict[str, Node]:
    """Every activation with what it sees on the samples, by the name of its result.

    Args:
        program: a tensor program.
        samples: by input label, (S, *shape of the input).
    """
    readers: dict[str, list[Activation]] = {}
    for op in program.select(Activation):
        readers.setdefault(op.x.name, []).append(op)
    found: dict[str, Node] = {}
    with np.errstate(all="ignore"):
        for definition, array in trace_tensor(program, samples):
            for op in readers.get(definition.defined.name, ()):
                seen = tuple(array[..., place].ravel() for place in segments(op))
                found[op.defined.name] = Node(op, seen, tuple(map(_range, seen)))
    return found


@dataclass(frozen=True)
class Fitter:
    """Fits polynomials, each once.

    Attributes:
        method: as in `numeric.fit.fit`.
        margin: share of a domain's width that is added on either side.
    """

    method: str
    margin: float
    _known: dict[tuple[str, int, tuple[Domain, ...]], NodeFit] = field(
        default_factory=dict, compare=False, repr=False
    )

    def fit(self, node: Node, degree: int) -> NodeFit:
        """Fit a polynomial of at most this degree on each segment of an activation.

        Raises:
            HecompileError: the fit is impossible; the message names the node.
        """
        key = (node.name, degree, node.domains)
        if key not in self._known:
            self._known[key] = NodeFit(degree, tuple(self._segments(node, degree)))
        return self._known[key]

    def _segments(self, node: Node, degree: int) -> list[Fit]:
        fits = []
        for text, domain, seen in zip(node.functions, node.domains, node.seen, strict=True):
            try:
                wide = widen(domain, self.margin)
                fits.append(fit(parse_activation(text), wide, degree, self.method, seen))
            except HecompileError as error:
                where = node.op.location or node.name
                raise PassError(f"approximate: {text} at '{where}': {error}") from error
        return fits


def substitute(program: Program, chosen: Mapping[str, NodeFit]) -> Program:
    """The program with polynomials in place of the activations that give these values."""
    builder = Builder(program)
    for op in program:
        known = chosen.get(op.result.name) if op.result is not None else None
        if known is None or not isinstance(op, Activation):
            builder.keep(op)
            continue
        table = known.table
        new = Polynomial(
            x=op.x,
            coefficients=builder.constant(table, f"{op.defined.name}.coefficients"),
            degree=len(table) - 1,
            sections=op.sections,
            functions=op.functions,
            lower=tuple(one.domain[0] for one in known.fits),
            upper=tuple(one.domain[1] for one in known.fits),
            fit_error=known.max_error,
        )
        builder.keep(replace(new, result=op.result, location=op.location))
    return builder.finish()


def widen_to_seen(program: Program, samples: Mapping[str, Array], nodes: dict[str, Node]) -> bool:
    """Widen the nodes' domains to what their polynomials see in an approximated program.

    Args:
        program: what `substitute` gave.
        samples: as in `observe_nodes`.
        nodes: the activations; those that see more than their polynomial was fitted on change.

    Returns:
        Whether any domain had to change.
    """
    readers: dict[str, list[Polynomial]] = {}
    for op in program.select(Polynomial):
        if op.defined.name in nodes:
            readers.setdefault(op.x.name, []).append(op)
    changed = False
    with np.errstate(all="ignore"):
        for definition, array in trace_tensor(program, samples):
            for op in readers.get(definition.defined.name, ()):
                node = nodes[op.defined.name]
                domains = []
                for i, place in enumerate(segments(op)):
                    low, high = node.domains[i]
                    least, most = _range(array[..., place])
                    leaves = least < op.lower[i] or most > op.upper[i]
                    finite = np.isfinite(least) and np.isfinite(most)
                    domains.append(
                        (min(low, least), max(high, most)) if leaves and finite else (low, high)
                    )
                changed = changed or tuple(domains) != node.domains
                nodes[op.defined.name] = replace(node, domains=tuple(domains))
    return changed


def _range(values: Array) -> Domain:
    return float(np.min(values)), float(np.max(values))
