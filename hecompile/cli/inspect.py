"""`hecompile inspect`: what a bundle promises, costs and grants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.bundle.layout import REPORT_FILE
from hecompile.cli import console
from hecompile.cli.describe import policy_document, policy_text, report_text
from hecompile.cli.describe_access import access_document, access_text, role_table
from hecompile.cli.door import Door, open_door
from hecompile.cli.options import (
    PATH,
    bundle_argument,
    cost_model_option,
    json_option,
    trust_option,
)
from hecompile.errors import UsageError

if TYPE_CHECKING:
    from hecompile.access.manifest import Manifest
    from hecompile.access.users import Users


@click.command("inspect")
@bundle_argument
@trust_option
@click.option(
    "--measured",
    type=PATH,
    metavar="PROFILE",
    help="Compare what hecompile evaluate --profile wrote with what is predicted.",
)
@cost_model_option
@click.option("--flows", is_flag=True, help="Draw which labels of the inputs reach which outputs.")
@json_option
def command(
    bundle: Path,
    trust: tuple[Path, ...],
    measured: Path | None,
    cost_model: Path | None,
    flows: bool,
    as_json: bool,
) -> None:
    """Show parameters, depth, operations, predicted error and cost, and who may do what."""
    if flows and measured is not None:
        raise UsageError("--flows and --measured show different things; give one of them")
    if cost_model is not None and measured is None:
        raise UsageError("--cost-model is for the comparison with --measured; give both")
    door = open_door(bundle, trust)
    if measured is not None:
        _compare(door, measured, cost_model, as_json)
    elif flows:
        _draw_flows(door, as_json)
    else:
        _show(door, as_json)


def _draw_flows(door: Door, as_json: bool) -> None:
    """Print what flows into each output."""
    from hecompile.cli.flows import flows_text

    manifest = door.manifest
    document = {
        "flows": [flow.to_json() for flow in manifest.flows],
        "labels": [
            {"object": str(one.object), "axis": one.axis, "labels": list(one.labels)}
            for one in manifest.policy.labels
        ],
    }
    console.result(document, flows_text(manifest.flows, manifest.policy.labels), as_json)


def _show(door: Door, as_json: bool) -> None:
    """Print everything that the manifest and the report tell."""
    from hecompile.numeric.parameters import Parameters

    manifest, users = door.manifest, door.users
    report = json.loads(door.files().read(REPORT_FILE))
    parameters = Parameters.from_json(manifest.parameters)
    polynomial = len(parameters.coeff_modulus_bits) * parameters.poly_modulus_degree * 8
    sizes = {
        "secret_key_bytes": polynomial,
        "public_key_bytes": 2 * polynomial,
        "relinearization_key_bytes": parameters.galois_key_bytes,
    }
    manifest_io = {"inputs": manifest.io.inputs, "outputs": manifest.io.outputs}
    io = {
        side: [
            {"name": p.name, "shape": list(p.shape), "ciphertexts": p.ciphertexts, "level": p.level}
            for p in ports
        ]
        for side, ports in manifest_io.items()
    }
    warnings = _warnings(manifest, users)
    document = {
        "bundle": str(door.path),
        "created": manifest.created,
        "versions": vars(manifest.versions),
        "manifest_digest": manifest.digest,
        **report,
        **sizes,
        **io,
        **access_document(manifest),
        **policy_document(manifest.policy, users),
        "warnings": warnings,
    }
    rows = [("bundle", f"{door.path}, made {manifest.created} by {manifest.versions.hecompile}")]
    for side, ports in manifest_io.items():
        told = [
            f"{p.name} {'x'.join(map(str, p.shape))} in "
            f"{console.counted(p.ciphertexts, 'ciphertext')}"
            for p in ports
        ]
        rows.append((side, ", ".join(told)))
    keys = ", ".join(f"{name.split('_')[0]} {console.size(n)}" for name, n in sizes.items())
    text = (
        f"{console.table(rows, indent='')}{report_text(report)}other keys: {keys}\n"
        f"{access_text(manifest)}who sees what:\n{role_table(manifest)}"
        f"who may do what:\n{policy_text(manifest.policy, users)}"
    )
    console.result(document, text + "".join(f"warning: {w}\n" for w in warnings), as_json)


def _warnings(manifest: Manifest, users: Users | None) -> list[str]:
    from hecompile.access.manifest_checks import facts_of
    from hecompile.access.proof import policy_warnings, work_warnings

    facts = facts_of(manifest)
    if users is None:
        nobody = "the bundle has no users document (users.json), so nobody may do anything yet"
        return [nobody, *policy_warnings(manifest.policy, None, facts)]
    return [
        *policy_warnings(manifest.policy, users, facts),
        *work_warnings(manifest.policy, users, facts),
    ]


def _compare(door: Door, measured: Path, cost_model: Path | None, as_json: bool) -> None:
    """Print predicted and measured times of the program's operations."""
    from hecompile.cli.measured import compare, document, text
    from hecompile.costs import find_cost_model, read_profile
    from hecompile.runtime.parties import read_program, read_spec

    profile = read_profile(measured)
    cost, _ = find_cost_model(cost_model)
    files = door.files()
    spec = read_spec(files)
    rows = compare(read_program(files, spec), spec.program, profile, cost)
    console.result(document(rows, cost), text(rows, cost), as_json)
