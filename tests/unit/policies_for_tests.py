"""A small hospital's policy and users, for tests of decisions, explanations and commands."""

from __future__ import annotations

from hecompile.access.policy import Policy
from hecompile.access.policy_io import parse_policy
from hecompile.access.users import Users, parse_users

CLINIC = """\
format = 2
purposes = ["care", "research"]

[roles.viewer]
[roles.clinician]
inherits = ["viewer"]
[roles.doctor]
inherits = ["clinician"]
[roles.researcher]
[roles.technician]
[roles.cloud]
[roles.custodian]

[[permissions]]
role = "viewer"
actions = ["declassify"]
objects = ["output:y"]
purpose = ["care"]
obligations = {flood = 30, label_only = true, budget = 64}

[[permissions]]
role = "doctor"
actions = ["declassify"]
objects = ["output:y"]
purpose = ["care"]
obligations = {flood = 30, round = 0.05, budget = 64}

[[permissions]]
role = "researcher"
actions = ["declassify"]
objects = ["output:*"]
scope = "cohort"
obligations = {flood = 30, budget = 9, dp = {rho = 0.01, total_rho = 1.0, lower = -4, upper = 4, least = 20}}

[[permissions]]
role = "technician"
actions = ["encrypt", "submit"]
objects = ["input:x"]

[[permissions]]
role = "cloud"
actions = ["evaluate"]
objects = ["program"]

[[permissions]]
role = "custodian"
actions = ["hold", "refresh"]
objects = ["key:secret", "program"]

[[constraints]]
kind = "static"
roles = ["cloud", "custodian"]

[[constraints]]
kind = "dynamic"
roles = ["clinician", "researcher"]
"""  # noqa: E501

STAFF = """\
format = 1
version = 3
[users]
anna = ["doctor"]
ben = ["doctor", "researcher"]
carl = ["viewer", "doctor"]
tina = ["technician"]
cloud = ["cloud"]
vault = ["custodian"]
eve = []
"""


def clinic() -> tuple[Policy, Users]:
    """The policy and who has which role."""
    policy = parse_policy(CLINIC, "clinic.toml")
    return policy, parse_users(STAFF, policy, "staff.toml")
