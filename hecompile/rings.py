"""The search over rings: plan the program on each, compare what the plans cost."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hecompile.budgets import SegmentBudgets
from hecompile.config import CompileOptions, precision_remedy
from hecompile.errors import CompileError, PassError
from hecompile.estimate import Estimate, estimate
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Polynomial
from hecompile.observe import Observer
from hecompile.passbase import Context, Pass
from hecompile.pipelines import calibration, checks, slot_pipeline, slot_planning
from hecompile.report import deepest_chain

SEARCH_SAMPLES = 64
"""Samples on which slots are observed while rings are compared; the winner sees all."""

FEW_KEYS = (4, 5, 6, 8)
"""Numbers of Galois keys to get by with, where fewer were allowed than a program can do with."""

WORTH_TRYING = 1.15
"""Rough price, over the least of those that led to a plan, up to which a budget is planned."""

MOST_PLANNED = 2
"""Budgets of one ring that are planned to the end."""

MOST_FAILED = 3
"""Budgets of one ring that may fail before the next ring is tried."""

USUAL_KEY_BYTES = 4 * 10**9
"""Bytes of evaluation keys beyond which plans with fewer keys are taken, if no limit is given."""

_TWO_HOPS = 0
"""As few Galois keys as rotations in two hops allow."""


@dataclass(frozen=True)
class _Variant:
    """A way to pack the program.

    Attributes:
        ring: polynomial modulus degree.
        levels: that a segment between refreshes may use; None for no refreshes.
        keys: Galois keys at most; None for any number.
        objective: as in `CompileOptions.optimize`.
    """

    ring: int
    levels: int | None
    keys: int | None
    objective: str


@dataclass(frozen=True)
class _Priced:
    """What a plan costs."""

    variant: _Variant
    estimate: Estimate
    price: float


class RingSearch:
    """Plans the program on one ring after the other and keeps the cheapest.

    Args:
        polynomial: the tensor program to pack.
        context: with all calibration samples.
        options: what to optimise, and the limits.
        passes: the user's; those of the slots stage run before slots are calibrated.
        observers: called around every pass.
        progress: called with each stage's name as it begins.
        noise: largest noise allowed on an output; None for a default.
    """

    def __init__(
        self,
        polynomial: Program,
        context: Context,
        options: CompileOptions,
        passes: Sequence[Pass],
        observers: tuple[Observer, ...],
        progress: Callable[[str], None],
        noise: float | None = None,
    ) -> None:
        """Prepare a search."""
        self._polynomial = polynomial
        self._context = context
        self._options = options
        self._passes = [p for p in passes if p.stage == "slots"]
        self._observers = observers
        self._progress = progress
        self._noise = noise
        self._budgets = SegmentBudgets(polynomial, options)
        self._lowered: dict[_Variant, Program] = {}
        self._finished: dict[tuple[_Variant, int | None], tuple[Program, Program]] = {}

    def best(self) -> tuple[Program, Program]:
        """The program before and after levels were assigned, the latter checked.

        A larger ring is tried only while the ones before it failed, broke a limit or needed
        refreshes, and it promises to be cheaper.

        Raises:
            CompileError: nothing carries the program, or nothing keeps within the limits.
        """
        found: list[_Priced] = []
        reasons: list[str] = []
        cheapest = math.inf
        for ring in self._options.rings():
            if why := self._too_small(ring):
                reasons.append(why)
                continue
            here: list[_Priced] = []
            done: Counter[bool] = Counter()
            for levels, rough in self._budgets.ranked(ring):
                enough = done[True] == MOST_PLANNED or done[False] == MOST_FAILED
                if rough > WORTH_TRYING * cheapest or enough:
                    break
                plans = self._try(ring, levels, reasons)
                done[bool(plans)] += 1
                here += plans
                if any(plan.price < math.inf for plan in plans):
                    cheapest = min(cheapest, rough)
            if not here:
                continue
            own = min(here, key=lambda plan: plan.price)
            worse = any(plan.price <= own.price for plan in found)
            found += here
            if own.price < math.inf and (own.estimate.refreshes == 0 or worse):
                break
        if not found:
            raise CompileError(self._explain(reasons))
        self._options.check_limits([plan.estimate for plan in found], self._asked)
        variant = min(found, key=lambda plan: plan.price).variant
        planned, program = self._plan(variant, SEARCH_SAMPLES)
        samples = self._context.samples("compile")
        if all(len(array) <= SEARCH_SAMPLES for array in samples.values()):
            return planned, self._checked(program)
        seen = calibration().run(program, self._context, self._observers)
        try:
            return planned, self._checked(seen)
        except (CompileError, PassError):
            self._progress("planning on all calibration samples")
            planned, program = self._plan(variant, None)
            return planned, self._checked(program)

    def _checked(self, program: Program) -> Program:
        self._progress("checking the program")
        return checks(self._noise).run(program, self._context, self._observers)

    def _try(self, ring: int, levels: int | None, reasons: list[str]) -> list[_Priced]:
        """Plans with one budget; none, and a reason more, where it cannot be met."""
        self._progress(f"planning on a ring of {ring}{_segments(levels)}")
        try:
            return self._compare(ring, levels)
        except CompileError as error:
            reasons.append(str(error))
            return []

    def _compare(self, ring: int, levels: int | None) -> list[_Priced]:
        """Plans with one budget: as the objective wants, and as the limits force."""
        options = self._options
        keys = _TWO_HOPS if options.optimize == "keys" else None
        wanted = _Variant(ring, levels, keys, options.optimize)
        plans = [self._priced(wanted)]
        predicted = plans[0].estimate
        most, limit = options.max_client_bytes, options.max_key_memory
        if most is not None and predicted.client_bytes > most and options.optimize != "client":
            self._progress(f"planning on a ring of {ring} for the least that the client sends")
            wanted = replace(wanted, objective="client")
            plans.append(self._priced(wanted))
            predicted = plans[-1].estimate
        allowed = USUAL_KEY_BYTES if limit is None else limit
        if predicted.evaluation_key_bytes > allowed:
            each = predicted.evaluation_key_bytes // (len(predicted.rotation_steps) + 1)
            fewer = self._with_keys(wanted, allowed // each - 1)
            # Where no limit was given, keys that take little memory are worth the longer plan.
            plans = fewer if limit is None and fewer else plans + fewer
        return plans

    def _with_keys(self, wanted: _Variant, allowed: int) -> list[_Priced]:
        """A plan with as few Galois keys as allowed, or with the fewest that the program needs."""
        for keys in (allowed, *FEW_KEYS):
            if keys > 0:
                self._progress(f"planning on a ring of {wanted.ring} with {keys} Galois keys")
                with contextlib.suppress(CompileError):
                    return [self._priced(replace(wanted, keys=keys))]
        return []

    def _priced(self, variant: _Variant) -> _Priced:
        _, program = self._plan(variant, SEARCH_SAMPLES)
        predicted = estimate(program)
        return _Priced(variant, predicted, self._options.price(predicted))

    def _plan(self, variant: _Variant, samples: int | None) -> tuple[Program, Program]:
        key = (variant, samples)
        if key not in self._finished:
            if variant not in self._lowered:
                options = replace(self._options, optimize=variant.objective)
                planning = slot_planning(
                    variant.ring, options, self._passes, variant.keys, variant.levels
                )
                lowered = planning.run(self._polynomial, self._context, self._observers)
                self._lowered[variant] = lowered
            lowered = self._lowered[variant]
            planned = calibration(samples).run(lowered, self._context, self._observers)
            finishing = slot_pipeline(variant.ring, self._options, samples, self._noise)
            finished = finishing.run(planned, self._context, self._observers)
            self._finished[key] = planned, finished
        return self._finished[key]

    def _too_small(self, ring: int) -> str:
        """Why a ring cannot carry the program: too few slots or levels; empty if it may."""
        if self._options.batch > ring // 2:
            return f"a ring of {ring} has fewer slots than the batch of {self._options.batch}"
        if self._budgets.on(ring):
            return ""
        most = self._options.max_refreshes
        fewest = self._fewest_rounds(ring) if most is not None else None
        if fewest is not None:
            return f"a ring of {ring} takes {fewest} rounds of refreshes or more"
        return f"a ring of {ring} has too few levels"

    def _fewest_rounds(self, ring: int | None) -> int | None:
        """Fewest rounds on a ring, or on any; None where refreshes are ruled out or do not help."""
        if self._options.refresh == "never":
            return None
        return SegmentBudgets(self._polynomial, replace(self._options, ring=ring)).fewest_rounds()

    @property
    def _asked(self) -> bool:
        """Whether a precision was asked for."""
        return self._context.precision is not None

    def _explain(self, reasons: list[str]) -> str:
        levels: dict[str, tuple[int, int]] = {}
        for stage in deepest_chain(self._polynomial):
            levels[stage.name] = (levels.get(stage.name, (0, 0))[0] + stage.levels, stage.total)
        table = "; ".join(f"{name}: {own} ({at} so far)" for name, (own, at) in levels.items())
        most = self._options.max_refreshes
        fewest = self._fewest_rounds(self._options.ring) if most is not None else None
        if most is not None and fewest is not None and fewest > most:
            told = f"and the smallest number of rounds reached is {fewest}"
            reasons = [*reasons, f"--max-refreshes is {most}, {told}"]
        why = "; ".join(reason.rstrip(".") for reason in reasons)
        return (
            f"no parameters carry program '{self._polynomial.name}': {why}. Levels of the deepest "
            f"chain by stage: {table}. Remedies: {', '.join(self._remedies())}"
        )

    def _remedies(self) -> list[str]:
        """What may help, given the options; the likeliest first."""
        options = self._options
        refreshed = options.refresh != "never" and options.max_refreshes != 0
        possible = (
            (
                "raise --max-refreshes",
                options.refresh != "never" and options.max_refreshes is not None,
            ),
            ("leave --ring to the compiler, or name a larger one", options.ring is not None),
            ("allow --refresh auto", options.refresh == "never"),
            (precision_remedy(self._asked), True),
            ("standardise the inputs to a range near 1", True),
            (
                "give a smaller --degree",
                any(op.functions for op in self._polynomial.select(Polynomial)),
            ),
            ("give fewer --mask-bits", refreshed and options.mask_bits > 0),
            ("give a smaller --batch", options.batch > 1),
        )
        return [remedy for remedy, helps in possible if helps]


def _segments(levels: int | None) -> str:
    return "" if levels is None else f", {levels} levels between refreshes"
