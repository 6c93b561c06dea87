"""The manifest as an in-toto Statement v1: plain JSON values, every field stated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from hecompile.access.policy_json import policy_to_json

if TYPE_CHECKING:
    from hecompile.access.manifest import Manifest, Port

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_PREFIX: Final = "https://hecompile.dev/manifest/v"

PORT_FIELDS: Final = ("name", "shape", "ciphertexts", "byte_limit", "level")
SECURITY_FIELDS: Final = ("table", "bits", "modulus_bits", "limit", "margin")
SIGNERS_FIELDS: Final = ("threshold", "keyids", "users")
VERSIONS_FIELDS: Final = ("hecompile", "tenseal", "numpy", "seal")
PREDICATE_FIELDS: Final = (
    "created",
    "flows",
    "format",
    "galois_steps",
    "io",
    "lineage",
    "not_after",
    "not_before",
    "parameters",
    "policy",
    "predicted_error",
    "program",
    "refresh",
    "releases",
    "security",
    "signers",
    "supersedes",
    "version",
    "versions",
)


def statement_of(manifest: Manifest) -> dict[str, object]:
    """The statement, as JSON values; subjects are the files."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {
                "name": entry.name,
                "digest": {"sha256": entry.sha256},
                "annotations": {"size": entry.size},
            }
            for entry in manifest.files
        ],
        "predicateType": f"{PREDICATE_PREFIX}{manifest.format}",
        "predicate": _predicate(manifest),
    }


def _predicate(manifest: Manifest) -> dict[str, object]:
    signers = manifest.signers
    return {
        "created": manifest.created,
        "flows": [flow.to_json() for flow in manifest.flows],
        "format": manifest.format,
        "galois_steps": list(manifest.galois_steps),
        "io": {
            "inputs": _ports(manifest.io.inputs),
            "outputs": _ports(manifest.io.outputs),
        },
        "lineage": manifest.lineage,
        "not_after": manifest.not_after,
        "not_before": manifest.not_before,
        "parameters": dict(manifest.parameters),
        "policy": policy_to_json(manifest.policy),
        "predicted_error": float(manifest.predicted_error),
        "program": manifest.program,
        "refresh": {"count": manifest.refresh.count, "mask_bits": manifest.refresh.mask_bits},
        "releases": [plan.to_json() for plan in manifest.releases],
        "security": asdict(manifest.security),
        "signers": {
            "threshold": signers.threshold,
            "keyids": list(signers.keyids),
            "users": list(signers.users),
        },
        "supersedes": manifest.supersedes,
        "version": manifest.version,
        "versions": asdict(manifest.versions),
    }


def _ports(ports: Iterable[Port]) -> list[dict[str, object]]:
    return [{**asdict(port), "shape": list(port.shape)} for port in ports]
