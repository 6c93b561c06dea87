"""The tables that say who sees what."""

from __future__ import annotations

import dataclasses

from hecompile.access.policy_io import parse_policy
from hecompile.cli.describe_access import UNDER_THE_KEY, role_table
from tests.unit.manifests import MANIFEST
from tests.unit.policies_for_tests import CLINIC


def cells(policy: str) -> dict[str, dict[str, str]]:
    """The table of who sees what: role, object, how finely."""
    manifest = dataclasses.replace(MANIFEST, policy=parse_policy(policy))
    head, *rows = role_table(manifest).splitlines()
    starts = [head.index(f"  {word}") + 2 for word in head.split()]
    ends = [*starts[1:], None]
    table = [
        [row[start:end].strip() for start, end in zip(starts, ends, strict=True)]
        for row in (head, *rows)
    ]
    return {row[0]: dict(zip(table[0][1:], row[1:], strict=True)) for row in table[1:]}


def test_whoever_holds_the_secret_key_is_shown_to_see_all_under_it() -> None:
    shown = cells(CLINIC)
    assert shown["custodian"] == {
        "keys": "secret key",
        **dict.fromkeys(("input:x", "output:y", "output:*", "program"), UNDER_THE_KEY),
    }
    assert shown["technician"]["input:x"] == "own values; ciphertext"
    assert shown["cloud"]["program"] == "ciphertext"
    assert shown["cloud"]["input:x"] == "-"


def test_whoever_inherits_the_secret_key_is_shown_so_too() -> None:
    shown = cells(
        CLINIC.replace("[roles.cloud]", '[roles.cloud]\n[roles.deputy]\ninherits = ["custodian"]')
    )
    assert shown["deputy"] == shown["custodian"]
