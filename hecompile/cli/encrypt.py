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
    """Check, preprocess, encrypt and sign the samples in X.npz.

    Arrays are named as the model's inputs, samples first. They are encrypted under the public key
    and signed with the identity of USER, who must be allowed to submit them where they arrive. The
    purpose is signed with them: whoever receives them decides by it.
    """
    from hecompile.runtime.wants import encryptions

    door = access.door(bundle)
    guard = access.guard(door)
    identity = guard.acting(encryptions(guard.inputs))
    check_output(output)
    from hecompile.access.key_cards import KeyInspector
    from hecompile.cli.hectfile import write_parts
    from hecompile.cli.samples import read_samples
    from hecompile.runtime.bundle_parts import read_spec
    from hecompile.runtime.client import Client, RangeWarning
    from hecompile.runtime.keycard import Role
    from hecompile.runtime.keys import load_public_key
    from hecompile.runtime.secret_search import check_handed_over

    check_handed_over(keys, Role.PUBLIC)
    spec = read_spec(door.files())
    arrays = read_samples(samples, spec)
    cards = KeyInspector(door.manifest, door.users)
    key = load_public_key(keys, spec.parameters, spec.program, spec.manifest, cards)
    warnings: list[RangeWarning] = []
    lifetime = door.manifest.policy.envelope_seconds
    client = Client(spec, key, identity=identity, lifetime=lifetime, purpose=access.purpose)
    envelopes = client.encrypt(arrays, warnings.append)
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
