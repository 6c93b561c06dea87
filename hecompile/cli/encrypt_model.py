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
    """Encrypt the weights of BUNDLE under the public key, for the evaluator, and sign them.

    BUNDLE must be compiled with --encrypt-model and hold the model owner's part: what
    `hecompile export` writes, for all others, does not.
    """
    from hecompile.runtime.wants import MODELLING

    door = access.door(bundle)
    identity = access.guard(door).acting(MODELLING)
    check_output(output)
    from hecompile.access.key_cards import KeyInspector
    from hecompile.files import atomic_write_bytes
    from hecompile.runtime.bundle_parts import read_program, read_spec, read_weights
    from hecompile.runtime.keycard import Role
    from hecompile.runtime.keys import load_public_key
    from hecompile.runtime.model_weights import ModelOwner
    from hecompile.runtime.secret_search import check_handed_over

    check_handed_over(keys, Role.PUBLIC)
    files = door.files()
    spec = read_spec(files)
    cards = KeyInspector(door.manifest, door.users)
    key = load_public_key(keys, spec.parameters, spec.program, spec.manifest, cards)
    constants = read_weights(files, spec) or {}
    program, purpose = read_program(files, spec), access.purpose
    owner = ModelOwner(program, constants, key, spec.manifest, identity, purpose=purpose)
    data = owner.encrypt(console.Progress())
    atomic_write_bytes(output, data)
    document = {"output": str(output), "weights": len(owner.contract), "bytes": len(data)}
    weights = console.counted(len(owner.contract), "weight")
    console.result(document, f"wrote {output}: {weights}, {console.size(len(data))}", as_json)
