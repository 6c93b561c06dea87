"""What is proved of a policy and a program at compile time, and again on every loading.

Rules S1 to S8, each over the closure of role inheritance and over every user's roles together. A
rule fails the build; the message names who breaks it, by which path of inheritance, file and line,
and the remedy.
"""

from __future__ import annotations

from hecompile.access.policy import Policy
from hecompile.access.policy_warnings import policy_warnings, work_warnings
from hecompile.access.proof_claims import check_claims
from hecompile.access.proof_flows import check_flows
from hecompile.access.proof_keyview import check_key_views
from hecompile.access.proof_objects import check_needs, check_objects, check_roles
from hecompile.access.proof_parameters import check_parameters
from hecompile.access.proof_release import check_chosen_ciphertexts, check_releases
from hecompile.access.proof_separation import check_separation
from hecompile.access.proof_subjects import ProgramFacts, Rule, subjects_of
from hecompile.access.unmasked import check_unmasked
from hecompile.access.users import Users
from hecompile.numeric.masking import FEWEST_MASK_BITS

__all__ = [
    "ProgramFacts",
    "Rule",
    "check_assignments",
    "check_policy",
    "policy_warnings",
    "work_warnings",
]


def check_policy(policy: Policy, facts: ProgramFacts, users: Users | None = None) -> None:
    """Prove rules S1 to S8 of a policy for a program, and that the policy makes sense.

    Besides the rules: roles exist and inherit in no circle, no permission is without effect,
    somebody may refresh and encrypt the model if the program needs it, claims of cryptographic
    enforcement are true, and refreshes without masks are for key holders who own the model.

    Args:
        policy: The policy.
        facts: What is known of the program; rules whose facts are None are not checked yet.
        users: Who has which role; None where that is not known yet, as at compile time.

    Raises:
        InputError: Names the rule, who breaks it, by which path, where it stands and the remedy.
    """
    check_roles(policy, users)
    check_objects(policy, facts)
    subjects = subjects_of(policy, users)
    check_separation(policy, subjects)
    check_key_views(subjects)
    check_flows(policy, subjects, facts)
    check_releases(policy, facts)
    check_chosen_ciphertexts(subjects, facts)
    check_claims(policy, subjects)
    check_needs(policy, facts)
    if facts.mask_bits is not None and facts.mask_bits < FEWEST_MASK_BITS:
        check_unmasked(policy, users)
    check_parameters(facts)


def check_assignments(policy: Policy, users: Users) -> None:
    """Prove of users what can be proved without a program: roles exist, and rules S2, S3 and S4.

    Args:
        policy: A policy that `check_policy` has passed.
        users: Who has which role under it.

    Raises:
        InputError: Names the user, its roles, the paths of inheritance and the remedy.
    """
    check_roles(policy, users)
    subjects = subjects_of(policy, users)
    check_separation(policy, subjects)
    check_key_views(subjects)
