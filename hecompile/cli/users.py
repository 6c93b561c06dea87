"""`hecompile users`: who has which role, signed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import PATH, check_output, json_option, output_option, trust_option
from hecompile.errors import InputError, UsageError

if TYPE_CHECKING:
    from hecompile.access.manifest import Manifest
    from hecompile.access.signing import SigningKey
    from hecompile.access.trust import TrustedKeys
    from hecompile.access.users import Users


@click.group("users")
def command() -> None:
    """Say which user has which role, signed."""


@command.command("sign")
@click.argument("path", type=PATH, metavar="USERS")
@click.option("--bundle", type=PATH, required=True, metavar="BUNDLE", help="Whose policy it is for")
@click.option("--key", type=PATH, metavar="KEY.pem", help="Who signs; by default your own key.")
@click.option(
    "--local-keys",
    is_flag=True,
    help="Give users without a key their identity on this machine, made if there is none.",
)
@output_option("Write the signed document there and leave the bundle as it is.")
@trust_option
@json_option
def sign(
    path: Path,
    bundle: Path,
    key: Path | None,
    local_keys: bool,
    output: Path | None,
    trust: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Sign USERS, a users.toml or a signed document that lacks signatures.

    It is held against the policy of BUNDLE and put into it, or written with -o: the one in the
    bundle is replaced by one with a higher version only. Where several must sign, pass it on with
    -o until it has all signatures.

    Users without a key can sign nothing. With --local-keys they are this machine's: whoever runs it
    can act as each of them.
    """
    from hecompile.access.identity import own_signer
    from hecompile.access.signing import TrustStore, parse_envelope
    from hecompile.access.users import USERS_NAME, USERS_PAYLOAD_TYPE
    from hecompile.bundle.opening import manifest_for_users, users_signers

    check_output(output)
    trusted = TrustStore().load(trust)
    manifest = manifest_for_users(bundle, trusted)
    signer = own_signer(key)
    if signer.keyid not in users_signers(manifest):
        raise InputError(
            f"key {signer.keyid} may not sign users documents for bundle {bundle}, so that nobody "
            f"would believe it; sign with one of {', '.join(users_signers(manifest))}"
        )
    signed, users = _sign(path, manifest, signer, local_keys)
    count = len(parse_envelope(signed, USERS_NAME, USERS_PAYLOAD_TYPE).signatures)
    missing = max(0, _threshold(manifest, trusted) - count)
    if missing and output is None:
        raise InputError(
            f"{count} of {count + missing} signatures: the bundle does not take it yet; write it "
            "with -o and have the others sign it"
        )
    _put(signed, bundle, output, trusted, complete=not missing)
    _warn_of_keyless(users)
    place = str(output if output is not None else bundle)
    document = {**_document(users), "written": place, "signatures": count, "missing": missing}
    more = f"; {console.counted(missing, 'signature')} more needed" if missing else ""
    told = f"signed version {users.version} with key {signer.keyid[:16]}, written to {place}{more}"
    console.result(document, told, as_json)


@command.command("show")
@click.argument("bundle", type=PATH)
@click.option("--users", type=PATH, metavar="FILE", help="A newer signed document, not yet in it.")
@trust_option
@json_option
def show(bundle: Path, users: Path | None, trust: tuple[Path, ...], as_json: bool) -> None:
    """Print who has which role in BUNDLE, and with which keys they sign."""
    from hecompile.cli.door import open_door

    found = open_door(bundle, trust, users=users).users
    if found is None:
        raise InputError(
            f"bundle {bundle} has no users document, so nobody may do anything; sign one with "
            "`hecompile users sign`"
        )
    rows = [
        (user.name, ", ".join(user.roles) or "no role", user.keyid[:16] or "no key")
        for user in found.users
    ]
    span = f"from {found.not_before or 'any time'} to {found.not_after or 'any time'}"
    text = f"version {found.version}, {span}\n" + console.table(rows, ("user", "roles", "key"))
    console.result(_document(found), text, as_json)


def _put(
    signed: bytes, bundle: Path, output: Path | None, trusted: TrustedKeys, *, complete: bool
) -> None:
    """Write a signed document, which the bundle must take if it has all its signatures."""
    from hecompile.bundle.opening import open_documents
    from hecompile.bundle.sources import open_source
    from hecompile.bundle.writing import install_users
    from hecompile.files import atomic_write_bytes

    opening = open_documents(open_source(bundle), trusted, users=signed) if complete else None
    if output is not None:
        atomic_write_bytes(output, signed)
        return
    if opening is not None:
        # What machines would refuse as older than what they saw is not put into the bundle.
        opening.admit(None)
    install_users(bundle, signed)


def _sign(path: Path, manifest: Manifest, key: SigningKey, local_keys: bool) -> tuple[bytes, Users]:
    """Sign a users.toml, or add a signature to a signed document, once the policy allows it."""
    from hecompile.access.documents import MAX_DOCUMENT_BYTES, read_text
    from hecompile.access.manifest_checks import facts_of
    from hecompile.access.proof import check_policy
    from hecompile.access.records import parse_json
    from hecompile.access.signing import cosign, parse_envelope
    from hecompile.access.users import (
        USERS_PAYLOAD_TYPE,
        check_users,
        parse_users,
        sign_users,
        users_from_json,
    )
    from hecompile.bundle.local_users import with_local_keys

    text, what = read_text(path, "users document"), str(path)
    is_signed = text.startswith("{")
    if is_signed and local_keys:
        raise UsageError(f"{what} is signed, so no key is put into it; leave --local-keys out")
    if is_signed:
        payload = parse_envelope(text.encode(), what, USERS_PAYLOAD_TYPE).payload
        users = users_from_json(parse_json(payload, what, MAX_DOCUMENT_BYTES), what)
    else:
        users = parse_users(text, manifest.policy, what)
    check_users(manifest.policy, users)
    check_policy(manifest.policy, facts_of(manifest), users)
    if is_signed:
        return cosign(text.encode(), key, what, USERS_PAYLOAD_TYPE), users
    if local_keys:
        users = with_local_keys(users, console.warn)
    return sign_users(users, key), users


def _threshold(manifest: Manifest, trusted: TrustedKeys) -> int:
    signers = manifest.signers
    return 1 if signers.users else max(trusted.threshold, signers.threshold)


def _warn_of_keyless(users: Users) -> None:
    for user in users.users:
        if user.key is None:
            console.warn(
                f"user '{user.name}' has no key and can sign nothing: have `hecompile identity new "
                f"{user.name}` run, put the key it prints into the users document and sign anew "
                "(with --local-keys for users of this machine)"
            )


def _document(users: Users) -> dict[str, object]:
    from hecompile.access.users import key_text

    return {
        "policy": users.policy,
        "version": users.version,
        "not_before": users.not_before,
        "not_after": users.not_after,
        "users": {
            user.name: {
                "roles": list(user.roles),
                "key": key_text(user.key) if user.key is not None else None,
                "keyid": user.keyid,
            }
            for user in users.users
        },
    }
