"""`hecompile keygen`: the three key folders of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import (
    PATH,
    Access,
    access_options,
    bundle_argument,
    json_option,
    output_option,
    workers_option,
)
from hecompile.cli.vault import VaultChoice, passphrase_option, vault_options
from hecompile.errors import InputError

if TYPE_CHECKING:
    from hecompile.numeric.parameters import Parameters


@click.command("keygen")
@bundle_argument
@output_option("Folder to make; it gets secret/, public/ and evaluation/.", True, "KEYS")
@click.option(
    "--max-key-memory",
    metavar="SIZE",
    help="Refuse before any key is made if the evaluation keys take more memory: 500MB.",
)
@click.option(
    "--secret-dir",
    "secret_folder",
    type=PATH,
    metavar="DIR",
    help="Folder to make for the secret key, by default KEYS/secret.",
)
@passphrase_option
@vault_options
@workers_option
@access_options
@json_option
def command(
    bundle: Path,
    output: Path,
    max_key_memory: str | None,
    secret_folder: Path | None,
    vault: VaultChoice,
    workers: int,
    access: Access,
    as_json: bool,
) -> None:
    """Make a key for BUNDLE: KEYS/secret stays here, the other two go to client and evaluator.

    The secret key is encrypted at rest: under a passphrase, by a key management system, or under
    this machine's own key. Releases under it are counted beside it, in releases.db.
    """
    from hecompile.runtime.wants import HOLDING

    door = access.door(bundle)
    identity = access.guard(door).acting(HOLDING)
    for folder in (output, secret_folder):
        if folder is not None and folder.exists():
            raise InputError(f"{folder} exists already; name another folder for the keys")
    from hecompile.config import parse_size
    from hecompile.runtime.keys import write_keys
    from hecompile.runtime.parties import read_spec

    limit = None
    if max_key_memory is not None:
        limit = parse_size("--max-key-memory", max_key_memory)
    spec = read_spec(door.files())
    progress = console.Progress()
    steps = door.manifest.galois_steps
    memory = announce_keys(spec.parameters, len(steps))
    if limit is not None and memory > limit:
        raise InputError(
            f"the evaluation keys take {console.size(memory)} of memory, more than "
            f"the --max-key-memory of {console.size(limit)}; compile with --max-key-memory "
            f"{max_key_memory}, which plans with fewer keys or refuses"
        )
    key_id = write_keys(
        output,
        spec.parameters,
        steps,
        spec.program,
        progress,
        spec.manifest,
        workers,
        vault.making(),
        secret_folder,
        identity,
    )
    folders = {folder.name: folder for folder in sorted(output.iterdir())}
    if secret_folder is not None:
        folders["secret"] = secret_folder
    sizes = {
        name: sum(file.stat().st_size for file in folder.iterdir())
        for name, folder in folders.items()
    }
    document = {"keys": str(output), "key_id": key_id, "bytes": sizes}
    if secret_folder is not None:
        document["secret"] = str(secret_folder)
    rows = [(str(folders[name]), console.size(count)) for name, count in sizes.items()]
    console.result(document, f"key {key_id}\n{console.table(rows)}", as_json)


def announce_keys(parameters: Parameters, galois_keys: int) -> int:
    """Say what the evaluation keys will take, before they are made.

    Returns:
        Bytes of the evaluator's memory that they take, exactly.
    """
    from hecompile.costs import find_cost_model
    from hecompile.estimate import key_costs

    expected = key_costs(parameters, galois_keys, find_cost_model()[0])
    console.say(
        f"{console.counted(galois_keys, 'Galois key')} and one to relinearize: about "
        f"{console.size(expected.file_bytes)} on disk, {console.size(expected.memory_bytes)} in "
        f"the evaluator's memory, {expected.seconds:.1f} CPU s to make"
    )
    return expected.memory_bytes
