"""What a policy that publishes outputs asks of the program's noise, and the plans that follow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hecompile.access.policy import Permission, Policy, Scope
from hecompile.access.release_plan import (
    TAILS,
    ReleasePlan,
    declassifications,
    flooding_factor,
    flooding_sigma,
    tail_ratio,
    tolerance,
    total_releases,
)
from hecompile.errors import CompileError, InputError
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Output, tensor_type
from hecompile.passbase import DEFAULT_NOISE
from hecompile.precision import OutputNoise
from hecompile.preprocess import SequenceWindows, Step

_SPARE: Final = 0.95
"""Share of the largest flooding noise that is aimed at, for later estimates see more samples."""

_SPAN: Final = 2.0
"""Most width of the range that values may be released in, over their spread in calibration."""


MOST_TOLD = 600
"""Letters of a search's own reasons that its error tells."""


@dataclass(frozen=True)
class Publication:
    """One output that the policy publishes.

    Attributes:
        output: its name.
        values: elements of one sample.
        count: elements of all samples in one evaluation.
        spread: largest minus smallest raw value in calibration.
        releases: that the key allows, of everything.
        flood_bits: the most that a permission asks for.
        permissions: those that publish it.
    """

    output: str
    values: int
    count: int
    spread: float
    releases: int
    flood_bits: int
    permissions: tuple[Permission, ...]

    @property
    def largest_sigma(self) -> float:
        """Most flooding noise under which every permission's publication is of use."""
        return min(tolerance(p, self.spread) for p in self.permissions) / TAILS

    @property
    def noise_limit(self) -> float:
        """Largest noise of the output, as `OutputNoise.bound` gives it, that flooding can hide."""
        factor = flooding_factor(self.values, self.releases, self.flood_bits)
        return _SPARE * self.largest_sigma / factor / self._tail_ratio

    def plan(self, noise: OutputNoise) -> ReleasePlan:
        """How it is published by a program of this noise.

        Raises:
            CompileError: its flooding noise would spoil what is published.
        """
        bound = noise.bound * self._tail_ratio
        sigma = flooding_sigma(bound, self.values, self.releases, self.flood_bits)
        if not sigma <= self.largest_sigma:
            raise CompileError(f"{self.told}: {self.remedies(noise.bound)}")
        steps = [p.obligations.round for p in self.permissions if p.obligations.round is not None]
        return ReleasePlan(
            self.output,
            noise.deviation,
            bound,
            self.values,
            self.flood_bits,
            self.releases,
            sigma,
            min(steps, default=None),
            _SPAN * self.spread + max(steps, default=0.0),
        )

    @property
    def _tail_ratio(self) -> float:
        """From a noise of one evaluation to a bound that those of all releases keep."""
        exposed = max(self.count, self.values * self.releases)
        return tail_ratio(self.count, exposed, self.flood_bits)

    @property
    def told(self) -> str:
        """What is asked for, in words."""
        return (
            f"the policy publishes output '{self.output}' {self.releases} times under one key with "
            f"{self.flood_bits} bits of flooding, which needs a noise below {self.noise_limit:.2g}"
        )

    def remedies(self, reached: float | None) -> str:
        """What would make it possible.

        Args:
            reached: noise of a program that publishes nothing, on the same output; None where
                none was planned.
        """
        choices = ["round more coarsely", "publish labels only (label_only)"]
        if reached is not None:
            allowed = int(self.releases * (self.noise_limit / reached) ** 2)
            choices.insert(
                0,
                f"lower the budgets to {allowed} together and rotate the key as often"
                if allowed
                else f"not even one release is hidden at the noise of {reached:.2g} reached so far",
            )
        else:
            choices.insert(0, "lower the budgets and rotate the key more often")
        choices.append("ask for fewer --mask-bits where the program refreshes")
        return "; ".join(choices)


def check_rows(policy: Policy, preprocessing: Mapping[str, Sequence[Step]] | None) -> None:
    """Refuse means over cohorts of rows of which preprocessing makes several from one sample.

    Raises:
        InputError: naming the permission and the input.
    """
    cohorts = [p for p in declassifications(policy) if p.scope is Scope.COHORT]
    for name, steps in (preprocessing or {}).items():
        if cohorts and any(isinstance(step, SequenceWindows) for step in steps):
            raise InputError(
                f"{cohorts[0].where or 'the policy'}: a mean over a cohort counts each row as a "
                f"person, and the preprocessing of input '{name}' makes several rows of one sample "
                "(sequence_windows): crop samples instead, or publish no means"
            )


def publications(
    policy: Policy, polynomial: Program, samples: Mapping[str, Array]
) -> tuple[Publication, ...]:
    """The outputs that a policy publishes; none where it declassifies nothing.

    Args:
        policy: checked.
        polynomial: the tensor program that is encrypted.
        samples: all calibration samples, as `as_samples` gives them.
    """
    return tuple(_publications(policy, polynomial, samples))


def _publications(
    policy: Policy, polynomial: Program, samples: Mapping[str, Array]
) -> Iterator[Publication]:
    answers: dict[str, Array] = {}
    for op in polynomial.select(Output):
        permissions = tuple(declassifications(policy, op.label))
        if not permissions:
            continue
        answers = answers or run_tensor(polynomial, samples)
        values = max(1, tensor_type(op.x).size)
        yield Publication(
            op.label,
            values,
            values * polynomial.batch,
            float(np.ptp(answers[op.label])),
            max(1, total_releases(policy)),
            max(p.obligations.flood or 0 for p in permissions),
            permissions,
        )


def quietest(found: tuple[Publication, ...], noise: float | None) -> float | None:
    """Largest noise on any output that meets a target and that all publications can hide.

    Args:
        found: what the policy publishes.
        noise: the target; None where the default applies.
    """
    limit = min((one.noise_limit for one in found), default=math.inf)
    usual = DEFAULT_NOISE if noise is None else noise
    return limit if limit < usual else noise


def plan_releases(
    found: tuple[Publication, ...], noise: tuple[OutputNoise, ...]
) -> tuple[ReleasePlan, ...]:
    """The plans of all publications for a finished program's noise.

    Raises:
        CompileError: flooding noise would spoil what is published.
    """
    by_label = {one.label: one for one in noise}
    return tuple(one.plan(by_label[one.output]) for one in found)


def explain(
    found: tuple[Publication, ...], error: CompileError, reached: tuple[OutputNoise, ...]
) -> CompileError:
    """The error of a search that met no plan quiet enough, led by what is published.

    Args:
        found: what the policy publishes.
        error: why no plan was found.
        reached: noise of the outputs where nothing is published; empty if that is not known.
    """
    tightest = min(found, key=lambda one: one.noise_limit)
    bounds = [one.bound for one in reached if one.label == tightest.output]
    remedies = tightest.remedies(bounds[0] if bounds else None)
    # The reasons of all rings and chains run to pages, and nobody can act on the last of them.
    why = str(error)
    why = why if len(why) <= MOST_TOLD else f"{why[:MOST_TOLD].rpartition(';')[0]}; and so on"
    return CompileError(f"{tightest.told}: {remedies}. {why}")
