"""Manifests and what changed between them, for people and as JSON values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from hecompile.cli import console
from hecompile.cli.describe import policy_document, policy_text
from hecompile.cli.describe_access import access_document, access_text

if TYPE_CHECKING:
    from hecompile.access.manifest import Manifest, Port
    from hecompile.access.manifest_diff import Difference
    from hecompile.bundle.review import Review, Signature
    from hecompile.bundle.store import BundleFiles


def review_document(review: Review) -> dict[str, object]:
    """A manifest that is not believed yet, with the state of its signatures."""
    manifest = review.manifest
    return {
        "bundle": str(review.path),
        "digest": manifest.digest,
        "program": manifest.program,
        "created": manifest.created,
        "versions": asdict(manifest.versions),
        "parameters": dict(manifest.parameters),
        "io": asdict(manifest.io),
        "galois_steps": list(manifest.galois_steps),
        "refresh": asdict(manifest.refresh),
        "predicted_error": manifest.predicted_error,
        **access_document(manifest),
        "signatures": [{**asdict(one), "counts": one.counts} for one in review.signatures],
        "signatures_missing": review.missing,
        "signatures_owed": review.owed,
        "time_fault": review.time_fault,
        "users_fault": review.users_fault,
        "files": [asdict(entry) for entry in manifest.files],
        **policy_document(manifest.policy, review.users),
    }


def review_text(review: Review) -> str:
    """The same for people."""
    manifest = review.manifest
    rows = [
        ("bundle", str(review.path)),
        ("manifest", manifest.digest),
        ("program", f"{manifest.program}, made {manifest.created} by {_software(manifest)}"),
        *(("in", _port(port)) for port in manifest.io.inputs),
        *(("out", _port(port)) for port in manifest.io.outputs),
        ("evaluated with", _work(manifest)),
        ("predicted error", f"{manifest.predicted_error:.3g}"),
        *(("signature", _signature(one)) for one in review.signatures),
        ("believed here", _belief(review)),
    ]
    if review.users is None:
        rows.append(("users", review.users_fault or "no users document: nobody may do anything"))
    rows += [("file", f"{one.name}  {one.size} bytes  {one.sha256}") for one in manifest.files]
    return printable(
        f"{console.table(rows, indent='')}{access_text(manifest)}{_flows(manifest)}"
        f"who may do what:\n{policy_text(manifest.policy, review.users)}"
    )


def verified_document(files: BundleFiles) -> dict[str, object]:
    """What was checked of a bundle, all of which holds."""
    manifest, opening, users = files.manifest, files.opening, files.users
    return {
        "bundle": str(files.path),
        "verified": True,
        "digest": manifest.digest,
        "signed_by": list(opening.keyids),
        "threshold": opening.threshold,
        "not_before": manifest.not_before,
        "not_after": manifest.not_after,
        "lineage": manifest.lineage,
        "version": manifest.version,
        "files": len(manifest.files),
        "bytes": sum(entry.size for entry in manifest.files),
        "owners_part": files.has_owners_part,
        "users": None
        if users is None
        else {"version": users.version, "digest": users.digest, "count": len(users.users)},
    }


def verified_text(files: BundleFiles) -> str:
    """The same for people."""
    manifest, opening, users = files.manifest, files.opening, files.users
    total = sum(entry.size for entry in manifest.files)
    left = manifest.encrypted_model and not files.has_owners_part
    counted = f"{len(manifest.files)}, {console.size(total)}, each with its SHA-256"
    rows = [
        ("bundle", f"{files.path}: as signed"),
        ("manifest", manifest.digest),
        *(("signed by", keyid) for keyid in opening.keyids),
        ("signatures", f"{len(opening.keyids)}, {opening.threshold} needed"),
        ("valid", f"from {manifest.not_before or 'ever'} to {manifest.not_after or 'any time'}"),
        ("version", f"{manifest.version} of {manifest.lineage}, none newer seen here"),
        ("files", f"{counted} (without the model owner's part)" if left else counted),
        (
            "users",
            "no users document: nobody may do anything"
            if users is None
            else f"version {users.version}, {console.counted(len(users.users), 'user')}",
        ),
    ]
    return printable(console.table(rows, indent=""))


def differences_text(found: Iterable[Difference]) -> str:
    """One line for each thing that changed: `+` before what is gained, `-` before what is lost."""
    marks = {"gained": "+", "lost": "-", "changed": "~"}
    lines = [f"{marks[one.change]} {one.place}: {one.text}" for one in found]
    return printable("\n".join(lines) or "the manifests are the same")


def succession_text(old: Manifest, new: Manifest) -> str:
    """How the second manifest stands to the first."""
    if old.digest == new.digest:
        return ""
    if old.lineage != new.lineage:
        return "the two are of different lines: neither takes the place of the other\n"
    told = f"version {old.version} -> {new.version}"
    if new.supersedes == old.digest:
        return f"{told}: the second supersedes the first\n"
    return f"{told} of one line, but the second does not supersede the first\n"


def printable(text: str) -> str:
    """The text without what would steer a terminal: documents shown here may be anybody's."""
    return "".join(
        one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text
    )


