"""`hecompile manifest`: sign, verify, show and compare what a bundle promises and grants."""

from __future__ import annotations

from pathlib import Path

import click

from hecompile.cli import console
from hecompile.cli.options import PATH, bundle_argument, json_option, trust_option

DIFFERS = 1


@click.group("manifest")
def command() -> None:
    """Sign, verify, show or compare the manifests of bundles."""


@command.command("sign")
@bundle_argument
@click.option("--key", type=PATH, metavar="KEY.pem", help="Who signs; by default your own key.")
@click.option(
    "--digest",
    default="",
    metavar="HEX",
    help="Sign only the manifest with this digest, or with one that begins so.",
)
@trust_option
@json_option
def sign(
    bundle: Path, key: Path | None, digest: str, trust: tuple[Path, ...], as_json: bool
) -> None:
    """Add a signature to the manifest of BUNDLE, for bundles that need several.

    What takes the place of an older version needs as many signatures by that one's signers as that
    one needed; they sign it with this command too.

    Form, policy and files are checked first, and what was signed is shown. Look at it before with
    'manifest show' or 'manifest diff', and name the digest that you saw with --digest.
    """
    from hecompile.access.identity import own_signer
    from hecompile.access.signing import TrustStore
    from hecompile.bundle.review import add_signature
    from hecompile.cli.manifest_text import missing_text, review_document, review_text

    signer = own_signer(key)
    review = add_signature(bundle, signer, TrustStore().load(trust), digest)
    document = {"signed_by": signer.keyid, **review_document(review)}
    told = f"signed {bundle} with key {signer.keyid}{missing_text(review)}\n"
    console.result(document, told + review_text(review), as_json)


@command.command("verify")
@bundle_argument
@click.option(
    "--users", type=PATH, metavar="USERS.json", help="A newer signed users document to go by."
)
@trust_option
@json_option
def verify(bundle: Path, users: Path | None, trust: tuple[Path, ...], as_json: bool) -> None:
    """Check everything about BUNDLE: signatures, times, policy, roll-back, every file.

    Leaves with code 4 where anything is not as signed.
    """
    from hecompile.access.signing import TrustStore
    from hecompile.bundle.opening import read_users_file
    from hecompile.bundle.store import open_bundle_files
    from hecompile.cli.manifest_text import verified_document, verified_text

    given = read_users_file(users) if users is not None else None
    files = open_bundle_files(bundle, TrustStore().load(trust), users=given)
    console.result(verified_document(files), verified_text(files), as_json)


@command.command("show")
@bundle_argument
@trust_option
@json_option
def show(bundle: Path, trust: tuple[Path, ...], as_json: bool) -> None:
    """Show what the manifest of BUNDLE promises and grants, and who signed it so far.

    Files are not read, and times and missing signatures are told, not refused: whoever is to sign
    looks here first.
    """
    from hecompile.access.signing import TrustStore
    from hecompile.bundle.review import review_bundle
    from hecompile.cli.manifest_text import review_document, review_text

    review = review_bundle(bundle, TrustStore().load(trust))
    console.result(review_document(review), review_text(review), as_json)


@command.command("diff")
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@trust_option
@json_option
def diff(old: Path, new: Path, trust: tuple[Path, ...], as_json: bool) -> int:
    """Tell what changed from the manifest of bundle OLD to that of NEW.

    Permissions are compared as each role has them in effect. Leaves with code 0 where the
    manifests are the same, else with 1.
    """
    from hecompile.access.manifest_diff import compare_manifests
    from hecompile.access.signing import TrustStore
    from hecompile.bundle.review import review_bundle
    from hecompile.cli.manifest_text import differences_text, missing_text, succession_text

    trusted = TrustStore().load(trust)
    before, after = (review_bundle(path, trusted) for path in (old, new))
    found = compare_manifests(before.manifest, after.manifest)
    document = {
        "old": before.manifest.digest,
        "new": after.manifest.digest,
        "supersedes": after.manifest.supersedes == before.manifest.digest,
        "differences": [vars(one) for one in found],
    }
    text = succession_text(before.manifest, after.manifest) + differences_text(found)
    console.result(document, text, as_json)
    for name, review in ((old, before), (new, after)):
        if missing := missing_text(review):
            console.warn(f"{name} is not to be believed yet{missing}")
    return DIFFERS if found else 0
