"""What a policy demands beside its permissions: obligations, separation, key rules and labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from hecompile.access.objects import ObjectRef

STATIC, DYNAMIC = "static", "dynamic"
NO_GUARANTEE, DP_GUARANTEE = "none", "dp"


@dataclass(frozen=True)
class DpNoise:
    """Noise that makes a release differentially private, and the ledger that it is charged to.

    Zero-concentrated differential privacy: Bun and Steinke, "Concentrated Differential Privacy",
    TCC 2016.

    Attributes:
        rho: What one release costs, in zCDP.
        total_rho: What all releases under one key may cost together.
        lower: Elements below this are clipped to it, in units of the raw output.
        upper: Elements above this are clipped to it.
        least: Fewest persons that a cohort must have.
    """

    rho: float
    total_rho: float
    lower: float
    upper: float
    least: int


@dataclass(frozen=True)
class Obligations:
    """What is done to a value before it leaves whoever holds the secret key.

    Every release is taken down in the audit log, whatever the obligations.

    Attributes:
        flood: Statistical bits by which noise floods what the ciphertext's own noise tells; None
            for none.
        round: Step to which values are rounded, in units of the raw output; None for none.
        label_only: Whether the index of the greatest element leaves and nothing else.
        dp: Differentially private noise, or None.
        budget: Releases under one key; None for any number.
    """

    flood: int | None = None
    round: float | None = None
    label_only: bool = False
    dp: DpNoise | None = None
    budget: int | None = None


NO_OBLIGATIONS = Obligations()


@dataclass(frozen=True)
class Constraint:
    """Separation of duties over a set of roles.

    Attributes:
        kind: `static` (whom a user may be) or `dynamic` (what a user may act as in one session).
        roles: The roles that exclude each other.
        most: How many of them one user may have, or use in one session.
        where: File and line, for messages; no part of the constraint's identity.
    """

    kind: str
    roles: tuple[str, ...]
    most: int = 1
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class KeyRule:
    """Who may hold a key, and when it is to be replaced.

    Attributes:
        name: `secret`, `public` or `evaluation`.
        holders: The only roles that may hold it; empty for whoever has a permission.
        never: Roles that may not come to hold it by any path.
        rotate_days: Days after which it is to be replaced; None for never.
        rotate_releases: Releases after which it is to be replaced; None for never.
        where: File and line, for messages; no part of the rule's identity.
    """

    name: str
    holders: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    rotate_days: int | None = None
    rotate_releases: int | None = None
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class FieldLabels:
    """What an input is about.

    Attributes:
        object: The input.
        axis: Axis of one sample along which the labels differ; None where they are for all of it.
        labels: Dotted names such as `vitals.hr`: one for each index of the axis, or one or more
            for the whole input.
        where: File and line, for messages; no part of the labels' identity.
    """

    object: ObjectRef
    axis: int | None
    labels: tuple[str, ...]
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class ModelLabels:
    """What the weights were trained on, and how well they hide it.

    Attributes:
        labels: Labels of the training set.
        guarantee: `none`, or `dp` for training with differential privacy.
        epsilon: Of that guarantee; None without one.
        delta: Of that guarantee; None without one.
        where: File and line, for messages; no part of the labels' identity.
    """

    labels: tuple[str, ...]
    guarantee: str = NO_GUARANTEE
    epsilon: float | None = None
    delta: float | None = None
    where: str = field(default="", compare=False)
