"""From plain tables to a policy: every key known, every value within its limits."""

from __future__ import annotations

import re
from collections.abc import Sequence, Sized

from hecompile.access.documents import DocumentReader, suggestion
from hecompile.access.names import shown
from hecompile.access.objects import KEY_NAMES, Action, Enforcement, Kind, ObjectRef, Scope
from hecompile.access.policy import Permission, Policy, Role, role_paths
from hecompile.access.policy_json import DEFAULT_ENVELOPE_SECONDS, POLICY_FORMAT
from hecompile.access.records import Place, Record
from hecompile.access.terms import (
    DP_GUARANTEE,
    DYNAMIC,
    NO_GUARANTEE,
    NO_OBLIGATIONS,
    STATIC,
    Constraint,
    DpNoise,
    FieldLabels,
    KeyRule,
    ModelLabels,
    Obligations,
)
from hecompile.errors import InputError

FEWEST_FLOOD_BITS, MOST_FLOOD_BITS = 30, 60
MOST_ROLES = 300
MOST_PERMISSIONS = 2000
MOST_RELEASES = 2**32
MOST_DAYS = 36525
MOST_ENVELOPE_SECONDS = 366 * 86400
FEWEST_PERSONS = 2
MOST_AXIS = 7
MOST_NAMED = 1000
"""Entries of one list: roles, purposes, labels, objects."""
MOST_INHERITED = 5000
"""Entries of `inherits` in all roles together."""
MOST_GRANTS = 20_000
"""Actions times objects that all roles may do in effect, inheritance included."""

_MOST = {
    "roles": MOST_ROLES,
    "permissions": MOST_PERMISSIONS,
    "constraints": MOST_NAMED,
    "labels": MOST_NAMED,
}
_LABEL = r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"
_CLEARANCE = re.compile(rf"\*|{_LABEL}(?:\.\*)?")
_LABELS = re.compile(_LABEL)
_MAX_LABEL = 128
_TABLES = ("roles", "permissions", "constraints", "keys", "labels", "model", "envelopes")
_TERMS = ("enforcement", "scope", "purpose", "obligations")
_OBLIGATIONS = ("flood", "round", "label_only", "dp", "budget", "log")
_NOISE = ("rho", "total_rho", "lower", "upper", "least")


