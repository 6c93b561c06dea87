"""Rules S7 and S8, and claims of cryptographic enforcement."""

from __future__ import annotations

import dataclasses

import pytest

from hecompile.numeric.security import MAX_MODULUS_BITS
from tests.unit.proof_cases import FACTS, POLICY, change, check, grant, inherit, refuse


def test_rotation_keys_that_are_used_are_granted_and_no_others() -> None:
    facts = dataclasses.replace(FACTS, galois_steps_used=(1, 2, -4))
    check(POLICY, facts)
    check(POLICY, dataclasses.replace(FACTS, galois_steps_granted=(7,)))
    check(POLICY, dataclasses.replace(facts, galois_steps_granted=(-4, 1, 2)))
    for granted, words in (
        ((-4, 1, 2, 3, 9), ["grants keys for steps 3, 9 that no rotation takes"]),
        ((1, 2), ["grants none for steps -4 that rotations take"]),
        ((1, 2, 5), ["for steps 5 that no", "and grants none for steps -4"]),
        ((), ["grants none for steps -4, 1, 2"]),
        (tuple(range(-4, 20)), ["-3, -2, -1, 0, 3, 4, 5, 6 and 13 more"]),
    ):
        one = dataclasses.replace(facts, galois_steps_granted=granted)
        refuse(POLICY, "rule S7", "compile the model again", *words, facts=one)


@pytest.mark.parametrize(("ring", "limit"), MAX_MODULUS_BITS.items())
def test_the_modulus_lies_within_the_table(ring: int, limit: int) -> None:
    check(POLICY, dataclasses.replace(FACTS, security=(ring, limit)))
    refuse(
        POLICY,
        "rule S8",
        f"{limit + 1} bits is too large for ring degree {ring}",
        f"at most {limit} bits",
        "use a larger ring",
        facts=dataclasses.replace(FACTS, security=(ring, limit + 1)),
    )


@pytest.mark.parametrize("ring", [1024, 2048, 8191, 65536])
def test_the_ring_is_in_the_table(ring: int) -> None:
    facts = dataclasses.replace(FACTS, security=(ring, 20))
    refuse(POLICY, "rule S8", f"ring degree {ring} is not in the 128-bit", facts=facts)


CLAIM = '\n[[permissions]]\nrole = "reader"\nactions = ["decrypt"]\nobjects = ["output:y"]\n'
HELD = grant("reader", "hold", "key:secret", f'{POLICY}{CLAIM}enforcement = "cryptographic"\n')
NOT_HELD = change("[roles.vault]", '[roles.vault]\ninherits = ["reader"]\n', POLICY).replace(
    '["hold", "refresh"]\nobjects = ["key:secret", "program"]',
    '["refresh"]\nobjects = ["program"]\nenforcement = "cryptographic"',
)


def test_cryptographic_claims_must_be_true() -> None:
    text = change('["input:x"]\n', '["input:x"]\nenforcement = "cryptographic"\n')
    refuse(text, "'encrypt' cannot be enforced cryptographically", "state 'gateway'")
    refuse(NOT_HELD, "role 'vault' does not hold key:secret", "state 'gateway'")
    refuse(HELD, "role 'vault' holds key:secret and may not decrypt it")
    check(change("[roles.vault]\n", '[roles.vault]\ninherits = ["reader"]\n', HELD))


def test_claims_hold_for_whoever_inherits_the_key() -> None:
    held = change("[roles.vault]\n", '[roles.vault]\ninherits = ["reader"]\n', HELD)
    check(inherit("chief", "vault", text=held))


def test_an_evaluator_with_the_only_evaluation_keys_is_kept_apart_by_them() -> None:
    text = change('["evaluate"]', '["evaluate", "hold"]')
    check(
        change('["program"]', '["program", "key:evaluation"]\nenforcement = "cryptographic"', text)
    )
