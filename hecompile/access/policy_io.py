"""Policies as TOML files, as JSON inside a manifest, and as text for people.

All three hold the same tables, so one strict reader serves them; the TOML reader adds the line.
"""

from __future__ import annotations

from pathlib import Path

from hecompile.access.documents import (
    TomlLines,
    parse_toml,
    read_text,
    toml_fields,
    toml_key,
)
from hecompile.access.policy import Policy
from hecompile.access.policy_json import policy_to_json
from hecompile.access.policy_reader import PolicyReader

__all__ = [
    "parse_policy",
    "policy_from_json",
    "policy_to_json",
    "policy_to_toml",
    "read_policy",
]


def read_policy(path: str | Path) -> Policy:
    """Read a policy from a TOML file; `check_policy` then holds it against a program.

    Raises:
        InputError: The file cannot be read, is not TOML, or holds an unknown key, action or
            object or a value outside its limits; the message names file and line.
    """
    return parse_policy(read_text(path, "policy"), str(path))


def parse_policy(text: str, source: str = "the policy") -> Policy:
    """Read a policy from TOML text; `source` names it in messages.

    Raises:
        InputError: As for `read_policy`.
    """
    return PolicyReader(source, TomlLines(text)).policy(parse_toml(text, source))


def policy_from_json(data: object, source: str = "the policy") -> Policy:
    """Read a policy from the tables that `policy_to_json` gives.

    Raises:
        InputError: The tables are not a policy's.
    """
    return PolicyReader(source, None).policy(data)


def policy_to_toml(policy: Policy) -> str:
    """The policy as TOML text that `parse_policy` reads back to an equal policy."""
    head: dict[str, object] = {}
    lines: list[str] = []
    for name, value in policy_to_json(policy).items():
        if name in ("roles", "keys") and isinstance(value, dict):
            for key, table in value.items():
                lines += ["", f"[{name}.{toml_key(key)}]", *toml_fields(table)]
        elif name in ("permissions", "constraints") and isinstance(value, list):
            for table in value:
                lines += ["", f"[[{name}]]", *toml_fields(table)]
        elif isinstance(value, dict):
            lines += ["", f"[{name}]", *toml_fields(value)]
        else:
            head[name] = value
    return "\n".join([*toml_fields(head), *lines]) + "\n"
