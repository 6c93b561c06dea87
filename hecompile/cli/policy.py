"""`hecompile policy`: check a policy, explain a decision, export to Cedar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import PATH, json_option, trust_option
from hecompile.errors import UsageError

if TYPE_CHECKING:
    from hecompile.access.explain import Explanation
    from hecompile.access.policy import ObjectRef, Policy
    from hecompile.access.proof import ProgramFacts
    from hecompile.access.users import Users

Sources = tuple["Policy", "Users | None", "ProgramFacts | None"]


@click.group("policy")
def command() -> None:
    """Check a policy, or explain what it grants."""


def users_option(function: click.decorators.FC) -> click.decorators.FC:
    """`--users`: who has which role."""
    return click.option(
        "--users",
        type=PATH,
        metavar="USERS.toml",
        help="Who has which role; for a bundle, a newer signed document than its own.",
    )(function)


@command.command("check")
@click.argument("path", type=PATH, metavar="POLICY.toml")
@users_option
@click.option("--model", type=PATH, metavar="MODEL.onnx", help="The model that it is for.")
@click.option("--bundle", type=PATH, metavar="BUNDLE", help="A bundle of the program it is for.")
@trust_option
@json_option
def check(
    path: Path,
    users: Path | None,
    model: Path | None,
    bundle: Path | None,
    trust: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Prove what is known of rules S1 to S8 of POLICY.toml, and say what is left to prove.

    Without --model and --bundle, the program is taken to have the inputs and outputs that the
    policy names. What depends on the compiled program is proved at every compilation and loading;
    --bundle tells the parameters, --model the names alone.
    """
    if model is not None and bundle is not None:
        raise UsageError("give --model or --bundle, not both: a bundle knows its model")
    from hecompile.access.policy_io import read_policy
    from hecompile.access.users import read_users
    from hecompile.cli import policy_check

    policy = read_policy(path)
    given = read_users(users, policy) if users is not None else None
    warnings = policy_check.check(
        policy, policy_check.facts_for(policy, model, bundle, trust), given
    )
    for warning in warnings:
        console.warn(warning)
    source = bundle or model
    proved, left = policy_check.rules_proved(
        program=source is not None, users=given is not None, compiled=bundle is not None
    )
    document = {
        "policy": policy.digest,
        "roles": len(policy.roles),
        "permissions": len(policy.permissions),
        "users": len(given.users) if given is not None else None,
        "program": str(source) if source is not None else "the names that it gives itself",
        "proved": proved,
        "proved_when_compiled": left,
        "warnings": warnings,
    }
    text = (
        f"{path}: {len(policy.roles)} roles, {len(policy.permissions)} permissions hold together "
        f"for the program of {document['program']}; policy {policy.digest[:16]}\n"
        + "".join(f"  proved: {one}\n" for one in proved)
        + "".join(f"  proved when it is compiled: {one}\n" for one in left)
    )
    console.result(document, text, as_json)


