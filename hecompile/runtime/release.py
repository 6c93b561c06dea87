"""From decrypted values to what a policy lets out: flooded, then rounded, a label or a mean.

A decrypted CKKS value carries an error that tells of the secret key: two of them, with their
ciphertexts, give the whole key (Li and Micciancio, Eurocrypt 2021). So Gaussian noise drowns that
error first (Li, Micciancio, Schultz and Sorrell, Crypto 2022; `access.release_plan` has the
formula), and everything else works on the flooded value: whether it lies in the range that the
error's estimate holds for, its rounding, its largest element. A refusal tells of flooded values
too, and counts as a release.

A differentially private mean is taken of values brought into the calibrated range, so that
nobody's value makes it fail, and then flooded once. What it protects is a row of the evaluation:
whoever has k rows in it is protected k^2 times less (in rho), and a malicious evaluator decides
what a row is.

Nothing here helps against ciphertexts that were chosen rather than encrypted: what they make of the
key is the answer itself. Budgets bound it; see `access.release_plan.permission_bits`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from hecompile.access.decide import Decision
from hecompile.access.ledger import Charge
from hecompile.access.manifest import Manifest
from hecompile.access.objects import Scope
from hecompile.access.privacy import check_available, check_cohort, epsilon, private_mean
from hecompile.access.release_plan import TAILS, ReleasePlan
from hecompile.access.terms import DpNoise, Obligations
from hecompile.errors import AccessDeniedError, InputError
from hecompile.ir.constants import Array
from hecompile.preprocess import SequenceWindows
from hecompile.runtime.postprocess import Processed, labels_of, post_process
from hecompile.runtime.ranges import Ranges
from hecompile.runtime.spec import ClientSpec

_TURN: Final = 2.0 * math.pi


class Mechanism(StrEnum):
    """What follows flooding."""

    ROUNDED = "rounded"
    LABEL = "label"
    PRIVATE = "private"
    MEAN = "private mean"


@dataclass(frozen=True)
class ReleaseRules:
    """What a manifest says of releases under its keys.

    Attributes:
        plans: How each output is published.
        rotate_days: Days after which the secret key is to be replaced; None for never.
        rotate_releases: Releases after which it is; None for never.
    """

    plans: tuple[ReleasePlan, ...] = ()
    rotate_days: int | None = None
    rotate_releases: int | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> ReleaseRules:
        """The rules of a signed manifest."""
        rule = manifest.policy.key_rule("secret")
        if rule is None:
            return cls(manifest.releases)
        return cls(manifest.releases, rule.rotate_days, rule.rotate_releases)

    def plan(self, output: str) -> ReleasePlan | None:
        """The plan of an output, or None."""
        return next((plan for plan in self.plans if plan.output == output), None)


@dataclass(frozen=True)
class ReleasedOutput:
    """What was let out of one output.

    Attributes:
        label: Name of the output.
        mechanism: What was done after flooding.
        raw: Rounded or private scores before post-processing, samples first; a mean has none of
            its axes of samples. None where only labels are let out.
        values: After post-processing; indices of classes where only labels are let out.
        error: Largest distance of `raw` from the exact answer that is to be expected, in units of
            the raw output (`TAILS` deviations of noise); None for labels.
        step: What scores were rounded to; None where they were not.
        number: Number of the last release under the permission, from 1.
        limit: Releases that the permission allows.
        rho: Privacy loss of this release; 0 where it is not differentially private.
        epsilon: What that is as epsilon at a delta of 1e-6; None likewise.
    """

    label: str
    mechanism: Mechanism
    raw: Array | None
    values: Processed
    error: float | None
    step: float | None
    number: int
    limit: int
    rho: float = 0.0
    epsilon: float | None = None

    @property
    def is_mean(self) -> bool:
        """Whether it is one answer about all samples."""
        return self.mechanism is Mechanism.MEAN

    def __str__(self) -> str:
        """What was done to it, for people."""
        words = []
        if self.mechanism is Mechanism.LABEL:
            words.append("labels only")
        elif self.step is not None:
            words.append(f"rounded to {self.step:g}")
        else:
            words.append("a private mean" if self.mechanism is Mechanism.MEAN else "private values")
        if self.error is not None:
            words.append(f"exact to {self.error:.2g}")
        if self.epsilon is not None:
            words.append(f"rho {self.rho:.3g}, which is epsilon {self.epsilon:.3g} at delta 1e-06")
        return ", ".join((*words, f"release {self.number} of {self.limit}"))


@dataclass(frozen=True)
class Released:
    """What was let out of some evaluations, by output."""

    outputs: dict[str, ReleasedOutput]

    @property
    def values(self) -> dict[str, Processed]:
        """After post-processing."""
        return {name: output.values for name, output in self.outputs.items()}

    @property
    def raw(self) -> dict[str, Array]:
        """Before it, of the outputs whose scores were let out."""
        return {n: found.raw for n, found in self.outputs.items() if found.raw is not None}


class Release:
    """One output on its way out, under the permission that was granted."""

    def __init__(self, spec: ClientSpec, decision: Decision, rules: ReleaseRules) -> None:
        """Check that the manifest and the permission say in full what is to be done.

        Args:
            spec: What is known of the program.
            decision: Which output was granted, and the permission.
            rules: What the manifest says of releases.

        Raises:
            AccessDeniedError: They do not, the plan floods too little for the permission, or what
                is asked for cannot be had of this output.
            InputError: OpenDP is needed and not installed.
        """
        entry = next(one for one in spec.outputs if one.label == decision.request.obj.name)
        self.entry = entry
        self.decision = decision
        permission = decision.permission
        if not decision.allowed or permission is None:
            raise self.denied("no permission was granted")
        self.duties: Obligations = permission.obligations
        self.scope: Scope = permission.scope
        self._ranges()
        self.limit = self._checked_limit()
        self._check_mechanism(spec)
        self.plan = self._checked_plan(rules)
        most = (self.plan.releases, rules.rotate_releases)
        self._key_limit = min(limit for limit in most if limit is not None)

    def denied(self, reason: str) -> AccessDeniedError:
        """The refusal to raise."""
        return AccessDeniedError(
            f"Access Denied: output '{self.entry.label}' is not released: {reason}"
        )

    def charge(self, samples: int) -> Charge:
        """What the release of some samples costs: one unit for each row, or one for a cohort.

        Raises:
            AccessDeniedError: They are too few for a cohort.
        """
        noise, units = self.duties.dp, samples
        if noise is not None and self.scope is Scope.COHORT:
            check_cohort(samples, noise)
            units = 1
        rho, total = (noise.rho * units, noise.total_rho) if noise is not None else (0.0, None)
        # The rest of the rule's text tells the path of inheritance and the object, of which a
        # permission may have several: they share its budget.
        number = self.decision.rule.partition(":")[0]
        return Charge(self.entry.label, number, self.limit, units, rho, total, self._key_limit)

    def publish(self, values: Array, number: int) -> ReleasedOutput:
        """Flood values and let out what the permission asks for.

        Args:
            values: Shape (samples, *dims), as decrypted.
            number: Of the release, which the ledger has counted.

        Raises:
            AccessDeniedError: A flooded value lies outside the calibrated range, for which alone
                the error's estimate holds.
        """
        noise = self.duties.dp
        if noise is not None:
            return self._private(values, noise, number)
        flooded = values + gaussian(values.shape, self.plan.sigma)
        self._check_range(flooded)
        label, post = self.entry.label, self.entry.post
        if self.duties.label_only:
            found = join_samples(labels_of(post, flooded))
            return ReleasedOutput(
                label, Mechanism.LABEL, None, found, None, None, number, self.limit
            )
        step = self.duties.round or 0.0
        rounded = np.rint(flooded / step) * step + 0.0
        error = self.plan.bound + TAILS * self.plan.sigma + step / 2.0
        raw = np.asarray(join_samples(rounded), dtype=np.float64)
        done = join_samples(post_process(post, rounded))
        return ReleasedOutput(label, Mechanism.ROUNDED, raw, done, error, step, number, self.limit)

    def _private(self, values: Array, noise: DpNoise, number: int) -> ReleasedOutput:
        rows = self._clamped(values.reshape(len(values), -1))
        groups = [rows] if self.scope is Scope.COHORT else list(rows[:, None])
        answers = [
            private_mean(group, noise, gaussian(group.shape[1:], self.plan.sigma))
            for group in groups
        ]
        spread = math.hypot(answers[0].deviation, self.plan.sigma)
        error = self.plan.bound + TAILS * spread
        rho = sum(answer.rho for answer in answers)
        told = epsilon(answers[0].rho)
        if self.scope is Scope.COHORT:
            mean = answers[0].values.reshape(self.entry.dims)
            return ReleasedOutput(
                self.entry.label, Mechanism.MEAN, mean, mean, error, None, number, self.limit,
                rho, told,
            )  # fmt: skip
        noisy = np.stack([answer.values for answer in answers]).reshape(values.shape)
        raw = np.asarray(join_samples(noisy), dtype=np.float64)
        done = join_samples(post_process(self.entry.post, noisy))
        return ReleasedOutput(
            self.entry.label, Mechanism.PRIVATE, raw, done, error, None, number, self.limit,
            rho, told,
        )  # fmt: skip

    def _clamped(self, rows: Array) -> Array:
        """Values brought into the calibrated range, shape (persons, elements)."""
        ranges = self._ranges()
        lower = np.array(ranges.lower or (ranges.whole.lower,))
        upper = np.array(ranges.upper or (ranges.whole.upper,))
        return np.clip(np.nan_to_num(rows), lower, upper)

    def _ranges(self) -> Ranges:
        if self.entry.ranges is None:
            raise self.denied("it has no calibrated range; compile with calibration samples")
        return self.entry.ranges

    def _check_range(self, flooded: Array) -> None:
        if self._ranges().outside(flooded.reshape(len(flooded), -1)) is not None:
            raise self.denied(
                "its values lie outside the range seen in calibration, where the noise that is to"
                " hide them is not known to suffice; have these samples answered by another way"
            )

    def _checked_limit(self) -> int:
        duties = self.duties
        chosen = (duties.round is not None, duties.label_only, duties.dp is not None)
        if duties.flood is None or duties.budget is None or sum(chosen) != 1:
            raise self.denied(
                "its permission must ask for flooding, a budget, and one of rounding, labels and"
                " noise; have the policy corrected"
            )
        if self.scope is Scope.COHORT and duties.dp is None:
            raise self.denied("only differentially private means are released of cohorts")
        return duties.budget

    def _check_mechanism(self, spec: ClientSpec) -> None:
        if self.duties.dp is not None:
            check_available()
        if self.scope is Scope.COHORT and has_windows(spec):
            raise self.denied(
                "the program makes several rows of one sample (SequenceWindows), and a mean that"
                " protects rows would not protect persons; release it per person, or feed windows"
                " of one person each without that step"
            )
        if self.duties.label_only:
            try:
                labels_of(self.entry.post, np.zeros((1, *self.entry.dims)))
            except InputError as error:
                raise self.denied(str(error)) from error

    def _checked_plan(self, rules: ReleaseRules) -> ReleasePlan:
        plan, duties = rules.plan(self.entry.label), self.duties
        if plan is None:
            raise self.denied("the manifest has no plan for it; compile again with this policy")
        found = self._ranges()
        lower, upper = np.array(found.lower), np.array(found.upper)
        width = float((upper - lower).max(initial=0.0)) or found.whole.upper - found.whole.lower
        if duties.round is not None and not width <= plan.span:
            raise self.denied(
                f"its range is {width:.4g} wide, more than the {plan.span:.4g} that the manifest's"
                " plan counts with; compile again with this policy"
            )
        enough = (
            plan.is_flooded
            and plan.values == math.prod(self.entry.dims)
            and plan.flood_bits >= (duties.flood or 0)
            and (duties.round is None or duties.round >= (plan.step or math.inf))
        )
        if not enough:
            raise self.denied(
                "the manifest's plan floods less than the permission asks for; compile again with"
                " this policy"
            )
        return plan


def gaussian(shape: Sequence[int], sigma: float) -> Array:
    """Gaussian noise of mean 0 from the operating system's cryptographic generator.

    G. Box and M. Muller, "A Note on the Generation of Random Normal Deviates", 1958. The radius
    comes from 106 bits: no deviate exceeds 12.2 sigma, beyond which a true one lies once in 2**107,
    far more rarely than the 2**60 of the most flooding that a policy may ask for.

    Args:
        shape: Shape of the result.
        sigma: Standard deviation.
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    words = np.frombuffer(os.urandom(24 * pairs), dtype=np.uint64).reshape(3, pairs)
    high, low, turn = (words >> np.uint64(11)).astype(np.float64)
    uniform = (high + (low + 1.0) * 2.0**-53) * 2.0**-53
    radius = sigma * np.sqrt(-2.0 * np.log(uniform))
    angle = _TURN * 2.0**-53 * turn
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return np.asarray(both[:count].reshape(tuple(shape)))


def has_windows(spec: ClientSpec) -> bool:
    """Whether preprocessing makes several rows of one sample."""
    return any(isinstance(one, SequenceWindows) for put in spec.inputs for one in put.preprocessing)


def join_samples(values: Processed) -> Processed:
    """Let samples (n, d0, d1, ...) follow one another on the leading model axis: (n * d0, ...)."""
    if values.ndim < 2:
        return values
    samples, lead, *rest = values.shape
    return values.reshape(samples * lead, *rest)
