"""How much noise hides a released value's own: the plan that compiler and custodian share.

A decrypted CKKS value carries an error that depends on the secret key (Li and Micciancio, "On the
Security of Homomorphic Encryption on Approximate Numbers", Eurocrypt 2021). The custodian drowns
it: to each released value it adds a Gaussian of standard deviation

    sigma = sqrt(12 tau) * 2^(s / 2) * t,    t = sqrt(values) * bound,

where tau is the number of releases under the key, s the bits of statistical security, and t bounds
the 2-norm of the error in what one release shows (Li, Micciancio, Schultz, Sorrell, "Securing
Approximate Homomorphic Encryption Using Differential Privacy", Crypto 2022). What is published of
the sum (rounded, its largest element, a mean) tells no more. A cohort's mean is flooded once, after
it was taken: errors under one key may point the same way, so that averaging need not lessen them.

`bound` is the compiler's average-case estimate, widened to a failure probability of 2^-s: it holds
for samples like those of calibration, and is no proof.

All of this is about ciphertexts that were encrypted and evaluated honestly (IND-CPA-D). Whoever
chooses ciphertexts chooses what is released: c1 + alpha X^j in place of c1 makes coefficients of
the key part of the answer, and no noise hides an answer from whom it is for. Against that stands
only how much all releases can tell, which `permission_bits` bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hecompile.access.policy import Action, Kind, ObjectRef, Permission, Policy, Scope
from hecompile.access.privacy import MOST_PERSONS
from hecompile.access.records import Record
from hecompile.numeric.noise import FAILURE

TAILS: Final = 4.0
"""Standard deviations of flooding noise that must fit its tolerance (1 value in 16 000 exceeds)."""

LABEL_SHARE: Final = 0.05
"""Share of an output's range that flooding noise may take where labels or means are published."""

FIELDS: Final = (
    "output",
    "deviation",
    "bound",
    "values",
    "flood_bits",
    "releases",
    "sigma",
    "step",
    "span",
)

KEY_SHARE: Final = 1.0 / 8.0
"""Share of the secret key's entropy that releases to somebody who sends ciphertexts may carry."""


@dataclass(frozen=True)
class ReleasePlan:
    """How one output is published.

    Attributes:
        output: Name of the output.
        deviation: Predicted standard deviation of the error of a value, in units of the raw output.
        bound: Bound of that error that a share of 2^-`flood_bits` exceeds, same unit.
        values: Elements of the output in one release: those of one sample.
        flood_bits: Bits of statistical security that flooding gives all releases together.
        releases: Releases that the key allows, of all outputs and permissions together.
        sigma: Standard deviation of the flooding noise, in units of the raw output.
        step: Finest step that a value is rounded to, same unit; None where no score is published.
        span: Width of the range in which alone a value is released, same unit.
    """

    output: str
    deviation: float
    bound: float
    values: int
    flood_bits: int
    releases: int
    sigma: float
    step: float | None
    span: float

    def to_json(self) -> dict[str, object]:
        """The plan as plain JSON values."""
        return {name: getattr(self, name) for name in FIELDS}

    @classmethod
    def from_record(cls, record: Record) -> ReleasePlan:
        """Read a plan whose keys are `FIELDS`, and work its flooding out again.

        Raises:
            HecompileError: As the record complains: a field is of a wrong kind, or the flooding
                noise is not what the other fields ask for.
        """
        step = record.number("step") if record.fields["step"] is not None else None
        plan = cls(
            record.text("output"),
            record.number("deviation"),
            record.number("bound"),
            record.integer("values", 1),
            record.integer("flood_bits", 1),
            record.integer("releases", 1),
            record.number("sigma"),
            step,
            record.number("span"),
        )
        if not plan.is_flooded:
            raise record.wrong("sigma", "is less than its releases need")
        return plan

    @property
    def is_flooded(self) -> bool:
        """Whether `sigma` is what the other fields ask for, or more."""
        found = (self.deviation, self.bound, self.sigma)
        if not all(math.isfinite(number) and number > 0.0 for number in found):
            return False
        if not 0.0 <= self.span < math.inf:
            return False
        needed = flooding_sigma(self.bound, self.values, self.releases, self.flood_bits)
        return self.sigma >= needed * (1.0 - 1e-9)


