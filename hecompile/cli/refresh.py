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
from hecompile.cli.vault import VaultChoice, vault_options


@click.command("refresh")
@bundle_argument
@keys_option("secret")
@click.option(
    "--input", "request", type=PATH, required=True, metavar="REQUEST", help="The request."
)
@output_option("The response.", True, "RESPONSE")
@vault_options
@access_options
@json_option
def command(
    bundle: Path,
    keys: Path,
    request: Path,
    output: Path,
    vault: VaultChoice,
    access: Access,
    as_json: bool,
) -> None:
    """Encrypt the masked values in REQUEST anew; no value leaves in the clear.

    Requests must be signed by a user who may evaluate, and are answered once: all in REQUEST, or
    none if one is refused. The response is signed with the identity of USER.
    """
    from hecompile.runtime.wants import REFRESHING

    door = access.door(bundle)
    guard = access.guard(door)
    identity = guard.acting(REFRESHING)
    check_output(output)
    from hecompile.cli.hectfile import read_parts, write_parts
    from hecompile.runtime.custodian import Custodian
    from hecompile.runtime.envelope import envelope_limit
    from hecompile.runtime.inspection import lifetime_of
    from hecompile.runtime.keys import load_secret_key
    from hecompile.runtime.parties import read_spec
    from hecompile.runtime.release import ReleaseRules

    spec = read_spec(door.files())
    limits = [envelope_limit(spec.parameters, round_.request) for round_ in spec.refreshes]
    requests = read_parts(request, max(limits, default=0))
    key = load_secret_key(keys, spec.parameters, spec.program, spec.manifest, vault.opening())
    custodian = Custodian(
        spec,
        key,
        identity=identity,
        inspector=access.inspector(guard),
        rules=ReleaseRules.of(door.manifest),
        lifetime=lifetime_of(guard),
        purpose=access.purpose,
    )
    responses = custodian.refresh_all(requests)
    written = write_parts(output, responses)
    document = {"output": str(output), "evaluations": len(responses), "bytes": written}
    console.result(document, f"wrote {output}: {console.size(written)}", as_json)
