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
from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import Activation, Polynomial, tensor_type
from hecompile.numeric.activations import parse_activation
from hecompile.numeric.fit import Fit, fit, widen

Domain = tuple[float, float]

MONOMIAL_DEGREE = 7
"""Largest degree in powers of the operand itself: beyond it they cancel, and noise grows by the
condition number of the basis, up to (1 + sqrt(2))**degree; Chebyshev polynomials stay in [-1, 1].
"""

_WEIGHTED = (tensor.BatchNorm, tensor.Conv, tensor.MatMul, tensor.Mul)
_WEIGHTED_BY_KIND = (tensor.AveragePool, tensor.Reduce, movement.Affine)
_CARRYING = (
    tensor.Add,
    tensor.Sub,
    tensor.Neg,
    movement.Concat,
    movement.Expand,
    movement.Gather,
    movement.Pad,
    movement.Reshape,
    movement.Slice,
    movement.Transpose,
)


@dataclass(frozen=True, eq=False)
class Node:
    """An activation and what it sees.

    Attributes:
        op: the activation.
        seen: values observed in each segment, flattened.
        domains: range of each segment that a polynomial must hold on, before the margin.
        absorbs: whether the operand comes from a linear map that takes a scaling in for free.
    """

    op: Activation
    seen: tuple[Array, ...]
    domains: tuple[Domain, ...]
    absorbs: bool

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
    """Polynomials for the segments of one activation.

    Attributes:
        degree: the degree asked for.
        fits: one a segment.
        absorbs: as in `Node`.
    """

    degree: int
    fits: tuple[Fit, ...]
    absorbs: bool

    @property
    def max_error(self) -> float:
        """Largest distance from the functions over the fitted domains."""
        return max(one.max_error for one in self.fits)

    @property
    def reached(self) -> int:
        """Largest degree of a segment's polynomial."""
        return max(one.polynomial.degree for one in self.fits)

    @property
    def basis(self) -> str:
        """Monomials where they save the level of a map to [-1, 1], else Chebyshev polynomials."""
        mapped = self.reached > MONOMIAL_DEGREE or (self.absorbs and self.reached > 0)
        return "chebyshev" if mapped else "monomial"

    @property
    def table(self) -> Array:
        """Coefficients in the basis, ascending: (degree + 1, segments), no zeros at the end."""
        columns = [
            one.polynomial.coefficients
            if self.basis == "chebyshev"
            else one.polynomial.to_monomials().coefficients
            for one in self.fits
        ]
        table = np.zeros((max(map(len, columns)), len(columns)))
        for i, column in enumerate(columns):
            table[: len(column), i] = column
        return table


def observe_nodes(program: Program, samples: Mapping[str, Array]) -> dict[str, Node]:
    """Every activation with what it sees on the samples, by the name of its result.

    Args:
        program: a tensor program.
        samples: by input label, (S, *shape of the input).
    """
    absorbing = _absorbing(program)
    readers: dict[str, list[Activation]] = {}
    for op in program.select(Activation):
        readers.setdefault(op.x.name, []).append(op)
    found: dict[str, Node] = {}
    with np.errstate(all="ignore"):
        for definition, array in trace_tensor(program, samples):
            for op in readers.get(definition.defined.name, ()):
                seen = tuple(array[..., place].ravel() for place in segments(op))
                domains = tuple(map(_range, seen))
                found[op.defined.name] = Node(op, seen, domains, op.x.name in absorbing)
    return found


