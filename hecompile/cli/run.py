"""`hecompile run`: all parties in one go, the evaluator in a process without the secret key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.keygen import announce_keys
from hecompile.cli.options import (
    PATH,
    Access,
    access_options,
    bundle_argument,
    check_output,
    json_option,
    limit_options,
    only_option,
    output_option,
    weights_cache_option,
    workers_option,
)
from hecompile.cli.releases import how_released, released_text, scope_option
from hecompile.cli.vault import VaultChoice, vault_options

if TYPE_CHECKING:
    from hecompile.access.objects import Scope
    from hecompile.runtime.allowance import Allowance
    from hecompile.runtime.run import RunResult


@click.command("run")
@bundle_argument
@click.option("--input", "samples", type=PATH, required=True, metavar="X.npz", help="Samples.")
@only_option
@output_option("Also write the outputs there, named as the model's.", metavar="OUT.npz")
@click.option("--keys", type=PATH, metavar="KEYS", help="Keys from keygen; by default fresh ones.")
@click.option("--evaluator", metavar="USER", help="Who evaluates; by default the one who may.")
@click.option("--key-holder", metavar="USER", help="By default --as, if allowed.")
@click.option("--model-owner", metavar="USER", help="Who encrypts the weights, if that is needed.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="For loading and for each evaluation.",
)
@workers_option
@weights_cache_option
@limit_options
@scope_option
@vault_options
@access_options
@json_option
def command(
    bundle: Path,
    samples: Path,
    only: tuple[str, ...],
    output: Path | None,
    keys: Path | None,
    evaluator: str | None,
    key_holder: str | None,
    model_owner: str | None,
    timeout: float | None,
    workers: int,
    weights_cache: Path | None,
    allowed: Allowance,
    scope: Scope,
    vault: VaultChoice,
    access: Access,
    as_json: bool,
) -> None:
    """Encrypt the samples in X.npz, evaluate them in another process, decrypt the results.

    USER encrypts, and gets raw values of the outputs that it may decrypt; others are released as
    the policy says, and counted under the key. Arrays are named as the model's inputs, samples
    first. Without --only, all outputs that the policy grants USER. What -o writes, you alone can
    read. The identities of USER and of whoever plays the other parties must be on this machine.
    """
    door = access.door(bundle)
    guard = access.guard(door)
    granted = guard.run(
        only, scope=scope, key_holder=key_holder, evaluator=evaluator, model_owner=model_owner
    )
    check_output(output)
    from hecompile.access.key_cards import KeyInspector
    from hecompile.cli.samples import read_samples, samples_document, shown, write_npz
    from hecompile.runtime.parties import read_server, read_spec, read_weights
    from hecompile.runtime.release import ReleaseRules
    from hecompile.runtime.release_log import ReleaseLog
    from hecompile.runtime.run import Opening, run_parties

    files = door.files()
    spec = read_spec(files)
    if keys is None:
        announce_keys(spec.parameters, len(door.manifest.galois_steps))
    result = run_parties(
        read_server(files),
        spec,
        read_samples(samples, spec),
        keys=keys,
        opening=Opening(
            granted,
            ReleaseRules.of(door.manifest),
            ReleaseLog(door.log, door.users, door.manifest.digest),
        ),
        vault=vault.opening(),
        timeout=timeout,
        progress=console.Progress(),
        warn=console.warn,
        model_weights=read_weights(files, spec),
        workers=workers,
        weights_cache=weights_cache,
        allowed=allowed,
        cards=KeyInspector(door.manifest, door.users),
    )
    raw = {name: found for name, found in result.outputs.items() if name not in result.released}
    document = {
        **samples_document(result.outputs, result.raw_outputs),
        **costs(result),
        "predicted_error": door.manifest.predicted_error,
        "released": {name: how_released(found) for name, found in result.released.items()},
    }
    if output is not None:
        write_npz(output, result.outputs)
    text = (shown(raw, result.raw_outputs) if raw else "") + released_text(result.released)
    console.result(document, text + costs_text(result), as_json)


def costs(result: RunResult) -> dict[str, object]:
    """Seconds, memory and bytes of a run as JSON values."""
    return {
        "phases": {
            name: {"cpu_seconds": phase.cpu, "wall_seconds": phase.wall}
            for name, phase in result.phases.items()
        },
        "peak_memory_bytes": result.peak_memory_bytes,
        "client_peak_memory_bytes": result.client_peak_memory_bytes,
        "ciphertext_bytes": {"in": result.ciphertext_bytes_in, "out": result.ciphertext_bytes_out},
        "refresh_bytes": result.refresh_bytes,
        "refresh_rounds": result.refresh_rounds,
        "out_of_range": [vars(warning) for warning in result.warnings],
        "warnings": [str(warning) for warning in result.told],
    }


def costs_text(result: RunResult) -> str:
    """Seconds, memory and bytes of a run, for people."""
    rows = [
        (name, f"{phase.cpu:.2f}", f"{phase.wall:.2f}") for name, phase in result.phases.items()
    ]
    rounds = console.counted(result.refresh_rounds, "refresh round")
    rounds = f", {rounds} of {console.size(result.refresh_bytes)}"
    return (
        console.table(rows, ("phase", "CPU s", "wall s"))
        + f"  the evaluator took {console.size(result.peak_memory_bytes)} of memory; ciphertexts: "
        f"{console.size(result.ciphertext_bytes_in)} in, "
        f"{console.size(result.ciphertext_bytes_out)} out"
        + (rounds if result.refresh_rounds else "")
        + "\n"
    )
