"""`hecompile encrypt-model`: the model owner's part."""

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
    output_option,
)


@click.command("encrypt-model")
@bundle_argument
@click.option(
    "--public",
    "--keys",
    "keys",
    type=PATH,
    required=True,
    metavar="KEYS/public",
    help="The folder of the public key of whoever owns the data.",
)
@output_option("The encrypted weights.", True, "MODEL.hew")
@access_options
@json_option
def command(
    bundle: Path,
    keys: Path,
    output: Path,
    access: Access,
    as_json: bool,
) -> None:
    """Encrypt the weights of BUNDLE under the public key, for the evaluator.

    BUNDLE must be compiled with --encrypt-model and hold the model owner's part: what
    `hecompile export` writes, for all others, does not.
    """
    door = access.door(bundle)
    door.guard(access.user).encrypt_model()
    check_output(output)
    from hecompile.files import atomic_write_bytes
    from hecompile.runtime.parties import model_owner, read_spec

    files = door.files()
    owner = model_owner(files, read_spec(files), keys)
    data = owner.encrypt(console.Progress())
    atomic_write_bytes(output, data)
    document = {"output": str(output), "weights": len(owner.contract), "bytes": len(data)}
    weights = console.counted(len(owner.contract), "weight")
    console.result(document, f"wrote {output}: {weights}, {console.size(len(data))}", as_json)
