"""Reports and policies as JSON values and as tables for people; no compiler is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hecompile.cli import console

if TYPE_CHECKING:
    from hecompile.access.policy import Policy
    from hecompile.access.users import Users

Report = Mapping[str, Any]

PROCESS_BYTES = 110 * 10**6
"""Memory of an evaluating process beside keys, weights and ciphertexts, at least about."""


def policy_document(policy: Policy, users: Users | None = None) -> dict[str, object]:
    """Who may do what, as JSON values."""
    from hecompile.access.policy import permission_table

    return {
        "policy": [
            {
                "role": row.role,
                "action": str(row.action),
                "object": str(row.object),
                "granularity": row.granularity,
                "scope": str(row.scope),
                "purposes": list(row.purposes),
                "enforcement": str(row.enforcement),
                "inherited_from": row.inherited_from,
            }
            for row in permission_table(policy)
        ],
        "users": {user.name: list(user.roles) for user in users.users} if users else {},
    }


def policy_text(policy: Policy, users: Users | None = None) -> str:
    """Who may do what and how finely, for people."""
    from hecompile.access.policy import permission_table

    joined: dict[tuple[str, ...], list[str]] = {}
    for row in permission_table(policy):
        source = f"from {row.inherited_from}" if row.inherited_from else ""
        sees, purposes = row.granularity, ", ".join(row.purposes)
        key = (row.role, str(row.action), sees, purposes, str(row.enforcement), source)
        joined.setdefault(key, []).append(str(row.object))
    rows = [
        (role, action, ", ".join(objects), *others)
        for (role, action, *others), objects in joined.items()
    ]
    head = ("role", "may", "object", "sees or gets", "for", "enforcement", "inherited")
    text = console.table(rows, head)
    if users is None:
        return text
    people = [
        (user.name, ", ".join(user.roles) or "no role", "" if user.key else "no key yet")
        for user in users.users
    ]
    return f"{text}  users, version {users.version}:\n{console.table(people, indent='    ')}"


def report_text(report: Report, *, operations: bool = True) -> str:
    """What a program promises and costs, for people.

    Args:
        report: The report as JSON values.
        operations: Whether to count the operations of each level.
    """
    counts = f"operations by level:\n{_operations(report)}" if operations else ""
    facts = console.table(_facts(report), indent="")
    return f"{facts}{_plan(report)}{counts}{_activations(report)}"


def _facts(report: Report) -> list[tuple[str, str]]:
    found = report["parameters"]
    bits = found["coeff_modulus_bits"]
    parts = report["predicted_error_parts"]
    steps = report["rotation_steps"]
    rounds = report["refreshes"]
    samples, depth = console.counted(report["batch"], "sample"), report["depth"]
    rows = [
        ("program", f"{report['program']}, {samples} an evaluation"),
        (
            "parameters",
            f"N = {found['poly_modulus_degree']}, {sum(bits)} bits ({' '.join(map(str, bits))}), "
            f"scale 2^{found['scale_bits']}, {found['security_bits']}-bit security",
        ),
        (
            "depth",
            f"{console.counted(depth, 'level')} in all, {report['levels']} between refreshes",
        ),
        ("refreshes", _refreshes(report) if rounds else "none"),
        ("key switches", str(report["key_switches"])),
        ("rotation steps", f"{len(steps)}: {_some(steps)}" if steps else "none"),
        (
            "predicted error",
            f"{report['predicted_error']:.3g} (polynomials {parts['approximation']:.2g}, noise "
            f"{parts['noise']:.2g}, float32 of the model {parts['reference']:.2g})",
        ),
        ("", _condition(report)),
        (
            "predicted time",
            f"{report['predicted_seconds']:.2f} CPU s on the evaluator, "
            f"{report['predicted_client_seconds']:.2f} s on the client{_waiting(report)} "
            f"(cost model: {report['cost_model']})",
        ),
        (
            "predicted memory",
            f"{console.size(report['predicted_memory_bytes'])} of keys, weights and ciphertexts on "
            f"the evaluator (weights {console.size(report['weight_bytes'])}); each process "
            f"takes {console.size(PROCESS_BYTES)} or more beside that",
        ),
        ("Galois keys", f"{report['galois_keys']}, {console.size(report['galois_key_bytes'])}"),
        (
            "evaluation keys",
            f"{console.size(report['evaluation_key_bytes'])} in memory, "
            f"{console.size(report['evaluation_key_file_bytes'])} on disk; "
            f"{report['predicted_keygen_seconds']:.1f} CPU s to make, "
            f"{report['predicted_load_seconds']:.1f} s to load with the weights",
        ),
        (
            "client and key holder" if rounds else "client",
            f"sends {console.size(report['upload_bytes'])}, "
            f"receives {console.size(report['download_bytes'])}",
        ),
        (
            "ciphertexts",
            f"an evaluation's inputs take {console.size(report['input_bytes'])} of the evaluator's "
            f"memory, its outputs {console.size(report['output_bytes'])}",
        ),
        ("calibration", console.counted(report["calibration_samples"], "sample")),
    ]
    if report["precision"] is not None:
        rows.insert(7, ("precision asked", f"{report['precision']:.3g}"))
    return rows


def _condition(report: Report) -> str:
    """What the predicted error holds for."""
    evaluations = f"{1 / report['error_failure_probability']:,.0f}".replace(",", " ")
    return (
        f"on samples like the calibration samples, in all but about one evaluation in {evaluations}"
    )


def _waiting(report: Report) -> str:
    """What the rounds with the key holder take on the line between."""
    if not report["refreshes"]:
        return ""
    line = f"{report['bandwidth_bits_per_second'] / 1e6:g} Mbit/s"
    return (
        f", {report['predicted_line_seconds']:.2f} s on a line of {line} with round trips of "
        f"{report['rtt_seconds'] * 1e3:g} ms"
    )


def _plan(report: Report) -> str:
    """What lies between rounds with the key holder; segments that look alike share a row."""
    if not report["refreshes"]:
        return ""
    runs: list[tuple[int, int, tuple[str, ...]]] = []
    for number, segment in enumerate(report["segments"], start=1):
        cells = _segment(segment)
        if runs and runs[-1][2] == cells:
            runs[-1] = (runs[-1][0], number, cells)
        else:
            runs.append((number, number, cells))
    rows = [
        (str(first) if first == last else f"{first} to {last}", *cells)
        for first, last, cells in runs
    ]
    return "plan, each segment with the round that ends it:\n" + console.table(rows, _PLAN_HEAD)


_PLAN_HEAD = (
    *("segment", "levels", "primes", "operations", "key switches", "evaluator s"),
    *("up", "down", "key holder s", "line s"),
)


def _segment(found: Mapping[str, Any]) -> tuple[str, ...]:
    """A segment's facts as a row; what goes up to the key holder and comes down, if anything."""
    shared = (
        str(found["levels"]),
        f"{found['start_primes']} to {found['end_primes']}",
        str(found["operations"]),
        str(found["key_switches"]),
        f"{found['evaluator_seconds']:.3f}",
    )
    if not found["responses"]:
        return (*shared, "", "", "", "")
    return (
        *shared,
        f"{found['requests']}, {console.size(found['request_bytes'])}",
        f"{found['responses']}, {console.size(found['response_bytes'])}",
        f"{found['client_seconds']:.3f}",
        f"{found['line_seconds']:.3f}",
    )