def _absorbing(program: Program) -> frozenset[str]:
    """Values into whose weights merge-linear takes a scaling and a shift, by name.

    They come from a linear map along every path. One that something else reads as well is left
    out: it would have to be computed twice.
    """
    found: set[str] = set()
    for op in program:
        secret = [v.name for v in op.operands if tensor_type(v).secret]
        if op.result is None or not secret:
            continue
        weighs = isinstance(op, _WEIGHTED) and len(op.operands) > len(secret)
        carries = isinstance(op, _CARRYING) and found.issuperset(secret)
        if weighs or carries or isinstance(op, _WEIGHTED_BY_KIND):
            found.add(op.result.name)
    return frozenset(name for name in found if len(program.users[name]) == 1)


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
            fits = tuple(self._segments(node, degree))
            self._known[key] = NodeFit(degree, fits, node.absorbs)
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
    """The program with polynomials in place of the activations that give these values.

    The operand of a Chebyshev basis is mapped to [-1, 1] by a product and a sum with constants,
    which merge-linear takes into the linear map before them, if there is one.
    """
    builder = Builder(program)
    for op in program:
        known = chosen.get(op.result.name) if op.result is not None else None
        if known is None or not isinstance(op, Activation):
            builder.keep(op)
            continue
        table, basis = known.table, known.basis
        x = op.x
        if basis == "chebyshev":
            # A map that is taken in bears the name of the node that takes it in.
            source = program.definitions[x.name] if known.absorbs else op
            x = _to_unit(builder, op, known, source.location)
        new = Polynomial(
            x=x,
            coefficients=builder.constant(table, f"{op.defined.name}.coefficients"),
            degree=len(table) - 1,
            sections=op.sections,
            functions=op.functions,
            lower=tuple(one.domain[0] for one in known.fits),
            upper=tuple(one.domain[1] for one in known.fits),
            fit_error=known.max_error,
            basis=basis,
        )
        builder.keep(replace(new, result=op.result, location=op.location))
    return builder.finish()


def _to_unit(builder: Builder, op: Activation, known: NodeFit, location: str) -> Value:
    """Emit the map of each segment's domain to [-1, 1]."""
    pairs = np.array([one.polynomial.unit_map for one in known.fits])
    spread = np.repeat(pairs, op.sections, axis=0) if op.sections else pairs[0]

    def constant(values: Array, hint: str) -> Value:
        symbol = builder.constant(values, f"{op.defined.name}.{hint}")
        new = tensor.ConstantTensor(value=symbol, dims=values.shape)
        return builder.emit(new, f"{op.defined.name}.{hint}")

    factor, shift = constant(spread[..., 0], "factor"), constant(spread[..., 1], "shift")
    scaled = builder.emit(tensor.Mul(x=op.x, y=factor, location=location))
    unit: Operation = tensor.Add(x=scaled, y=shift, location=location)
    return builder.emit(unit, f"{op.defined.name}.unit")


def widen_to_seen(program: Program, samples: Mapping[str, Array], nodes: dict[str, Node]) -> bool:
    """Widen the nodes' domains to what their polynomials see in an approximated program.

    Args:
        program: what `substitute` gave.
        samples: as in `observe_nodes`.
        nodes: the activations; those that see more than their polynomial was fitted on change.

    Returns:
        Whether any domain had to change.
    """
    fitted = {op.defined.name: op for op in program.select(Polynomial)}
    readers: dict[str, list[str]] = {}
    for name, node in nodes.items():
        readers.setdefault(node.op.x.name, []).append(name)
    changed = False
    with np.errstate(all="ignore"):
        for definition, array in trace_tensor(program, samples):
            for name in readers.get(definition.defined.name, ()):
                wider = _widened(nodes[name], fitted[name], array)
                changed = changed or wider != nodes[name].domains
                nodes[name] = replace(nodes[name], domains=wider)
    return changed


def _widened(node: Node, op: Polynomial, operand: Array) -> tuple[Domain, ...]:
    """The node's domains, each stretched to the operand where that leaves the fitted range."""
    domains = []
    for i, place in enumerate(segments(op)):
        low, high = node.domains[i]
        least, most = _range(operand[..., place])
        leaves = least < op.lower[i] or most > op.upper[i]
        if leaves and np.isfinite(least) and np.isfinite(most):
            low, high = min(low, least), max(high, most)
        domains.append((low, high))
    return tuple(domains)


def _range(values: Array) -> Domain:
    return float(np.min(values)), float(np.max(values))