def flooding_factor(values: int, releases: int, flood_bits: int) -> float:
    """Standard deviation of flooding noise, over the bound of one value's error."""
    return math.sqrt(12.0 * releases * values) * math.exp2(flood_bits / 2.0)


def flooding_sigma(bound: float, values: int, releases: int, flood_bits: int) -> float:
    """Standard deviation of the noise that hides errors up to `bound` in each of `values` values.

    Args:
        bound: Of one value's error, in any unit; the result has the same.
        values: Published together in one release.
        releases: Under one key, the number tau of queries that an adversary sees answered.
        flood_bits: Bits s of statistical security.
    """
    return bound * flooding_factor(values, releases, flood_bits)


def tail_ratio(count: int, exposed: int, flood_bits: int) -> float:
    """How much farther errors reach at a failure of 2^-`flood_bits` than at `noise.FAILURE`.

    The tails of `noise.bound` are Laplacian or lighter, for which this is exact or too much.

    Args:
        count: Values of one evaluation, which share the failure probability `noise.FAILURE`.
        exposed: Values of all evaluations under the key, which share that of 2^-`flood_bits`.
        flood_bits: Bits.
    """
    usual = math.log(count / FAILURE)
    return max(1.0, (math.log(exposed) + flood_bits * math.log(2.0)) / usual)


def declassifications(policy: Policy, output: str | None = None) -> Iterator[Permission]:
    """The permissions that publish an output, or any output, in the policy's order."""
    for permission in policy.permissions:
        if Action.DECLASSIFY not in permission.actions:
            continue
        named = [obj for obj in permission.objects if obj.kind is Kind.OUTPUT]
        if output is None or any(obj.covers(ObjectRef.output(output)) for obj in named):
            yield permission


def total_releases(policy: Policy) -> int:
    """Releases that one key allows: the budgets of all permissions, or fewer if it is rotated.

    A permission without a budget counts as none; the policy's checks refuse it.
    """
    budgets = sum(p.obligations.budget or 0 for p in declassifications(policy))
    limits = [rule.rotate_releases for rule in policy.keys if rule.name == "secret"]
    return min([budgets, *(limit for limit in limits if limit is not None)])


def tolerance(permission: Permission, spread: float) -> float:
    """Largest error by flooding with which what a permission publishes is of use.

    Half a step of rounded scores; of labels and means `LABEL_SHARE` of the output's range.

    Args:
        permission: One that declassifies.
        spread: Largest minus smallest raw value of the output in calibration.
    """
    duties = permission.obligations
    if duties.round is not None:
        return duties.round / 2.0
    width = duties.dp.upper - duties.dp.lower if duties.dp is not None else spread
    return LABEL_SHARE * width


def key_bits(ring: int) -> float:
    """Entropy of a uniform ternary secret key of a ring of that degree, in bits."""
    return ring * math.log2(3.0)


def permission_bits(permission: Permission, plan: ReleasePlan) -> float:
    """Most bits that all releases of one output under a permission can carry, whatever is sent.

    A rounded score is one of the multiples of its step within the plan's span, a label one of the
    classes, and either may be refused. A mean with Gaussian noise carries no more than a Gaussian
    channel of that signal-to-noise ratio (C. Shannon, "Communication in the Presence of Noise",
    1949), the signal being all rows' elements at once at either end of the range.

    Args:
        permission: One that declassifies, with a budget and one mechanism.
        plan: Of the output.
    """
    duties = permission.obligations
    if duties.label_only:
        # The only element of an output is above the middle or not.
        each = math.log2(1.0 + max(2, plan.values))
    elif duties.dp is not None:
        rows = MOST_PERSONS if permission.scope is Scope.COHORT else 1
        ratio = rows**2 * duties.dp.rho / (2.0 * plan.values)
        each = plan.values * math.log2(1.0 + ratio) / 2.0
    else:
        step = duties.round or plan.step or math.inf
        each = plan.values * math.log2(3.0 + plan.span / step)
    return (duties.budget or 0) * each
