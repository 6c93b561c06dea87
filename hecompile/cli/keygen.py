"""`hecompile keygen`: the three key folders of a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from hecompile.cli import console
from hecompile.cli.options import (
    Access,
    access_options,
    bundle_argument,
    json_option,
    output_option,
    workers_option,
)
from hecompile.errors import InputError


@click.command("keygen")
@bundle_argument
@output_option("Folder to make; it gets secret/, public/ and evaluation/.", True, "KEYS")
@workers_option
@access_options
@json_option
def command(
    bundle: Path,
    output: Path,
    workers: int,
    access: Access,
    as_json: bool,
) -> None:
    """Make a key for BUNDLE: KEYS/secret stays here, the other two go to client and evaluator."""
    door = access.door(bundle)
    door.guard(access.user).hold()
    if output.exists():
        raise InputError(f"{output} exists already; name another folder for the keys")
    from hecompile.costs import find_cost_model
    from hecompile.estimate import key_costs
    from hecompile.runtime.keys import write_keys
    from hecompile.runtime.parties import read_spec

    spec = read_spec(door.files())
    progress = console.Progress()
    steps = door.manifest.galois_steps
    expected = key_costs(spec.parameters, len(steps), find_cost_model()[0])
    console.say(
        f"{console.counted(len(steps), 'Galois key')} and one to relinearize: about "
        f"{console.size(expected.file_bytes)} on disk, {console.size(expected.memory_bytes)} in "
        f"the evaluator's memory, {expected.seconds:.1f} CPU s to make"
    )
    key_id = write_keys(
        output, spec.parameters, steps, spec.program, progress, spec.manifest, workers
    )
    sizes = {
        folder.name: sum(file.stat().st_size for file in folder.iterdir())
        for folder in sorted(output.iterdir())
    }
    document = {"keys": str(output), "key_id": key_id, "bytes": sizes}
    rows = [(f"{output}/{name}", console.size(count)) for name, count in sizes.items()]
    console.result(document, f"key {key_id}\n{console.table(rows)}", as_json)
