"""`hecompile encrypt`: the client's part."""

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
    output_option,
)


@click.command("encrypt")
@bundle_argument
@keys_option("public")
@click.option("--input", "samples", type=PATH, required=True, metavar="X.npz", help="Samples.")
@output_option("The encrypted samples.", True, "IN.hect")
@access_options
@json_option
def command(
    bundle: Path,
    keys: Path,
    samples: Path,
    output: Path,
    access: Access,
    as_json: bool,
) -> None:
    """Check, preprocess and encrypt the samples in X.npz under the public key.

    Arrays are named as the model's inputs, samples first.
    """
    door = access.door(bundle)
    guard = door.guard(access.user)
    guard.encrypt(guard.inputs)
    check_output(output)
    from hecompile.cli.hectfile import write_parts
    from hecompile.cli.samples import read_samples
    from hecompile.runtime.client import Client, RangeWarning
    from hecompile.runtime.keys import load_public_key
    from hecompile.runtime.parties import read_spec

    spec = read_spec(door.files())
    arrays = read_samples(samples, spec)
    key = load_public_key(keys, spec.parameters, spec.program, spec.manifest)
    warnings: list[RangeWarning] = []
    envelopes = Client(spec, key).encrypt(arrays, warnings.append)
    for warning in warnings:
        console.warn(warning)
    written = write_parts(output, envelopes)
    document = {
        "output": str(output),
        "evaluations": len(envelopes),
        "bytes": written,
        "warnings": list(map(str, warnings)),
    }
    evaluations = console.counted(len(envelopes), "evaluation")
    text = f"wrote {output}: {evaluations}, {console.size(written)}"
    console.result(document, text, as_json)
