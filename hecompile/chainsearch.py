"""Search for the cheapest chain of primes on a ring that meets a noise target.

The cost of a plan depends on how the levels are shared out among the primes, hardly on the scale:
the noise depends on both. So groupings are tried in the order of their rough cost, each at the
largest scale that fits the table; the cheapest that is precise enough wins, and its scale is then
made as small as the target allows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from hecompile.chains import MARGINS, Demand, chain, chains
from hecompile.errors import CompileError, PassError
from hecompile.estimate import estimate
from hecompile.ir import he_ops as he
from hecompile.ir.parcels import parcels
from hecompile.ir.program import Program
from hecompile.levels import expected_contents, program_depth, refreshed_depth
from hecompile.numeric.masking import BELOW_TOP, MOST_SLOT_BITS, Room, room_needed
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.primes import MAX_PRIME_BITS
from hecompile.numeric.security import max_modulus_bits
from hecompile.placement import EARLY, FEW, LATE
from hecompile.precision import missing_headroom

SMALLEST_SCALE_BITS = 16
SMALLEST_REFRESHED_SCALE_BITS = 24
"""Where values are refreshed, masks and their rounding leave no use for smaller scales."""

SMALLEST_HEADROOM_BITS = 2
PLANNED = 3
"""Groupings that are precise enough, among which the cheapest is taken."""

WORTH_MORE_NOISE = 0.01
"""Share of the cost that earlier rescales must save."""

TRIALS = 16
"""Noise predictions spent on earlier rescales."""

WORTH_PLANNING = 1.2
"""Rough cost, over that of the best plan so far, up to which a grouping is planned."""

MOST_FLOOR = 3
"""Highest level at which values are handed over for a refresh."""

_STEPS = 4
_LONGEST_STEP = 8
_TAME_BITS = 12
_SILENCE = 1e-30
_SLACK_BITS = 0.5
_SHORT_BITS = 0.1
"""What a few primes together are short of the powers of two above them, at most."""

Policies = tuple[str, ...]
"""When to rescale, of `placement.POLICIES`, by the primes that are left then."""

Planner = Callable[[Parameters, Policies], Program]
"""Plans the program to the end on a chain, rescaling by policies."""


@dataclass(frozen=True)
class Plan:
    """A chain, when to rescale, the program's cost there in seconds, and its noise."""

    parameters: Parameters
    policies: Policies
    headroom: int
    seconds: float
    noise: float


