"""`hecompile decrypt`: the key holder's part at the end."""

from __future__ import annotations

from pathlib import Path

import click

from hecompile.cli import console
from hecompile.cli.door import read_spec
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


@click.command("decrypt")
@bundle_argument
@keys_option("secret")
@click.option(
    "--input", "encrypted", type=PATH, required=True, metavar="OUT.hect", help="From evaluate."
)
@output_option("Also write the outputs there, named as the model's.", metavar="OUT.npz")
@access_options
@json_option
def command(
    bundle: Path,
    keys: Path,
    encrypted: Path,
    output: Path | None,
    access: Access,
    as_json: bool,
) -> None:
    """Decrypt and post-process the encrypted outputs in OUT.hect."""
    door = access.door(bundle)
    door.enter(access.user, door.decryptions())
    check_output(output)
    from hecompile.cli.hectfile import read_parts
    from hecompile.cli.samples import joined, joined_document, shown, write_npz
    from hecompile.runtime.custodian import Custodian
    from hecompile.runtime.keys import load_secret_key

    spec = read_spec(door.files())
    envelopes = read_parts(encrypted)
    custodian = Custodian(spec, load_secret_key(keys, spec.parameters, spec.program))
    outputs, raw = joined([custodian.decrypt(envelope) for envelope in envelopes])
    document = {
        **joined_document(outputs, raw),
        "predicted_error": door.manifest.predicted_error,
    }
    if output is not None:
        write_npz(output, outputs)
    console.result(document, shown(outputs, raw), as_json)