@command.command("explain")
@click.argument("source", type=PATH, metavar="POLICY|BUNDLE")
@click.argument("user")
@click.argument("action")
@click.argument("obj", metavar="OBJECT")
@click.option("--purpose", default="", metavar="TEXT", help="What it is for.")
@click.option("--scope", default="person", type=click.Choice(["person", "cohort"]))
@users_option
@trust_option
@json_option
def explain_command(
    source: Path,
    user: str,
    action: str,
    obj: str,
    purpose: str,
    scope: str,
    users: Path | None,
    trust: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Say whether USER may do ACTION on OBJECT, by which rule, and what would have to be granted.

    The first permission in the policy's order that grants it decides; its obligations bind. Exit
    code 0, whatever the answer: nothing was asked of anybody, so nothing is logged.
    """
    from hecompile.access.decide import Request
    from hecompile.access.explain import explain
    from hecompile.access.objects import Action, Scope

    if action not in tuple(Action):
        from hecompile.access.documents import suggestion

        raise UsageError(
            f"unknown action '{action}'{suggestion(action, Action)}; use one of {', '.join(Action)}"
        )
    policy, known, facts = _open(source, users, trust)
    request = Request(user, Action(action), _object(obj, facts), purpose, Scope(scope))
    found = explain(policy, known, request)
    console.result(_document(found), _text(found), as_json)


@command.command("export")
@click.argument("source", type=PATH, metavar="POLICY|BUNDLE")
@click.option("--cedar", is_flag=True, required=True, help="As Cedar policies and entities.")
@click.option("-o", "--output", type=PATH, metavar="FOLDER", help="Write two files there.")
@users_option
@trust_option
@json_option
def export(
    source: Path,
    cedar: bool,
    output: Path | None,
    users: Path | None,
    trust: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write a policy in Cedar: its text, and the entities as JSON.

    Dynamic separation of duties, and which of several permissions binds, are not in it.
    """
    from hecompile.access.cedar import cedar_entities, cedar_policies
    from hecompile.files import atomic_write_text

    policy, known, _ = _open(source, users, trust)
    text, entities = cedar_policies(policy), cedar_entities(policy, known)
    document: dict[str, object] = {"policies": text, "entities": entities}
    if output is None:
        told = f"{text}\n// entities\n" + "".join(f"// {json.dumps(one)}\n" for one in entities)
        console.result(document, told, as_json)
        return
    output.mkdir(parents=True, exist_ok=True)
    paths = {"policies": output / "policies.cedar", "entities": output / "entities.json"}
    atomic_write_text(paths["policies"], text)
    atomic_write_text(paths["entities"], json.dumps(entities, indent=2) + "\n")
    written = {name: str(path) for name, path in paths.items()}
    console.result(written, f"written: {', '.join(written.values())}", as_json)


def _open(source: Path, users: Path | None, trust: tuple[Path, ...]) -> Sources:
    """The policy of a TOML file or of a bundle, with its users."""
    from hecompile.access.policy_io import read_policy
    from hecompile.access.users import check_users, read_users

    if source.suffix == ".toml":
        policy = read_policy(source)
        given = read_users(users, policy) if users is not None else None
        if given is not None:
            check_users(policy, given)
        return policy, given, None
    from hecompile.access.manifest_checks import facts_of
    from hecompile.cli.door import open_door

    door = open_door(source, trust, users=users)
    return door.manifest.policy, door.users, facts_of(door.manifest)


def _object(text: str, facts: ProgramFacts | None) -> ObjectRef:
    """The object of that name, which the program must have where its facts are known."""
    from hecompile.access.documents import suggestion
    from hecompile.access.objects import Kind, ObjectRef
    from hecompile.errors import InputError

    try:
        obj = ObjectRef.parse(text)
    except InputError as error:
        raise UsageError(str(error)) from error
    if facts is not None and not obj.is_wildcard and obj.kind in (Kind.INPUT, Kind.OUTPUT):
        names = facts.inputs if obj.kind is Kind.INPUT else facts.outputs
        if obj.name not in names:
            raise UsageError(
                f"the program has no {obj.kind} '{obj.name}'"
                f"{suggestion(obj.name, names, f'{obj.kind}:')}; its {obj.kind}s are "
                f"{', '.join(names)}"
            )
    return obj


def _document(found: Explanation) -> dict[str, object]:
    asked = found.decision.request
    return {
        "allowed": found.decision.allowed,
        "user": asked.user,
        "action": str(asked.action),
        "object": str(asked.obj),
        "purpose": asked.purpose,
        "scope": str(asked.scope),
        "rule": found.decision.rule,
        "role": found.decision.role,
        "path": list(found.path),
        "enforced_by": found.enforced_by,
        "granularity": found.granularity,
        "obligations": list(found.obligations),
        "nearest": list(found.nearest),
        "remedy": found.remedy,
    }


def _text(found: Explanation) -> str:
    asked = found.decision.request
    more = f" about one {asked.scope}" if str(asked.action) == "declassify" else ""
    more += f" for '{asked.purpose}'" if asked.purpose else ""
    may = "may" if found.decision.allowed else "may not"
    lines = [f"'{asked.user}' {may} {asked.action} {asked.obj}{more}"]
    lines.append(f"  rule: {found.decision.rule}")
    if found.decision.allowed:
        lines.append(f"  inheritance: {' -> '.join(found.path)}")
        lines.append(f"  sees: {found.granularity}")
        lines.append(f"  enforced: {found.enforced_by}")
        lines += [f"  obligation: {one}" for one in found.obligations]
    else:
        lines += [f"  nearest: {one}" for one in found.nearest]
        lines.append(f"  remedy: {found.remedy}")
    return "\n".join(lines)
