"""Released outputs as JSON values and for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from hecompile.runtime.release import ReleasedOutput

F = TypeVar("F", bound=Callable[..., Any])


def _scope(_context: click.Context, _parameter: click.Parameter, value: str) -> Any:
    from hecompile.access.objects import Scope

    return Scope(value)


def scope_option(function: F) -> F:
    """`--scope`: whether each sample is answered, or all of them at once."""
    return click.option(
        "--scope",
        type=click.Choice(["person", "cohort"]),
        default="person",
        show_default=True,
        callback=_scope,
        help="Release an answer about each sample, or a mean of all of them.",
    )(function)


def release_document(outputs: Mapping[str, ReleasedOutput]) -> dict[str, object]:
    """Released outputs and how they were released, as JSON values."""
    return {
        "outputs": {name: found.values.tolist() for name, found in outputs.items()},
        "raw_outputs": {
            name: found.raw.tolist() for name, found in outputs.items() if found.raw is not None
        },
        "released": {name: how_released(found) for name, found in outputs.items()},
    }


def how_released(found: ReleasedOutput) -> dict[str, object]:
    """How one output was released, as JSON values."""
    return {
        "mechanism": found.mechanism.value,
        "step": found.step,
        "error": found.error,
        "release": found.number,
        "limit": found.limit,
        "rho": found.rho,
        "epsilon": found.epsilon,
    }


def released_text(outputs: Mapping[str, ReleasedOutput], most: int = 20) -> str:
    """Released outputs for people, a line a sample, with the error to be expected."""
    lines = []
    for name, found in outputs.items():
        lines.append(f"{name} ({found}):")
        raw = found.raw
        if raw is None:
            rows = [" ".join(map(str, row.ravel()[:12])) for row in found.values[:most]]
        elif found.is_mean:
            rows = [_scores(raw, found)]
        else:
            rows = [_scores(row, found) for row in raw[:most]]
        lines += [f"  {i}: {row}" for i, row in enumerate(rows)]
        if not found.is_mean and len(found.values) > most:
            lines.append(f"  ... {len(found.values) - most} more")
    return "".join(f"{line}\n" for line in lines)


def _scores(row: Any, found: ReleasedOutput) -> str:
    values = row.ravel()
    text = " ".join(f"{value:.6g}" for value in values[:12])
    more = " ..." if len(values) > 12 else ""
    return f"{text}{more} \N{PLUS-MINUS SIGN} {found.error or 0.0:.2g}"
