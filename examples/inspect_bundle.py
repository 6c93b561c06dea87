"""Read a bundle's promises without its data: who may do what, and what is predicted.

Usage: python inspect_bundle.py BUNDLE
"""

from __future__ import annotations

import sys

import hecompile
from hecompile.access.policy import permission_table


def main(path: str) -> None:
    # Opening checks the signature and every file, and refuses what was changed.
    manifest = hecompile.open_bundle(path).manifest
    print(f"program {manifest.program}, made {manifest.created}")
    for port in manifest.io.inputs:
        print(f"  takes {port.name}, shape {port.shape}, in {port.ciphertexts} ciphertexts")
    for port in manifest.io.outputs:
        print(f"  gives {port.name}, shape {port.shape}, within {manifest.predicted_error:.2g}")
    print(f"  asks the key holder {manifest.refresh.count} times")
    for row in permission_table(manifest.policy):
        print(f"  {row.role} may {row.action} {row.object}: {row.granularity} ({row.enforcement})")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
