"""`hecompile decrypt`: the key holder's part at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    only_option,
    output_option,
)
from hecompile.cli.releases import release_document, released_text, scope_option
from hecompile.cli.vault import VaultChoice, vault_options

if TYPE_CHECKING:
    from hecompile.access.objects import Scope
    from hecompile.cli.door import Door
    from hecompile.runtime.custodian import Custodian, OutputWarning
    from hecompile.runtime.guard import PolicyGuard
    from hecompile.runtime.wants import Want


@click.command("decrypt")
@bundle_argument
@keys_option("secret")
@click.option(
    "--input", "encrypted", type=PATH, required=True, metavar="OUT.hect", help="From evaluate."
)
@only_option
@click.option(
    "--release",
    "releases",
    is_flag=True,
    help="Release the outputs also where USER may decrypt raw values.",
)
@scope_option
@output_option("Also write the outputs there, named as the model's.", metavar="OUT.npz")
@vault_options
@access_options
@json_option
def command(
    bundle: Path,
    keys: Path,
    encrypted: Path,
    only: tuple[str, ...],
    releases: bool,
    scope: Scope,
    output: Path | None,
    vault: VaultChoice,
    access: Access,
    as_json: bool,
) -> None:
    """Decrypt and post-process the encrypted outputs in OUT.hect.

    A user who may decrypt gets raw values. For one who may declassify, values are flooded with
    noise and rounded, reduced to a label or averaged, as the policy says; that counts as a
    release under the key, and OUT.hect cannot be released again.

    Without --only, all outputs that the policy grants USER. What -o writes, you alone can read.
    """
    from hecompile.access.objects import Scope

    door = access.door(bundle)
    guard = access.guard(door)
    labels = guard.chosen(only)
    if releases or scope is Scope.COHORT or _is_release(guard, labels, scope):
        _release(door, guard, access, only, scope, keys, encrypted, output, vault, as_json)
        return
    granted = guard.decrypt(labels, some=not only)
    check_output(output)
    custodian, envelopes = _opened(door, guard, access, keys, encrypted, vault)
    from hecompile.cli.samples import samples_document, shown, write_npz

    warnings: list[OutputWarning] = []
    found = custodian.decrypt_all(envelopes, granted, warnings.append)
    document = {
        **samples_document(found.outputs, found.raw),
        "predicted_error": door.manifest.predicted_error,
        "warnings": list(map(str, warnings)),
    }
    for warning in warnings:
        console.warn(warning)
    if output is not None:
        write_npz(output, found.outputs)
    console.result(document, shown(found.outputs, found.raw), as_json)


def _release(
    door: Door,
    guard: PolicyGuard,
    access: Access,
    only: Sequence[str],
    scope: Scope,
    keys: Path,
    encrypted: Path,
    output: Path | None,
    vault: VaultChoice,
    as_json: bool,
) -> None:
    """Release what the policy grants."""
    decisions = guard.declassify(guard.chosen(only), scope, some=not only)
    check_output(output)
    custodian, envelopes = _opened(door, guard, access, keys, encrypted, vault)
    from hecompile.cli.samples import write_npz

    released = custodian.release_granted(envelopes, decisions)
    if output is not None:
        write_npz(output, released.values)
    document = {**release_document(released.outputs), "warnings": []}
    console.result(document, released_text(released.outputs), as_json)


def _opened(
    door: Door,
    guard: PolicyGuard,
    access: Access,
    keys: Path,
    encrypted: Path,
    vault: VaultChoice,
) -> tuple[Custodian, Iterable[bytes]]:
    """The key holder, who was let in already, and the envelopes to open."""
    from hecompile.cli.hectfile import read_parts
    from hecompile.runtime.custodian import Custodian
    from hecompile.runtime.envelope import envelope_limit
    from hecompile.runtime.keys import load_secret_key
    from hecompile.runtime.parties import read_spec
    from hecompile.runtime.release import ReleaseRules
    from hecompile.runtime.release_log import ReleaseLog

    spec = read_spec(door.files())
    envelopes = read_parts(encrypted, envelope_limit(spec.parameters, spec.output_ciphertexts))
    key = load_secret_key(keys, spec.parameters, spec.program, spec.manifest, vault.opening())
    custodian = Custodian(
        spec,
        key,
        inspector=access.inspector(guard),
        rules=ReleaseRules.of(door.manifest),
        log=ReleaseLog(door.log, door.users, door.manifest.digest),
    )
    return custodian, envelopes


def _is_release(guard: PolicyGuard, labels: Sequence[str], scope: Scope) -> bool:
    """Whether the user, or everybody where none is named, may see released values only."""
    from hecompile.access.decide import PolicyIndex, Request
    from hecompile.runtime.wants import declassifications, decryptions, scope_of

    index = PolicyIndex(guard.manifest.policy, guard.users)
    everybody = guard.users.users if guard.users is not None else ()
    names = [guard.user] if guard.user is not None else [user.name for user in everybody]

    def may(wants: Sequence[Want]) -> bool:
        asked = (
            Request(name, *want, guard.purpose, scope_of(want, scope))
            for name in names
            for want in wants
        )
        return any(index.decide(one).allowed for one in asked)

    return may(declassifications(labels)) and not may(decryptions(labels))
