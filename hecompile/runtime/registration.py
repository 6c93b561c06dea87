"""Registering keys: who hands them out signs their folders, after the holder did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hecompile.access.key_cards import SIGNATURE_FILE, KeyClaim, KeyInspector
from hecompile.errors import InputError, IntegrityError
from hecompile.files import atomic_write_bytes
from hecompile.runtime.guard import PolicyGuard
from hecompile.runtime.key_folders import read_card, signatures_beside
from hecompile.runtime.keycard import KeyCard, Role, bundle_name
from hecompile.runtime.secret_search import check_handed_over

HANDED_OUT: Final = (Role.PUBLIC, Role.EVALUATION)


@dataclass(frozen=True)
class Registration:
    """Who registered which keys."""

    user: str
    keys: tuple[KeyClaim, ...]


def register_keys(keys: str | Path, guard: PolicyGuard, inspector: KeyInspector) -> Registration:
    """Add the signature of the guard's user to the public and the evaluation keys in a folder.

    Args:
        keys: A folder of either, or one that holds the folders of both.
        guard: Asked whether the user may register the keys; and rotate them, if others were seen
            here before.
        inspector: Checks who signed them already.

    Raises:
        AccessDeniedError: The user may not, or its identity is not here.
        InputError: There are no such keys.
        IntegrityError: The keys are another bundle's, not signed by their holder, older than keys
            seen here, or the secret key lies with them.
    """
    claims = _claims(Path(keys), guard.manifest.digest)
    asked = dict.fromkeys(want for claim in claims for want in inspector.wanted(claim))
    identity = guard.acting(tuple(asked))
    signed = []
    for claim in claims:
        place = Path(claim.where)
        signed.append((place, inspector.register(claim, signatures_beside(place), identity)))
    for place, data in signed:
        atomic_write_bytes(place / SIGNATURE_FILE, data)
    return Registration(identity.user, tuple(claims))


def _claims(keys: Path, manifest: str) -> list[KeyClaim]:
    """What the folder or folders say of their keys, which must be this bundle's."""
    claims = []
    for place in (keys, *(keys / role.value for role in HANDED_OUT)):
        if not (place / KeyCard.FILE).is_file():
            continue
        source, claim = read_card(place)
        card = source.card
        if card.role not in HANDED_OUT:
            raise InputError(f"{place} holds the {card.role.value} key, which is never handed out")
        check_handed_over(place, card.role)
        if card.manifest != manifest:
            raise IntegrityError(
                f"the keys in {place} are for {bundle_name(card.manifest)}, not "
                f"{bundle_name(manifest)}; name the bundle that they were made for"
            )
        claims.append(claim)
    if not claims:
        raise InputError(
            f"there are no public or evaluation keys in {keys}; name the folder that hecompile "
            "keygen made, or the part of it that is to be registered"
        )
    return claims
