"""Policies and users in Cedar, for tools that read it and as a second opinion in tests.

Cedar (Cutler et al., "Cedar: A New Language for Expressive, Fast, Safe, and Analyzable
Authorization", OOPSLA 2024) decides as `PolicyIndex.decide` does, with two exceptions that it has
no notion of: dynamic separation of duties, which depends on what was asked before, and the order
of permissions, of which the first binds. Each Cedar policy is annotated with its permission's
number and obligations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from hecompile.access.decide import Request
from hecompile.access.objects import ANY_NAME, APPLIES_TO, Kind, ObjectRef
from hecompile.access.policy import Permission, Policy
from hecompile.access.policy_json import obligations_to_json
from hecompile.access.users import Users, check_policy_digest

Entity = dict[str, object]

_NOT_ONE_OBJECT = """\
@id("one object")
forbid (principal, action, resource)
when { resource == Input::"*" || resource == Output::"*" };
"""

_ESCAPES = {
    '"': '\\"',
    "'": "\\'",
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\0": "\\0",
}


def export_cedar(policy: Policy, users: Users | None) -> str:
    """A policy and its users in Cedar.

    Returns:
        A JSON document: `policies`, Cedar's text, and `entities`, Cedar's entities.

    Raises:
        IntegrityError: The users document is for another policy.
    """
    document = {"policies": cedar_policies(policy), "entities": cedar_entities(policy, users)}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def cedar_policies(policy: Policy) -> str:
    """The permissions as Cedar's text: one policy for each object that a permission names."""
    found = [_NOT_ONE_OBJECT]
    for number, permission in enumerate(policy.permissions, start=1):
        found += _policies(number, permission)
    return "\n".join(found)


def cedar_entities(policy: Policy, users: Users | None) -> list[Entity]:
    """Users and roles with their parents, as Cedar reads entities from JSON.

    Raises:
        IntegrityError: The users document is for another policy.
    """
    known = {role.name for role in policy.roles}
    found = [
        _entity("Role", role.name, [name for name in role.inherits if name in known])
        for role in policy.roles
    ]
    if users is not None:
        check_policy_digest(policy, users)
        found += [
            _entity("User", user.name, [name for name in user.roles if name in known])
            for user in users.users
        ]
    return found


def cedar_request(request: Request) -> dict[str, object]:
    """A request as Cedar takes it."""
    return {
        "principal": f"User::{_text(request.user)}",
        "action": f"Action::{_text(str(request.action))}",
        "resource": _object(request.obj),
        "context": {"purpose": request.purpose, "scope": str(request.scope)},
    }


def _policies(number: int, permission: Permission) -> Iterator[str]:
    conditions = [f"context.scope == {_text(str(permission.scope))}"]
    if permission.purposes:
        named = ", ".join(map(_text, permission.purposes))
        conditions.append(f"[{named}].contains(context.purpose)")
    obligations = json.dumps(obligations_to_json(permission.obligations), sort_keys=True)
    for place, obj in enumerate(permission.objects, start=1):
        actions = [action for action in permission.actions if obj.kind in APPLIES_TO[action]]
        if not actions:
            continue
        named = ", ".join(f"Action::{_text(str(action))}" for action in actions)
        resource = f"is {_type(obj.kind)}" if obj.name == ANY_NAME else f"== {_object(obj)}"
        yield (
            f'@id("permission {number}.{place}")\n'
            f"@obligations({_text(obligations)})\n"
            "permit (\n"
            f"  principal in Role::{_text(permission.role)},\n"
            f"  action in [{named}],\n"
            f"  resource {resource}\n"
            ")\n"
            f"when {{ {' && '.join(conditions)} }};\n"
        )


def _entity(kind: str, name: str, parents: list[str]) -> Entity:
    return {
        "uid": {"type": kind, "id": name},
        "attrs": {},
        "parents": [{"type": "Role", "id": parent} for parent in parents],
    }


def _type(kind: Kind) -> str:
    return kind.value.capitalize()


def _object(obj: ObjectRef) -> str:
    return f"{_type(obj.kind)}::{_text(obj.name)}"


def _text(text: str) -> str:
    """A string literal in the one spelling that Cedar takes in requests."""
    spelt = (
        _ESCAPES.get(char) or (char if char.isprintable() else f"\\u{{{ord(char):x}}}")
        for char in text
    )
    return '"' + "".join(spelt) + '"'
