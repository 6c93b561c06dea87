"""`hecompile decrypt`: the key holder's part at the end."""

from __future__ import annotations

from pathlib import Path

import click

from hecompile.cli import console
from hecompile.cli.options import (
    PATH,
    Access,
    access_options,
    bundle_argument,
    check_output,
    json_option,
    keys_option,
    only_option,
    output_option,
)


@click.command("decrypt")
@bundle_argument
@keys_option("secret")
@click.option(
    "--input", "encrypted", type=PATH, required=True, metavar="OUT.hect", help="From evaluate."
)
@only_option
@output_option("Also write the outputs there, named as the model's.", metavar="OUT.npz")
@access_options
@json_option
def command(
    bundle: Path,
    keys: Path,
    encrypted: Path,
    only: tuple[str, ...],
    output: Path | None,
    access: Access,
    as_json: bool,
) -> None:
    """Decrypt and post-process the encrypted outputs in OUT.hect.

    Without --only, all outputs that the policy grants USER. What -o writes, you alone can read.
    """
    door = access.door(bundle)
    guard = door.guard(access.user)
    granted = guard.decrypt(guard.chosen(only), some=not only)
    check_output(output)
    from hecompile.cli.hectfile import read_parts
    from hecompile.cli.samples import samples_document, shown, write_npz
    from hecompile.runtime.custodian import Custodian, OutputWarning
    from hecompile.runtime.keys import load_secret_key
    from hecompile.runtime.parties import read_spec

    spec = read_spec(door.files())
    envelopes = read_parts(encrypted)
    key = load_secret_key(keys, spec.parameters, spec.program, spec.manifest)
    warnings: list[OutputWarning] = []
    found = Custodian(spec, key).decrypt_all(envelopes, granted, warnings.append)
    document = {
        **samples_document(found.outputs, found.raw),
        "predicted_error": door.manifest.predicted_error,
        "warnings": list(map(str, warnings)),
    }
    for warning in warnings:
        console.warn(warning)
    if output is not None:
        write_npz(output, found.outputs)
    console.result(document, shown(found.outputs, found.raw), as_json)
