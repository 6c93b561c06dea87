"""`hecompile inspect`: what a bundle promises, costs and grants."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hecompile.cli import console
from hecompile.cli.describe import policy_document, policy_text, report_text
from hecompile.cli.door import REPORT_FILE, open_door
from hecompile.cli.options import bundle_argument, json_option, trust_option


@click.command("inspect")
@bundle_argument
@trust_option
@json_option
def command(bundle: Path, trust: tuple[Path, ...], as_json: bool) -> None:
    """Show parameters, depth, operations, predicted error and cost, and who may do what."""
    from hecompile.access.policy_checks import policy_warnings, work_warnings
    from hecompile.numeric.parameters import Parameters

    door = open_door(bundle, trust)
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
        *work_warnings(manifest.policy, inputs, outputs, refreshes=manifest.refresh.count),
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
