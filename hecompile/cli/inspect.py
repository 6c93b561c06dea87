"""`hecompile inspect`: what a bundle promises, costs and grants."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hecompile.cli import console
from hecompile.cli.describe import policy_document, policy_text, report_text
from hecompile.cli.door import REPORT_FILE, Door, open_door
from hecompile.cli.options import (
    PATH,
    bundle_argument,
    cost_model_option,
    json_option,
    trust_option,
)
from hecompile.errors import UsageError


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
@json_option
def command(
    bundle: Path,
    trust: tuple[Path, ...],
    measured: Path | None,
    cost_model: Path | None,
    as_json: bool,
) -> None:
    """Show parameters, depth, operations, predicted error and cost, and who may do what."""
    from hecompile.access.policy_checks import policy_warnings, work_warnings
    from hecompile.numeric.parameters import Parameters

    if cost_model is not None and measured is None:
        raise UsageError("--cost-model is for the comparison with --measured; give both")
    door = open_door(bundle, trust)
    if measured is not None:
        _compare(door, measured, cost_model, as_json)
        return
    manifest = door.manifest
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
    inputs, outputs = ([p.name for p in ports] for ports in manifest_io.values())
    warnings = [
        *policy_warnings(manifest.policy),
        *work_warnings(
            manifest.policy,
            inputs,
            outputs,
            refreshes=manifest.refresh.count,
            encrypted_model=manifest.encrypted_model,
        ),
    ]
    document = {
        "bundle": str(bundle),
        "created": manifest.created,
        "versions": vars(manifest.versions),
        "manifest_digest": manifest.digest,
        **report,
        **sizes,
        **io,
        **policy_document(manifest.policy),
        "warnings": warnings,
    }
    rows = [("bundle", f"{bundle}, made {manifest.created} by {manifest.versions.hecompile}")]
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
        f"who may do what:\n{policy_text(manifest.policy)}"
    )
    console.result(document, text + "".join(f"warning: {w}\n" for w in warnings), as_json)


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
