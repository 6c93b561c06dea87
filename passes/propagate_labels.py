"""What flows into each output, stated in the program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Output
from hecompile.labelflow import propagate
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class PropagateLabels(Pass):
    """State at each output the labels of the inputs' fields that flow into it.

    Every element of a result carries the union of what it is computed from; weights that are
    exactly zero and constant polynomials cut a flow, an operation that is not known passes on
    everything it reads. The rules are `hecompile.labelflow`'s, which also tells elements apart;
    that what carries no label does not depend on it is the non-interference of Goguen and Meseguer
    ("Security Policies and Security Models", IEEE S&P 1982).

    Requires: a tensor program; labels that fit its inputs, from the policy. After merge-linear
    more zeros are seen, as those of a product of two maps.
    Ensures: every tensor.output has `labels`, sorted. Without labels in the policy the program is
    unchanged.
    """

    name: ClassVar[str] = "propagate-labels"
    after: ClassVar[tuple[str, ...]] = ("merge-linear",)

    def run(self, program: Program, context: Context) -> Program:
        """Follow the labels to the outputs.

        Raises:
            InputError: the policy's labels are for an input that does not exist, or do not fit its
                shape.
        """
        if not context.labels:
            return program
        found = propagate(program, context.labels)

        def stated(op: Operation) -> Operation:
            return replace(op, labels=found[op.label].union) if isinstance(op, Output) else op

        return program.replace(operations=tuple(map(stated, program)))
