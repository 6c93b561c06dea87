"""`hecompile refresh`: the key holder's answer to a request."""

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


@click.command("refresh")
@bundle_argument
@keys_option("secret")
@click.option(
    "--input", "request", type=PATH, required=True, metavar="REQUEST", help="The request."
)
@output_option("The response.", True, "RESPONSE")
@access_options
@json_option
def command(
    bundle: Path,
    keys: Path,
    request: Path,
    output: Path,
    access: Access,
    as_json: bool,
) -> None:
    """Encrypt the masked values in REQUEST anew; no value leaves in the clear."""
    door = access.door(bundle)
    door.guard(access.user).refresh()
    check_output(output)
    from hecompile.cli.hectfile import read_parts, write_parts
    from hecompile.runtime.custodian import Custodian
    from hecompile.runtime.keys import load_secret_key
    from hecompile.runtime.parties import read_spec

    spec = read_spec(door.files())
    requests = read_parts(request)
    key = load_secret_key(keys, spec.parameters, spec.program, spec.manifest)
    custodian = Custodian(spec, key)
    responses = [custodian.refresh(data) for data in requests]
    written = write_parts(output, responses)
    document = {"output": str(output), "evaluations": len(responses), "bytes": written}
    console.result(document, f"wrote {output}: {console.size(written)}", as_json)