def _refreshes(report: Report) -> str:
    return (
        f"{console.counted(report['refreshes'], 'round')} with the key holder, "
        f"{console.counted(report['refreshed_ciphertexts'], 'fresh ciphertext')}, "
        f"{console.size(report['refresh_bytes'])} up and down, masks of {report['mask_bits']} bits"
    )


def _operations(report: Report) -> str:
    by_level = report["op_counts_by_level"]
    names = sorted(report["op_counts"])
    rows: list[list[object]] = [
        [level, *(by_level[level].get(name, 0) for name in names)]
        for level in sorted(by_level, key=int, reverse=True)
    ]
    rows.append(["all", *(report["op_counts"][name] for name in names)])
    return console.table(rows, ["level", *names])


def _activations(report: Report) -> str:
    fits = report["activations"]
    if not fits:
        return ""
    rows = [
        (
            fit["node"],
            ", ".join(fit["functions"]),
            fit["degree"],
            f"[{fit['lower']:.3g}, {fit['upper']:.3g}]",
            f"{fit['fit_error']:.2g}",
            f"{fit['outside']:.2%}",
        )
        for fit in fits
    ]
    head = ("node", "function", "degree", "range", "fit error", "outside")
    return "activations:\n" + console.table(rows, head)


def _some(steps: list[int], most: int = 12) -> str:
    text = ", ".join(map(str, steps[:most]))
    return text if len(steps) <= most else f"{text} and {len(steps) - most} more"
