"""Policies as plain tables, the same in JSON and TOML; `policy_io` reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hecompile.access.terms import (
    NO_OBLIGATIONS,
    Constraint,
    FieldLabels,
    KeyRule,
    ModelLabels,
    Obligations,
)

if TYPE_CHECKING:
    from hecompile.access.policy import Permission, Policy

POLICY_FORMAT = 2
DEFAULT_ENVELOPE_SECONDS = 86400

Table = dict[str, object]


def policy_to_json(policy: Policy) -> Table:
    """The policy as plain tables, the same as its TOML file holds; equal policies, equal tables."""
    table: Table = {"format": POLICY_FORMAT}
    if policy.purposes:
        table["purposes"] = list(policy.purposes)
    if policy.unused:
        table["unused"] = [str(obj) for obj in policy.unused]
    table["roles"] = {
        role.name: _filled(
            inherits=list(role.inherits),
            description=role.description,
            clearance=list(role.clearance),
        )
        for role in policy.roles
    }
    table["permissions"] = [_permission(permission) for permission in policy.permissions]
    if policy.constraints:
        table["constraints"] = [_constraint(one) for one in policy.constraints]
    if policy.keys:
        table["keys"] = {rule.name: _key_rule(rule) for rule in policy.keys}
    if policy.labels:
        table["labels"] = {str(one.object): _labels(one) for one in policy.labels}
    if policy.model is not None:
        table["model"] = _model(policy.model)
    if policy.envelope_seconds != DEFAULT_ENVELOPE_SECONDS:
        table["envelopes"] = {"seconds": policy.envelope_seconds}
    return table


def _filled(**values: object) -> Table:
    """The values that say something: absent keys read back as nothing."""
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}


def _labels(labels: FieldLabels) -> object:
    names = list(labels.labels)
    if labels.axis is not None:
        return {"axis": labels.axis, "names": names}
    return names[0] if len(names) == 1 else names


def _permission(permission: Permission) -> Table:
    table: Table = {
        "role": permission.role,
        "actions": [str(action) for action in permission.actions],
        "objects": [str(obj) for obj in permission.objects],
    }
    if permission.enforcement is not None:
        table["enforcement"] = str(permission.enforcement)
    if permission.is_cohort:
        table["scope"] = str(permission.scope)
    if permission.purposes:
        table["purpose"] = list(permission.purposes)
    if permission.obligations != NO_OBLIGATIONS:
        table["obligations"] = obligations_to_json(permission.obligations)
    return table


def obligations_to_json(obligations: Obligations) -> Table:
    """What a permission obliges to, as a plain table; empty for nothing beyond the log."""
    table = _filled(flood=obligations.flood, round=obligations.round, budget=obligations.budget)
    if obligations.label_only:
        table["label_only"] = True
    if obligations.dp is not None:
        noise = obligations.dp
        table["dp"] = {
            "rho": noise.rho,
            "total_rho": noise.total_rho,
            "lower": noise.lower,
            "upper": noise.upper,
            "least": noise.least,
        }
    return table


def _constraint(constraint: Constraint) -> Table:
    return {"kind": constraint.kind, "roles": list(constraint.roles), "most": constraint.most}


def _key_rule(rule: KeyRule) -> Table:
    return _filled(
        holders=list(rule.holders),
        never=list(rule.never),
        rotate_days=rule.rotate_days,
        rotate_releases=rule.rotate_releases,
    )


def _model(model: ModelLabels) -> Table:
    return {
        "labels": list(model.labels),
        "guarantee": model.guarantee,
        **_filled(epsilon=model.epsilon, delta=model.delta),
    }
