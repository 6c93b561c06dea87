"""What evaluations took, beside what the cost model predicts for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hecompile.cli import console
from hecompile.errors import InputError

if TYPE_CHECKING:
    from hecompile.costs import Profile
    from hecompile.ir.program import Program
    from hecompile.numeric.cost import CostModel

TOTAL = "all"


@dataclass(frozen=True)
class Comparison:
    """Operations of one name at one level: how many, and CPU seconds predicted and measured."""

    operation: str
    level: int
    count: int
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted


def compare(program: Program, identity: str, profile: Profile, cost: CostModel) -> list[Comparison]:
    """Set a profile beside the predictions for its program, the dearest operations first.

    Operations are compared by their mean, so a profile may cover a part of the program, as
    between two refreshes. Reading and writing ciphertexts is compared where there are none.

    Raises:
        InputError: The profile is another program's.
    """
    from hecompile.estimate import estimate
    from hecompile.runtime.profiling import TRANSFER
    from hecompile.workload import level_read

    if profile.program != identity:
        raise InputError("the profile is of another program; evaluate this bundle with --profile")
    predicted = estimate(program, cost)
    counts = Counter((op.name, level_read(op)) for op in program)
    means = {key: spent / counts[key] for key, spent in predicted.seconds_by_operation.items()}
    ends = ("he.input", "he.output")
    means[TRANSFER, 0] = sum(
        spent for (name, _), spent in predicted.seconds_by_operation.items() if name in ends
    )
    if predicted.refreshes:
        del means[TRANSFER, 0]
    rows = [
        Comparison(name, level, spent.count, means[name, level] * spent.count, spent.seconds)
        for (name, level), spent in profile.operations.items()
        if means.get((name, level))
    ]
    return sorted(rows, key=lambda row: -row.predicted)


def total(rows: list[Comparison]) -> Comparison:
    """All rows together.

    Raises:
        InputError: There are none.
    """
    if not rows:
        raise InputError("the profile has no operation of this program; make it again")
    sums = (sum(row.predicted for row in rows), sum(row.measured for row in rows))
    return Comparison(TOTAL, 0, sum(row.count for row in rows), *sums)


def document(rows: list[Comparison], cost: CostModel) -> dict[str, object]:
    """The comparison as JSON values, seconds as such."""
    whole = total(rows)
    return {
        "cost_model": cost.name,
        "operations": [{**asdict(row), "ratio": row.ratio} for row in rows],
        "predicted": whole.predicted,
        "measured": whole.measured,
        "ratio": whole.ratio,
    }


def text(rows: list[Comparison], cost: CostModel) -> str:
    """The comparison for people, in milliseconds."""
    cells = [
        (row.operation, "" if row.operation == TOTAL else str(row.level), row.count,
         row.predicted * 1e3, row.measured * 1e3, f"{row.ratio:.2f}")
        for row in (*rows, total(rows))
    ]  # fmt: skip
    head = ("operation", "level", "count", "predicted ms", "measured ms", "ratio")
    return f"CPU time, predicted by the cost model '{cost.name}':\n{console.table(cells, head)}"
