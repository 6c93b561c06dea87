"""`hecompile export`: a bundle for those who must not see the model."""

from __future__ import annotations

from pathlib import Path

import click

from hecompile.cli import console
from hecompile.cli.options import (
    bundle_argument,
    json_option,
    output_option,
    trust_option,
)


@click.command("export")
@bundle_argument
@output_option("Folder to make, or a file ending in .hec.", True, "PLACE")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@trust_option
@json_option
def command(
    bundle: Path, output: Path, overwrite: bool, trust: tuple[Path, ...], as_json: bool
) -> None:
    """Copy BUNDLE without the model owner's part, with its signatures and its users document.

    Client, evaluator and key holder work with the copy; only encrypt-model needs the original.
    """
    from hecompile.access.trust import TrustStore
    from hecompile.bundle.store import export_bundle, open_bundle_files

    files = open_bundle_files(bundle, TrustStore().load(trust))
    left = export_bundle(files, output, overwrite=overwrite)
    told = f"without {', '.join(left)}" if left else "whole, for it has no model owner's part"
    console.result({"output": str(output), "left_out": left}, f"wrote {output} {told}", as_json)
