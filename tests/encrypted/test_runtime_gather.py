"""Inputs that the client gathers: replicas, reordered elements and gaps, under encryption."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.ir.types import Layout
from hecompile.runtime.spec import spec_from_program
from hecompile.runtime.spec_json import spec_from_json, spec_to_json
from tests.encrypted.runtime_parties import make_parties
from tests.encrypted.runtime_programs import SMALL, Writer

PLACES = np.array([2, 0, 1, -1, 2, 2, 0, 1])


def gathered_program(batch: int, stride: int) -> Program:
    """y = weights * x[PLACES], the samples of a batch beside each other."""
    write = Writer(SMALL, "gathered", batch)
    symbol = write.builder.constant(PLACES.astype(np.float64), "places")
    period = len(PLACES) * stride
    op = he.Input(
        label="x", dims=(1, 3), period=period, first=0, count=3, stride=stride, gather=symbol
    )
    x = write.emit(op, 1, SMALL.scale(1))
    row = np.repeat(weights(), stride)
    y = write.rescale(write.sum([x], row[None]), layout=Layout(0, len(PLACES), stride))
    write.output([y], "y", len(PLACES))
    return write.finish()


def weights() -> Array:
    return np.linspace(0.5, 2.0, len(PLACES))


@pytest.mark.parametrize(("batch", "stride", "samples"), [(1, 1, 2), (3, 4, 5)])
def test_a_gathered_input_is_computed_on(batch: int, stride: int, samples: int) -> None:
    program = gathered_program(batch, stride)
    spec = spec_from_program(program)
    # As a client has it: read from a file.
    spec = replace(spec_from_json(spec_to_json(spec)), manifest=spec.manifest)
    parties = make_parties(program, spec=spec)
    x = np.random.default_rng(0).normal(size=(samples, 3))
    expected = np.where(PLACES >= 0, x[:, PLACES], 0.0) * weights()
    assert np.abs(parties.raw(x) - expected).max() < 1e-4