class PolicyReader(DocumentReader):
    """Builds a policy from plain tables, with the file and line in every message."""

    def policy(self, data: object) -> Policy:
        """The policy that the tables state.

        Raises:
            InputError: Names the first place that is at fault.
        """
        top = self._top(data)
        purposes = self._purposes(top)
        records = top.records("permissions", ("role", "actions", "objects"), _TERMS)
        unused = top.texts("unused")
        self._distinct(top, "unused", unused)
        policy = Policy(
            roles=self._roles(top),
            permissions=tuple(
                self._permission(record, number, purposes)
                for number, record in enumerate(records, 1)
            ),
            unused=tuple(self._object(text, ("unused",)) for text in unused),
            constraints=tuple(
                self._constraint(record)
                for record in top.records("constraints", ("kind", "roles"), ("most",))
            ),
            keys=self._keys(top),
            labels=self._labels(top),
            model=self._model(top),
            envelope_seconds=self._envelope_seconds(top),
            purposes=purposes,
        )
        self._check_size(policy)
        return policy

    def _check_size(self, policy: Policy) -> None:
        """Refuse a policy whose proof and print would take long."""
        own: dict[str, int] = {}
        for permission in policy.permissions:
            pairs = len(permission.actions) * len(permission.objects)
            own[permission.role] = own.get(permission.role, 0) + pairs
        edges = sum(len(role.inherits) for role in policy.roles)
        if edges > MOST_INHERITED:
            raise self.complain(
                ("roles",), f"the roles inherit {edges} times, more than {MOST_INHERITED}"
            )
        grants = 0
        for role in policy.roles:
            grants += sum(own.get(name, 0) for name in role_paths(policy, (role.name,)))
            if grants > MOST_GRANTS:
                raise self.complain(
                    ("permissions",),
                    f"the roles may do more than {MOST_GRANTS} actions on objects in effect; leave "
                    "some out, or write input:* and output:* for lists of names",
                )

    def _top(self, data: object) -> Record:
        top = Record.open_table(data, (), self.complain)
        found = top.fields.get("format")
        if found == 1 and not isinstance(found, bool):
            raise top.wrong(
                "format",
                f"is 1, in which a policy named its users; write format = {POLICY_FORMAT} and move "
                "the table [users] to a file of its own, users.toml",
            )
        if "users" in top.fields:
            raise self.complain(
                ("users",),
                "users are no part of a policy; move the table [users] to a file of its own, "
                "users.toml, and sign it with `hecompile users sign`",
            )
        top = Record.of(data, (), self.complain, ("format",), (*_TABLES, "unused", "purposes"))
        number = top.integer("format")
        if number != POLICY_FORMAT:
            raise top.wrong(
                "format", f"is {number}, but this version reads {POLICY_FORMAT}; upgrade hecompile"
            )
        for table in ("roles", "permissions"):
            if not top.fields.get(table):
                raise self.complain((table,), f"the policy has no {table}; add at least one")
        for table, most in _MOST.items():
            found = top.fields.get(table)
            if isinstance(found, Sized):
                self.check_count((table,), found, most)
        return top

    def _purposes(self, top: Record) -> tuple[str, ...]:
        purposes = top.texts("purposes")
        self._distinct(top, "purposes", purposes)
        for purpose in purposes:
            self.check_name(purpose, ("purposes",))
        return purposes

    def _distinct(
        self, record: Record, field: str, items: Sequence[str], most: int = MOST_NAMED
    ) -> None:
        place = (*record.place, field)
        self.check_count(place, items, most)
        self.check_distinct(place, items)

    def _roles(self, top: Record) -> tuple[Role, ...]:
        roles = []
        names = Record.open_table(top.fields.get("roles"), ("roles",), self.complain)
        for name in names.fields:
            self.check_name(name, ("roles", name))
            role = names.record(name, optional=("description", "inherits", "clearance"))
            clearance, inherits = role.texts("clearance"), role.texts("inherits")
            self._distinct(role, "clearance", clearance)
            self._distinct(role, "inherits", inherits)
            for text in clearance:
                self._check_label(text, (*role.place, "clearance"), _CLEARANCE)
            roles.append(
                Role(
                    name,
                    inherits,
                    role.text("description", ""),
                    self.where(role.place),
                    clearance,
                )
            )
        return tuple(roles)

    def _permission(self, record: Record, number: int, purposes: Sequence[str]) -> Permission:
        place = record.place
        for field in ("actions", "objects"):
            self._distinct(record, field, record.texts(field))
        actions = tuple(
            self.word(Action, text, (*place, "actions")) for text in record.texts("actions")
        )
        objects = tuple(self._object(text, (*place, "objects")) for text in record.texts("objects"))
        for field, found in (("actions", actions), ("objects", objects)):
            if not found:
                raise record.wrong(field, "is empty, so the permission grants nothing; fill it")
        enforcement = None
        if "enforcement" in record.fields:
            enforcement = self.word(
                Enforcement, record.text("enforcement"), (*place, "enforcement")
            )
        return Permission(
            record.text("role"),
            actions,
            objects,
            enforcement,
            self._scope(record, actions),
            self._purposes_of(record, purposes),
            self._obligations(record, actions),
            f"{self.where(place)} (permission {number})",
        )

    def _scope(self, record: Record, actions: Sequence[Action]) -> Scope:
        if "scope" not in record.fields:
            return Scope.PERSON
        scope = self.word(Scope, record.text("scope"), (*record.place, "scope"))
        if scope is Scope.COHORT and set(actions) != {Action.DECLASSIFY}:
            raise record.wrong(
                "scope",
                "is 'cohort', which is for the action 'declassify' alone; grant the other actions "
                "by a permission of their own",
            )
        return scope

    def _purposes_of(self, record: Record, known: Sequence[str]) -> tuple[str, ...]:
        if "purpose" not in record.fields:
            return ()
        found = record.texts("purpose")
        if not found:
            raise record.wrong("purpose", "is empty; leave it out to grant any purpose")
        self._distinct(record, "purpose", found)
        for purpose in found:
            if purpose not in known:
                raise self.fault(
                    self.where((*record.place, "purpose"), purpose),
                    f"purpose '{shown(purpose)}' is not among the policy's"
                    f"{suggestion(purpose, known)}; list it in 'purposes' at the top",
                )
        return found

    def _obligations(self, record: Record, actions: Sequence[Action]) -> Obligations:
        if "obligations" not in record.fields:
            return NO_OBLIGATIONS
        table = record.record("obligations", optional=_OBLIGATIONS)
        if Action.DECLASSIFY not in actions:
            raise record.wrong(
                "obligations",
                "would have no effect: they are for the action 'declassify'; grant that action, "
                "or remove them",
            )
        given = table.fields
        if not table.flag("log", default=True):
            raise table.wrong("log", "cannot be false: every release is logged; remove it")
        flood = (
            table.integer("flood", FEWEST_FLOOD_BITS, MOST_FLOOD_BITS) if "flood" in given else None
        )
        return Obligations(
            flood,
            table.above_zero("round") if "round" in given else None,
            table.flag("label_only", default=False),
            self._noise(table.record("dp", _NOISE)) if "dp" in given else None,
            table.integer("budget", 1, MOST_RELEASES) if "budget" in given else None,
        )

    def _noise(self, table: Record) -> DpNoise:
        noise = DpNoise(
            table.above_zero("rho"),
            table.above_zero("total_rho"),
            table.number("lower", -float("inf")),
            table.number("upper", -float("inf")),
            table.integer("least", FEWEST_PERSONS, MOST_RELEASES),
        )
        if noise.total_rho < noise.rho:
            raise table.wrong("total_rho", "is below rho, so that nothing could be released")
        if not noise.lower < noise.upper:
            raise table.wrong("lower", "must be below upper")
        return noise

    def _constraint(self, record: Record) -> Constraint:
        kind = record.text("kind")
        if kind not in (STATIC, DYNAMIC):
            raise record.wrong(
                "kind",
                f"is '{kind}'; write '{STATIC}' (no user has both) or '{DYNAMIC}' (no user acts "
                "as both in one session)",
            )
        roles = record.texts("roles")
        if len(roles) < 2:
            raise record.wrong("roles", "must name two roles or more")
        self._distinct(record, "roles", roles)
        most = record.integer("most", 1, len(roles) - 1) if "most" in record.fields else 1
        return Constraint(kind, roles, most, self.where(record.place))

    def _keys(self, top: Record) -> tuple[KeyRule, ...]:
        rules = []
        names = Record.open_table(top.fields.get("keys", {}), ("keys",), self.complain)
        for name in names.fields:
            if name not in KEY_NAMES:
                raise self.complain(
                    ("keys", name),
                    f"there is no key '{name}'{suggestion(name, KEY_NAMES)}; use one of "
                    f"{', '.join(KEY_NAMES)}",
                )
            rule = names.record(
                name, optional=("holders", "never", "rotate_days", "rotate_releases")
            )
            for field in ("holders", "never"):
                self._distinct(rule, field, rule.texts(field))
            both = sorted({*rule.texts("holders")} & {*rule.texts("never")})
            if both:
                raise rule.wrong("never", f"names '{both[0]}', who is among the holders")
            limits = {"rotate_days": MOST_DAYS, "rotate_releases": MOST_RELEASES}
            days, releases = (
                rule.integer(field, 1, most) if field in rule.fields else None
                for field, most in limits.items()
            )
            holders, never = rule.texts("holders"), rule.texts("never")
            rules.append(KeyRule(name, holders, never, days, releases, self.where(rule.place)))
        return tuple(rules)

    def _labels(self, top: Record) -> tuple[FieldLabels, ...]:
        found = []
        table = Record.open_table(top.fields.get("labels", {}), ("labels",), self.complain)
        for name, value in table.fields.items():
            place = ("labels", name)
            obj = self._object(name, place)
            if obj.kind is not Kind.INPUT or obj.is_wildcard:
                raise self.complain(place, f"'{name}' is not one input; write input:NAME")
            axis = None
            if isinstance(value, str | list):
                names = (value,) if isinstance(value, str) else table.texts(name)
                self._distinct(table, name, names)
            else:
                record = table.record(name, ("axis", "names"))
                axis = record.integer("axis", 0, MOST_AXIS)
                names = record.texts("names")
            if not names:
                raise self.complain(place, f"'{name}' lists no label; name at least one")
            for label in names:
                self._check_label(label, place, _LABELS)
            found.append(FieldLabels(obj, axis, names, self.where(place)))
        return tuple(found)

    def _model(self, top: Record) -> ModelLabels | None:
        if "model" not in top.fields:
            return None
        table = top.record("model", ("labels",), ("guarantee", "epsilon", "delta"))
        labels = table.texts("labels")
        if not labels:
            raise table.wrong("labels", "is empty; say what the weights were trained on")
        for label in labels:
            self._check_label(label, (*table.place, "labels"), _LABELS)
        self._distinct(table, "labels", labels)
        guarantee = table.text("guarantee", NO_GUARANTEE)
        if guarantee not in (NO_GUARANTEE, DP_GUARANTEE):
            raise table.wrong("guarantee", f"must be '{NO_GUARANTEE}' or '{DP_GUARANTEE}'")
        if guarantee == DP_GUARANTEE and "epsilon" not in table.fields:
            raise table.wrong("guarantee", "is 'dp', which says nothing without 'epsilon'; add it")
        for field in ("epsilon", "delta"):
            if guarantee == NO_GUARANTEE and field in table.fields:
                raise table.wrong(field, "belongs to guarantee = 'dp'; state that or remove it")
        epsilon = table.above_zero("epsilon") if "epsilon" in table.fields else None
        delta = table.number("delta") if "delta" in table.fields else None
        if delta is not None and delta >= 1:
            raise table.wrong("delta", "must be below 1")
        return ModelLabels(labels, guarantee, epsilon, delta, self.where(table.place))

    def _envelope_seconds(self, top: Record) -> int:
        if "envelopes" not in top.fields:
            return DEFAULT_ENVELOPE_SECONDS
        table = top.record("envelopes", ("seconds",))
        return table.integer("seconds", 1, MOST_ENVELOPE_SECONDS)

    def _object(self, text: str, place: Place) -> ObjectRef:
        try:
            return ObjectRef.parse(text)
        except InputError as error:
            raise self.fault(self.where(place, text), str(error)) from None

    def _check_label(self, text: str, place: Place, form: re.Pattern[str]) -> None:
        if len(text) > _MAX_LABEL or form.fullmatch(text) is None:
            more = ", 'vitals.*' or '*'" if form is _CLEARANCE else ""
            raise self.fault(
                self.where(place, text),
                f"{text[:80]!r} is no label; write names with dots between them, such as "
                f"'vitals.hr'{more}",
            )