class ChainSearch:
    """Searches the chains of one ring for one program."""

    def __init__(
        self,
        program: Program,
        ring: int,
        target: float,
        planner: Planner,
        noise: Callable[[Program], float],
    ) -> None:
        """Prepare a search.

        Args:
            program: lowered, without levels.
            ring: polynomial modulus degree.
            target: largest noise allowed on an output.
            planner: plans the program on a chain.
            noise: largest noise predicted on a planned program's outputs.
        """
        self._program = program
        self._ring = ring
        self._target = target
        self._planner = planner
        self._noise = noise
        self._least = math.inf
        self._reason = ""
        self._overlarge = 0.0
        self._skipped: tuple[float, Parameters, int] | None = None
        self._trials = TRIALS
        self._noisy: set[tuple[tuple[int, ...], float]] = set()
        self._costs: dict[tuple[tuple[int, ...], Policies], float] = {}
        self._known: dict[tuple[Parameters, Policies], tuple[Plan | None, int]] = {}

    def best(self) -> Plan:
        """The best plan.

        Raises:
            CompileError: no chain of this ring will do.
        """
        found = self._refreshed() if self._program.select(he.Refresh) else self._deep()
        if found is None:
            if self._skipped is not None:
                _, parameters, headroom = self._skipped
                self._try(parameters, (LATE,), headroom)
            raise CompileError(self._refusal())
        return found

    def _refusal(self) -> str:
        depth, bits = program_depth(self._program), max_modulus_bits(self._ring)
        if self._overlarge:
            reason = (
                f"masked slots take {self._overlarge:.1f} bits of {MOST_SLOT_BITS:.0f} (ask for"
                " fewer --mask-bits or a smaller --batch, or standardise the inputs)"
            )
        elif self._least < math.inf:
            reason = f"the least noise reached is {self._least:.2g}"
        else:
            reason = self._reason or (
                f"its levels at a scale of {SMALLEST_SCALE_BITS} bits do not fit the {bits} bits of"
                " this ring"
            )
        return (
            f"a ring of {self._ring} does not meet a noise of {self._target:.2g} on program "
            f"'{self._program.name}' ({depth} levels deep): {reason}"
        )

    def _deep(self) -> Plan | None:
        """The best plan without refreshes."""
        demand = Demand.of(self._program)
        groupings = demand.groupings()
        rough = {units: demand.seconds(units, self._ring) for units in groupings}
        good: list[Plan] = []
        for units in sorted(groupings, key=lambda u: rough[u]):
            limit = min((rough[p.parameters.level_units] for p in good), default=math.inf)
            if len(good) >= PLANNED or rough[units] > WORTH_PLANNING * limit:
                break
            plan = self._quietest(units, min((p.seconds for p in good), default=math.inf))
            if plan is not None and plan.noise <= self._target:
                good.append(plan)
        if good:
            good.sort(key=lambda p: p.seconds)
            best = good[0]
            for plan in good:
                best = min(best, self._hastened(plan, best.seconds), key=lambda p: p.seconds)
            return self._smallest(best)
        return None

    def _quietest(self, units: tuple[int, ...], rival: float) -> Plan | None:
        """The first plan that meets the target, or else the least noisy.

        A smaller special prime leaves room for a larger scale, as long as that is worth it. None
        where even early rescales take as long as the rival's seconds.
        """
        best: Plan | None = None
        headroom = SMALLEST_HEADROOM_BITS
        sample = next(chains(self._ring, units, headroom, 0, SMALLEST_SCALE_BITS), None)
        if sample is None or (rival < math.inf and self._unchecked(sample, (EARLY,)) >= rival):
            return None
        for margin in MARGINS:
            plan, headroom = self._fitting(units, headroom, margin, best)
            if plan is not None and (best is None or plan.noise < best.noise):
                best = plan
            elif plan is not None:
                break
            if best is not None and best.noise <= self._target:
                break
        return best

    def _fitting(
        self, units: tuple[int, ...], headroom: int, margin: int, known: Plan | None
    ) -> tuple[Plan | None, int]:
        """A plan at the largest scale, with the headroom that the values need.

        None where the scale is not enough larger than a known plan's to meet the target.
        """
        while True:
            widest = next(chains(self._ring, units, headroom, margin, SMALLEST_SCALE_BITS), None)
            if widest is None:
                return None, headroom
            if known is not None and not self._promises(widest, known):
                self._skip(widest, headroom, known)
                return None, headroom
            plan, missing = self._try(widest, (LATE,), headroom)
            if plan is not None or missing == 0:
                return plan, headroom
            headroom += missing

    def _skip(self, parameters: Parameters, headroom: int, known: Plan) -> None:
        """Keep the quietest chain that was not tried, to tell how far from the target all are."""
        expected = known.noise * 2.0 ** (known.parameters.scale_bits - parameters.scale_bits)
        if self._skipped is None or expected < self._skipped[0]:
            self._skipped = expected, parameters, headroom

    def _promises(self, parameters: Parameters, known: Plan) -> bool:
        """Whether a scale may meet the target where a smaller one has not.

        Once noise is small against the values it halves with each bit of the scale.
        """
        excess = math.log2(known.noise / self._target) if math.isfinite(known.noise) else math.inf
        gained = parameters.scale_bits - known.parameters.scale_bits
        return excess > _TAME_BITS or gained >= excess - _SLACK_BITS

    def _try(
        self, parameters: Parameters, policies: Policies, headroom: int
    ) -> tuple[Plan | None, int]:
        """A plan, or the bits of headroom that it lacks (0 if it cannot be planned at all)."""
        key = (parameters, policies)
        if key not in self._known:
            self._known[key] = self._plan(parameters, policies, headroom)
        return self._known[key]

    def _plan(
        self, parameters: Parameters, policies: Policies, headroom: int
    ) -> tuple[Plan | None, int]:
        try:
            planned = self._planner(parameters, policies)
        except (CompileError, PassError) as failure:
            self._reason = str(failure)
            return None, 0
        missing = max(missing_headroom(planned).values())
        if missing > 0:
            return None, math.ceil(missing)
        noise = self._noise(planned)
        self._least = min(self._least, noise)
        seconds = self._cost(planned, parameters, policies)
        return Plan(parameters, policies, headroom, seconds, noise), 0

    def _hastened(self, plan: Plan, rival: float) -> Plan:
        """The same grouping with earlier rescales, prime by prime, where noise is left for it.

        Args:
            plan: with late rescales.
            rival: seconds of the best plan so far; one that cannot beat it stays as it is.
        """
        count = len(plan.parameters.level_units) - 1
        fastest = self._seconds(plan.parameters, (EARLY,))
        if count == 0 or fastest >= (1 - WORTH_MORE_NOISE) * rival:
            return plan
        best = replace(plan, policies=plan.policies * count)
        for policies in ((EARLY,) * count, (FEW,) * count):
            found = self._cheaper(best, policies)
            if found is not None:
                return found
        for left in reversed(range(count)):
            for policy in (EARLY, FEW):
                policies = (*best.policies[:left], policy, *best.policies[left + 1 :])
                found = self._cheaper(best, policies)
                if found is not None:
                    best = found
                    break
        return best

    def _seconds(self, parameters: Parameters, policies: Policies) -> float:
        if (parameters.level_units, policies) in self._costs:
            return self._costs[parameters.level_units, policies]
        return self._cost(self._planner(parameters, policies), parameters, policies)

    def _unchecked(self, parameters: Parameters, policies: Policies) -> float:
        """Seconds of a plan, precise or not; infinite where there is none."""
        try:
            return self._seconds(parameters, policies)
        except (CompileError, PassError):
            return math.inf

    def _cost(self, planned: Program, parameters: Parameters, policies: Policies) -> float:
        """The cost of a plan, which without refreshes is the same at every scale."""
        key = parameters.level_units, policies
        seconds = self._costs.get(key) or estimate(planned).total_seconds
        if not planned.select(he.Refresh):
            self._costs[key] = seconds
        return seconds

    def _cheaper(self, plan: Plan, policies: Policies) -> Plan | None:
        """A plan with these policies if it costs less and meets the target on some chain."""
        units, seconds = plan.parameters.level_units, self._seconds(plan.parameters, policies)
        # Policies that cost the same to the last digit rescale at the same places.
        if seconds >= (1 - WORTH_MORE_NOISE) * plan.seconds or (units, seconds) in self._noisy:
            return None
        self._noisy.add((units, seconds))
        last: Plan | None = None
        for margin in MARGINS:
            widest = chains(self._ring, units, plan.headroom, margin, SMALLEST_SCALE_BITS)
            for parameters in itertools.islice(widest, min(1, self._trials)):
                if last is not None and not self._promises(parameters, last):
                    continue
                self._trials -= 1
                found, _ = self._try(parameters, policies, plan.headroom)
                if found is not None and found.noise <= self._target:
                    return found
                if found is None or (last is not None and found.noise >= last.noise):
                    return None
                last = found
        return None

    def _smallest(self, plan: Plan) -> Plan:
        """The same grouping at the smallest scale that meets the target, by secant steps."""
        high, low = plan, SMALLEST_SCALE_BITS - 1
        for _ in range(_STEPS):
            spare = math.floor(math.log2(self._target / max(high.noise, _SILENCE)))
            at = high.parameters.scale_bits
            guess = max(low + 1, at - spare)
            if guess >= at:
                break
            lower = self._at(plan, guess)
            if lower is not None and lower.noise <= self._target:
                high = lower
            else:
                low = guess
        return high

    def _at(self, plan: Plan, scale_bits: int) -> Plan | None:
        found = chain(
            self._ring, scale_bits, plan.parameters.level_units, plan.headroom, MARGINS[-1]
        )
        return None if found is None else self._try(found, plan.policies, plan.headroom)[0]

    def _refreshed(self) -> Plan | None:
        """The cheapest plan of a program with refreshes, at the smallest scale that will do.

        Chains differ in the level of what is handed over: a lower one needs a larger q_0 for masks.
        """
        best: Plan | None = None
        for floor in range(MOST_FLOOR + 1):
            rival = best.seconds if best is not None else math.inf
            plan = self._handing_over_at(floor, rival)
            best = plan if plan is not None else best
        return best

    def _handing_over_at(self, floor: int, rival: float) -> Plan | None:
        """The plan at the smallest scale, each prime one level; None if it costs a rival's time."""
        depth = refreshed_depth(self._program)
        units = (1,) * (max(depth.handed + floor, depth.left, floor + BELOW_TOP) + 1)
        scale_bits, extra = SMALLEST_REFRESHED_SCALE_BITS, SMALLEST_HEADROOM_BITS
        while scale_bits <= MAX_PRIME_BITS:
            room = self._room_for_masks(scale_bits)
            if room.slots > MOST_SLOT_BITS:
                self._overlarge = room.slots
                return None
            own = room.modulus + _SHORT_BITS - (floor + 1) * scale_bits
            headroom = max(extra, math.ceil(own))
            if scale_bits + headroom > MAX_PRIME_BITS:
                scale_bits += 1
                continue
            found = chain(self._ring, scale_bits, units, headroom, 0)
            if not found or (rival < math.inf and self._unchecked(found, (EARLY,)) >= rival):
                return None
            plan, missing = self._try(found, (EARLY,), headroom)
            if plan is not None and plan.noise <= self._target:
                return plan if plan.seconds < rival else None
            if plan is not None:
                scale_bits += _step(plan.noise / self._target)
            elif missing:
                extra = headroom + missing
            else:
                return None
        return None

    def _room_for_masks(self, scale_bits: int) -> Room:
        """What the largest of the masked values takes."""
        rooms = [
            room_needed(self._ring, expected_contents(one, 2.0**scale_bits), one.mask_bits)
            for found in parcels(self._program).values()
            for one in found
        ]
        return Room(max(one.modulus for one in rooms), max(one.slots for one in rooms))


def _step(excess: float) -> int:
    """Bits to add where the noise exceeds the target by a factor.

    Noise falls with the scale, but faster while it still feeds on itself, so steps stay short.
    """
    longest = _LONGEST_STEP if excess < 2.0**_TAME_BITS else _LONGEST_STEP // 2
    return max(1, min(longest, round(math.log2(excess)))) if math.isfinite(excess) else longest
