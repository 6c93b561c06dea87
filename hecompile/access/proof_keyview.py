"""Rule S3: nobody but its holder sees what a secret key can be computed from.

Two things break it: to decrypt without holding the key, for whoever decrypts a ciphertext has it;
and to be shown values that no noise floods while seeing ciphertexts in any other way.

A ciphertext (c0, c1) and its decrypted CKKS value m, exact up to the noise that decryption leaves
in it, satisfy c0 + c1 s = m: a linear equation in the secret key s (Li and Micciancio, "On the
Security of Homomorphic Encryption on Approximate Numbers", Eurocrypt 2021). Whoever has seen a
ciphertext of an input can compute those of the outputs, since evaluation is public, so any
ciphertext counts, with any value. Values that noise has flooded before they were published do not:
Li, Micciancio, Schultz and Sorrell, "Securing Approximate Homomorphic Encryption Using Differential
Privacy", Crypto 2022; as long as ciphertexts are honest ones: of chosen ones see `proof_release`.

What was seen is not forgotten between sessions, nor by purpose: a user counts with all its roles at
once, dynamic separation or not.
"""

from __future__ import annotations

from collections.abc import Iterable

from hecompile.access.policy import Action, Grant
from hecompile.access.proof_release import is_flooded
from hecompile.access.proof_subjects import Rule, Subject, is_hold, means, violation

_SHOWS_CIPHERTEXTS = frozenset(
    {Action.ENCRYPT, Action.SUBMIT, Action.RECEIVE, Action.REFRESH, Action.EVALUATE}
)


def check_key_views(subjects: Iterable[Subject]) -> None:
    """Rule S3 for every role and every user, inheritance included.

    Raises:
        InputError: Names who would see both, by which paths, where it stands and the remedy.
    """
    for subject in subjects:
        if subject.first(is_hold) is not None:
            continue
        decrypts = subject.first(lambda grant: grant.action is Action.DECRYPT)
        if decrypts is not None:
            raise violation(
                Rule.S3,
                subject.where,
                f"{subject.title} may {means(decrypts)} without holding the secret key, and sees "
                "both the ciphertext that it decrypts and the value that no noise floods, and the "
                f"secret key can be computed from the two; let role '{decrypts.path[-1]}' "
                "declassify with flood, budget and one of round, label_only and dp instead, or "
                "grant 'hold' on key:secret as well if the data are its own",
            )
        shown = subject.first(lambda grant: not hides_key(grant))
        seen = subject.first(shows_ciphertexts)
        if shown is None or seen is None:
            continue
        raise violation(
            Rule.S3,
            subject.where,
            f"{subject.title} may {means(seen)} and so sees ciphertexts, and may {means(shown)} "
            "and so sees decrypted values that no noise floods, and the secret key can be computed "
            f"from the two; let role '{shown.path[-1]}' declassify with flood, budget and one of "
            "round, label_only and dp, or take one of the two away, or grant 'hold' on key:secret "
            "as well if the data are its own",
        )


def shows_ciphertexts(grant: Grant) -> bool:
    """Whether it lets somebody see, or make, a ciphertext under the key."""
    return grant.action in _SHOWS_CIPHERTEXTS


def hides_key(grant: Grant) -> bool:
    """Whether noise floods the decrypted values that it shows, if it declassifies any."""
    return grant.action is not Action.DECLASSIFY or is_flooded(grant.permission.obligations)
