"""Folding of batch normalisation into what comes before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from hecompile.errors import PassError
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import (
    Add,
    BatchNorm,
    ConstantTensor,
    Conv,
    MatMul,
    Mul,
    tensor_type,
)
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class FoldBatchnorm(Pass):
    """Fold batch normalisation into the weights before it, or write it as a product and a sum.

    With s = scale / sqrt(variance + epsilon) and t = bias - mean * s per channel, y = s * x + t. If
    x = conv(z, w) + b and nothing else reads x, then y = conv(z, s * w) + (s * b + t); the same for
    a matrix product over the channels, with a bias added or not (Jacob et al., CVPR 2018, section
    3.2).

    Requires: constants folded (fold-constants); a tensor program.
    Ensures: no tensor.batch_norm, except where its statistics are no constants.
    """

    name: ClassVar[str] = "fold-batchnorm"
    after: ClassVar[tuple[str, ...]] = ("fold-constants",)

    def run(self, program: Program, context: Context) -> Program:
        """Plan which producers take a normalisation in, then rewrite.

        Raises:
            PassError: a variance is negative.
        """
        folding = _Folding(program)
        for op in program:
            folding.visit(op)
        return folding.builder.finish()


@dataclass(frozen=True, eq=False)
class _Site:
    """One normalisation with constant statistics.

    Attributes:
        norm: the normalisation.
        factor: s, one number a channel.
        shift: t, one number a channel.
        producer: the convolution or matrix product that takes it in; None for none.
        bias: the sum between the two; None for none.
    """

    norm: BatchNorm
    factor: Array
    shift: Array
    producer: Conv | MatMul | None = None
    bias: Add | None = None


class _Folding:
    """The program under construction, and what happens to each operation, by its result."""

    def __init__(self, program: Program) -> None:
        self.builder = Builder(program)
        self._program = program
        self._spelt: dict[str, _Site] = {}
        self._folded: dict[str, _Site] = {}
        self._dropped: set[str] = set()
        for norm in program.select(BatchNorm):
            site = self._site(norm)
            if site is None:
                continue
            if site.producer is None:
                self._spelt[norm.defined.name] = site
                continue
            self._folded[site.producer.defined.name] = site
            self._dropped.add(norm.defined.name)
            if site.bias is not None:
                self._dropped.add(site.bias.defined.name)

    def visit(self, op: Operation) -> None:
        """Keep, drop or rewrite one operation."""
        name = op.result.name if op.result is not None else ""
        if name in self._spelt:
            self._spell_out(self._spelt[name])
        elif name in self._folded:
            self._fold(self._folded[name])
        elif name not in self._dropped:
            self.builder.keep(op)

    def _site(self, norm: BatchNorm) -> _Site | None:
        parameters = [self._constant(v) for v in (norm.scale, norm.bias, norm.mean, norm.variance)]
        found = [p for p in parameters if p is not None]
        if len(found) < len(parameters):
            return None
        scale, bias, mean, variance = found
        if np.any(variance + norm.epsilon <= 0.0):
            raise PassError(
                f"fold-batchnorm: '{norm.location or norm.defined.name}' has a variance of"
                f" {variance.min():g}, which is no variance; mend the model's statistics"
            )
        factor = scale / np.sqrt(variance + norm.epsilon)
        site = _Site(norm, factor, bias - mean * factor)
        before = self._only_reader(norm.x)
        if isinstance(before, Conv):
            known = before.bias is None or self._constant(before.bias) is not None
            known = known and self._constant(before.weight) is not None
            return replace(site, producer=before) if known else site
        if isinstance(before, MatMul):
            return replace(site, producer=before) if self._over_channels(before) else site
        if isinstance(before, Add):
            product, added = self._only_reader(before.x), self._constant(before.y)
            row = added is not None and _is_row(added, factor.size)
            if row and isinstance(product, MatMul) and self._over_channels(product):
                return replace(site, producer=product, bias=before)
        return site

    def _constant(self, value: Value | None) -> Array | None:
        op = self._program.definitions[value.name] if value is not None else None
        return self._program.array(op.value) if isinstance(op, ConstantTensor) else None

    def _only_reader(self, value: Value) -> Operation | None:
        """The definition of a value that is read once."""
        alone = len(self._program.users[value.name]) == 1
        return self._program.definitions[value.name] if alone else None

    def _over_channels(self, op: MatMul) -> bool:
        """Whether the columns of a constant right factor are the channels of the result."""
        weight = self._constant(op.y)
        return weight is not None and weight.ndim == 2 and len(op.shape()) == 2

    def _fold(self, site: _Site) -> None:
        """Emit the producer with the normalisation in its weights."""
        norm, op, hint = site.norm, site.producer, site.norm.defined.name
        if isinstance(op, Conv):
            weight, bias = self._constant(op.weight), self._constant(op.bias)
            if weight is None:
                return
            scaled = weight * site.factor.reshape(-1, *(1,) * (weight.ndim - 1))
            shift = site.shift if bias is None else bias * site.factor + site.shift
            new = replace(
                op,
                weight=self._emit_constant(scaled, f"{hint}.weight"),
                bias=self._emit_constant(shift, f"{hint}.bias"),
            )
            self.builder.keep(new.with_result(norm.defined))
        elif isinstance(op, MatMul):
            weight = self._constant(op.y)
            if weight is None:
                return
            added = self._constant(site.bias.y) if site.bias is not None else None
            shift = site.shift if added is None else added.ravel() * site.factor + site.shift
            columns = self._emit_constant(weight * site.factor, f"{hint}.weight")
            product = self.builder.emit(replace(op, y=columns, result=None), f"{hint}.product")
            self._finish(Add(x=product, y=self._emit_constant(shift, f"{hint}.bias")), norm)

    def _spell_out(self, site: _Site) -> None:
        """Emit a normalisation as a product and a sum."""
        norm, hint = site.norm, site.norm.defined.name
        per_channel = (-1, *(1,) * (len(tensor_type(norm.x).shape) - 2))
        factor = self._emit_constant(site.factor.reshape(per_channel), f"{hint}.factor")
        shift = self._emit_constant(site.shift.reshape(per_channel), f"{hint}.shift")
        product = self.builder.emit(
            Mul(x=norm.x, y=factor, location=norm.location), f"{hint}.product"
        )
        self._finish(Add(x=product, y=shift), norm)

    def _emit_constant(self, array: Array, hint: str) -> Value:
        symbol = self.builder.constant(array, hint)
        return self.builder.emit(ConstantTensor(value=symbol, dims=array.shape), hint)

    def _finish(self, op: Add, norm: BatchNorm) -> None:
        self.builder.keep(replace(op, result=norm.result, location=norm.location))


def _is_row(added: Array, channels: int) -> bool:
    """Whether a sum with an array adds one number a channel, channels on the last axis."""
    return added.size == 1 or (added.size == channels and added.shape[-1] == channels)