def _software(manifest: Manifest) -> str:
    found = manifest.versions
    return (
        f"hecompile {found.hecompile} (TenSEAL {found.tenseal}, SEAL {found.seal}, "
        f"numpy {found.numpy})"
    )


def _port(port: Port) -> str:
    return (
        f"{port.name} {'x'.join(map(str, port.shape))} in "
        f"{console.counted(port.ciphertexts, 'ciphertext')} of at most "
        f"{console.size(port.byte_limit)} each"
    )


def _work(manifest: Manifest) -> str:
    steps, refresh = manifest.galois_steps, manifest.refresh
    told = f"{console.counted(len(steps), 'Galois key')} (steps {', '.join(map(str, steps))})"
    if not steps:
        told = "no Galois key"
    if not refresh.count:
        return f"{told}, no refresh"
    return (
        f"{told}, {console.counted(refresh.count, 'refresh round')} behind masks of "
        f"{refresh.mask_bits} bits"
    )


def _signature(one: Signature) -> str:
    if one.valid is None:
        state = "by a key that is not trusted here"
    elif not one.valid:
        state = "WRONG: changed after signing"
    elif not one.listed:
        state = "right, but not by one of the manifest's signers"
    else:
        state = "right, by a trusted signer"
    return f"{one.keyid}: {state}"


def _belief(review: Review) -> str:
    """Whether the manifest would be taken here and now, but for roll-back and files."""
    counted = sum(one.counts for one in review.signatures)
    told = f"{counted} of {review.threshold} signatures"
    if review.missing:
        return f"no: {told}"
    if review.has_wrong_signatures:
        return f"no: {told}, but others too"
    if review.owed:
        return f"no: {told}, but {_owed(review)}"
    return f"no: {review.time_fault}" if review.time_fault else f"yes: {told}"


def _owed(review: Review) -> str:
    return (
        f"{console.counted(review.owed, 'signature')} by signers of the older version seen here "
        "missing"
    )


def missing_text(review: Review) -> str:
    """Which signatures are missing before the bundle opens here, after a colon; or nothing."""
    told = []
    if review.missing:
        counted = console.counted(review.missing, "signature")
        told.append(f"{counted} of {review.threshold} missing")
    if review.owed:
        told.append(_owed(review))
    return f": {'; '.join(told)}" if told else ""


def _flows(manifest: Manifest) -> str:
    rows = [
        (flow.output, ", ".join(flow.labels) or "no label", ", ".join(flow.weights) or "no label")
        for flow in manifest.flows
    ]
    return "what flows into the outputs:\n" + console.table(
        rows, ("output", "from inputs", "from weights")
    )
